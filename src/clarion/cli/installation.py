"""What a command works on: the settings, the application's declarations, the database."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clarion.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from clarion.catalogue import Catalogue
    from clarion.migrations.history import History
    from clarion.settings import Settings


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Installation:
    """The settings, with the application imported."""

    settings: "Settings"

    @property
    def catalogue(self) -> "Catalogue":
        """What the application declares.

        Raises:
            ConfigurationError: no application is set.
        """
        from clarion.catalogue import catalogue

        if not self.settings.app:
            raise ConfigurationError(
                "CLARION_APP: name the module that declares the application's events, such as shop.events"
            )
        return catalogue(self.settings.app)

    @property
    def history(self) -> "History":
        from clarion.migrations.history import History
        from clarion.settings import migrations_directory

        return History(self.settings.app, migrations_directory(self.settings))

    @property
    def sqlite_file(self) -> Path | None:
        """The database's file, if it is one."""
        from clarion.database import normalise_url

        url = normalise_url(self.settings.database_url)
        if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
            return None
        return Path(url.database)

    @contextmanager
    def engine(self, *, create: bool = False, read_only: bool = False) -> Iterator["Engine"]:
        """The database; only with ``create`` is a SQLite file made.

        Raises:
            ConfigurationError: there is no such file.
        """
        from clarion.database import open_engine

        file = self.sqlite_file
        if file is not None and not file.exists():
            if not create:
                raise ConfigurationError(f"there is no database {file}; make it with: clarion migrate")
            file.parent.mkdir(parents=True, exist_ok=True)
        engine = open_engine(self.settings.database_url)
        try:
            yield engine.execution_options(read_only=True) if read_only else engine
        finally:
            engine.dispose()

    @contextmanager
    def reading(self) -> Iterator["Session"]:
        """A session that only reads, and blocks nobody."""
        from sqlalchemy.orm import Session

        with self.engine(read_only=True) as engine, Session(engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator["Session"]:
        """A session in a transaction, committed at the end."""
        from sqlalchemy.orm import Session

        with self.engine() as engine, Session(engine) as session, session.begin():
            yield session


def installation() -> Installation:
    """The installation that the settings name, its application imported.

    Raises:
        ConfigurationError: a setting is wrong, or the application cannot be imported.
    """
    from clarion import deliverees, outbox
    from clarion.settings import import_app, read_settings

    settings = read_settings()
    import_app(settings.app)
    assert deliverees, outbox  # imported for the tables and kinds they map
    return Installation(settings)


def log_to_stderr(settings: "Settings") -> None:
    """Send what Clarion logs to stderr, in the format that is set."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings.log_format))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


def formatter(name: str) -> logging.Formatter:
    import structlog

    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if name == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
