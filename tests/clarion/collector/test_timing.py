"""Times in buckets give the bounds of quantiles."""

from clarion.collector.timing import BOUNDS, Times


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
