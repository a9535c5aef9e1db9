"""Databases for the tests: each run has its own, on SQLite and on PostgreSQL, and removes them."""

import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from clarion.database import Base, open_engine

POSTGRES_URL = os.environ.get(
    "CLARION_TEST_POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
)


@pytest.fixture(autouse=True)
def logging_stays() -> Iterator[None]:
    """A command called in a test sets logging up; its handler must not outlive the streams of that test."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:  # pytest's own are of other classes
            root.removeHandler(handler)


def postgres_answers() -> str | None:
    """None if the PostgreSQL server for tests answers, else why not."""
    engine = create_engine(POSTGRES_URL, connect_args={"connect_timeout": 3})
    try:
        with engine.connect():
            return None
    except Exception as error:
        return str(error).splitlines()[0]
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of a PostgreSQL server on which databases may be made."""
    if (problem := postgres_answers()) is not None:
        pytest.skip(f"PostgreSQL does not answer ({problem}); set CLARION_TEST_POSTGRES_URL")
    return POSTGRES_URL


def make_database(server: str) -> tuple[str, Engine]:
    """A new, empty database on ``server``: its URL, and the engine that can drop it."""
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    name = f"clarion_test_{uuid.uuid4().hex[:12]}"
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    return make_url(server).set(database=name).render_as_string(hide_password=False), admin


def drop_database(url: str, admin: Engine) -> None:
    with admin.connect() as connection:
        connection.execute(text(f'DROP DATABASE "{make_url(url).database}" WITH (FORCE)'))
    admin.dispose()


@pytest.fixture(scope="session")
def postgres_session_url(postgres_server: str) -> Iterator[str]:
    url, admin = make_database(postgres_server)
    yield url
    drop_database(url, admin)


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    """A PostgreSQL database of the test's own, without tables."""
    url, admin = make_database(postgres_server)
    yield url
    drop_database(url, admin)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with every declared table, empty: once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    url: str = request.getfixturevalue("postgres_session_url")
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()
