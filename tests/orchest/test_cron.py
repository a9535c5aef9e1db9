"""When cron jobs run: zones, clocks that change, times missed."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchest.cron import check, following, latest
from orchest.errors import InvalidFields

AMSTERDAM = "Europe/Amsterdam"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(schedule: str, timezone: str, after: datetime, count: int) -> list[datetime]:
    found = [after]
    for _ in range(count):
        found.append(following(schedule, timezone, found[-1]))
    return found[1:]


def test_a_schedule_is_read_in_its_own_zone() -> None:
    assert following("30 9 * * *", "Asia/Tokyo", at("2026-06-01 00:00")) == at("2026-06-01 00:30")
    assert following("30 9 * * *", AMSTERDAM, at("2026-06-01 00:00")) == at("2026-06-01 07:30")
    assert following("30 9 * * *", AMSTERDAM, at("2026-12-01 00:00")) == at("2026-12-01 08:30")


def test_a_time_that_the_clocks_leave_out_runs_right_after_the_gap() -> None:
    # in Amsterdam 02:00 to 03:00 did not exist on 29 March 2026; 03:00 there was 01:00 UTC
    assert times("30 2 * * *", AMSTERDAM, at("2026-03-28 12:00"), 2) == [
        at("2026-03-29 01:00"),
        at("2026-03-30 00:30"),
    ]


def test_a_time_that_the_clocks_repeat_runs_once() -> None:
    # in Amsterdam 02:30 came twice on 25 October 2026: at 00:30 and at 01:30 UTC
    assert times("30 2 * * *", AMSTERDAM, at("2026-10-24 12:00"), 2) == [
        at("2026-10-25 00:30"),
        at("2026-10-26 01:30"),
    ]


def test_every_hour_stays_every_hour_when_clocks_change() -> None:
    for day in ("2026-03-28 22:00", "2026-10-24 22:00"):
        start = at(day)
        expected = [start + timedelta(hours=hour) for hour in range(1, 8)]
        assert times("0 * * * *", AMSTERDAM, start, 7) == expected


def test_seconds_come_first_when_there_are_six_fields() -> None:
    assert following("*/5 * * * * *", "UTC", at("2026-01-01 00:00:03")) == at("2026-01-01 00:00:05")


@pytest.mark.parametrize(
    "name", ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"]
)
def test_nicknames_are_schedules(name: str) -> None:
    assert following(name, "UTC", at("2026-01-01 00:00:03")) > at("2026-01-01 00:00:03")


def test_the_latest_missed_time_is_the_last_one_before_now() -> None:
    due = at("2020-01-01 00:00")
    assert latest("*/5 * * * * *", "UTC", due, at("2026-01-01 00:00:04")) == at("2026-01-01 00:00:00")
    assert latest("0 4 * * *", "UTC", due, at("2026-01-01 04:00")) == at("2026-01-01 04:00")
    assert latest("0 4 * * *", "UTC", at("2026-01-01 04:00"), at("2026-01-01 12:00")) == at(
        "2026-01-01 04:00"
    )
    assert latest("30 2 * * *", AMSTERDAM, at("2026-03-28 01:30"), at("2026-03-29 12:00")) == at(
        "2026-03-29 01:00"
    )


@given(
    schedule=st.sampled_from(
        ["30 2 * * *", "*/20 * * * *", "15 1,2,3 * * 0", "0 0 29 2 *", "*/30 * * * * *"]
    ),
    zone=st.sampled_from(["UTC", AMSTERDAM, "America/New_York", "Australia/Lord_Howe"]),
    now=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)).map(lambda t: t.replace(tzinfo=UTC)),
)
def test_nothing_lies_between_the_latest_time_and_the_next(schedule: str, zone: str, now: datetime) -> None:
    first = following(schedule, zone, now - timedelta(days=2))
    following_now = following(schedule, zone, now)
    assert following_now > now
    if first <= now:
        found = latest(schedule, zone, first, now)
        assert first <= found <= now
        assert following(schedule, zone, found) > now


@pytest.mark.parametrize(
    ("schedule", "zone", "field", "says"),
    [
        ("every day", "UTC", "/schedule", "not a cron expression"),
        ("61 * * * *", "UTC", "/schedule", "Bad minute"),
        ("", "UTC", "/schedule", "not a cron expression"),
        ("0 0 31 2 *", "UTC", "/schedule", "not a cron expression"),
        ("0 4 * * *", "Mars/Olympus", "/timezone", "no time zone"),
        ("0 4 * * *", "../../etc/passwd", "/timezone", "no time zone"),
        ("0 4 * * *", "", "/timezone", "no time zone"),
    ],
)
def test_what_cannot_be_used_is_refused_and_named(schedule: str, zone: str, field: str, says: str) -> None:
    with pytest.raises(InvalidFields, match=says) as caught:
        check(schedule, zone, at("2026-01-01 00:00"))
    assert [problem.field for problem in caught.value.problems] == [field]
