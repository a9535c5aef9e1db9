"""The relay as a process: signals, exit status, wake-up by what other processes commit."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from sqlalchemy import Engine

import clarion.relay
from clarion.engines.listening import Notifier
from clarion.engines.process import run_relay
from clarion.errors import ConfigurationError
from clarion.testing import Receiver, Reply
from tests.clarion.engines.shop import POLICY, WITHIN, add, place, states, wait_until

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.flows.killed_programs"])  # which imports all that is needed


def relay_program(url: str, ready: Event, grace: float) -> None:
    clarion.relay.POLL = 3600.0  # only what wakes it makes it look
    raise SystemExit(run_relay(url, POLICY, grace=grace, ready=ready.set))


@contextmanager
def relay_process(url: str, grace: float = 10.0) -> Iterator[ForkServerProcess]:
    ready = context.Event()
    process = context.Process(target=relay_program, args=(url, ready, grace))
    process.start()
    try:
        assert ready.wait(WITHIN)
        yield process
    finally:
        process.kill()
        process.join(WITHIN)
        process.close()


class Held:
    """A reply that is withheld until it is allowed."""

    def __init__(self) -> None:
        self.arrived, self.allowed = threading.Event(), threading.Event()

    def __call__(self, _: object) -> Reply:
        self.arrived.set()
        self.allowed.wait(WITHIN)
        return Reply()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_is_in_flight_end(engine: Engine, database_url: str, number: int) -> None:
    held = Held()
    with Receiver(held) as receiver:
        add(engine, receiver.url)
        place(engine)
        with relay_process(database_url) as process:
            assert held.arrived.wait(WITHIN)
            os.kill(process.pid or 0, number)
            assert process.is_alive()
            held.allowed.set()
            process.join(WITHIN)
            assert process.exitcode == 0
    assert states(engine) == ["delivered"]
    assert len(receiver.received) == 1


def test_a_signal_ends_it_within_the_grace(engine: Engine, database_url: str) -> None:
    held = Held()
    with Receiver(held) as receiver:
        add(engine, receiver.url)
        place(engine)
        with relay_process(database_url, grace=0.2) as process:
            assert held.arrived.wait(WITHIN)
            begun = time.monotonic()
            os.kill(process.pid or 0, signal.SIGTERM)
            process.join(WITHIN)
            assert process.exitcode == 0
            assert time.monotonic() - begun < 5
        held.allowed.set()
    assert states(engine) == ["pending"]


def test_it_hears_what_another_process_commits(engine: Engine, database_url: str) -> None:
    notifier = Notifier(database_url) if engine.dialect.name == "postgresql" else None
    with Receiver() as receiver, relay_process(database_url):
        add(engine, receiver.url)
        waits = []
        for number in range(20):
            place(engine, notifier)
            committed = time.perf_counter()
            receiver.wait_for(number + 1, WITHIN)
            waits.append((time.perf_counter() - committed) * 1000)
        print(f"commit to received by a process, {engine.dialect.name}: {sorted(waits)[10]:.1f} ms")
    if notifier is not None:
        notifier.close()


def test_several_share_the_work_and_nothing_is_sent_twice(engine: Engine, database_url: str) -> None:
    with Receiver() as receiver:
        add(engine, receiver.url)
        place(engine, count=200)
        with relay_process(database_url), relay_process(database_url):
            receiver.wait_for(200, WITHIN)
            wait_until(lambda: states(engine) == ["delivered"] * 200)
    assert len({r.headers["webhook-id"] for r in receiver.received}) == len(receiver.received) == 200


def test_a_url_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="database URL"):
        run_relay("nonsense", POLICY)
