"""The library's own migrations, and those an application writes with them, on SQLite and PostgreSQL."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import render_python_code
from alembic.config import Config
from alembic.operations.ops import (
    AddColumnOp,
    CreateForeignKeyOp,
    DowngradeOps,
    MigrationScript,
    ModifyTableOps,
    UpgradeOps,
)
from sqlalchemy import Engine, MetaData, text

import tests.clarion.plain
import tests.clarion.sample
from clarion.database import open_engine
from clarion.errors import ClarionError, ConfigurationError
from clarion.migrations import VERSIONS
from clarion.migrations.event_types import changes
from clarion.migrations.history import (
    History,
    compare,
    current,
    downgrade,
    examine,
    pending,
    undeclared,
    upgrade,
    write_revision,
)
from clarion.migrations.plugin import plainly

SHOP = (tests.clarion.sample.__name__, tests.clarion.plain.__name__)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables: once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture
def empty(empty_url: str) -> Iterator[Engine]:
    engine = open_engine(empty_url)
    yield engine
    engine.dispose()


@pytest.fixture
def shop(tmp_path: Path) -> History:
    """The sample application with a first revision."""
    history = History(SHOP, tmp_path / "shop" / "migrations")
    assert write_revision(history, "first") is not None
    return history


def shape(engine: Engine) -> dict[str, Any]:
    """Everything a database's schema says, in an order that does not matter."""
    inspector = sa.inspect(engine)
    found: dict[str, Any] = {}
    for table in inspector.get_table_names():
        if table == "clarion_version":
            continue
        columns = {
            c["name"]: (str(c["type"]), c["nullable"], c["default"]) for c in inspector.get_columns(table)
        }
        parts: dict[str, Any] = {
            "columns": columns,
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": by_name(inspector.get_foreign_keys(table)),
            "unique": by_name(inspector.get_unique_constraints(table)),
            "checks": by_name(inspector.get_check_constraints(table)),
            "indexes": by_name(inspector.get_indexes(table)),
            "options": inspector.get_table_options(table),
        }
        found[table] = {name: json.dumps(part, default=str) for name, part in parts.items()}
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            rows = connection.execute(text("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'"))
        else:
            rows = connection.execute(
                text("SELECT relname, reloptions::text FROM pg_class WHERE reloptions IS NOT NULL ORDER BY 1")
            )
        found["counting up or vacuumed apart"] = sorted(map(tuple, rows))
    return found


def by_name(things: Any) -> list[Any]:
    return sorted((dict(thing) for thing in things), key=lambda thing: str(thing["name"]))


CREATE_ALL = """
import sys
from clarion import deliverees, outbox
from clarion.database import metadata, open_engine
metadata.create_all(open_engine(sys.argv[1]))
"""


def test_the_base_revision_makes_what_the_classes_map(empty: Engine, tmp_path: Path) -> None:
    upgrade(History(), empty)
    migrated = shape(empty)
    if empty.dialect.name == "sqlite":
        url = f"sqlite:///{tmp_path / 'created.db'}"
    else:
        downgrade(History(), empty, "base")
        url = empty.url.render_as_string(hide_password=False)
    # in a process of its own: this one has mapped the tests' classes, too
    subprocess.run([sys.executable, "-c", CREATE_ALL, url], check=True, timeout=60)
    created = open_engine(url)
    try:
        assert shape(created) == migrated
        assert migrated["deliveries"]["checks"].count("sqltext") == 4
    finally:
        created.dispose()


def test_nothing_is_missing_after_an_upgrade_and_nothing_is_left_after_a_downgrade(empty: Engine) -> None:
    steps = upgrade(History(), empty)
    assert steps[0].revision == "clarion_0001"
    with empty.connect() as connection:
        assert compare(History(), connection) == []
        assert pending(History(), connection) == []
    assert upgrade(History(), empty) == []
    downgrade(History(), empty, "clarion@base")
    assert sa.inspect(empty).get_table_names() == ["clarion_version"]
    with empty.connect() as connection:
        assert current(History(), connection) == ()


