"""What the benchmark judges: the worse of two databases, the slowest of a kind, against its target."""

import json

import pytest
from bench.__main__ import LATEST, TARGETS, met, worst


def test_the_slowest_query_and_page_of_the_collector_are_judged() -> None:
    found = {"collector_query_a_ms": 3.0, "collector_query_b_ms": 201.0, "collector_page_a_ms": 199.0}
    judged = worst(found)
    assert judged == {"collector_slowest_query_ms": 201.0, "collector_slowest_page_ms": 199.0}
    assert [met(name, value) for name, value in judged.items()] == [False, True]
    assert worst({"analytics.p99_ms": 1.0}) == {}


@pytest.mark.parametrize(
    ("name", "sqlite", "postgresql", "worse"),
    [
        ("latency.p99_ms", 1.0, 3.0, 3.0),
        ("fairness.ratio", 1.0, 3.0, 3.0),
        ("record.per_second", 9.0, 3.0, 3.0),
    ],
)
def test_the_worse_of_two_databases_counts(name: str, sqlite: float, postgresql: float, worse: float) -> None:
    assert worst({f"{name}.sqlite": sqlite, f"{name}.postgresql": postgresql}) == {name: worse}


def test_every_target_is_of_something_that_is_measured() -> None:
    measured = json.loads(LATEST.read_text())
    assert TARGETS.keys() <= (measured | worst(measured)).keys()
