"""The mapped base, portable column types, and engines set up the way the outbox needs them."""

import os
import time
from datetime import UTC, datetime
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    BigInteger,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Integer,
    MetaData,
    Pool,
    QueuePool,
    String,
    TypeDecorator,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.engine import URL
from sqlalchemy.orm import DeclarativeBase

from clarion.errors import ConfigurationError

SQLITE_BUSY_SECONDS = 30.0
"""How long a SQLite connection waits for the one writer before it gives up."""

DIALECTS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite"}

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Base(DeclarativeBase):
    """The base of Clarion's own mapped classes; ``metadata`` holds Clarion's tables and no others."""

    metadata = metadata


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime: ``timestamptz`` on PostgreSQL, sortable ISO 8601 text on SQLite.

    Raises:
        ValueError: a naive datetime was bound; say which zone it is in.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(27))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        return None if value is None else bind_time(value, dialect.name)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else read_time(value)


def bind_time(value: datetime, dialect: str) -> Any:
    """An aware datetime as the driver of ``dialect`` takes it in plain SQL; the inverse of `read_time`."""
    if value.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone; use an aware datetime such as datetime.now(UTC)")
    utc = value.astimezone(UTC)
    return sortable(utc) if dialect == "sqlite" else utc


def sortable(utc: datetime) -> str:
    """A UTC time as ISO 8601 text of fixed width, so that text order is time order."""
    return utc.isoformat(timespec="microseconds")[:26] + "Z"


def read_time(value: Any) -> datetime:
    """A time as a driver returned it, as an aware UTC datetime."""
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    raise TypeError(f"expected a time, got {type(value).__name__}")


BigId = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit key; SQLite only counts an INTEGER PRIMARY KEY up by itself."""


def normalise_url(url: str | URL) -> URL:
    """``url`` with the driver Clarion is tested with: psycopg 3 for PostgreSQL, sqlite3 for SQLite.

    Raises:
        ConfigurationError: another database, or not a database URL at all.
    """
    try:
        parsed = make_url(url)
    except Exception as error:
        raise ConfigurationError(
            f"{url!r} is not a database URL; use sqlite:///path/to/file.db or postgresql://user@host/name"
        ) from error
    name = parsed.drivername.split("+")[0]
    if name not in DIALECTS:
        raise ConfigurationError(f"Clarion runs on PostgreSQL and SQLite, not on {name!r}")
    return parsed.set(drivername=DIALECTS[name])


def open_engine(url: str | URL, *, durable: bool = True, **options: Any) -> Engine:
    """An engine for ``url`` with Clarion's connection settings.

    SQLite gets write-ahead logging, foreign keys, a busy timeout, deletions that overwrite (the bytes are
    gone at the next checkpoint, at the latest when the file is closed) and transactions that begin as writers
    (a read that later writes would otherwise fail at once instead of waiting its turn); what only reads
    asks for ``engine.execution_options(read_only=True)`` and then blocks nobody. ``durable=False``
    is for the relay's own connections: after a power cut the last claims and settles may be forgotten,
    which at-least-once delivery allows; an application's own commits must stay durable.
    """
    target = normalise_url(url)
    if target.get_backend_name() == "sqlite":
        options.setdefault("connect_args", {}).setdefault("timeout", SQLITE_BUSY_SECONDS)
        engine = create_engine(target, **options)
        prepare_sqlite(engine, durable=durable)
    else:
        engine = create_engine(target, **options)
    _engines.add(engine)
    return engine


def close_engine(engine: Engine) -> None:
    """Close the engine's connections for good: a thread that has one, or takes one later, keeps none open.

    ``Engine.dispose`` alone leaves those to the garbage collector.
    """
    event.listen(engine.pool, "checkin", lambda _connection, record: record.invalidate())
    engine.dispose()  # the pool that takes its place has its listeners


_engines: WeakSet[Engine] = WeakSet()
_inherited: list[Pool] = []
"""Pools of a parent process: kept, since closing their connections would end the parent's."""


def leave_connections() -> None:
    """In a forked child: engines begin anew, with connections and locks of their own."""
    for engine in list(_engines):
        if isinstance(engine.pool, QueuePool):  # another kind may hold the only copy of a database
            _inherited.append(engine.pool)
            engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=leave_connections)


def prepare_sqlite(engine: Engine, *, durable: bool = True) -> None:
    """Give a SQLite engine (a host application's own, for instance) Clarion's connection settings."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 must not open transactions of its own
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")  # FAST would leave the bytes in pages that become free
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        reads = connection.get_execution_options().get("read_only", False)
        if reads or not begin_immediate(connection):
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def begin_immediate(connection: Connection) -> bool:
    """Become SQLite's one writer; False if another still is after `SQLITE_BUSY_SECONDS`.

    SQLite itself waits in steps that grow to 100 ms, which is what a commit beside a busy relay would then
    take. Here the steps stay at a millisecond. Who cannot wait that long says so with the execution option
    ``patience``, in seconds. After a False, a ``BEGIN IMMEDIATE`` fails at once.
    """
    deadline = time.monotonic() + connection.get_execution_options().get("patience", SQLITE_BUSY_SECONDS)
    cursor = connection.connection.cursor()
    try:
        cursor.execute("PRAGMA busy_timeout=1")
        while time.monotonic() < deadline:
            try:
                cursor.execute("BEGIN IMMEDIATE")
            except Exception as error:
                if "locked" not in str(error):
                    raise
            else:
                cursor.execute(f"PRAGMA busy_timeout={int(SQLITE_BUSY_SECONDS * 1000)}")
                return True
        return False
    finally:
        cursor.close()
