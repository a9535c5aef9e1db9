"""The relay: claim, send, settle. Many requests at once, no transaction open while they run.

    claim ──► one task a request: deliveree.request ─► egress ─► deliveree.judge ──► settle, in batches

Each subscriber has a `Lane`: how many requests it may have in flight. A lane widens while answers come
and halves on every failure, so a slow or dead subscriber soon holds one place of a thousand and delays
nobody. What a lane has no room for is not claimed. A destination with a `Backoff` that takes nothing is left
alone for a while, and then tried with one request.
"""

import asyncio
import math
import random as random_source
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from clarion import deliverees, retry
from clarion.errors import ClarionError, Reason
from clarion.lanes import NORMAL, Lane, Limits
from clarion.messages import Answer, Failure, Request
from clarion.observe import counters, log
from clarion.outbox import (
    LEASE,
    UNWRITABLE,
    Claim,
    Claimed,
    Recipient,
    Settlement,
    claim,
    release,
    settle,
    settle_apart,
)
from clarion.outcomes import Dead, Delivered, Outcome, Retry

__all__ = ["BATCH", "GATHER", "NORMAL", "POLL", "Lane", "Limits", "Relay", "Sender", "check_verdicts"]

T = TypeVar("T")

KINDS = deliverees.__all__
"""Whoever relays can tell every kind of subscriber the library has: importing them maps them."""

POLL = 1.0
"""Seconds between looks at the outbox when nothing nudges: the safety net, and the idle cost."""

GATHER = 0.01
"""Seconds that outcomes wait for company before they are settled, unless `BATCH` are there."""

BATCH = 200
"""Deliveries claimed and settled at once: beyond it a row hardly gets cheaper."""

LONGEST_BACKOFF = 2.0
"""Seconds between attempts to reach a database that is gone: how late its return is noticed."""

LAST_TRIES = 5
"""How often a relay that is ending tries to settle; what it cannot settle is delivered again."""


