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

from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from clarion.anonymous import pseudonym_uuid
from clarion.database import Base, open_engine, read_time
from clarion.events import Event
from clarion.losses import KIND
from clarion.outbox import Capture, Delivery
from clarion.subscriptions import Subscriber
from clarion.telemetry import TelemetryState
from clarion.testing import Received, Receiver, Reply
from tests.clarion.plain import add_plain
from tests.clarion.telemetry_sample import switched_on
from tests.flows.killed_programs import ROLLED_BACK, begin

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.flows.killed_programs"])

SUBSCRIBERS = ("a", "b")
TELEMETRY = "/telemetry"
WORKS_WITHIN = 40.0
"""Seconds within which something must be received after a restart."""
ENDS_WITHIN = 60.0


@dataclass
class Arrivals:
    """Every request that came: (subscriber, webhook-id) and when."""

    at: dict[tuple[str, str], list[datetime]] = field(default_factory=dict)
    orders: dict[tuple[str, str], str] = field(default_factory=dict)
    count: int = 0
    telemetry: dict[str, list[tuple[datetime, str]]] = field(default_factory=dict)
    """When each event of telemetry came, and what it was, by uuid."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, request: Received) -> Reply:
        if request.path.startswith(TELEMETRY):
            return self.take_telemetry(request)
        key = (request.path.strip("/"), request.headers["webhook-id"])
        order = json.loads(request.body)["shop"]["order"]["uuid"]
        with self.changed:
            self.at.setdefault(key, []).append(datetime.now(UTC))
            self.orders[key] = order
            self.count += 1
            self.changed.notify_all()
        return Reply()

    def take_telemetry(self, request: Received) -> Reply:
        batch = json.loads(request.body)["batch"]
        with self.changed:
            for event in batch:
                came = (datetime.now(UTC), json.dumps(event, sort_keys=True))
                self.telemetry.setdefault(event["uuid"], []).append(came)
        return Reply(200, (), b'{"status":"Ok"}')

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
        self.accepted = directory / "accepted"
        self.accepted.touch()
        self.held: dict[str, set[tuple[int, str]]] = {"plain": set(), KIND: set()}
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
        switched_on(self.engine, self.receiver.url.rstrip("/") + TELEMETRY)
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
            for kind, id, token in self.leases():
                self.held[kind].add((id, token))

    def in_flight(self, kind: str) -> int:
        """How many leases were held at the kills: the most that may be received twice."""
        return len(self.held[kind])

    def leases(self) -> list[tuple[str, int, str]]:
        query = (
            "SELECT s.kind, d.id, d.lease_token FROM deliveries d"
            " JOIN subscribers s ON s.id = d.subscriber_id WHERE d.lease_token IS NOT NULL"
        )
        with self.engine.execution_options(read_only=True).connect() as connection:
            return [(row[0], row[1], str(row[2])) for row in connection.execute(text(query))]

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
                    " JOIN subscribers s ON s.id = d.subscriber_id WHERE s.kind = 'plain'"
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
        held = self.in_flight("plain")
        assert duplicates <= held, f"{duplicates} duplicates, {held} were in flight"
        return {
            "kills": self.kills,
            "events": len(orders),
            "received": self.arrivals.count,
            "duplicates": duplicates,
            "in flight at the kills": held,
            **self.reckon_telemetry(),
        }

    def reckon_telemetry(self) -> dict[str, int]:
        """The same of telemetry, by the uuid that it is sent under. Raises AssertionError."""
        ends: dict[str, datetime] = {}
        with Session(self.engine.execution_options(read_only=True)) as session:
            key = session.get_one(TelemetryState, 1).key
            ours = select(Subscriber.id).where(Subscriber.kind == KIND)
            told = select(Event.uuid, Capture.uuid, Delivery.state, Delivery.finished_at)
            told = told.select_from(Delivery).where(Delivery.subscriber_id.in_(ours))
            told = told.outerjoin(Event.__table__, Event.sequence == Delivery.event_sequence)
            told = told.outerjoin(Capture, Capture.id == Delivery.capture_id)
            for recorded, captured, state, finished_at in session.execute(told):
                assert state == "delivered"
                ends[str(captured or pseudonym_uuid(key, recorded))] = finished_at
            rendered = session.scalars(select(Event.uuid).where(Event.telemetry.is_not(None))).all()
            captures = set(map(str, session.scalars(select(Capture.uuid))))
        promised = {str(pseudonym_uuid(key, uuid)) for uuid in rendered}
        accepted = set(self.accepted.read_text().split())
        assert promised, "nothing that was recorded has telemetry"
        assert accepted, "no event was accepted"
        assert not (lost := accepted - captures), f"{len(lost)} of {len(accepted)} accepted and not stored"
        came = self.arrivals.telemetry
        assert not (lost := (promised | captures) - came.keys()), f"{len(lost)} never came"
        assert not (invented := came.keys() - (promised | captures)), f"never stored: {sorted(invented)[:3]}"
        assert ends.keys() == came.keys()
        assert all(len({what for _, what in times}) == 1 for times in came.values()), "one uuid, two messages"
        late = [uuid for uuid, times in came.items() if max(at for at, _ in times) > ends[uuid]]
        assert not late, f"{len(late)} were sent again after they were settled"
        duplicates = sum(len(times) - 1 for times in came.values())
        held = self.in_flight(KIND)
        assert duplicates <= held, f"{duplicates} duplicates of telemetry, {held} were in flight"
        return {
            "events of telemetry": len(came),
            "of which send_event accepted": len(accepted),
            "duplicates of telemetry": duplicates,
        }


def end(process: ForkServerProcess) -> None:
    """SIGKILL to a process and its children; nothing if it has ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()
    process.join(10)


def say(what: str, numbers: Mapping[str, int], write: Callable[[str], object] = print) -> None:
    write(f"{what}: " + ", ".join(f"{value} {name}" for name, value in numbers.items()))
