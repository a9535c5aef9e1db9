"""What a kill test needs: a receiver that keeps count, programs to kill, and the reckoning at the end."""

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from clarion.database import Base, open_engine, read_time
from clarion.testing import Received, Receiver, Reply
from tests.clarion.plain import add_plain
from tests.flows.killed_programs import ROLLED_BACK, begin

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.flows.killed_programs"])

SUBSCRIBERS = ("a", "b")
WORKS_WITHIN = 40.0
"""Seconds within which something must be received after a restart."""
ENDS_WITHIN = 60.0


@dataclass
class Arrivals:
    """Every request that came: (subscriber, webhook-id) and when."""

    at: dict[tuple[str, str], list[datetime]] = field(default_factory=dict)
    orders: dict[tuple[str, str], str] = field(default_factory=dict)
    count: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, request: Received) -> Reply:
        key = (request.path.strip("/"), request.headers["webhook-id"])
        order = json.loads(request.body)["shop"]["order"]["uuid"]
        with self.changed:
            self.at.setdefault(key, []).append(datetime.now(UTC))
            self.orders[key] = order
            self.count += 1
            self.changed.notify_all()
        return Reply()

    def wait_for_more(self, count: int, seconds: float = WORKS_WITHIN) -> None:
        """Wait until ``count`` more have come. Raises TimeoutError."""
        with self.changed:
            goal = self.count + count
            if not self.changed.wait_for(lambda: self.count >= goal, seconds):
                raise TimeoutError(f"nothing was received for {seconds} s")


class Scene:
    """A database with two subscribers, a receiver, and programs that are started and killed."""

    def __init__(self, url: str, seed: int, directory: Path) -> None:
        self.url = url
        self.random = random.Random(seed)
        self.directory = directory
        self.arrivals = Arrivals()
        self.receiver = Receiver(self.arrivals.take)
        self.kills = 0
        self.held: set[tuple[int, str]] = set()
        self.processes: list[ForkServerProcess] = []
        self.engine: Engine = open_engine(url)

    def __enter__(self) -> Self:
        self.receiver.__enter__()
        Base.metadata.create_all(self.engine)
        with Session(self.engine) as session:
            session.execute(text("CREATE TABLE orders (uuid VARCHAR(64) PRIMARY KEY)"))
            session.commit()
            for name in SUBSCRIBERS:
                add_plain(
                    session, f"{self.receiver.url}{name}", "shop:order:*", retry_schedule=[0] + [0.5] * 9
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            end(process)
        self.engine.dispose()
        self.receiver.__exit__(kind, error, trace)

    def start(self, program: Callable[..., None], *arguments: object) -> ForkServerProcess:
        log = self.directory / f"{len(self.processes)}-{program.__name__}.log"
        process = context.Process(target=begin, args=(str(log), program, arguments))
        process.start()
        self.processes.append(process)
        return process

    def some_time(self, longest: float = 0.5) -> None:
        """Let everything work for a random while: the moment of a kill is the point of the test."""
        time.sleep(self.random.uniform(0, longest))

    def kill(self, process: ForkServerProcess, *, relays: bool = True) -> None:
        """SIGKILL to a program and its children. If it was one that relays, see what it had in flight."""
        end(process)
        self.killed(relays=relays)

    def killed(self, *, relays: bool = True) -> None:
        self.kills += 1
        if relays:
            self.held |= set(self.leases())

    @property
    def in_flight(self) -> int:
        """How many leases were held at the kills: the most that may be received twice."""
        return len(self.held)

    def leases(self) -> list[tuple[int, str]]:
        query = "SELECT id, lease_token FROM deliveries WHERE lease_token IS NOT NULL"
        with self.engine.execution_options(read_only=True).connect() as connection:
            return [(row[0], str(row[1])) for row in connection.execute(text(query))]

    def pending(self) -> int:
        query = "SELECT count(*) FROM deliveries WHERE state = 'pending'"
        with self.engine.execution_options(read_only=True).connect() as connection:
            return int(connection.execute(text(query)).scalar_one())

    def wait_until_nothing_is_pending(self) -> None:
        deadline = time.monotonic() + ENDS_WITHIN
        left = -1
        while time.monotonic() < deadline:
            with suppress(DBAPIError):
                left = self.pending()
                if left == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"{left} deliveries are still pending after {ENDS_WITHIN} s")

    def reckon(self) -> dict[str, int]:
        """Compare what the database says with what was received; returns the numbers.

        Raises:
            AssertionError: something was lost, invented, or sent again after it was settled.
        """
        with self.engine.execution_options(read_only=True).connect() as connection:
            orders = set(connection.execute(text("SELECT uuid FROM orders")).scalars())
            events = list(connection.execute(text("SELECT order_uuid FROM events")).scalars())
            finished = connection.execute(
                text(
                    "SELECT d.subscriber_id, e.order_uuid, d.state, d.finished_at, d.attempts"
                    " FROM deliveries d JOIN events e ON e.sequence = d.event_sequence"
                )
            ).all()
        assert Counter(events) == Counter(orders), "a business row without its event, or the reverse"
        received = {name: set[str]() for name in SUBSCRIBERS}
        for (subscriber, _), order in self.arrivals.orders.items():
            received[subscriber].add(order)
        for name in SUBSCRIBERS:
            assert not (lost := orders - received[name]), f"{len(lost)} of {len(orders)} lost"
            assert not (invented := received[name] - orders), f"never committed: {sorted(invented)[:3]}"
            assert not any(order.startswith(ROLLED_BACK) for order in received[name])
        assert len(self.arrivals.at) == len(SUBSCRIBERS) * len(orders), "an event came with two webhook-ids"
        ends = {(SUBSCRIBERS[row[0] - 1], row[1]): read_time(row[3]) for row in finished}
        assert {row[2] for row in finished} == {"delivered"}
        late = [k for k, at in self.arrivals.at.items() if max(at) > ends[k[0], self.arrivals.orders[k]]]
        assert not late, f"{len(late)} were sent again after they were settled"
        duplicates = self.arrivals.count - len(self.arrivals.at)
        assert duplicates <= self.in_flight, f"{duplicates} duplicates, {self.in_flight} were in flight"
        return {
            "kills": self.kills,
            "events": len(orders),
            "received": self.arrivals.count,
            "duplicates": duplicates,
            "in flight at the kills": self.in_flight,
        }


def end(process: ForkServerProcess) -> None:
    """SIGKILL to a process and its children; nothing if it has ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()
    process.join(10)


def say(what: str, numbers: Mapping[str, int], write: Callable[[str], object] = print) -> None:
    write(f"{what}: " + ", ".join(f"{value} {name}" for name, value in numbers.items()))
