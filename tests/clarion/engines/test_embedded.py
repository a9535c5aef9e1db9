"""The embedded engine: a thread of the application."""

import logging
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy import event as listen
from sqlalchemy.orm import Session

from clarion import relay as relay_module
from clarion.analytics import TelemetryData
from clarion.database import open_engine
from clarion.engines import embedded, open_relay_engine
from clarion.engines.embedded import EmbeddedEngine
from clarion.errors import ClarionError, ConfigurationError
from clarion.outbox import Delivery
from clarion.testing import Receiver, Reply
from tests.clarion.engines.shop import POLICY, WITHIN, add, place, states, wait_until
from tests.clarion.telemetry_sample import an_analytics, switched_on
from tests.flows.postgresql import PostgresInstance, postgres_instance


@pytest.fixture
def only_nudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay never looks by itself: what is delivered is delivered because something woke it."""
    monkeypatch.setattr(relay_module, "POLL", 3600.0)


@pytest.mark.usefixtures("only_nudged")
def test_a_commit_is_received_within_milliseconds(engine: Engine, database_url: str) -> None:
    arrived: list[float] = []

    def reply(_: object) -> Reply:
        arrived.append(time.perf_counter())
        return Reply()

    waits = []
    with Receiver(reply) as receiver, EmbeddedEngine(database_url, POLICY) as running:
        add(engine, receiver.url)
        for number in range(30):
            place(engine, running.nudge)
            committed = time.perf_counter()
            receiver.wait_for(number + 1, WITHIN)
            waits.append(max(arrived[number] - committed, 0.0) * 1000)
    median = statistics.median(waits)
    print(f"commit to received, {engine.dialect.name}: median {median:.1f} ms, worst {max(waits):.1f} ms")
    assert median < 250  # a machine under load; it is far below a second of polling


def test_what_was_due_before_it_started_is_delivered(engine: Engine) -> None:
    with Receiver() as receiver:
        add(engine, receiver.url)
        place(engine, count=3)
        with EmbeddedEngine(engine, POLICY) as running:
            receiver.wait_for(3, WITHIN)
            inside = running.running
        assert (inside, running.running) == (True, False)
    assert states(engine) == ["delivered"] * 3


def test_stop_drains_and_it_can_start_again(engine: Engine) -> None:
    arrived, answer = threading.Event(), threading.Event()

    def reply(_: object) -> Reply:
        arrived.set()
        answer.wait(WITHIN)
        return Reply()

    with Receiver(reply) as receiver:
        add(engine, receiver.url)
        place(engine)
        running = EmbeddedEngine(engine, POLICY)
        running.start()
        with pytest.raises(ClarionError, match="runs already"):
            running.start()
        assert arrived.wait(WITHIN)
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        assert stopping.is_alive()
        answer.set()
        stopping.join(WITHIN)
        assert not stopping.is_alive()
        assert states(engine) == ["delivered"]
        place(engine)
        with running:
            receiver.wait_for(2, WITHIN)
        running.stop()  # twice is once


def test_a_telemetry_backend_that_never_answers_does_not_hold_up_the_end(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(WITHIN)
        telemetry = switched_on(engine, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert an_analytics(engine, telemetry).send("shop-heartbeat", TelemetryData({"active": True}))
        running = EmbeddedEngine(engine, POLICY)
        running.start()
        with silent.accept()[0] as connection:
            connection.settimeout(WITHIN)
            assert connection.recv(1)
            began = time.perf_counter()
            running.stop()
            took = time.perf_counter() - began
    print(f"end beside a backend that hangs, {engine.dialect.name}: {took:.2f} s")
    assert took < 5  # a machine under load; the request has 15 s, and the engine a grace of 20
    assert states(engine) == ["pending"]
    with Session(engine) as session:
        assert session.scalars(select(Delivery.lease_token)).all() == [None]


@pytest.mark.usefixtures("only_nudged")
def test_it_hears_what_other_processes_commit(engine: Engine, database_url: str) -> None:
    from clarion.engines.listening import Notifier

    notifier = Notifier(database_url) if engine.dialect.name == "postgresql" else None
    with Receiver() as receiver, EmbeddedEngine(database_url, POLICY, listening=True):
        add(engine, receiver.url)
        for number in range(5):
            place(engine, notifier)
            receiver.wait_for(number + 1, WITHIN)
    if notifier is not None:
        notifier.close()


class Queries:
    """Counts every statement that reaches the database, on SQLite through the driver's own trace."""

    def __init__(self, engine: Engine) -> None:
        self.seen: list[str] = []
        if engine.dialect.name == "sqlite":
            listen.listen(engine, "connect", lambda c, _: c.set_trace_callback(self.seen.append))
        else:
            listen.listen(engine, "before_cursor_execute", lambda *a: self.seen.append(a[2]))


def test_idle_it_asks_at_most_once_a_second(engine: Engine, database_url: str) -> None:
    """Idle: nothing is due, though something is pending, which is to be tried again in an hour."""
    quiet = open_relay_engine(database_url)
    queries = Queries(quiet)
    with Receiver(lambda _: Reply(500)) as receiver:
        add(engine, receiver.url, retry_schedule=[0.0, 3600.0])
        place(engine)
        with EmbeddedEngine(quiet, POLICY, listening=True) as running:
            wait_until(lambda: "attempts" in last_write(queries))
            wait_until(lambda: not running.relay._unsettled)
            threading.Event().wait(0.3)  # what follows a settlement is over
            queries.seen.clear()
            threading.Event().wait(3.0)
            seen = list(queries.seen)
    quiet.dispose()
    assert 1 <= len(seen) <= 4, seen
    assert all("active" in statement for statement in seen), seen


def last_write(queries: Queries) -> str:
    return next((s for s in reversed(queries.seen) if "INSERT INTO attempts" in s), "")


def test_a_relay_that_fails_is_begun_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "RESTART", 0.01)
    with Receiver() as receiver:
        add(engine, receiver.url)
        running = EmbeddedEngine(engine, POLICY)
        whole = running.relay.run
        failures: list[int] = []

        async def run(*arguments: Any, **keywords: Any) -> None:
            if not failures:
                failures.append(1)
                raise RuntimeError("a fault nobody thought of")
            await whole(*arguments, **keywords)

        monkeypatch.setattr(running.relay, "run", run)
        place(engine)
        with caplog.at_level(logging.ERROR), running:
            receiver.wait_for(1, WITHIN)
    assert "beginning again" in caplog.text


def test_what_cannot_run_says_so_when_it_is_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="mysql"):
        EmbeddedEngine("mysql://root@localhost/x", POLICY)


@pytest.fixture
def instance() -> Iterator[PostgresInstance]:
    try:
        with postgres_instance() as found:
            yield found
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_it_goes_on_when_postgresql_comes_back(instance: PostgresInstance) -> None:
    from clarion.database import Base
    from clarion.engines.listening import Notifier

    engine = open_engine(instance.url, pool_pre_ping=True)
    Base.metadata.create_all(engine)
    notifier = Notifier(instance.url)
    with Receiver() as receiver, EmbeddedEngine(instance.url, POLICY, listening=True) as running:
        add(engine, receiver.url)
        for round in range(1, 4):
            place(engine, notifier)
            receiver.wait_for(round, WITHIN)
            instance.kill() if round == 1 else instance.stop()
            notifier.nudge()  # into the void: counted, not raised
            instance.start()
        place(engine, notifier)
        receiver.wait_for(4, WITHIN)
        assert running.running
    notifier.close()
    engine.dispose()
