"""Engines and column types: URLs, times, and SQLite's one writer."""

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from clarion import database
from clarion.database import bind_time, close_engine, normalise_url, open_engine, read_time, sortable
from clarion.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://u@h/d", "postgresql+psycopg"),
        ("postgres://u@h/d", "postgresql+psycopg"),
        ("postgresql+asyncpg://u@h/d", "postgresql+psycopg"),
        ("sqlite:///x.db", "sqlite"),
    ],
)
def test_urls_name_the_driver_clarion_is_tested_with(url: str, driver: str) -> None:
    assert normalise_url(url).drivername == driver


@pytest.mark.parametrize(
    ("url", "message"),
    [("nonsense", "is not a database URL"), ("", "is not a database URL"), ("mysql://h/d", "not on 'mysql'")],
)
def test_other_urls_are_refused_with_what_is_allowed(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_engine(url)


TIMES = st.datetimes(timezones=st.just(UTC))


@given(TIMES, TIMES)
def test_the_order_of_the_text_is_the_order_of_the_times(a: datetime, b: datetime) -> None:
    assert (sortable(a) < sortable(b)) is (a < b)
    assert read_time(sortable(a)) == a


def test_times_are_bound_in_utc_and_naive_ones_refused() -> None:
    there = datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert bind_time(there, "sqlite") == "2026-06-01T10:00:00.000000Z"
    assert bind_time(there, "postgresql") == there
    with pytest.raises(ValueError, match="no time zone"):
        bind_time(datetime(2026, 6, 1), "sqlite")


@pytest.fixture
def sqlite(tmp_path: Path) -> Engine:
    engine = open_engine(f"sqlite:///{tmp_path / 'one.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
    return engine


def test_writers_wait_their_turn_and_none_is_lost(sqlite: Engine) -> None:
    """Each reads and then writes: begun as readers, most of these would fail."""

    def add() -> None:
        for _ in range(50):
            with sqlite.begin() as connection:
                count = connection.execute(text("SELECT count(*) FROM t")).scalar_one()
                connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": count})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sqlite.connect() as connection:
        assert connection.execute(text("SELECT count(DISTINCT n) FROM t")).scalar_one() == 200
    sqlite.dispose()


def test_a_reader_blocks_nobody_and_a_writer_gives_up_in_the_end(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SQLITE_BUSY_SECONDS", 0.05)
    reading = sqlite.execution_options(read_only=True)
    with sqlite.begin() as writer:
        with reading.connect() as reader:
            assert reader.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
        with pytest.raises(OperationalError, match="locked"), sqlite.begin():
            pass
        writer.execute(text("INSERT INTO t VALUES (1)"))
    with reading.connect() as reader:
        assert reader.execute(text("SELECT count(*) FROM t")).scalar_one() == 1
    sqlite.dispose()


def test_a_closed_engine_keeps_no_connection_of_who_was_late(postgres_session_url: str) -> None:
    engine = open_engine(postgres_session_url)
    with engine.connect() as late:
        kept: list[Any] = [late.connection.driver_connection]
        close_engine(engine)
    with engine.connect() as later:
        kept.append(later.connection.driver_connection)
    assert all(connection.closed for connection in kept)
