"""A running installation: its site, its database, and what must be woken after a commit."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from clarion.addresses import EgressPolicy
from clarion.analytics.capturing import Analytics
from clarion.analytics.previewing import shown
from clarion.database import close_engine, open_engine
from clarion.migrations.history import History, upgrade
from clarion.outbox import Recording
from clarion.retention import DEFAULT, Kept
from clarion.telemetry import Telemetry
from orchest.events import CATALOGUE
from orchest.site import Site
from orchest.usage import Usage

MIGRATIONS = Path(__file__).parent / "migrations"
"""The platform's own history of revisions."""

POOL: dict[str, Any] = {"pool_size": 10, "max_overflow": 10, "pool_pre_ping": True}
"""Connections one process may have for writing, and as many for reading: half of its threads each."""


class Worker(Protocol):
    """Something that acts on rows by itself: a supervisor, a scheduler, a relay."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """End, and return when it has ended. What it has not finished another one takes up."""
        ...

    def nudge(self) -> None:
        """Something was committed: look now. From any thread, returns at once, never raises."""
        ...


@dataclass
class Platform:
    """What the API, the pages and the workers share. ``sessions()`` writes, ``readers()`` only reads.

    After a commit that left work for a worker, call `nudge`.
    """

    site: Site
    engine: Engine
    reading: Engine
    """The same database for what only reads: a pool of its own, so that readers never wait for writers."""
    policy: EgressPolicy
    analytics: Analytics
    sessions: sessionmaker[Session]
    readers: sessionmaker[Session]
    workers: list[Worker] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    """Whether requests came to this process, for the heartbeat."""
    kept: Kept = DEFAULT
    """What is deleted when it is old."""
    relay: Worker | None = None
    executor: Worker | None = None
    """What runs pipelines instead of a supervisor of this process: Celery's workers, by a nudge."""

    def nudge(self) -> None:
        """Wake every worker; returns at once."""
        for worker in self.workers:
            worker.nudge()

    def nudge_relay(self) -> None:
        """Something is to be delivered."""
        if self.relay is not None:
            self.relay.nudge()

    def close(self) -> None:
        """Give up the database's connections."""
        close_engine(self.engine)
        close_engine(self.reading)


def open_platform(site: Site, database_url: str, policy: EgressPolicy) -> Platform:
    """The platform on this database; nothing runs yet.

    Raises:
        ConfigurationError: the URL is none, or of a database Clarion does not run on.
    """
    engine = open_engine(database_url, **POOL)
    reading = open_engine(database_url, **POOL)
    telemetry = Telemetry(reading)

    def nudge() -> None:
        platform.nudge_relay()

    recording = Recording(site.clock, nudge, telemetry_key=telemetry.key, telemetry_shown=shown)
    platform = Platform(
        site=site,
        engine=engine,
        reading=reading,
        policy=policy,
        analytics=Analytics(engine, types=CATALOGUE, telemetry=telemetry, clock=site.clock, nudge=nudge),
        sessions=sessionmaker(engine, info=recording.info()),
        readers=sessionmaker(reading.execution_options(read_only=True)),
    )
    return platform


def migrate(platform: Platform) -> None:
    """Bring the database up to date: the library's tables, then the platform's.

    Processes that do so at the same time wait for each other.
    """
    upgrade(History(("orchest.events", "orchest.models"), MIGRATIONS), platform.engine)