def test_an_applications_types_and_columns_come_and_go(empty: Engine, shop: History) -> None:
    upgrade(shop, empty)
    with empty.connect() as connection:
        assert compare(shop, connection) == []
        rows = dict(connection.execute(text("SELECT name, description FROM event_types")).all())
        assert rows["shop:order:placed"] == "An order of a shop. (placed)"
        assert len(rows) == 7
        assert len(current(shop, connection)) == 1  # the branch it depends on is implied
    assert undeclared(shop) == []
    assert write_revision(shop, "nothing new") is None
    columns = {c["name"] for c in sa.inspect(empty).get_columns("events")}
    assert {"shop_uuid", "order_number", "parcel_uuid"} <= columns
    assert "target" in {c["name"] for c in sa.inspect(empty).get_columns("subscribers")}
    downgrade(shop, empty, "tests@base")
    columns = {c["name"] for c in sa.inspect(empty).get_columns("events")}
    assert not {"shop_uuid", "order_number", "parcel_uuid"} & columns
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM event_types")) == 0
        assert {step.message for step in pending(shop, connection)} == {"first"}
    upgrade(shop, empty)
    with empty.connect() as connection:
        assert compare(shop, connection) == []


def test_a_revision_is_readable(shop: History) -> None:
    [revision] = shop.versions.glob("r*.py")
    written = revision.read_text()
    assert "'shop:order:placed': 'An order of a shop. (placed)'," in written
    assert "add_event_types({" in written
    assert "remove_event_types({" in written
    assert "op.add_column('events', sa.Column('order_number', sa.BigInteger(), nullable=True))" in written
    assert "op.drop_column('events', 'order_number')" in written
    assert "branch_labels = ('tests',)" in written
    assert "depends_on = 'clarion_" in written
    assert "batch" not in written


def test_a_type_that_is_gone_or_described_anew_is_written_too(shop: History, tmp_path: Path) -> None:
    (shop.versions / "more.py").write_text(
        "from clarion.migrations.event_types import add_event_types, describe_event_types\n"
        f"revision, down_revision = 'more', {revision_of(shop)!r}\n"
        "branch_labels = depends_on = None\n"
        "def upgrade():\n"
        "    add_event_types({'shop:burnt': \"It's gone: 100 % of it.\"})\n"
        "    describe_event_types({'shop:opened': ('A shop. (opened)', 'Once')})\n"
        "def downgrade(): pass\n"
    )
    assert undeclared(shop) == [
        "event types described otherwise: shop:opened",
        "rows of event types that nothing declares: shop:burnt",
    ]
    written = write_revision(shop, "as declared")
    assert written is not None
    assert "describe_event_types({" in written.read_text()
    assert undeclared(shop) == []
    engine = open_engine(f"sqlite:///{tmp_path / 'types.db'}")
    upgrade(shop, engine)
    downgrade(shop, engine, "tests@-1")
    with engine.connect() as connection:
        rows = dict(connection.execute(text("SELECT name, description FROM event_types")).all())
        assert rows["shop:opened"] == "Once"
        assert rows["shop:burnt"] == "It's gone: 100 % of it."
    engine.dispose()


def revision_of(history: History) -> str:
    [path] = history.versions.glob("r*.py")
    [line] = [line for line in path.read_text().splitlines() if line.startswith("revision = ")]
    return line.split("'")[1]


def test_two_heads_are_an_error_that_names_them(shop: History) -> None:
    for name in ("one", "two"):
        (shop.versions / f"{name}.py").write_text(
            f"revision, down_revision = {name!r}, {revision_of(shop)!r}\n"
            "branch_labels = depends_on = None\n"
            "def upgrade(): pass\n"
            "def downgrade(): pass\n"
        )
    with pytest.raises(ConfigurationError, match=r"several heads: one, two"):
        write_revision(shop, "which")


def test_a_database_is_examined_and_not_touched(empty: Engine, empty_url: str, shop: History) -> None:
    if empty.dialect.name == "sqlite":
        assert examine(shop, empty_url) is None
        assert not Path(str(empty.url.database)).exists()
    else:
        found = examine(shop, empty_url)
        assert found is not None
        assert [step.message for step in found.pending][-1] == "first"
        assert sa.inspect(empty).get_table_names() == []
    upgrade(shop, empty)
    found = examine(shop, empty_url)
    assert found is not None
    assert (found.pending, found.differences) == ([], [])
    with empty.begin() as connection:
        connection.execute(text("DELETE FROM event_types WHERE name = 'shop:closed'"))
        connection.execute(text("ALTER TABLE events DROP COLUMN order_note"))
    found = examine(shop, empty_url)
    assert found is not None
    assert found.differences == ["event types without a row: shop:closed", "no column events.order_note"]


