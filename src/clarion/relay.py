"""The relay: claim, send, settle. Many requests at once, no transaction open while they run.

    claim ──► one task a request: deliveree.request ─► egress ─► deliveree.judge ──► settle, in batches

Each subscriber has a `Lane`: how many requests it may have in flight. A lane widens while answers come
and halves on every failure, so a slow or dead subscriber soon holds one place of a thousand and delays
nobody. What a lane has no room for is not claimed.
"""

import asyncio
import random as random_source
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from clarion import retry
from clarion.errors import Reason
from clarion.messages import Answer, Failure, Request
from clarion.observe import counters, log
from clarion.outbox import LEASE, Claimed, Recipient, Settlement, claim, release, settle
from clarion.outcomes import Dead, Delivered, Outcome, Retry

T = TypeVar("T")

POLL = 1.0
"""Seconds between looks at the outbox when nothing nudges: the safety net, and the idle cost."""

GATHER = 0.01
"""Seconds that outcomes wait for company before they are settled, unless `BATCH` are there."""

BATCH = 200
"""Deliveries claimed and settled at once: beyond it a row hardly gets cheaper."""

LONGEST_BACKOFF = 30.0
"""Seconds between attempts to reach a database that is gone."""


class Sender(Protocol):
    """The one door to the network, `egress.Egress`."""

    async def send(self, request: Request) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one relay does at once: requests in all, and a lane's first and greatest width."""

    in_flight: int = 1000
    lane: int = 16
    widest_lane: int = 100


NORMAL = Limits()


