"""How long answers take, in buckets: enough for a quantile's bound, without keeping a single time."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""Upper bounds in seconds; what took longer has none."""


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