def test_processes_that_migrate_at_once_wait_for_each_other(empty: Engine, empty_url: str) -> None:
    def migrate(_number: int) -> int:
        engine = open_engine(empty_url)
        try:
            return len(upgrade(History(), engine))
        finally:
            engine.dispose()

    # Alembic's context is one to a process: other migrators are processes
    code = f"from {__name__} import *; print(len(upgrade(History(), open_engine({empty_url!r}))))"
    with ThreadPoolExecutor(3) as threads:
        done = [
            threads.submit(
                subprocess.run,
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                timeout=100,
                check=True,
            )
            for _ in range(3)
        ]
        counts = sorted(int(one.result().stdout) for one in done)
    assert counts[:2] == [0, 0]
    assert counts[2] >= 1
    assert migrate(0) == 0


def add_revision(history: History, name: str, body: str) -> None:
    (history.versions / f"{name}.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = {name!r}, {revision_of(history)!r}\n"
        "branch_labels = depends_on = None\n"
        f"def upgrade():\n{body}\n"
        "def downgrade(): pass\n"
    )


def fill(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO events (uuid, type, kind, scope, occurred_at, notification) "
                "VALUES ('u', 't', 'k', '', '2026-01-01T00:00:00.000000Z', '{}')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO deliveries (event_sequence, subscriber_id, due_at) "
                "VALUES (1, 1, '2026-01-01T00:00:00.000000Z')"
            )
        )


