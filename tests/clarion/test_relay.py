"""The relay over real HTTP and real databases: fairness, lanes, stopping, faulty deliverees, batches."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy import event as listen
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Mapped, Session, mapped_column

from clarion import relay as relay_module
from clarion.catalogue import catalogue
from clarion.egress import Egress, EgressPolicy
from clarion.errors import Reason
from clarion.messages import Answer, Message, Request, Response
from clarion.outbox import Attempt, Claim, Delivery, Recording, record
from clarion.outbox.recording import utc_now
from clarion.outcomes import Dead, Delivered, Outcome, Retry
from clarion.relay import Lane, Limits, Relay, check_verdicts
from clarion.subscriptions import Subscriber, subscribe
from clarion.testing import LOOPBACK, FrozenClock, Received, Receiver, Reply, drain
from tests.clarion.plain import NOW, add_plain
from tests.clarion.sample import ABOUT_ORDER, OrderEvent

WITHIN = 20.0
"""Seconds any of this may take before the test fails."""


@dataclass(frozen=True)
class OddDeliveree:
    """Posts a JSON list of the messages' ids, or fails where ``fault`` says."""

    url: str
    fault: str
    batch: int = 1

    def request(self, messages: Sequence[Message], now: datetime) -> Request:
        if self.fault == "request":
            raise RuntimeError("no request")
        return Request(self.url, json.dumps([m.id for m in messages]).encode(), timeout=10)

    def judge(self, messages: Sequence[Message], answer: Answer, now: datetime) -> Sequence[Outcome]:
        verdicts: list[Any] = [Delivered() for _ in messages]
        match self.fault:
            case "judge":
                raise RuntimeError("no verdict")
            case "too few":
                verdicts.pop()
            case "nonsense":
                verdicts[0] = True
            case "never":
                verdicts[0] = Retry(Reason.THROTTLED, "later", float("nan"))
            case "last":
                verdicts[-1] = Retry(Reason.HTTP_5XX, "that one not")
        return verdicts


class Odd(Subscriber):
    __mapper_args__ = {"polymorphic_identity": "odd"}

    target: Mapped[str | None] = mapped_column(use_existing_column=True)
    fault: Mapped[str | None] = mapped_column()
    size: Mapped[int | None] = mapped_column()

    def deliveree(self) -> OddDeliveree:
        if self.fault == "deliveree":
            raise RuntimeError("none can be made")
        return OddDeliveree(self.target or "", self.fault or "", self.size or 1)


def add_odd(engine: Engine, target: str, fault: str = "", size: int = 1) -> int:
    with Session(engine) as session:
        odd = Odd(name="odd", target=target, fault=fault, size=size, created_at=NOW)
        session.add(odd)
        session.flush()
        subscribe(session, catalogue(["tests.clarion.sample"]), odd, [("shop:order:*", "")])
        session.commit()
        return odd.id


def add(engine: Engine, target: str, **values: Any) -> int:
    with Session(engine) as session:
        return add_plain(session, target, "shop:order:*", **values).id


def place(engine: Engine, count: int = 1, clock: Callable[[], datetime] = lambda: NOW) -> None:
    with Session(engine, info=Recording(clock).info()) as session:
        record(session, *(OrderEvent("placed", **ABOUT_ORDER | {"order_number": n}) for n in range(count)))
        session.commit()


def states(engine: Engine) -> list[str]:
    with Session(engine) as session:
        return list(session.scalars(select(Delivery.state).order_by(Delivery.id)))


class Gate:
    """A reply that is withheld until the gate is opened, for the paths that ``holds`` names."""

    def __init__(self, *holds: str) -> None:
        self.holds = holds
        self.waiting: list[str] = []
        self.most = 0
        self._changed = threading.Condition()
        self._open = False

    def __call__(self, request: Received) -> Reply:
        if request.path.strip("/") in self.holds:
            with self._changed:
                self.waiting.append(request.path)
                self.most = max(self.most, len(self.waiting))
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._open, WITHIN)
                self.waiting.pop()
        return Reply()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.waiting) >= count, WITHIN)

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()