@dataclass(slots=True)
class Lane:
    """One subscriber's share: ``width`` requests may be in flight, ``taken`` are."""

    width: int
    taken: int = 0

    @property
    def room(self) -> int:
        return max(self.width - self.taken, 0)

    def learn(self, outcomes: Sequence[Outcome], widest: int) -> None:
        """Additive increase, multiplicative decrease (the congestion control of RFC 5681)."""
        if all(isinstance(outcome, Delivered) for outcome in outcomes):
            self.width = min(self.width + 1, widest)
        else:
            self.width = max(self.width // 2, 1)


class Relay:
    """Claims due deliveries from ``engine``'s database and sends them through ``sender``.

    ``nudge`` may be called from any thread; everything else belongs to the event loop that runs `run`.
    """

    def __init__(
        self,
        engine: Engine,
        sender: Sender,
        *,
        clock: Callable[[], datetime],
        limits: Limits = NORMAL,
        lease: timedelta = LEASE,
        random: Callable[[], float] = random_source.random,
    ) -> None:
        self.engine = engine
        self.sender = sender
        self.clock = clock
        self.limits = limits
        self.lease = lease
        self.random = random
        self.attempted = 0
        self._lanes: dict[int, Lane] = {}
        self._sending: dict[asyncio.Task[None], list[Claimed]] = {}
        self._unsettled: list[Settlement] = []
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._nudged = False

    # -- from any thread

    def nudge(self) -> None:
        """Something may be due: look now. Does nothing while the relay is not running."""
        loop, wake = self._loop, self._wake
        if loop is None or wake is None or self._nudged:
            return
        self._nudged = True
        try:
            loop.call_soon_threadsafe(wake.set)
        except RuntimeError:  # the loop is closing; who runs next will look
            self._nudged = False

    # -- in the loop

    async def run(self, stop: asyncio.Event, *, grace: float = 20.0) -> None:
        """Deliver until ``stop`` is set; then let what is in flight end, at most ``grace`` seconds."""
        await self._work(stop, once=False, grace=grace)

    async def drain(self, *, grace: float = 20.0) -> int:
        """Deliver until nothing more is due; returns how many attempts were made."""
        before = self.attempted
        await self._work(asyncio.Event(), once=True, grace=grace)
        return self.attempted - before

    async def _work(self, stop: asyncio.Event, *, once: bool, grace: float) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._threads = ThreadPoolExecutor(self._thread_count(), thread_name_prefix="clarion-relay")
        settling, done = asyncio.Event(), asyncio.Event()
        self._settling = settling
        settler = asyncio.create_task(self._settle_until(done))
        watcher = asyncio.create_task(self._wake_on(stop))
        try:
            await self._claim_until(stop, once=once)
            await self._finish(grace)
        finally:
            watcher.cancel()
            done.set()
            settling.set()
            await settler
            self._loop = self._wake = None
            self._threads.shutdown(wait=True)

    def _thread_count(self) -> int:
        """SQLite has one writer; on PostgreSQL a claim need not wait for a settlement."""
        return 1 if self.engine.dialect.name == "sqlite" else 2

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        assert self._wake is not None
        self._wake.set()

    async def _claim_until(self, stop: asyncio.Event, *, once: bool) -> None:
        assert self._wake is not None
        after, failures = 0, 0
        while not stop.is_set():
            self._wake.clear()
            self._nudged = False
            free = self.limits.in_flight - sum(lane.taken for lane in self._lanes.values())
            if free <= 0:
                await self._wait(POLL)
                continue
            try:
                found = await self._in_thread(
                    claim,
                    self.engine,
                    self.clock(),
                    limit=min(BATCH, free),
                    room=self.limits.lane,
                    rooms={key: lane.room for key, lane in self._lanes.items()},
                    after=after,
                    lease=self.lease,
                )
            except SQLAlchemyError as error:
                if once:
                    raise
                failures += 1
                await self._lost("claim", error, failures)
                continue
            failures = self._recovered(failures)
            for recipient_id, claimed in grouped(found.deliveries).items():
                self._start(recipient_id, found.recipients[recipient_id], claimed)
            if found.deliveries or after:
                after = found.last  # 0 once nothing lies behind `after`: the next look begins in front
                continue
            if once and not self._sending and not self._unsettled:
                return
            await self._wait(POLL)

    async def _wait(self, seconds: float) -> None:
        assert self._wake is not None
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    async def _lost(self, verb: str, error: Exception, failures: int) -> None:
        """The database does not answer: say so once, and wait longer each time."""
        if failures == 1:
            log.warning("the database does not answer; trying again", verb=verb, error=type(error).__name__)
        counters.add("database_lost", verb)
        pause = min(LONGEST_BACKOFF, 0.05 * 2 ** min(failures, 10)) * (0.5 + self.random() / 2)
        await asyncio.sleep(pause)

    def _recovered(self, failures: int) -> int:
        if failures:
            log.info("the database answers again", failures=failures)
        return 0

    def _start(self, subscriber_id: int, recipient: Recipient, claimed: list[Claimed]) -> None:
        lane = self._lanes.setdefault(subscriber_id, Lane(self.limits.lane))
        size = max(recipient.deliveree.batch, 1)
        for start in range(0, len(claimed), size):
            chunk = claimed[start : start + size]
            lane.taken += len(chunk)
            task = asyncio.create_task(self._attempt(lane, recipient, chunk))
            self._sending[task] = chunk
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("an attempt failed inside the relay", error=type(task.exception()).__name__)

    async def _attempt(self, lane: Lane, recipient: Recipient, claimed: list[Claimed]) -> None:
        started = self.clock()
        answer, outcomes = await self._send(recipient, claimed, started)
        lane.learn(outcomes, self.limits.widest_lane)
        now = self.clock()
        for one, outcome in zip(claimed, outcomes, strict=True):
            due_at = None
            if isinstance(outcome, Retry):
                due_at = retry.next_attempt(one.tried + 1, outcome, now, recipient.schedule, self.random)
            self._unsettled.append(Settlement(one, started, outcome, answer, due_at))
            counters.add("attempts", type(outcome).__name__.lower())
        lane.taken -= len(claimed)
        self.attempted += len(claimed)
        self._settling.set()

    async def _send(
        self, recipient: Recipient, claimed: list[Claimed], now: datetime
    ) -> tuple[Answer, Sequence[Outcome]]:
        """One request and its verdicts. A deliveree that raises is our fault, and final: it would again."""
        messages = [c.message for c in claimed]
        try:
            request = recipient.deliveree.request(messages, now)
        except Exception as error:
            return self._broken("build the request", error, messages)
        answer = await self.sender.send(request)
        try:
            outcomes = recipient.deliveree.judge(messages, answer, self.clock())
            if len(outcomes) != len(messages):
                raise ValueError("a verdict is missing")
        except Exception as error:
            return self._broken("judge the answer", error, messages)
        return answer, outcomes

    def _broken(
        self, what: str, error: Exception, messages: Sequence[Any]
    ) -> tuple[Answer, Sequence[Outcome]]:
        detail = f"could not {what}: {type(error).__name__}"
        log.exception("a deliveree failed", what=what)
        return Failure(Reason.INTERNAL, detail, 0.0), [Dead(Reason.INTERNAL, detail)] * len(messages)

    async def _settle_until(self, done: asyncio.Event) -> None:
        """Settle what has come in; what one batch takes, the next gathers."""
        failures = 0
        while not done.is_set() or self._unsettled:
            await self._settling.wait()
            self._settling.clear()
            if len(self._unsettled) < BATCH and not done.is_set() and self._sending:
                await asyncio.sleep(GATHER)
            batch = self._unsettled[:]
            try:
                await self._in_thread(settle, self.engine, batch, self.clock())
            except SQLAlchemyError as error:
                failures += 1
                if done.is_set() and failures > 5:
                    log.error("outcomes could not be settled; they will be delivered again", count=len(batch))
                    return
                await self._lost("settle", error, failures)
                self._settling.set()
                continue
            failures = self._recovered(failures)
            del self._unsettled[: len(batch)]
            self._forget_idle_lanes()
            if self._unsettled:
                self._settling.set()
            if self._wake is not None:
                self._wake.set()  # there is room again

    def _forget_idle_lanes(self) -> None:
        if len(self._lanes) > self.limits.in_flight:
            self._lanes = {key: lane for key, lane in self._lanes.items() if lane.taken}

    async def _finish(self, grace: float) -> None:
        """Let what is in flight end; what does not end in time is released for another relay."""
        if self._sending:
            await asyncio.wait(list(self._sending), timeout=grace)
        left = [claimed for chunk in self._sending.values() for claimed in chunk]
        if not left:
            return
        tasks = list(self._sending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self._in_thread(release, self.engine, left, self.clock())
        except SQLAlchemyError:
            log.warning("leases could not be released; they end by themselves", count=len(left))

    async def _in_thread(self, call: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        assert self._loop is not None
        return await self._loop.run_in_executor(self._threads, lambda: call(*arguments, **keywords))


def grouped(claimed: Sequence[Claimed]) -> dict[int, list[Claimed]]:
    groups: dict[int, list[Claimed]] = {}
    for one in claimed:
        groups.setdefault(one.subscriber_id, []).append(one)
    return groups
