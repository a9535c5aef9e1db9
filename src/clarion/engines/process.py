"""A relay as a process of its own: ``clarion relay``, beside the application, as many as wanted."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from clarion.egress import Egress, EgressPolicy
from clarion.engines import GRACE, loop_factory, open_relay_engine, relax_gc
from clarion.engines.listening import listen, watch
from clarion.observe import log
from clarion.outbox import LEASE
from clarion.outbox.recording import utc_now
from clarion.relay import NORMAL, Limits, Relay

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_relay(
    url: str | URL,
    policy: EgressPolicy,
    *,
    clock: Callable[[], datetime] = utc_now,
    limits: Limits = NORMAL,
    lease: timedelta = LEASE,
    grace: float = GRACE,
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Deliver until SIGTERM or SIGINT, let what is in flight end, and return 0, the exit status.

    What has not ended ``grace`` seconds after the signal is given back to other relays. ``ready`` is
    called once signals are handled. A database that is away, at the start too, is waited for.

    Raises:
        ConfigurationError: the URL is none, or an extra is missing.
    """

    async def main() -> None:
        relax_gc()
        engine = open_relay_engine(url)
        stop = asyncio.Event()
        try:
            with stopping_on_signals(stop):
                async with Egress(policy) as egress:
                    relay = Relay(engine, egress, clock=clock, limits=limits, lease=lease)
                    ready()
                    await deliver(relay, engine, stop, grace)
        finally:
            engine.dispose()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
    return 0


async def deliver(relay: Relay, engine: Engine, stop: asyncio.Event, grace: float) -> None:
    """Run ``relay`` until ``stop``, woken by what other processes commit to ``engine``'s database."""
    waker = asyncio.create_task(wake(engine, relay.nudge))
    waker.add_done_callback(report)
    try:
        await relay.run(stop, grace=grace)
    finally:
        waker.cancel()
        await asyncio.gather(waker, return_exceptions=True)


async def wake(engine: Engine, nudge: Callable[[], None]) -> None:
    if engine.dialect.name == "postgresql":
        await listen(engine.url, nudge)
    if engine.url.database not in (None, "", ":memory:"):
        await watch(Path(str(engine.url.database)), nudge)


def report(waker: "asyncio.Task[None]") -> None:
    if not waker.cancelled() and (error := waker.exception()) is not None:
        log.error("nothing wakes this relay; it looks once a second", exc_info=error)


@contextmanager
def stopping_on_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
