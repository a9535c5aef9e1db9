"""Commit to received: how long after a commit the request is at the receiver, at a steady rate.

The application and its embedded relay are one process, as in the default deployment.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import sessionmaker

from bench.sink import take_arrivals
from bench.worlds import World, account
from clarion.egress import EgressPolicy
from clarion.engines.embedded import EmbeddedEngine
from clarion.outbox import Recording, record

SECONDS = 8
RATES = (50, 200)


def run(world: World, sink: str) -> dict[str, float]:
    """p50 and p99 at each rate; the plain names are the worse of them."""
    world.webhooks(f"{sink}/latency")
    found: dict[str, float] = {}
    with running_engine(world) as engine:
        for rate in RATES:
            waits = steady(world, engine, sink, rate)
            found[f"latency.p50_ms.at_{rate}"] = percentile(waits, 0.5)
            found[f"latency.p99_ms.at_{rate}"] = percentile(waits, 0.99)
    for name in ("p50_ms", "p99_ms"):
        found[f"latency.{name}"] = max(found[f"latency.{name}.at_{rate}"] for rate in RATES)
    return found


@contextmanager
def running_engine(world: World) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(world.url, policy=EgressPolicy.of(["127.0.0.0/8"]))
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def steady(world: World, engine: EmbeddedEngine, sink: str, rate: int) -> list[float]:
    """Milliseconds from commit to arrival, of ``rate`` events a second for `SECONDS`."""
    sessions = sessionmaker(world.engine, info=Recording(nudge=engine.nudge).info())
    committed: dict[str, int] = {}

    def recorder() -> None:
        started = time.monotonic()
        for number in range(rate * SECONDS):
            if (pause := started + number / rate - time.monotonic()) > 0:
                time.sleep(pause)
            with sessions() as session:
                event = account(number)
                record(session, event)
                session.commit()
                committed[f"msg_{event.uuid.hex}"] = time.monotonic_ns()

    take_arrivals(sink)
    thread = threading.Thread(target=recorder)
    thread.start()
    thread.join()
    arrived: dict[str, int] = {}
    deadline = time.monotonic() + 10
    while len(arrived) < len(committed) and time.monotonic() < deadline:
        time.sleep(0.1)
        arrived |= take_arrivals(sink)
    assert len(arrived) == len(committed), f"{len(arrived)} of {len(committed)} arrived"
    # the relay may be quicker than the return of commit(): never less than nothing
    return [max(arrived[key] - at, 0) / 1e6 for key, at in committed.items()]


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