@asynccontextmanager
async def running(
    engine: Engine, *, grace: float = WITHIN, clock: Callable[[], datetime] = lambda: NOW, **values: Any
) -> AsyncIterator[tuple[Relay, "asyncio.Task[None]", asyncio.Event]]:
    """A relay that runs until the block ends, or until the block stops it."""
    stop = asyncio.Event()
    async with Egress(EgressPolicy.of(LOOPBACK)) as egress:
        relay = Relay(engine, egress, clock=clock, **values)
        task = asyncio.create_task(relay.run(stop, grace=grace))
        try:
            yield relay, task, stop
        finally:
            stop.set()
            await asyncio.wait_for(task, WITHIN)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate("slow")
    yield gate
    gate.open()


# -- fairness and lanes


async def test_a_receiver_that_hangs_holds_up_nobody_else(engine: Engine, gate: Gate) -> None:
    with Receiver(gate) as receiver:
        add(engine, receiver.url + "slow")
        add(engine, receiver.url + "fast")
        place(engine, 60)
        async with running(engine, limits=Limits(in_flight=50, lane=3)):
            await asyncio.to_thread(receiver.wait_for, 60, WITHIN)
            assert {request.path for request in receiver.received} == {"/fast"}
            assert len(gate.waiting) == gate.most == 3  # its lane, and no more
            gate.open()
            await asyncio.to_thread(receiver.wait_for, 120, WITHIN)
    assert states(engine) == ["delivered"] * 120


async def test_what_finds_no_room_is_delivered_when_there_is_room(engine: Engine) -> None:
    with Receiver() as receiver:
        add(engine, receiver.url)
        place(engine, 250)
        async with running(engine, limits=Limits(in_flight=2, lane=1, widest_lane=2)):
            await asyncio.to_thread(receiver.wait_for, 250, WITHIN)
    assert states(engine) == ["delivered"] * 250


class Held:
    """A sender whose requests are answered when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[Answer]] = []

    async def send(self, request: Request) -> Answer:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return await self.waiting[-1]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(WITHIN):
            while len(self.waiting) < count:
                await asyncio.sleep(0)


class Slow(Relay):
    """Whatever is in flight is answered and settled before a claim that found nothing is over."""

    async def _claim(self, after: int, free: int) -> Claim:
        found = await super()._claim(after, free)
        if not found.deliveries:
            async with asyncio.timeout(WITHIN):
                while self._sending or self._unsettled:
                    answer(self.sender)
                    await asyncio.sleep(0)
        return found


def answer(sender: Any) -> None:
    for one in sender.waiting:
        if not one.done():
            one.set_result(Response(200, {}, b"", 0.0))


async def test_a_drain_does_not_end_over_what_had_no_room_when_it_looked(engine: Engine) -> None:
    add(engine, "http://127.0.0.1:9/")
    place(engine, 2)
    add(engine, "http://127.0.0.1:9/")
    place(engine, 1)
    sender = Held()
    draining = asyncio.create_task(Slow(engine, sender, clock=lambda: NOW, limits=Limits(lane=1)).drain())
    await sender.until(2)
    sender.waiting[1].set_result(Response(200, {}, b"", 0.0))
    while not draining.done():
        if len(sender.waiting) > 2:
            answer(sender)
        await asyncio.sleep(0)
    assert await draining == 4


async def test_the_next_are_claimed_while_the_last_are_being_sent(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only once what has been sent is settled, and not only at the next look."""
    settled: list[int] = []

    def settle(engine: Engine, settlements: Sequence[Any], now: datetime) -> int:
        settled.append(len(settlements))
        return relay_settle(engine, settlements, now)

    relay_settle = relay_module.settle
    monkeypatch.setattr(relay_module, "settle", settle)
    monkeypatch.setattr(relay_module, "BATCH", 6)
    monkeypatch.setattr(relay_module, "GATHER", 2.0)
    monkeypatch.setattr(relay_module, "POLL", 60.0)
    add(engine, "http://127.0.0.1:9/")
    place(engine, 8)
    sender, stop = Held(), asyncio.Event()
    running = asyncio.create_task(Relay(engine, sender, clock=lambda: NOW, limits=Limits(lane=4)).run(stop))
    await sender.until(4)
    for answer in sender.waiting[:2]:
        answer.set_result(Response(200, {}, b"", 0.0))
    await sender.until(8)
    assert settled == []
    for answer in sender.waiting[2:]:
        answer.set_result(Response(200, {}, b"", 0.0))
    stop.set()
    await running
    assert states(engine) == ["delivered"] * 8


