"""A history of revisions, Clarion's and an application's: run, extended, compared with what is declared."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import produce_migrations
from alembic.config import Config
from alembic.operations.ops import MigrationScript
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool

from clarion.database import normalise_url, open_engine
from clarion.errors import ConfigurationError
from clarion.migrations import BRANCH, VERSIONS
from clarion.migrations.environment import migrating
from clarion.migrations.plugin import describe_difference

HERE = Path(__file__).parent

FIRST = "clarion_0001"
"""Clarion's first revision."""

FILE_TEMPLATE = "r%%(year)d%%(month).2d%%(day).2d_%%(hour).2d%%(minute).2d_%%(rev)s_%%(slug)s"
"""Names that sort by time and are Python modules."""


@dataclass(frozen=True, slots=True)
class Step:
    """One revision, for people to read."""

    revision: str
    message: str


@dataclass(frozen=True)
class History:
    """Clarion's revisions and, if there is an application, its own in ``directory``.

    ``app`` are its modules, imported already. If there is an ``env.py`` in the directory, it is Alembic's
    environment; otherwise Clarion brings one.
    """

    app: tuple[str, ...] = ()
    directory: Path | None = None

    @property
    def versions(self) -> Path:
        """Where new revisions are written.

        Raises:
            ConfigurationError: there is no application whose they could be.
        """
        if self.directory is None:
            raise ConfigurationError(
                "CLARION_APP: name the module that declares the application's events, such as shop.events; "
                "its revisions are written into migrations/versions/ of its package"
            )
        return self.directory / "versions"

    def config(self, connection: Connection | None = None) -> Config:
        """Alembic's configuration: what an ``alembic.ini`` would say."""
        own = self.directory is not None and (self.directory / "env.py").exists()
        locations = [VERSIONS]
        if self.directory is not None and self.versions.resolve() != VERSIONS.resolve():
            locations.append(self.versions)
        config = Config(cmd_opts=Namespace(quiet=True))
        for name, value in {
            "script_location": str(self.directory if own else HERE),
            "version_locations": "\n".join(map(str, locations)),
            "path_separator": "newline",
            "file_template": FILE_TEMPLATE,
            "timezone": "UTC",
        }.items():
            config.set_main_option(name, value if name == "file_template" else value.replace("%", "%%"))
        config.attributes.update(app=self.app, connection=connection)
        return config

    def scripts(self, connection: Connection | None = None) -> tuple[Config, ScriptDirectory]:
        config = self.config(connection)
        with explained():
            return config, ScriptDirectory.from_config(config)


@contextmanager
def explained() -> Iterator[None]:
    """Alembic's own complaints as ours."""
    try:
        yield
    except CommandError as error:
        raise ConfigurationError(f"migrations: {error}") from error


def upgrade(history: History, engine: Engine, target: str = "heads") -> list[Step]:
    """Bring the database up to ``target``; returns the revisions that were applied, in order.

    Processes that upgrade at the same time wait for each other; on an error nothing has changed.

    Raises:
        ConfigurationError: the database is at a revision that is not known here, or its tables were
            made without migrations.
    """
    with migrating(engine) as connection, explained():
        steps = pending(history, connection, target)
        if any(step.revision == FIRST for step in steps) and inspect(connection).has_table("events"):
            raise ConfigurationError(
                "the database has a table 'events' and no record of Clarion's version: it was not made by "
                "migrations; use another one, or note down what it is at with Alembic's `stamp`"
            )
        command.upgrade(history.config(connection), target)
        return steps


def downgrade(history: History, engine: Engine, target: str) -> None:
    """Take the database back to ``target``, such as ``shop@-1`` or ``shop@base``. What goes is lost."""
    with migrating(engine) as connection, explained():
        command.downgrade(history.config(connection), target)


def visit(history: History, connection: Connection, look: Callable[[Any, MigrationContext], None]) -> None:
    """Call ``look`` in the history's own environment; nothing is changed."""
    config, scripts = history.scripts(connection)

    def once(revision: Any, context: MigrationContext) -> list[Any]:
        look(revision, context)
        return []

    with explained(), EnvironmentContext(config, scripts, fn=once, dont_mutate=True):
        scripts.run_env()


def current(history: History, connection: Connection) -> tuple[str, ...]:
    """The revisions that the database is at."""
    found: list[tuple[str, ...]] = []
    visit(history, connection, lambda _revision, context: found.append(context.get_current_heads()))
    return found[0] if found else ()


