"""How migrations run: on one connection, one migrator at a time, all of them or none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alembic import context
from sqlalchemy import Connection, Engine, MetaData, text

from clarion.database import normalise_url, open_engine
from clarion.errors import ClarionError
from clarion.migrations import options

LOCK = 0x636C6172696F6E
"""The PostgreSQL advisory lock of whoever migrates: "clarion" as a number."""


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """A connection in one transaction that no other migrator has at the same time.

    On SQLite foreign keys are not enforced meanwhile: batch mode replaces tables, and dropping the old
    one would delete every row that refers to it. They are checked before the transaction is committed.

    Raises:
        ClarionError: rows would refer to rows that are not there; nothing was changed.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            cursor = (
                connection.connection.cursor()
            )  # outside SQLAlchemy's transaction, where it has no effect
            cursor.execute("PRAGMA foreign_keys=OFF")
            cursor.close()
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield connection
            if engine.dialect.name == "sqlite":
                check_foreign_keys(connection)
        if engine.dialect.name == "sqlite":
            connection.invalidate()  # the pool must not keep one that enforces nothing


def check_foreign_keys(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        tables = ", ".join(sorted({f"{row[0]} > {row[2]}" for row in broken}))
        raise ClarionError(f"{len(broken)} rows would refer to nothing ({tables}); nothing was migrated")


def run_migrations(metadata: Sequence[MetaData], app: Sequence[str], version_table: str) -> None:
    """Configure Alembic's context for one connection and run what was asked for."""
    config = context.config
    attributes = config.attributes
    given: dict[str, Any] = {
        **options(metadata, app=attributes.get("app") or app),
        "version_table": version_table,
        "transactional_ddl": True,  # SQLite's, too: Clarion's engines begin transactions themselves
    }
    connection = attributes.get("connection")
    if connection is not None:
        run_on(connection, given)
        return
    if context.is_offline_mode():  # `alembic upgrade heads --sql` prints what it would do
        dialect = normalise_url(database_url()).get_backend_name()
        context.configure(dialect_name=dialect, literal_binds=True, **given)
        with context.begin_transaction():
            context.run_migrations()
        return
    engine = open_engine(database_url())
    try:
        with migrating(engine) as connection:
            run_on(connection, given)
    finally:
        engine.dispose()


def run_on(connection: Connection, given: dict[str, Any]) -> None:
    context.configure(connection=connection, **given)
    with context.begin_transaction():
        context.run_migrations()


def database_url() -> str:
    """The database for ``alembic`` itself: its own setting, or Clarion's."""
    from clarion.settings import read_settings

    return context.config.get_main_option("sqlalchemy.url") or read_settings().database_url