def test_replacing_a_table_deletes_nothing_that_refers_to_it(shop: History, tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'replaced.db'}")
    upgrade(shop, engine)
    fill(engine)
    before = shape(engine)
    add_revision(
        shop,
        "replace",
        "    again = {'sqlite_autoincrement': True}\n"
        "    with op.batch_alter_table('events', recreate='always', table_kwargs=again) as batch:\n"
        "        batch.alter_column('order_note', type_=sa.String(10))\n",
    )
    upgrade(shop, engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM deliveries")) == 1
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    after = shape(engine)
    assert after["deliveries"] == before["deliveries"]
    assert after["events"]["indexes"] == before["events"]["indexes"]
    assert after["counting up or vacuumed apart"] == before["counting up or vacuumed apart"]
    engine.dispose()


def test_a_revision_that_would_break_a_reference_changes_nothing(shop: History, tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'broken.db'}")
    upgrade(shop, engine)
    fill(engine)
    add_revision(
        shop,
        "breaks",
        "    op.create_table('t', sa.Column('c', sa.Integer))\n    op.execute('DELETE FROM events')\n",
    )
    with pytest.raises(ClarionError, match=r"1 rows would refer to nothing \(deliveries > events\)"):
        upgrade(shop, engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM events")) == 1
    assert "t" not in sa.inspect(engine).get_table_names()
    engine.dispose()


def test_an_error_halfway_changes_nothing(empty: Engine, shop: History) -> None:
    add_revision(
        shop,
        "fails",
        "    op.create_table('t', sa.Column('c', sa.Integer))\n    raise RuntimeError('half')\n",
    )
    with pytest.raises(RuntimeError, match="half"):
        upgrade(shop, empty)
    assert [t for t in sa.inspect(empty).get_table_names() if t != "clarion_version"] == []


def test_a_database_from_a_newer_program_is_refused(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'newer.db'}")
    upgrade(History(), engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE clarion_version SET version_num = 'from_the_future'"))
    with pytest.raises(ConfigurationError, match="from_the_future"):
        upgrade(History(), engine)
    engine.dispose()


def test_tables_that_no_migration_made_are_left_alone(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'other.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE events (id INTEGER)"))
    with pytest.raises(ConfigurationError, match="has a table 'events' and no record of Clarion's version"):
        upgrade(History(), engine)
    assert sa.inspect(engine).get_table_names() == ["events"]
    engine.dispose()


HOST_ENV = """
from alembic import context
from clarion import migrations

target = context.config.attributes["metadata"]
with context.config.attributes["engine"].begin() as connection:
    context.configure(connection=connection, **migrations.options(target, app={app!r}))
    with context.begin_transaction():
        context.run_migrations()
"""


def separate(host: MetaData) -> list[MetaData]:
    return [host]


def copied(host: MetaData) -> list[MetaData]:
    from clarion.database import metadata

    for table in metadata.sorted_tables:
        table.to_metadata(host)
    return [host]


@pytest.mark.parametrize("with_metadata", [separate, copied])
def test_a_host_keeps_clarion_in_its_own_history(
    empty: Engine, tmp_path: Path, with_metadata: Callable[[MetaData], list[MetaData]]
) -> None:
    """Alembic's own commands, the host's environment, Clarion's MetaData or the host's copy of it."""
    (tmp_path / "host" / "versions").mkdir(parents=True)
    (tmp_path / "host" / "env.py").write_text(HOST_ENV.format(app=SHOP))
    template = VERSIONS.parent / "script.py.mako"
    (tmp_path / "host" / "script.py.mako").write_text(template.read_text())
    config = Config()
    config.set_main_option("script_location", str(tmp_path / "host"))
    config.set_main_option("version_locations", f"{tmp_path / 'host' / 'versions'}\n{VERSIONS}")
    config.set_main_option("path_separator", "newline")
    host = MetaData()
    sa.Table("orders", host, sa.Column("id", sa.Integer, primary_key=True), sa.Column("code", sa.String(9)))
    config.attributes.update(engine=empty, metadata=with_metadata(host))

    command.upgrade(config, "heads")
    command.revision(
        config,
        "host's first",
        autogenerate=True,
        head="base",
        branch_label="host",
        version_path=str(tmp_path / "host" / "versions"),
        depends_on="clarion_0001",
    )
    command.upgrade(config, "heads")
    command.check(config)  # raises if anything differs
    tables = sa.inspect(empty).get_table_names()
    assert {"orders", "events", "alembic_version"} <= set(tables)
    assert "clarion_version" not in tables
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM event_types")) == 7
    command.downgrade(config, "host@base")
    assert "orders" not in sa.inspect(empty).get_table_names()
    assert "events" in sa.inspect(empty).get_table_names()
    command.downgrade(config, "base")
    assert sa.inspect(empty).get_table_names() == ["alembic_version"]


def test_operations_say_what_their_opposite_needs() -> None:
    add, describe, remove = changes({"b": "B", "c": "C"}, {"a": "A", "b": "B!"})
    assert (add.function, describe.function, remove.function) == (
        "add_event_types",
        "describe_event_types",
        "remove_event_types",
    )
    assert (add.types, describe.types, remove.types) == ({"a": "A"}, {"b": ("B", "B!")}, {"c": "C"})
    assert add.reverse().to_diff_tuple() == ("remove_event_types", {"a": "A"})
    assert remove.reverse().to_diff_tuple() == ("add_event_types", {"c": "C"})
    assert describe.reverse().to_diff_tuple() == ("describe_event_types", {"b": ("B!", "B")})
    assert changes({"a": "A"}, {"a": "A"}) == []


def test_a_shared_table_that_must_be_copied_goes_on_counting_up(shop: History, tmp_path: Path) -> None:
    """A subscriber kind of an application with a foreign key: on SQLite only batch mode adds one."""
    column = sa.Column("boss_id", sa.BigInteger())
    ops = [
        AddColumnOp("subscribers", column),
        CreateForeignKeyOp("fk_boss", "subscribers", "subscribers", ["boss_id"], ["id"]),
    ]
    script = MigrationScript(None, UpgradeOps([ModifyTableOps("subscribers", ops)]), DowngradeOps([]))
    plainly(None, None, [script])
    written = render_python_code(script.upgrade_ops_list[0], render_as_batch=True)
    assert "table_kwargs={'sqlite_autoincrement': True}) as batch_op:" in written
    add_revision(shop, "copies", written.replace("# ### commands", "    # ### commands", 1))
    engine = open_engine(f"sqlite:///{tmp_path / 'copied.db'}")
    upgrade(History(SHOP), engine)
    before = shape(engine)
    upgrade(shop, engine)
    after = shape(engine)
    assert after["counting up or vacuumed apart"] == before["counting up or vacuumed apart"]
    assert after["subscribers"]["checks"] == before["subscribers"]["checks"]
    assert "fk_boss" in after["subscribers"]["foreign keys"]
    engine.dispose()


def alembic(directory: Path, url: str, *arguments: str) -> str:
    (directory / "alembic.ini").write_text(
        f"[alembic]\nscript_location = {VERSIONS.parent}\nversion_locations = {VERSIONS}\n"
        "path_separator = newline\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=directory,
        env={**os.environ, "CLARION_DATABASE_URL": url},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def test_alembics_own_command_line_runs_the_migrations_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ini.db'}"
    alembic(tmp_path, url, "upgrade", "heads")
    engine = open_engine(url)
    assert "events" in sa.inspect(engine).get_table_names()
    engine.dispose()


def test_the_sql_can_be_printed_for_an_administrator(tmp_path: Path) -> None:
    """No server is asked: there is none at this address."""
    printed = alembic(tmp_path, "postgresql://nobody@127.0.0.1:1/none", "upgrade", "heads", "--sql")
    assert "CREATE TABLE clarion_version" in printed
    assert "occurred_at TIMESTAMP WITH TIME ZONE NOT NULL" in printed
    assert "WHERE state = 'pending'" in printed