def test_a_lane_widens_by_one_and_halves() -> None:
    lane = Lane(4)
    lane.learn([Delivered()], widest=5)
    lane.learn([Delivered()], widest=5)
    assert lane.width == 5
    lane.learn([Delivered(), Retry(Reason.TIMEOUT)], widest=5)
    assert lane.width == 2
    for _ in range(3):
        lane.learn([Dead(Reason.GONE)], widest=5)
    assert lane.width == 1
    lane.taken = 3
    assert lane.room == 0


def test_a_lanes_room_is_in_deliveries() -> None:
    assert Lane(4, batch=100, taken=1).room == 300


def test_a_lane_that_rests_has_no_room_until_it_is_over() -> None:
    lane = Lane(1, batch=100, rests_until=NOW)
    assert lane.room_at(NOW - timedelta(seconds=1)) == 0
    assert lane.room_at(NOW) == 100


@pytest.mark.parametrize("fault", ["", "request", "judge"])
async def test_lanes_are_free_again_whatever_came_of_an_attempt(engine: Engine, fault: str) -> None:
    with Receiver() as receiver:
        add_odd(engine, receiver.url, fault)
        place(engine, 30)
        async with running(engine, limits=Limits(in_flight=10, lane=2)) as (relay, _, _):
            await wait_until(lambda: "pending" not in states(engine))
            await wait_until(lambda: not any(lane.taken for lane in relay._lanes.values()))


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.01)


# -- stopping


async def test_stopping_lets_what_is_in_flight_end(engine: Engine, gate: Gate) -> None:
    with Receiver(gate) as receiver:
        add(engine, receiver.url + "slow")
        place(engine)
        async with running(engine) as (_, task, stop):
            await asyncio.to_thread(gate.wait_for, 1)
            stop.set()
            place(engine)  # nothing is claimed any more
            await asyncio.sleep(0)
            assert not task.done()
            gate.open()
            await asyncio.wait_for(task, WITHIN)
        assert states(engine) == ["delivered", "pending"]
        assert len(receiver.received) == 1


async def test_what_does_not_end_in_time_is_given_back(engine: Engine, gate: Gate) -> None:
    with Receiver(gate) as receiver:
        add(engine, receiver.url + "slow")
        place(engine)
        async with running(engine, grace=0.05) as (relay, task, stop):
            await asyncio.to_thread(gate.wait_for, 1)
            stop.set()
            await asyncio.wait_for(task, WITHIN)
            assert not any(lane.taken for lane in relay._lanes.values())
            assert not relay._sending
        with Session(engine) as session:
            delivery = session.scalars(select(Delivery)).one()
            assert (delivery.state, delivery.lease_token, delivery.due_at) == ("pending", None, NOW)
            assert delivery.attempts == 0
        gate.open()
        assert await asyncio.to_thread(drain, engine, clock=lambda: NOW) == 1


async def test_what_may_be_cut_is_given_back_early_and_the_others_end(
    engine: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Odd, "grace", 0.05)
    with Receiver(gate) as receiver:
        add_odd(engine, receiver.url + "slow")
        add(engine, receiver.url + "slow")
        place(engine)
        async with running(engine) as (relay, task, stop):
            await asyncio.to_thread(gate.wait_for, 2)
            assert claimable(engine) == 0
            stop.set()
            while claimable(engine) == 0:
                await asyncio.sleep(0.01)
            assert not task.done()
            gate.open()
            await asyncio.wait_for(task, WITHIN)
            assert not any(lane.taken for lane in relay._lanes.values())
        assert states(engine) == ["pending", "delivered"]
        assert await asyncio.to_thread(drain, engine, clock=lambda: NOW) == 1


