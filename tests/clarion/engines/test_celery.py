"""Celery over RabbitMQ and Redis, both real: nudged tasks, beat as safety net, brokers that go away."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from clarion.engines import celery as celery_engine
from clarion.engines.celery import QUEUE, TASK, CeleryNudge, Delivering, Drainer, make_celery
from clarion.observe import counters
from clarion.testing import Receiver, Reply
from tests.clarion.engines.brokers import AMQP, REDIS, connect, queue_on
from tests.clarion.engines.proxy import Proxy
from tests.clarion.engines.shop import POLICY, WITHIN, add, place, states, wait_until

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.flows.killed_programs"])


@dataclass
class Broker:
    """A broker behind a proxy that can be cut, and a queue of the test's own on it."""

    url: str
    direct: str
    queue: str
    proxy: Proxy

    def waiting(self) -> int:
        """Messages in the queue that no worker has taken."""
        with connect(self.direct) as connection, connection.channel() as channel:
            try:
                return int(channel.queue_declare(self.queue, passive=True).message_count)
            except Exception:  # there is no such queue (yet)
                return 0


@pytest.fixture(params=[AMQP, REDIS], ids=["rabbitmq", "redis"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    direct: str = request.param
    port = urlsplit(direct).port or 0
    with queue_on(direct) as queue, Proxy(port) as proxy:
        yield Broker(direct.replace(f":{port}", f":{proxy.port}", 1), direct, queue, proxy)


def work(url: str, broker: str, queue: str, beat: float, pool: str) -> None:
    os.setsid()
    app = make_celery(broker, url, POLICY, beat=beat, queue=queue)
    words = ["worker", "--queues", queue, "--pool", pool, "--concurrency", "2", "--loglevel", "WARNING"]
    words += ["--without-gossip", "--without-mingle", "--beat", "--hostname", f"{queue}@localhost"]
    app.worker_main(words)


@contextmanager
def worker(
    url: str, broker: Broker, *, beat: float = 3600.0, pool: str = "prefork"
) -> Iterator[ForkServerProcess]:
    process = context.Process(target=work, args=(url, broker.url, broker.queue, beat, pool))
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join(WITHIN)
        process.close()


@contextmanager
def nudging(url: str, broker: Broker) -> Iterator[CeleryNudge]:
    nudge = CeleryNudge(make_celery(broker.url, url, POLICY, queue=broker.queue))
    yield nudge
    nudge.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_commit_is_delivered_by_a_worker(
    engine: Engine, database_url: str, broker: Broker, pool: str
) -> None:
    with (
        Receiver() as receiver,
        worker(database_url, broker, pool=pool),
        nudging(database_url, broker) as nudge,
    ):
        add(engine, receiver.url)
        waits = []
        for number in range(15):
            place(engine, nudge)
            committed = time.perf_counter()
            receiver.wait_for(number + 1, WITHIN)
            waits.append((time.perf_counter() - committed) * 1000)
        print(f"commit to received by a Celery worker, {broker.direct[:5]} {pool}: {sorted(waits)[7]:.1f} ms")
        wait_until(lambda: states(engine) == ["delivered"] * 15)
    assert len(receiver.received) == 15


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_receiver_that_hangs_keeps_no_worker_from_the_others(
    engine: Engine, database_url: str, broker: Broker
) -> None:
    opened = threading.Event()

    def reply(request: Any) -> Reply:
        if request.path == "/slow":
            opened.wait(WITHIN)
        return Reply()

    with (
        Receiver(reply) as receiver,
        worker(database_url, broker),
        nudging(database_url, broker) as nudge,
    ):
        add(engine, receiver.url + "slow")
        add(engine, receiver.url + "fast")
        for number in range(20):  # far more than there are processes
            place(engine, nudge)
            receiver.wait_for(number + 1, WITHIN)
        assert {request.path for request in receiver.received} == {"/fast"}
        opened.set()
        wait_until(lambda: states(engine) == ["delivered"] * 40)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_beat_delivers_what_no_nudge_told_of(engine: Engine, database_url: str, broker: Broker) -> None:
    with Receiver() as receiver, worker(database_url, broker, beat=0.5):
        add(engine, receiver.url)
        place(engine)
        receiver.wait_for(1, WITHIN)
        place(engine)
        receiver.wait_for(2, WITHIN)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_broker_that_is_away_delays_no_commit_and_is_found_again(
    engine: Engine, database_url: str, broker: Broker
) -> None:
    with (
        Receiver() as receiver,
        worker(database_url, broker) as process,
        nudging(database_url, broker) as nudge,
    ):
        add(engine, receiver.url)
        place(engine, nudge)
        receiver.wait_for(1, WITHIN)
        wait_until(lambda: states(engine) == ["delivered"])
        broker.proxy.cut()
        failed = counters.value("nudges_failed", "celery")
        begun = time.perf_counter()
        nudge()
        assert time.perf_counter() - begun < 0.1
        wait_until(lambda: counters.value("nudges_failed", "celery") >= failed + 2)  # the drain has ended
        place(engine, nudge, count=20)
        assert "pending" in states(engine)
        broker.proxy.join()
        receiver.wait_for(21, WITHIN)
        assert process.is_alive()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_sigterm_lets_what_is_in_flight_end(engine: Engine, database_url: str, broker: Broker) -> None:
    arrived, allowed = threading.Event(), threading.Event()

    def reply(_: object) -> Reply:
        arrived.set()
        allowed.wait(WITHIN)
        return Reply()

    with (
        Receiver(reply) as receiver,
        worker(database_url, broker) as process,
        nudging(database_url, broker) as nudge,
    ):
        add(engine, receiver.url)
        place(engine, nudge)
        assert arrived.wait(WITHIN)
        os.kill(process.pid or 0, signal.SIGTERM)
        assert process.is_alive()
        allowed.set()
        process.join(WITHIN)
        assert process.exitcode == 0
    assert states(engine) == ["delivered"]
    assert len(receiver.received) == 1


def test_a_burst_is_few_tasks_and_old_ones_expire(broker: Broker) -> None:
    with nudging("sqlite://", broker) as nudge:
        nudge.gap = 0.5
        for _ in range(1000):
            nudge()
        wait_until(lambda: broker.waiting() >= 1)
        assert broker.waiting() <= 2
    with connect(broker.direct) as connection:
        queue = connection.SimpleQueue(broker.queue)
        message = queue.get(timeout=WITHIN)
        assert message.headers["task"] == TASK
        assert message.headers["expires"] is not None
        message.reject()
        queue.close()


def test_the_application_is_configured_for_at_least_once() -> None:
    app = make_celery("amqp://nowhere//", "sqlite://", POLICY)
    task = app.tasks[TASK]
    assert (task.acks_late, task.reject_on_worker_lost, task.ignore_result) == (True, True, True)
    assert app.conf.result_backend is None
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.task_default_queue == QUEUE
    assert app.conf.beat_schedule[TASK]["schedule"] == celery_engine.BEAT


def test_a_database_that_is_away_fails_the_task_and_not_the_next(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    drainer = Drainer(Delivering(engine.url.render_as_string(hide_password=False), POLICY))
    with Receiver() as receiver:
        add(engine, receiver.url)
        drainer.drain()
        place(engine)
        drainer.drain()
        receiver.wait_for(1, WITHIN)
        wait_until(lambda: states(engine) == ["delivered"])
        drainer.on_shutdown()
        place(engine)
        drainer.drain()  # begins anew
        receiver.wait_for(2, WITHIN)
        drainer.on_shutdown()
    away = Drainer(Delivering("postgresql://postgres@127.0.0.1:1/none", POLICY))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with suppress(OperationalError):  # unless connecting takes longer than a task waits
                away.drain()
            wait_until(lambda: "could not be drained" in caplog.text)
    away.on_shutdown()


def test_recording_needs_no_celery() -> None:
    """Celery is an extra: the core, the relay and the other engines import nothing of it."""
    code = "import clarion.outbox, clarion.engines.embedded, sys; sys.exit('celery' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
