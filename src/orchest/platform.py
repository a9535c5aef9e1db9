"""A running installation: its site, its database, and what must be woken after a commit."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from clarion.addresses import EgressPolicy
from clarion.database import open_engine
from clarion.outbox import Recording
from orchest.site import Site


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
    policy: EgressPolicy
    sessions: sessionmaker[Session]
    readers: sessionmaker[Session]
    workers: list[Worker] = field(default_factory=list)
    nudge_relay: Callable[[], None] = lambda: None

    def nudge(self) -> None:
        """Wake every worker; returns at once."""
        for worker in self.workers:
            worker.nudge()


def open_platform(site: Site, database_url: str, policy: EgressPolicy) -> Platform:
    """The platform on this database; nothing runs yet.

    Raises:
        ConfigurationError: the URL is none, or of a database Clarion does not run on.
    """
    engine = open_engine(database_url)

    def nudge() -> None:
        platform.nudge_relay()

    recording = Recording(clock=site.clock, nudge=nudge)
    platform = Platform(
        site=site,
        engine=engine,
        policy=policy,
        sessions=sessionmaker(engine, info=recording.info()),
        readers=sessionmaker(engine.execution_options(read_only=True)),
    )
    return platform
