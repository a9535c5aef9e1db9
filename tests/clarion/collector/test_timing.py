"""Times in buckets give the bounds of quantiles."""

import pytest

from clarion.collector.timing import BOUNDS, Rate, Times, skew_of


def test_quantiles_are_the_bounds_of_their_buckets() -> None:
    times = Times()
    assert times.quantiles((0.5,)) == [None]
    for _ in range(98):
        times.add(0.0015)
    times.add(0.2)
    times.add(60)
    assert times.quantiles((0.5, 0.98, 0.99, 1.0)) == [0.002, 0.002, 0.2, None]
    assert list(times.cumulative())[-1] == (BOUNDS[-1], 99)
    assert times.count == 100
    assert round(times.total, 3) == 60.347


def test_the_rate_is_of_the_last_minute_or_since_the_start() -> None:
    now = [100.0]
    rate = Rate(lambda: now[0])
    assert rate.per_second == 0
    rate.add(5)
    assert rate.per_second == 5  # less than a second counts as one
    now[0] += 10
    rate.add(15)
    assert rate.per_second == 2
    now[0] += 55
    rate.add(1)
    assert rate.per_second == 16 / 60
    now[0] += 70
    assert rate.per_second == 0


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        (-7200, "ahead by more than 1 h"),
        (-3600, "ahead by more than 1 h"),
        (-61, "ahead by 1 min to 1 h"),
        (-6, "ahead by 5 s to 1 min"),
        (0.2, "right within 5 s"),
        (59, "behind by 5 s to 1 min"),
        (3600, "behind by 1 min to 1 h"),
        (1e9, "behind by more than 1 h"),
    ],
)
def test_a_clock_is_in_one_bucket(seconds: float, name: str) -> None:
    assert skew_of(seconds) == name
