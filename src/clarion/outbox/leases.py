"""The plain values that `claim` returns and `settle` takes: they outlive every session and transaction."""

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from clarion import retry
from clarion.messages import Answer, Message
from clarion.outbox.tables import DEAD, DELIVERED, PENDING
from clarion.outcomes import Dead, Delivered, Outcome, Retry
from clarion.subscriptions import Deliveree

LEASE = timedelta(seconds=60)
"""Longer than the longest request may take (30 s) and what it waits before and after."""


# This and Settlement are not frozen: that takes four times as long to make, and each delivery makes both.
@dataclass(slots=True)
class Claimed:
    """A delivery that is ours to attempt until its lease ends. ``tried`` counts this round's attempts."""

    id: int
    subscriber_id: int
    token: UUID
    tried: int
    message: Message


@dataclass(frozen=True, slots=True)
class Recipient:
    """A subscriber as the relay needs it: plain values, detached from any session."""

    deliveree: Deliveree
    schedule: retry.Schedule | retry.Backoff
    batch: int = 1
    grace: float = math.inf


@dataclass(frozen=True, slots=True)
class Claim:
    """What one call of `claim` leased. ``last`` is where the next call should go on (``after``), and 0
    when every subscriber was looked at: what is due and not here has no room.
    """

    deliveries: list[Claimed] = field(default_factory=list)
    recipients: dict[int, Recipient] = field(default_factory=dict)
    last: int = 0


@dataclass(slots=True)
class Settlement:
    """What came of one attempt. ``due_at`` is when to try again; None ends a `Retry` as dead."""

    claimed: Claimed
    started_at: datetime
    outcome: Outcome
    answer: Answer
    due_at: datetime | None = None

    @property
    def state(self) -> str:
        match self.outcome:
            case Delivered():
                return DELIVERED
            case Retry() if self.due_at is not None:
                return PENDING
            case Retry() | Dead():
                return DEAD