def pending(history: History, connection: Connection, target: str = "heads") -> list[Step]:
    """The revisions that would have to be applied to reach ``target``, in order."""
    _config, scripts = history.scripts()
    with explained():
        # private, and what `alembic upgrade` itself runs: the public iterator knows no dependencies
        heads: Any = current(history, connection)
        steps = scripts._upgrade_revs(target, heads)
    return [Step(step.revision.revision, step.revision.doc) for step in steps]


def implied(scripts: ScriptDirectory, heads: Sequence[str]) -> Iterator[str]:
    """Every revision that ``heads`` come after or depend on."""
    left, seen = list(heads), set[str]()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        yield name
        script = scripts.get_revision(name)
        left.extend(script._all_down_revisions if script is not None else ())


@contextmanager
def scratch(history: History) -> Iterator[Connection]:
    """A database in memory that the history was just run on: what the newest revision makes."""
    engine = open_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection, explained():
            command.upgrade(history.config(connection), "heads")
            yield connection
    finally:
        engine.dispose()


def compare(history: History, connection: Connection) -> list[str]:
    """What is declared and is not in this database, and the other way round; one sentence each."""
    found: list[str] = []

    def look(_revision: Any, context: MigrationContext) -> None:
        script = produce_migrations(context, context.opts["target_metadata"])
        assert script.upgrade_ops is not None
        found.extend(describe_difference(diff) for diff in script.upgrade_ops.as_diffs())

    visit(history, connection, look)
    return found


def undeclared(history: History) -> list[str]:
    """How what is declared differs from what the newest revision makes; no database is touched."""
    with scratch(history) as connection:
        return compare(history, connection)


@dataclass(frozen=True, slots=True)
class Database:
    """What a database is like: the revisions it lacks, and if none, what differs from what is declared."""

    pending: list[Step]
    differences: list[str]


def examine(history: History, url: str | URL) -> Database | None:
    """Compare a database with the history, read-only. None if there is none: a SQLite file not made yet.

    Raises:
        sqlalchemy.exc.OperationalError: it does not answer.
    """
    target = normalise_url(url)
    name = target.database
    if target.get_backend_name() == "sqlite" and name and name != ":memory:" and not Path(name).exists():
        return None
    engine = open_engine(target).execution_options(read_only=True)
    try:
        with engine.connect() as connection, connection.begin() as transaction:
            missing = pending(history, connection)
            found = Database(missing, [] if missing else compare(history, connection))
            transaction.rollback()
            return found
    finally:
        engine.dispose()


def write_revision(history: History, message: str) -> Path | None:
    """Write a revision with what is declared and not in the newest revision; None if nothing is missing.

    The database it is compared with is made in memory from the history, so no other is needed.

    Raises:
        ConfigurationError: there is no application, or its history has several heads.
    """
    history.versions.mkdir(parents=True, exist_ok=True)
    with scratch(history) as connection, explained():
        config, scripts = history.scripts(connection)
        made = command.revision(
            config,
            message=message,
            autogenerate=True,
            version_path=str(history.versions),
            process_revision_directives=drop_empty,
            **place(history, scripts),
        )
    scripts_made = made if isinstance(made, list) else [made]
    return next((Path(script.path) for script in scripts_made if script is not None), None)


def place(history: History, scripts: ScriptDirectory) -> dict[str, Any]:
    """Where in the history a new revision of the application stands."""
    own = {
        script.revision: script
        for script in scripts.walk_revisions()
        if Path(script.path).resolve().parent == history.versions.resolve()
    }
    heads = [name for name in scripts.get_heads() if name in own]
    if len(heads) > 1:
        raise ConfigurationError(f"the application's history has several heads: {', '.join(sorted(heads))}")
    newest = [name for name in scripts.get_heads() if name not in own and is_ours(scripts, name)]
    depends = [name for name in newest if name not in set(implied(scripts, heads))]
    found: dict[str, Any] = {"head": heads[0] if heads else "base", "depends_on": depends or None}
    if not heads:
        found["branch_label"] = history.app[0].partition(".")[0] if history.app else None
    return found


def is_ours(scripts: ScriptDirectory, name: str) -> bool:
    script = scripts.get_revision(name)
    return script is not None and BRANCH in script.branch_labels


def drop_empty(_context: Any, _revision: Any, directives: list[MigrationScript]) -> None:
    if directives[0].upgrade_ops is not None and directives[0].upgrade_ops.is_empty():
        directives.clear()
