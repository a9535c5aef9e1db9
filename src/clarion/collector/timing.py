"""How long answers take, in buckets: enough for a quantile's bound, without keeping a single time; how many
events come."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Final

BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""Upper bounds in seconds; what took longer has none."""

_MINUTE: Final = 60

CLOCK: Final = "clock"
"""The counter of how far senders' clocks are off."""

SKEWS: Final = (
    (-3600.0, "ahead by more than 1 h"),
    (-60.0, "ahead by 1 min to 1 h"),
    (-5.0, "ahead by 5 s to 1 min"),
    (5.0, "right within 5 s"),
    (60.0, "behind by 5 s to 1 min"),
    (3600.0, "behind by 1 min to 1 h"),
    (float("inf"), "behind by more than 1 h"),
)
"""Upper bounds in seconds of how far a sender's clock is behind, the way of its message included."""


def skew_of(seconds: float) -> str:
    """The name of the bucket a clock that is so far behind is in."""
    return next(name for bound, name in SKEWS if seconds <= bound)


class Times:
    """Counts of times by bucket, since the collector started. Used from one thread."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        """Seconds in all."""

    def add(self, seconds: float) -> None:
        """Count one answer."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """How many answers were counted."""
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound with how many answers took at most so long, as Prometheus wants a histogram."""
        below = 0
        for bound, n in zip(BOUNDS, self._counts, strict=False):
            below += n
            yield bound, below

    def quantiles(self, shares: Sequence[float]) -> list[float | None]:
        """The bound in seconds each share of the answers kept; None: above the last, or none yet."""
        count, table = self.count, list(self.cumulative())
        return [
            next((bound for bound, below in table if count and below >= share * count), None)
            for share in shares
        ]


class Rate:
    """Events of the last minute, by second. ``clock`` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._counts: dict[int, int] = {}

    def add(self, events: int) -> None:
        """Count what was kept or refused now."""
        second = int(self._clock())
        if second not in self._counts:
            self._counts = {at: n for at, n in self._counts.items() if at > second - _MINUTE}
        self._counts[second] = self._counts.get(second, 0) + events

    @property
    def per_second(self) -> float:
        """Events a second over the last minute, or since the start if that is less."""
        now = self._clock()
        counted = sum(n for at, n in list(self._counts.items()) if at > now - _MINUTE)
        return counted / max(1.0, min(_MINUTE, now - self._started))
