from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.errors import InvalidSubscriber, Reason
from clarion.outcomes import Dead, Retry
from clarion.retry import DEFAULT, MAX_WAIT, Backoff, Schedule, next_attempt, parse_retry_after

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
AGAIN = Retry(Reason.HTTP_5XX)


def wait(attempt, outcome=AGAIN, schedule=DEFAULT, draw=0.5):
    at = next_attempt(attempt, outcome, NOW, schedule, lambda: draw)
    return None if at is None else (at - NOW).total_seconds()


def test_the_default_schedule_without_jitter():
    assert [wait(n) for n in range(1, 11)] == [
        5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400, None,
    ]  # fmt: skip
    assert DEFAULT.attempts == 10
    assert DEFAULT.waits[0] == 0
    assert sum(DEFAULT.waits) == pytest.approx(75.6 * 3600, rel=0.001)


@given(st.integers(1, 9), st.floats(0, 1, exclude_max=True))
def test_jitter_is_a_fifth_in_both_directions(attempt, draw):
    assert wait(attempt, draw=draw) == pytest.approx(DEFAULT.waits[attempt] * (0.8 + 0.4 * draw))


def test_dead_and_used_up():
    assert wait(1, Dead(Reason.GONE)) is None
    assert wait(10) is None
    assert wait(99) is None
    with pytest.raises(ValueError, match="from 1"):
        wait(0)


@given(st.integers(1, 9), st.floats(0, 200_000), st.floats(0, 1, exclude_max=True))
def test_never_earlier_than_asked_for_and_capped_at_a_day(attempt, after, draw):
    seconds = wait(attempt, Retry(Reason.THROTTLED, after=after), draw=draw)
    assert seconds >= min(after, MAX_WAIT) - 1e-6  # a datetime holds microseconds
    assert seconds <= max(MAX_WAIT, DEFAULT.waits[attempt] * 1.2) + 1e-6


def test_what_was_asked_for_is_spread_later_only():
    hour = Retry(Reason.THROTTLED, after=3600)
    assert wait(1, hour, draw=0.0) == 3600
    assert 3600 < wait(1, hour, draw=0.9) <= 4320
    assert wait(1, Retry(Reason.THROTTLED, after=-3)) == 5


def test_a_schedule_of_its_own():
    own = Schedule.of([0, 1, 2])
    assert [wait(n, schedule=own) for n in (1, 2, 3)] == [1, 2, None]
    assert wait(1, schedule=Schedule.of([60])) is None


@pytest.mark.parametrize("waits", [[], [0] * 21, [-1], [MAX_WAIT + 1], [float("nan")], [float("inf")]])
def test_unusable_schedules_are_refused(waits):
    with pytest.raises(InvalidSubscriber, match="retry schedule"):
        Schedule.of(waits)
    with pytest.raises(InvalidSubscriber, match="jitter"):
        Schedule((1,), jitter=1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 007 ", 7),
        ("86401", 86400),
        ("9" * 5000, 86400),
        ("Tue, 24 Nov 2026 09:01:00 GMT", 60),
        ("Tuesday, 24-Nov-26 09:01:00 GMT", 60),
        ("Tue Nov 24 09:01:00 2026", 60),
        ("Tue, 24 Nov 2026 08:00:00 GMT", 0),
        ("Tue, 24 Nov 2099 08:00:00 GMT", 86400),
    ],
)
def test_retry_after(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    "value", [None, "", "soon", "-1", "1.5", "٣", "1e3", "Tue, 99 Nov 2026 09:01:00 GMT", "24 Nov", ", ,"]
)
def test_a_retry_after_that_says_nothing(value):
    assert parse_retry_after(value, NOW) is None


@given(st.text(max_size=60))
def test_no_retry_after_raises(value):
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= MAX_WAIT


@given(st.integers(-100_000, 100_000))
def test_both_forms_agree(seconds):
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(date, NOW) == min(max(seconds, 0), MAX_WAIT)


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 200_000))
def test_a_backoff_doubles_up_to_an_hour_and_spreads_all_of_it(attempt, draw, after):
    at = next_attempt(attempt, Retry(Reason.THROTTLED, after=after), NOW, Backoff(), lambda: draw)
    seconds = (at - NOW).total_seconds()
    assert 0 <= seconds <= 3600
    assert seconds >= min(after or 0, 3600) - 1e-6
    if after is None:
        assert seconds == pytest.approx(draw * min(2**attempt, 3600), abs=1e-6)


def test_a_backoff_ends_with_the_age_of_what_is_told():
    week = timedelta(days=7)
    assert next_attempt(999, AGAIN, NOW, Backoff(), age=week - timedelta(seconds=1)) is not None
    assert next_attempt(1, AGAIN, NOW, Backoff(), age=week) is None
    assert next_attempt(1, Dead(Reason.GONE), NOW, Backoff()) is None
    assert next_attempt(1, AGAIN, NOW, Backoff(age=timedelta(hours=1)), age=timedelta(hours=1)) is None
