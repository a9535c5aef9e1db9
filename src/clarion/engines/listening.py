"""Wake-up across processes: LISTEN and NOTIFY on PostgreSQL, a glance at the file on SQLite.

All of it is only for speed. A wake-up that is lost costs at most the second until the relay looks by itself.
"""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy.engine import URL

from clarion.database import normalise_url
from clarion.engines import POSTGRESQL_OPTIONS, require
from clarion.observe import counters, log

CHANNEL = "clarion_deliveries"
"""The PostgreSQL channel; notifications on it carry nothing."""

GAP = 0.005
"""Seconds between two wake-ups of one process: what is committed meanwhile shares the next one."""

GLANCE = 0.02
"""Seconds between glances at a SQLite file. Measured: a glance is 2.5 us, and waking up fifty times a second
0.9 % of a core."""

RESTLESS = 1.0
"""Seconds after a change of the file in which SQLite is asked (3 us): a slow disk syncs a commit in that."""

LONGEST_BACKOFF = 2.0
"""Seconds between attempts to reach a server that is gone."""


def connection_string(url: str | URL) -> str:
    """The URL as libpq takes it."""
    return normalise_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


starting = threading.Lock()
if hasattr(os, "register_at_fork"):  # a fork while another thread holds it would leave it held for ever
    os.register_at_fork(
        before=starting.acquire, after_in_parent=starting.release, after_in_child=starting.release
    )


class BackgroundNudge:
    """A nudge that is carried out in a small thread, so that whoever commits never waits for it.

    A burst of nudges is one wake-up, at most one every `GAP` seconds. A failure is counted
    (``nudges_failed``), logged once, and tried again with backoff; it never reaches the caller. The
    thread begins with the first nudge, so a process may fork before.
    """

    def __init__(self, name: str, *, gap: float = GAP) -> None:
        self.name = name
        self.gap = gap
        self._changed = threading.Condition()
        self._pending = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._process = 0

    def nudge(self) -> None:
        """Something was committed. Returns at once and does not raise."""
        if self._process != os.getpid():
            self._start()
        if self._pending:
            return
        with self._changed:
            self._pending = True
            self._changed.notify_all()

    __call__ = nudge

    def close(self) -> None:
        """End the thread, after one last attempt if a nudge is still to be carried out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None and self._process == os.getpid():
            self._thread.join(LONGEST_BACKOFF)

    def send(self) -> None:
        """Wake the relays now. Called in the thread."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Drop what `send` keeps open. Called in the thread; does not raise."""
        raise NotImplementedError

    def _start(self) -> None:
        """Begin the thread of this process; one that was forked has not inherited it."""
        with starting:
            if self._process == os.getpid():
                return
            self._changed, self._pending = threading.Condition(), False
            self._thread = threading.Thread(target=self._run, name=f"clarion-{self.name}", daemon=True)
            self._thread.start()
            self._process = os.getpid()

    def _run(self) -> None:
        failures = 0
        while self._wait_for_nudge():
            try:
                self.send()
                failures = 0
                self._wait_for_close(self.gap)
            except Exception as error:
                failures += 1
                self._failed(error, failures)
        self.disconnect()

    def _wait_for_nudge(self) -> bool:
        """Whether there is one to carry out; False when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closed)
            pending, self._pending = self._pending, False
            return pending

    def _wait_for_close(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, seconds)

    def _failed(self, error: Exception, failures: int) -> None:
        counters.add("nudges_failed", self.name)
        if failures == 1:
            log.warning(
                "relays cannot be woken; they will look by themselves",
                through=self.name,
                error=type(error).__name__,
            )
        self.disconnect()
        if not self._wait_for_close(backoff(failures)):
            self._pending = True


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return float(min(LONGEST_BACKOFF, 0.05 * 2 ** min(failures, 10)))


class Notifier(BackgroundNudge):
    """Wakes the relays that listen on a PostgreSQL database: ``Recording(nudge=Notifier(url))``.

    Sent on a connection of its own, outside the business transaction: NOTIFY within one would make
    commits wait for each other.

    Raises:
        ConfigurationError: psycopg is not installed.
    """

    def __init__(self, url: str | URL, *, gap: float = GAP) -> None:
        require("psycopg", "postgres")
        super().__init__("notify", gap=gap)
        self._target = connection_string(url)
        self._connection: Any = None

    def send(self) -> None:
        import psycopg

        if self._connection is None:
            self._connection = psycopg.connect(self._target, autocommit=True, **POSTGRESQL_OPTIONS)
        self._connection.execute(f"NOTIFY {CHANNEL}")

    def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


async def listen(url: str | URL, nudge: Callable[[], None]) -> NoReturn:
    """Call ``nudge`` for each NOTIFY, until cancelled; a lost connection is made anew, with backoff.

    After each connection made it nudges once, for what was not heard meanwhile.
    """
    import psycopg

    failures = 0
    while True:
        try:
            connection = await psycopg.AsyncConnection.connect(
                connection_string(url), autocommit=True, **POSTGRESQL_OPTIONS
            )
            async with connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                failures = 0
                nudge()
                async for _ in connection.notifies():
                    nudge()
        except (psycopg.Error, OSError) as error:
            if failures == 0:
                log.warning("cannot listen; looking once a second instead", error=type(error).__name__)
            failures += 1
            counters.add("database_lost", "listen")
        await asyncio.sleep(backoff(failures))


async def watch(path: Path, nudge: Callable[[], None]) -> NoReturn:
    """Call ``nudge`` when a SQLite database was written to by whatever process, until cancelled.

    What a commit writes to the write-ahead log shows in that file's size and time at once, but the commit
    only counts when it is synced. So a changed file is the occasion to ask SQLite, for `RESTLESS` seconds,
    whether something was committed, and in quiet nothing is asked. Nudges once at the start, for what
    was written before the first glance.
    """
    journal = path.with_name(path.name + "-wal")
    seen, until = glance(journal), 0.0
    with closing(open_watching(path)) as connection:
        version = data_version(connection)
        nudge()
        while True:
            await asyncio.sleep(GLANCE)
            if (now := glance(journal)) != seen:
                seen, until = now, time.monotonic() + RESTLESS
            if time.monotonic() < until and (found := data_version(connection)) not in (version, None):
                version = found
                nudge()


def open_watching(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None)


def data_version(connection: sqlite3.Connection) -> int | None:
    """A number that changes with every commit of another connection; None if the file is busy."""
    try:
        return int(connection.execute("PRAGMA data_version").fetchone()[0])
    except sqlite3.OperationalError:
        return None


def glance(path: Path) -> tuple[int, int]:
    """The size of a file and when it was written, in nanoseconds; zeros if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
