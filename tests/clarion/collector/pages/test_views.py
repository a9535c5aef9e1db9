"""What a chart is given: every day, also the quiet ones, and the versions that matter."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from clarion.collector.pages.views import DAYS, Where, _adoption, chart, starts_of

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize("days", DAYS)
def test_a_chart_has_every_period_of_its_days(days: int) -> None:
    where = Where("shop", ("shop",), days, NOW)
    starts = starts_of(where)
    step = timedelta(days=1 if days <= 90 else 7)
    months = starts_of(where, "month")
    assert months[0] == where.span.since.date().replace(day=1)
    assert months[-1] == date(2026, 11, 1)
    assert all(after.day == 1 and 28 <= (after - before).days <= 31 for before, after in pairwise(months))
    assert starts[0] <= where.span.since.date() < starts[0] + step
    assert starts[-1] <= NOW.date() < starts[-1] + step
    assert all(after - before == step for before, after in pairwise(starts))
    if days > 90:
        assert {start.weekday() for start in starts} == {0}  # as date_trunc counts weeks


def test_days_without_events_are_zero_and_what_is_not_said_stays_so() -> None:
    days = [date(2026, 11, day) for day in (1, 2, 3)]
    made = chart(days, {"Active": {"2026-11-01": 7, "2026-11-03": None}})
    assert made["series"] == [{"label": "Active", "values": [7, 0, None]}]
    assert made["x"] == [1793491200, 1793577600, 1793664000]


def test_the_newest_versions_are_named_and_older_ones_are_one() -> None:
    versions = [f"1.{n}.0" for n in range(9, 12)] + [f"0.{n}.0" for n in range(5)]
    rows = [{"value": name, "installations": 5} for name in versions]
    periods = [{"period": "2026-11-01", "versions": [*rows, {"value": "other", "installations": None}]}]
    made = _adoption(periods, [date(2026, 11, 1)])
    assert [one["label"] for one in made["series"]] == [
        "1.11.0",
        "1.10.0",
        "1.9.0",
        "0.4.0",
        "0.3.0",
        "0.2.0",
        "older",
    ]
    assert made["series"][-1]["values"] == [10]


def test_a_link_keeps_the_project_and_the_days() -> None:
    where = Where("a shop", ("a shop",), 7, NOW)
    assert where.query(before=3) == "project=a+shop&days=7&before=3"
    assert where.file("funnel", step=["a:b", "c:d"]) == (
        "/api/funnel?project=a+shop&since=2026-11-13T12%3A00%3A00%2B00%3A00&step=a%3Ab&step=c%3Ad&format=csv"
    )
