"""The embedded engine: a relay in a thread of the application. No other process, no broker."""

import asyncio
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from clarion.egress import Egress, EgressPolicy
from clarion.engines import GRACE, loop_factory, open_relay_engine
from clarion.engines.process import deliver
from clarion.errors import ClarionError, ConfigurationError
from clarion.observe import log
from clarion.outbox import LEASE
from clarion.outbox.recording import utc_now
from clarion.relay import NORMAL, Limits, Relay

RESTART = 1.0
"""Seconds before a relay that failed is begun again."""


class EmbeddedEngine:
    """Delivers in a thread between `start` and `stop`; also a context manager.

        with EmbeddedEngine("sqlite:///app.db", EgressPolicy()) as engine:
            sessions = sessionmaker(database, info=Recording(nudge=engine.nudge).info())

    ``database`` is a URL, and then the engine has connections of its own, or a SQLAlchemy engine. With
    ``listening`` it is also woken by what other processes commit. Start it after a fork, in each worker.
    A process that ends without `stop` is a process that was killed: nothing is lost, and what was in
    flight is sent again when its lease ends. Where gevent replaces threads, run ``clarion relay`` instead.

    Raises:
        ConfigurationError: the URL is none, or an extra is missing.
    """

    def __init__(
        self,
        database: Engine | URL | str,
        policy: EgressPolicy,
        *,
        clock: Callable[[], datetime] = utc_now,
        limits: Limits = NORMAL,
        lease: timedelta = LEASE,
        grace: float = GRACE,
        listening: bool = False,
    ) -> None:
        self._own = not isinstance(database, Engine)
        self.engine = database if isinstance(database, Engine) else open_relay_engine(database)
        self.egress = Egress(policy)
        self.relay = Relay(self.engine, self.egress, clock=clock, limits=limits, lease=lease)
        self.grace = grace
        self.listening = listening
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def nudge(self) -> None:
        """Something was committed: look now. For ``Recording(nudge=...)``; from any thread, never raises."""
        self.relay.nudge()

    def start(self) -> None:
        """Begin to deliver; returns when the thread is ready.

        Raises:
            ClarionError: it runs already.
            ConfigurationError: gevent has put its greenlets in the place of threads.
        """
        if threads_are_greenlets():
            raise ConfigurationError(
                "gevent has replaced the threads of this process, where an event loop would stop all others: "
                "run `clarion relay` beside it instead of the embedded engine"
            )
        with self._lock:
            if self.running:
                raise ClarionError("this embedded engine runs already")
            self._ready.clear()
            self._error = None
            self._thread = threading.Thread(target=self._run, name="clarion-engine", daemon=True)
            self._thread.start()
            self._ready.wait()
            if self._error is not None:
                raise self._error

    def stop(self) -> None:
        """Claim nothing more, let what is in flight end (``grace`` seconds at most), and end the thread."""
        with self._lock:
            thread, loop, stop = self._thread, self._loop, self._stop
            if thread is not None and loop is not None and stop is not None and thread.is_alive():
                loop.call_soon_threadsafe(stop.set)
                thread.join()
            self._thread = None
        if self._own:
            self.engine.dispose()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                self._loop = runner.get_loop()
                runner.run(self._deliver())
        except BaseException as error:
            self._error = error
            if self._ready.is_set():
                raise
        finally:
            self._ready.set()

    async def _deliver(self) -> None:
        self._stop = stop = asyncio.Event()
        async with self.egress:
            self._ready.set()
            while not stop.is_set():
                try:
                    await self._relay_until(stop)
                except Exception:
                    if not threading.main_thread().is_alive():  # the interpreter is going away
                        return
                    log.exception("the relay failed; beginning again", seconds=RESTART)
                    await wait_for_stop(stop, RESTART)

    async def _relay_until(self, stop: asyncio.Event) -> None:
        if self.listening:
            await deliver(self.relay, self.engine, stop, self.grace)
        else:
            await self.relay.run(stop, grace=self.grace)


def threads_are_greenlets() -> bool:
    """Whether ``gevent.monkey`` has patched threads; gevent is not imported to find out."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


async def wait_for_stop(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
