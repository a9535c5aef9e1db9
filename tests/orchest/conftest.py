"""A database with Clarion's tables and the platform's, and a small platform in it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from clarion.outbox import Recording
from orchest.models import Base
from tests.orchest.touring import Toured, touring
from tests.orchest.world import NOW, World


@pytest.fixture
def orchest_engine(engine: Engine) -> Iterator[Engine]:
    """An empty database with every table; the same test runs on SQLite and on PostgreSQL."""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)


@pytest.fixture
def session(orchest_engine: Engine) -> Iterator[Session]:
    """A session that records, with telemetry on and the clock at `world.NOW`."""
    recording = Recording(clock=lambda: NOW, telemetry_key=lambda: b"k" * 32)
    with sessionmaker(orchest_engine, info=recording.info())() as session:
        yield session


@pytest.fixture
def world(session: Session) -> World:
    """One of everything, flushed."""
    return World.in_session(session)


@pytest.fixture(scope="session")
def toured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toured]:
    """What a tour of a real platform made happen; taken once, so the tests that ask for it are one group."""
    with touring(tmp_path_factory.mktemp("tour")) as seen:
        yield seen