class Sender(Protocol):
    """The one door to the network, `egress.Egress`."""

    async def send(self, request: Request) -> Answer: ...


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
        self._settle_failures = 0
        self._look_at = -1
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

    async def drain(self, stop: asyncio.Event | None = None, *, grace: float = 20.0) -> int:
        """Deliver until nothing more is due, or ``stop`` is set; returns how many attempts were made.

        Raises:
            SQLAlchemyError: the database did not answer.
        """
        before = self.attempted
        await self._work(stop or asyncio.Event(), once=True, grace=grace)
        return self.attempted - before

    async def _work(self, stop: asyncio.Event, *, once: bool, grace: float) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._threads = ThreadPoolExecutor(self._thread_count(), thread_name_prefix="clarion-relay")
        settling, done = asyncio.Event(), asyncio.Event()
        self._settling = settling
        settler = asyncio.create_task(self._settle_until(done))
        watcher = asyncio.create_task(self._wake_on(stop))
        try:
            try:
                await self._claim_until(stop, once=once)
            except asyncio.CancelledError:
                grace = 0.0
                raise
            finally:
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
            free = self.limits.in_flight - len(self._sending)
            if free <= 0 or (self._settle_failures and not once):
                await self._wait(POLL)  # what cannot be settled must not be claimed: it would be sent again
                continue
            busy = bool(self._sending or self._unsettled)  # then the claim may miss what has no room yet
            try:
                found = await self._claim(after, free)
            except Exception as error:  # whatever it is, a relay that ended would deliver nothing more
                if once or self._exiting():
                    raise
                failures += 1
                await self._lost("claim", error, failures, stop)
                continue
            failures = self._recovered(failures)
            for recipient_id, claimed in grouped(found.deliveries).items():
                self._start(recipient_id, found.recipients[recipient_id], claimed)
            much = 2 * len(found.deliveries) >= BATCH
            self._look_at = len(self._sending) // 2 if much else -1  # claim the next while these are sent
            if after := found.last:
                continue
            if once and not (busy or self._sending or self._unsettled):
                return
            await self._wait(POLL)

    async def _claim(self, after: int, free: int) -> Claim:
        now, usual = self.clock(), self.limits.lane
        rooms = {key: lane.room_at(now) for key, lane in self._lanes.items()}
        return await self._in_thread(
            claim,
            self.engine,
            now,
            limit=min(BATCH, free),
            room=usual,
            rooms={key: room for key, room in rooms.items() if room != usual or self._lanes[key].batch > 1},
            after=after,
            lease=self.lease,
        )

    async def _wait(self, seconds: float) -> None:
        assert self._wake is not None
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    async def _lost(self, verb: str, error: Exception, failures: int, until: asyncio.Event) -> None:
        """The database does not answer: say so once, and wait longer each time, but not past ``until``."""
        if failures == 1:
            ours = not isinstance(error, SQLAlchemyError | OSError)
            log.warning(
                "the outbox cannot be reached; trying again",
                verb=verb,
                error=type(error).__name__,
                exc_info=error if ours else None,
            )
        counters.add("database_lost", verb)
        pause = min(LONGEST_BACKOFF, 0.05 * 2 ** min(failures, 10)) * (0.5 + self.random() / 2)
        if until.is_set():
            await asyncio.sleep(pause)
            return
        try:
            await asyncio.wait_for(until.wait(), pause)
        except TimeoutError:
            return

    def _exiting(self) -> bool:
        """Whether the interpreter is going away under a relay that nobody stopped: no thread can be had."""
        return not threading.main_thread().is_alive()

    def _recovered(self, failures: int) -> int:
        if failures:
            log.info("the outbox can be reached again", failures=failures)
        return 0

    def _start(self, subscriber_id: int, recipient: Recipient, claimed: list[Claimed]) -> None:
        loop = asyncio.get_running_loop()
        lane = self._lanes.setdefault(subscriber_id, Lane(self.limits.lane))
        lane.batch, lane.grace = recipient.batch, recipient.grace
        for start in range(0, len(claimed), recipient.batch):
            chunk = claimed[start : start + recipient.batch]
            lane.taken += 1
            self._sending[loop.create_task(self._attempt(lane, recipient, chunk))] = chunk

    async def _attempt(self, lane: Lane, recipient: Recipient, claimed: list[Claimed]) -> None:
        try:
            await self._try(lane, recipient, claimed)
        except Exception as error:
            log.error("an attempt failed inside the relay", exc_info=error)
        finally:
            lane.taken -= 1
            self._sending.pop(asyncio.current_task(), None)  # type: ignore[arg-type]
            if len(self._sending) == self._look_at and self._wake is not None:
                self._wake.set()

    async def _try(self, lane: Lane, recipient: Recipient, claimed: list[Claimed]) -> None:
        started = self.clock()
        if len(claimed) == 1:
            answer, verdicts = await self._send(recipient, claimed, started)
            tried = [(claimed[0], answer, verdicts[0])]
        else:
            tried = await self._send_apart(recipient, claimed, started)
        outcomes = [outcome for _, _, outcome in tried]
        now = self.clock()
        lane.learn(outcomes, self.limits.widest_lane)
        self._rest(lane, recipient.schedule, outcomes, now)
        for one, answer, outcome in tried:
            due_at = None
            if isinstance(outcome, Retry):
                age = now - one.message.occurred_at
                due_at = retry.next_attempt(one.tried + 1, outcome, now, recipient.schedule, self.random, age)
            self._unsettled.append(Settlement(one, started, outcome, answer, due_at))
        self.attempted += len(claimed)
        self._settling.set()

    def _rest(
        self, lane: Lane, schedule: retry.Schedule | retry.Backoff, outcomes: Sequence[Outcome], now: datetime
    ) -> None:
        """Where nothing got through, leave the destination alone as long as its `Backoff` says."""
        first = outcomes[0]
        failed = isinstance(first, Retry) and all(
            isinstance(one, Retry) and not one.halve for one in outcomes
        )
        lane.failures = lane.failures + 1 if failed else 0
        lane.rests_until = None
        if failed and isinstance(first, Retry) and isinstance(schedule, retry.Backoff):
            lane.rests_until = retry.next_attempt(lane.failures, first, now, schedule, self.random)

    async def _send_apart(
        self, recipient: Recipient, claimed: list[Claimed], started: datetime
    ) -> list[tuple[Claimed, Answer, Outcome]]:
        """One request; where one of its messages may be to blame, at once again in two halves.

        Not beyond half of the lease: what is then left is tried again later, without what was found to blame.
        """
        answer, outcomes = await self._send(recipient, claimed, started)
        blamed = any(isinstance(outcome, Retry) and outcome.halve for outcome in outcomes)
        if len(claimed) > 1 and blamed and self.clock() - started < self.lease / 2:
            middle = len(claimed) // 2
            first = await self._send_apart(recipient, claimed[:middle], started)
            return first + await self._send_apart(recipient, claimed[middle:], started)
        return [(one, answer, outcome) for one, outcome in zip(claimed, outcomes, strict=True)]

    async def _send(
        self, recipient: Recipient, claimed: list[Claimed], now: datetime
    ) -> tuple[Answer, Sequence[Outcome]]:
        """One request and its verdicts. A deliveree that raises is our fault, and final: it would again."""
        messages = [c.message for c in claimed]
        try:
            request = recipient.deliveree.request(messages, now)
        except Exception as error:
            return self._broken("build the request", error, messages)
        answer: Answer
        try:
            answer = await self.sender.send(request)
        except Exception as error:  # egress never raises; another sender's fault costs one attempt
            log.exception("a sender failed")
            answer = Failure(Reason.INTERNAL, f"could not be sent: {type(error).__name__}", 0.0)
        try:
            outcomes = recipient.deliveree.judge(messages, answer, self.clock())
            check_verdicts(outcomes, len(messages))
        except Exception as error:
            return self._broken("judge the answer", error, messages)
        return answer, outcomes

    def _broken(
        self, what: str, error: Exception, messages: Sequence[Any]
    ) -> tuple[Answer, Sequence[Outcome]]:
        said = error.message if isinstance(error, ClarionError) else type(error).__name__
        detail = f"could not {what}: {said}"
        log.exception("a deliveree failed", what=what)
        return Failure(Reason.INTERNAL, detail, 0.0), [Dead(Reason.INTERNAL, detail)] * len(messages)

    async def _settle_until(self, done: asyncio.Event) -> None:
        """Settle what has come in; what one batch takes, the next gathers."""
        self._settle_failures = last_tries = 0
        while not done.is_set() or self._unsettled:
            await self._settling.wait()
            self._settling.clear()
            if len(self._unsettled) < BATCH and not done.is_set() and self._sending:
                await asyncio.sleep(GATHER)
            if not (batch := self._unsettled[:]):
                continue
            try:
                await self._settle(batch)
            except Exception as error:  # the outcomes are kept, and their leases hold, until it works
                self._settle_failures += 1
                last_tries += done.is_set()
                if last_tries > LAST_TRIES or self._exiting():
                    log.error("outcomes could not be settled; they will be delivered again", count=len(batch))
                    self._unsettled.clear()
                    return
                await self._lost("settle", error, self._settle_failures, done)
                self._settling.set()
                continue
            self._settle_failures = self._recovered(self._settle_failures)
            for kind, amount in Counter(type(one.outcome) for one in batch).items():
                counters.add("attempts", kind.__name__.lower(), amount)
            del self._unsettled[: len(batch)]
            self._forget_idle_lanes()
            if self._unsettled:
                self._settling.set()
            if self._wake is not None:
                self._wake.set()  # there is room again

    async def _settle(self, batch: list[Settlement]) -> None:
        try:
            await self._in_thread(settle, self.engine, batch, self.clock())
        except UNWRITABLE:
            await self._in_thread(settle_apart, self.engine, batch, self.clock())

    def _forget_idle_lanes(self) -> None:
        if len(self._lanes) > self.limits.in_flight:
            self._lanes = {key: lane for key, lane in self._lanes.items() if lane.taken}

    async def _finish(self, grace: float) -> None:
        """Let what is in flight end; what does not end in time is released for another relay."""
        assert self._loop is not None
        graces: dict[float, list[asyncio.Task[None]]] = {}
        for task, claimed in self._sending.items():
            graces.setdefault(min(grace, self._lanes[claimed[0].subscriber_id].grace), []).append(task)
        began = self._loop.time()
        for seconds, tasks in sorted(graces.items()):
            await asyncio.wait(tasks, timeout=max(began + seconds - self._loop.time(), 0))
            await self._give_up([task for task in tasks if not task.done()])

    async def _give_up(self, tasks: "Sequence[asyncio.Task[None]]") -> None:
        if not tasks:
            return
        left = [claimed for task in tasks for claimed in self._sending[task]]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:  # one that was cancelled before its first step could not do it itself
            if (claimed := self._sending.pop(task, None)) is not None:
                self._lanes[claimed[0].subscriber_id].taken -= 1
        try:
            await self._in_thread(release, self.engine, left, self.clock())
        except Exception as error:
            log.warning(
                "leases could not be released; they end by themselves",
                count=len(left),
                error=type(error).__name__,
            )

    async def _in_thread(self, call: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        assert self._loop is not None
        return await self._loop.run_in_executor(self._threads, lambda: call(*arguments, **keywords))


def check_verdicts(outcomes: Sequence[Any], count: int) -> None:
    """Raises ValueError unless there is one outcome a message and each can be acted on."""
    if len(outcomes) != count:
        raise ValueError("a verdict is missing")
    for outcome in outcomes:
        match outcome:
            case Delivered() | Dead() | Retry(after=None):
                pass
            case Retry(after=float() | int() as after) if math.isfinite(after):
                pass
            case _:
                raise ValueError("a verdict is no outcome")


def grouped(claimed: Sequence[Claimed]) -> dict[int, list[Claimed]]:
    groups: dict[int, list[Claimed]] = {}
    for one in claimed:
        groups.setdefault(one.subscriber_id, []).append(one)
    return groups
