"""`send_event` beside a PostgreSQL that does not answer: it gives up soon, says so, and leaves it alone."""

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, text

from clarion.analytics import Accepted, Rejected, TelemetryData, enumeration, send_event
from clarion.analytics.answering import open_impatient
from clarion.analytics.capturing import UNSTORED
from clarion.database import Base, normalise_url, open_engine
from clarion.observe import counters
from clarion.telemetry import SettingReader
from tests.clarion.engines.proxy import Proxy
from tests.clarion.telemetry_sample import TYPES, switched_on

Event: Any = enumeration(TYPES)
ALIVE = TelemetryData({"active": True})
REFUSED = Rejected(UNSTORED)
SOON = 10.0
"""Seconds, far more than it takes, also on a machine under load; without a limit it would be minutes."""


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened: dict[str, SettingReader] = {}
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    monkeypatch.setattr("clarion.analytics.capturing._opened", opened)
    yield
    for reader in opened.values():
        reader.engine.dispose()


@pytest.fixture
def postgres(empty_postgres_url: str) -> Iterator[Engine]:
    engine = open_engine(empty_postgres_url)
    Base.metadata.create_all(engine)
    switched_on(engine, "http://127.0.0.1:9/")
    yield engine
    engine.dispose()


def timed(app: dict[str, Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = send_event(app, Event.SHOP_HEARTBEAT, ALIVE)
    return result, time.perf_counter() - began


def test_a_server_that_accepts_and_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = counters.value("telemetry_refused", "storage")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = {"CLARION_DATABASE_URL": f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x"}
        results = [timed(app) for _ in range(20)]
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # it was tried once, and then left alone
            silent.accept()
    assert {result for result, _ in results} == {REFUSED}
    assert sum(took for _, took in results) < SOON
    assert counters.value("telemetry_refused", "storage") == refused + 20


def test_a_server_that_stops_answering(postgres: Engine) -> None:
    url = make_url(postgres.url)
    with Proxy(url.port or 5432) as proxy:
        app = {"CLARION_DATABASE_URL": url.set(port=proxy.port).render_as_string(hide_password=False)}
        assert isinstance(timed(app)[0], Accepted)
        proxy.hang()
        result, took = timed(app)
        assert (result, took < SOON) == (REFUSED, True)
        proxy.cut()
        proxy.join()
        assert timed(app)[0]


def test_a_table_that_somebody_has_locked(postgres: Engine) -> None:
    app = {"CLARION_DATABASE_URL": postgres.url.render_as_string(hide_password=False)}
    assert timed(app)[0]
    with postgres.connect() as other:
        other.execute(text("LOCK TABLE captures"))
        result, took = timed(app)
        assert (result, took < SOON) == (REFUSED, True)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :name"
        deadline = time.monotonic() + SOON
        while left := other.execute(text(waiting), {"name": postgres.url.database}).scalar_one():
            assert time.monotonic() < deadline, f"{left} of the server's processes still wait"
            time.sleep(0.05)
    assert timed(app)[0]


def test_a_connection_s_time_begins_when_it_is_taken(
    postgres: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_impatient(normalise_url(postgres.url))
    clock = [0.0]
    monkeypatch.setattr("clarion.analytics.answering.time.monotonic", lambda: clock[0])
    for _ in range(3):
        clock[0] += 60
        with engine.begin() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
            assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "1s"
    engine.dispose()