async def test_a_cancelled_relay_leaves_no_task_behind(engine: Engine, gate: Gate) -> None:
    with Receiver(gate) as receiver:
        add(engine, receiver.url + "slow")
        place(engine)
        before = asyncio.all_tasks()
        async with Egress(EgressPolicy.of(LOOPBACK)) as egress:
            task = asyncio.create_task(Relay(engine, egress, clock=lambda: NOW).run(asyncio.Event()))
            await asyncio.to_thread(gate.wait_for, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, WITHIN)
        assert asyncio.all_tasks() == before
        assert claimable(engine) == 1
        gate.open()


def claimable(engine: Engine) -> int:
    with Session(engine) as session:
        return len(session.scalars(select(Delivery).where(Delivery.lease_token.is_(None))).all())


# -- waking


async def test_a_nudge_is_never_lost(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "POLL", 3600.0)  # only nudges wake it
    with Receiver() as receiver:
        add(engine, receiver.url)
        async with running(engine, clock=utc_now) as (relay, _, _):
            info = Recording(nudge=relay.nudge).info()

            def commit_many() -> None:
                for number in range(40):
                    with Session(engine, info=info) as session:
                        record(session, OrderEvent("placed", **ABOUT_ORDER | {"order_number": number}))
                        session.commit()
                    receiver.wait_for(number + 1, WITHIN)

            await asyncio.to_thread(commit_many)
    assert len(receiver.received) == 40


# -- faulty deliverees


@pytest.mark.parametrize("fault", ["deliveree", "request", "judge", "too few", "nonsense", "never"])
def test_a_faulty_deliveree_holds_up_nobody_and_says_why(engine: Engine, fault: str) -> None:
    with Receiver() as receiver:
        odd = add_odd(engine, receiver.url + "odd", fault)
        healthy = add(engine, receiver.url)
        place(engine, 3)
        drain(engine, clock=lambda: NOW)
        with Session(engine) as session:
            rows = session.scalars(select(Delivery)).all()
            # a row that makes no deliveree can be mended; what fails on the message would fail again
            expected = "pending" if fault == "deliveree" else "dead"
            assert {r.state for r in rows if r.subscriber_id == odd} == {expected}
            assert {r.state for r in rows if r.subscriber_id == healthy} == {"delivered"}
            dead = [r.id for r in rows if r.subscriber_id == odd]
            reasons = session.scalars(select(Attempt).where(Attempt.delivery_id.in_(dead))).all()
            assert {r.reason for r in reasons} == {"internal"}
            assert all(r.detail for r in reasons)


async def test_a_sender_that_raises_costs_an_attempt(engine: Engine) -> None:
    class Broken:
        async def send(self, request: Request) -> Answer:
            raise RuntimeError("no")

    add(engine, "http://127.0.0.1:1/")
    place(engine)
    assert await Relay(engine, Broken(), clock=lambda: NOW).drain() == 1
    with Session(engine) as session:
        attempt = session.scalars(select(Attempt)).one()
        assert (attempt.outcome, attempt.reason) == ("retry", "internal")


async def test_an_answer_that_cannot_be_stored_does_not_hold_up_the_others(engine: Engine) -> None:
    class Strange:
        async def send(self, request: Request) -> Answer:
            return Response(2**70 if request.url.endswith("strange") else 204, {}, b"", 0.0)

    add(engine, "http://127.0.0.1:1/strange")
    add(engine, "http://127.0.0.1:1/")
    place(engine, 3)
    assert await Relay(engine, Strange(), clock=lambda: NOW).drain() == 6
    with Session(engine) as session:
        found = session.scalars(select(Attempt.outcome)).all()
        assert sorted(found) == ["delivered"] * 3 + ["retry"] * 3


def test_verdicts_are_checked() -> None:
    check_verdicts([Delivered(), Retry(Reason.DNS, "d", 3), Retry(Reason.DNS), Dead(Reason.GONE)], 4)
    for wrong in ([], [None], [Delivered], [Retry(Reason.DNS, "", float("inf"))]):
        with pytest.raises(ValueError, match="verdict"):
            check_verdicts(wrong, 1)


