"""Wake-up across processes: one NOTIFY a burst, outside transactions, healing, and never in the way."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from clarion.database import open_engine
from clarion.engines import listening
from clarion.engines.listening import (
    CHANNEL,
    BackgroundNudge,
    Notifier,
    backoff,
    glance,
    listen,
    open_watching,
    watch,
)
from clarion.observe import counters
from tests.clarion.engines.proxy import Proxy
from tests.clarion.engines.shop import WITHIN, wait_until


@contextmanager
def heard(url: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    with psycopg.connect(listening.connection_string(url), autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield connection


def hear(
    connection: "psycopg.Connection[tuple[object, ...]]", seconds: float, most: int | None = None
) -> int:
    return len(list(connection.notifies(timeout=seconds, stop_after=most)))


def test_a_burst_is_one_notification(postgres_server: str) -> None:
    notifier = Notifier(postgres_server, gap=0.3)
    with heard(postgres_server) as connection:
        for _ in range(500):
            notifier.nudge()
        assert hear(connection, 0.2) == 1  # at once
        assert hear(connection, 0.5) <= 1  # what came after it, together
        notifier.nudge()
        assert hear(connection, WITHIN, most=1) == 1
    notifier.close()


def test_closing_carries_out_what_is_pending(postgres_server: str) -> None:
    with heard(postgres_server) as connection:
        notifier = Notifier(postgres_server, gap=60)
        notifier.nudge()
        assert hear(connection, WITHIN, most=1) == 1
        notifier.nudge()  # would wait for the gap
        notifier.close()
        assert hear(connection, WITHIN, most=1) == 1
    notifier.close()


def test_a_server_that_is_away_is_counted_and_tried_again(postgres_server: str) -> None:
    with Proxy(make_url(postgres_server).port or 5432) as proxy:
        url = make_url(postgres_server).set(port=proxy.port)
        notifier = Notifier(url)
        with heard(postgres_server) as connection:
            notifier.nudge()
            assert hear(connection, WITHIN, most=1) == 1
            proxy.cut()
            before = counters.value("nudges_failed", "notify")
            begun = time.perf_counter()
            notifier.nudge()
            assert time.perf_counter() - begun < 0.1
            wait_until(lambda: counters.value("nudges_failed", "notify") >= before + 2)
            proxy.join()
            assert hear(connection, WITHIN, most=1) == 1  # the same nudge, without another
        notifier.close()


async def test_listening_goes_on_when_the_connection_was_lost(postgres_server: str) -> None:
    nudges: asyncio.Queue[None] = asyncio.Queue()
    with Proxy(make_url(postgres_server).port or 5432) as proxy:
        url = make_url(postgres_server).set(port=proxy.port)
        task = asyncio.create_task(listen(url, lambda: nudges.put_nowait(None)))
        await asyncio.wait_for(nudges.get(), WITHIN)  # it listens: what was missed is looked for
        proxy.cut()
        wait = counters.value("database_lost", "listen")
        async with asyncio.timeout(WITHIN):
            while counters.value("database_lost", "listen") < wait + 2:
                await asyncio.sleep(0.01)
        assert nudges.empty()
        proxy.join()
        await asyncio.wait_for(nudges.get(), WITHIN)
        notifier = Notifier(postgres_server)
        notifier.nudge()
        await asyncio.wait_for(nudges.get(), WITHIN)
        await asyncio.to_thread(notifier.close)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_who_nudges_never_waits_and_never_fails() -> None:
    class Stuck(BackgroundNudge):
        stuck, free = threading.Event(), threading.Event()

        def send(self) -> None:
            self.stuck.set()
            self.free.wait(WITHIN)
            raise RuntimeError("no")

        def disconnect(self) -> None:
            """Nothing is open."""

    nudge = Stuck("stuck")
    nudge()
    assert nudge.stuck.wait(WITHIN)
    begun = time.perf_counter()
    for _ in range(10_000):
        nudge()
    assert time.perf_counter() - begun < 1.0
    nudge.free.set()
    wait_until(lambda: counters.value("nudges_failed", "stuck") > 0)
    nudge.close()


def test_many_threads_begin_one_thread() -> None:
    class Counting(BackgroundNudge):
        sent = 0

        def send(self) -> None:
            Counting.sent += 1

        def disconnect(self) -> None:
            """Nothing is open."""

    nudge = Counting("counting", gap=0.0)
    together = threading.Barrier(8)

    def work() -> None:
        together.wait(WITHIN)
        nudge()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    wait_until(lambda: Counting.sent > 0)
    assert [t.name for t in threading.enumerate()].count("clarion-counting") == 1
    nudge.close()


def test_a_forked_process_has_a_thread_of_its_own() -> None:
    reading, writing = os.pipe()

    class Telling(BackgroundNudge):
        def send(self) -> None:
            os.write(writing, b"x")

        def disconnect(self) -> None:
            """Nothing is open."""

    nudge = Telling("telling")
    nudge()
    assert os.read(reading, 1) == b"x"
    child = os.fork()
    if child == 0:
        nudge()
        time.sleep(WITHIN)  # the parent ends it
        os._exit(1)
    try:
        assert os.read(reading, 1) == b"x"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        nudge.close()
        os.close(reading)
        os.close(writing)


async def test_a_commit_to_a_sqlite_file_wakes(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    engine = open_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
    nudges: asyncio.Queue[None] = asyncio.Queue()
    task = asyncio.create_task(watch(file, lambda: nudges.put_nowait(None)))
    await asyncio.wait_for(nudges.get(), WITHIN)  # for what was there
    for number in range(3):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})
            await asyncio.sleep(3 * listening.GLANCE)
            assert nudges.empty()  # it is not committed
        await asyncio.wait_for(nudges.get(), WITHIN)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    engine.dispose()


async def test_a_commit_that_is_synced_late_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file changes first and the commit counts later, when no write shows any more."""
    file = tmp_path / "x.db"
    open_watching(file).close()
    versions = iter([1, 1, 1, 1])
    monkeypatch.setattr(listening, "data_version", lambda _: next(versions, 2))
    nudges: asyncio.Queue[None] = asyncio.Queue()
    task = asyncio.create_task(watch(file, lambda: nudges.put_nowait(None)))
    await asyncio.wait_for(nudges.get(), WITHIN)
    (tmp_path / "x.db-wal").write_bytes(b"frames")
    await asyncio.wait_for(nudges.get(), WITHIN)
    assert next(versions, None) is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_glance_at_no_file(tmp_path: Path) -> None:
    assert glance(tmp_path / "none") == (0, 0)


def test_backoff_grows_and_is_bounded() -> None:
    waits = [backoff(n) for n in range(1, 12)]
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(0.1)
    assert waits[-1] == listening.LONGEST_BACKOFF
