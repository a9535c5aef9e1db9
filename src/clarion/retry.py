"""When to try again: a pure schedule, and what a receiver's Retry-After asks for."""

import random as random_source
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from clarion.errors import InvalidSubscriber
from clarion.outcomes import Dead, Retry

MAX_WAIT = 24 * 3600
"""Seconds: the longest wait a schedule may hold, and the most of a Retry-After that is honoured."""
MAX_ATTEMPTS = 20
"""Entries a schedule may have."""
JITTER = 0.2
"""Each wait is spread by this share, so that what failed together does not come back together."""

_MINUTE, _HOUR = 60, 3600
_SECONDS = re.compile(r"[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to wait, in seconds, before each attempt; the first entry is the wait before the first.

    When the entries are used up the delivery is dead. Raises InvalidSubscriber for entries out of bounds.
    """

    waits: tuple[float, ...]
    jitter: float = JITTER

    def __post_init__(self) -> None:
        if not 1 <= len(self.waits) <= MAX_ATTEMPTS:
            raise InvalidSubscriber(
                f"A retry schedule has 1 to {MAX_ATTEMPTS} entries; this one has {len(self.waits)}."
            )
        for wait in self.waits:
            if not 0 <= wait <= MAX_WAIT:  # also refuses NaN
                raise InvalidSubscriber(
                    f"A wait in a retry schedule is 0 to {MAX_WAIT} seconds; this one is {wait}."
                )
        if not 0 <= self.jitter < 1:
            raise InvalidSubscriber(
                f"The jitter of a retry schedule is 0 to below 1; this one is {self.jitter}."
            )

    @classmethod
    def of(cls, waits: Iterable[float]) -> "Schedule":
        """A subscriber's own schedule. Raises InvalidSubscriber."""
        return cls(tuple(waits))

    @property
    def attempts(self) -> int:
        """How many attempts are made before a delivery is dead."""
        return len(self.waits)

    @property
    def longest(self) -> float:
        """Seconds: the most of a Retry-After that is honoured."""
        return MAX_WAIT

    def wait(self, attempt: int, age: timedelta, draw: float) -> float | None:
        """Seconds after attempt number ``attempt``; None when it was the last."""
        if attempt >= self.attempts:
            return None
        return self.waits[attempt] * (1 + self.jitter * (2 * draw - 1))


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double, each anywhere between none and all of it (full jitter), until a message is too old.

    For destinations that many installations share: what failed everywhere at once comes back spread out.
    """

    longest: float = 3600.0
    """Seconds: no wait is longer, and no more of a Retry-After is honoured."""
    age: timedelta = timedelta(days=7)
    jitter: float = JITTER

    def wait(self, attempt: int, age: timedelta, draw: float) -> float | None:
        """Seconds after attempt number ``attempt`` at a message of this ``age``; None when it is too old."""
        return None if age >= self.age else draw * min(2.0 ** min(attempt, 60), self.longest)


DEFAULT = Schedule((0, 5, 5 * _MINUTE, 30 * _MINUTE, *(hours * _HOUR for hours in (2, 5, 10, 14, 20, 24))))
"""Ten attempts over about 75.6 hours."""


def next_attempt(
    attempt: int,
    outcome: Retry | Dead,
    now: datetime,
    schedule: Schedule | Backoff = DEFAULT,
    random: Callable[[], float] = random_source.random,
    age: timedelta = timedelta(0),
) -> datetime | None:
    """When to try again after attempt number ``attempt`` (from 1) came to ``outcome``; None means dead.

    ``random`` gives numbers in [0, 1), ``age`` is how long ago happened what is told. A wait is spread as the
    schedule says, but one that the receiver asked for is only ever lengthened.
    """
    if attempt < 1:
        raise ValueError(f"Attempts count from 1, not {attempt}.")
    if isinstance(outcome, Dead):
        return None
    draw = random()
    wait = schedule.wait(attempt, age, draw)
    if wait is None:
        return None
    if outcome.after is not None:
        asked = min(max(outcome.after, 0.0), schedule.longest)
        wait = max(wait, min(asked * (1 + schedule.jitter * draw), schedule.longest))
    return now + timedelta(seconds=wait)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds a Retry-After header asks to wait (RFC 9110 section 10.2.3): a number, or an HTTP-date.

    At most 24 hours, at least 0. None if there is no header or it says nothing that can be read.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        digits = text.lstrip("0") or "0"
        return float(MAX_WAIT if len(digits) > len(str(MAX_WAIT)) else min(int(digits), MAX_WAIT))
    try:
        at = parsedate_to_datetime(text)
        if at.tzinfo is None:  # asctime form: HTTP-dates are always UTC
            at = at.replace(tzinfo=UTC)
        wait = (at - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(wait, 0.0), float(MAX_WAIT))