# -- batches


def test_a_batch_goes_in_one_request_and_each_message_has_its_own_verdict(engine: Engine) -> None:
    with Receiver() as receiver:
        add_odd(engine, receiver.url, "last", size=10)
        place(engine, 25)
        clock = FrozenClock(NOW)
        drain(engine, clock=clock)
        sizes = [len(json.loads(request.body)) for request in receiver.received]
        assert sum(sizes) == 25
        assert max(sizes) == 10
        assert len(sizes) <= 4
        assert states(engine).count("pending") == len(sizes)  # the last of each request
        clock.advance(seconds=6)
        drain(engine, clock=clock)
        again = json.loads(receiver.received[len(sizes)].body)
        assert len(again) == len(sizes)


# -- who is still there


def test_deliveries_of_a_disabled_subscriber_wait_for_it(engine: Engine) -> None:
    with Receiver() as receiver:
        id = add(engine, receiver.url)
        place(engine)
        enable(engine, id, False)
        assert drain(engine, clock=lambda: NOW) == 0
        assert states(engine) == ["pending"]
        enable(engine, id, True)
        assert drain(engine, clock=lambda: NOW) == 1


def enable(engine: Engine, id: int, enabled: bool) -> None:
    with engine.begin() as connection:
        connection.execute(update(Subscriber).where(Subscriber.id == id).values(enabled=enabled))


# -- a database that is away


async def test_a_database_that_does_not_answer_is_asked_again_and_nothing_is_sent_twice(
    engine: Engine,
) -> None:
    """Settling fails for a while: nothing more is claimed, and what was sent is settled in the end."""
    away = Failing(engine, "UPDATE deliveries SET state", "UPDATE deliveries d SET state")
    with Receiver() as receiver:
        add(engine, receiver.url)
        place(engine, 3)
        clock = FrozenClock(NOW)
        async with running(engine, clock=clock, lease=timedelta(seconds=4)) as (relay, _, _):
            await asyncio.to_thread(receiver.wait_for, 3, WITHIN)
            await wait_until(lambda: away.failed >= 2)
            clock.advance(seconds=10)  # the leases are over
            relay.nudge()
            await wait_until(lambda: away.failed >= 4)
            away.over = True
            await wait_until(lambda: states(engine) == ["delivered"] * 3)
        assert len(receiver.received) == 3


async def test_claims_that_fail_are_made_again(engine: Engine) -> None:
    away = Failing(engine, "WITH RECURSIVE active")
    with Receiver() as receiver:
        add(engine, receiver.url)
        place(engine, 3)
        async with running(engine):
            await wait_until(lambda: away.failed >= 3)
            away.over = True
            await asyncio.to_thread(receiver.wait_for, 3, WITHIN)
    assert states(engine) == ["delivered"] * 3


def test_a_drain_says_when_the_database_does_not_answer(engine: Engine) -> None:
    away = Failing(engine, "WITH RECURSIVE active")
    place(engine)
    with pytest.raises(OperationalError):
        drain(engine)
    assert away.failed == 1


class Failing:
    """Makes statements that contain one of ``texts`` fail as if the server were away, until it is ``over``.

    Below SQLAlchemy, at the connection's cursor, where a lost server shows.
    """

    def __init__(self, engine: Engine, *texts: str) -> None:
        self.texts = texts
        self.failed = 0
        self.over = False
        listen.listen(engine, "before_cursor_execute", self.check)
        original = engine.raw_connection
        vars(engine)["raw_connection"] = lambda: FailingConnection(original(), self)

    def check(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not self.over and any(text in statement for text in self.texts):
            self.failed += 1
            raise OperationalError(statement, {}, Exception("the server is away"))


class FailingConnection:
    def __init__(self, connection: Any, failing: Failing) -> None:
        self._connection = connection
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self) -> Any:
        return FailingCursor(self._connection.cursor(), self._failing)


class FailingCursor:
    def __init__(self, cursor: Any, failing: Failing) -> None:
        self._cursor = cursor
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        self._failing.check(None, None, statement)
        return self._cursor.execute(statement, *parameters)
