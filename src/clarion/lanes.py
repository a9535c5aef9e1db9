"""Lanes: each subscriber's share of what a relay has in flight, so that a slow one delays nobody."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from clarion.outcomes import Delivered, Outcome


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one relay does at once: requests in all, and a lane's first and greatest width."""

    in_flight: int = 1000
    lane: int = 4
    widest_lane: int = 100


NORMAL = Limits()


@dataclass(slots=True)
class Lane:
    """One subscriber's share: ``width`` requests may be in flight, ``taken`` are."""

    width: int
    batch: int = 1
    """How many deliveries one request may carry."""
    grace: float = math.inf
    """Seconds its requests may go on when the relay ends, if its own grace is not shorter."""
    taken: int = 0
    failures: int = 0
    """Requests in a row that came to nothing."""
    rests_until: datetime | None = None
    """Nothing is claimed for it before; then one request finds out whether it is well again."""

    def room_at(self, now: datetime) -> int:
        """How many deliveries may be claimed for it now."""
        return 0 if self.rests_until is not None and now < self.rests_until else self.room

    @property
    def room(self) -> int:
        """How many deliveries it could hold."""
        return max(self.width - self.taken, 0) * self.batch

    def learn(self, outcomes: Sequence[Outcome], widest: int) -> None:
        """Additive increase, multiplicative decrease (the congestion control of RFC 5681)."""
        if all(isinstance(outcome, Delivered) for outcome in outcomes):
            self.width = min(self.width + 1, widest)
        else:
            self.width = max(self.width // 2, 1)
