"""Rows as files: nothing is lost, no cell is a formula, nothing is kept in memory."""

import csv
import io
import json
import tracemalloc
import uuid
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.collector.exporting import as_csv, as_json, as_text, flat


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    "cell", ["=1+2", "+1 2", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"]
)
def test_no_cell_is_a_formula(cell: str) -> None:
    assert read("".join(as_csv([{"a": cell}], ["a"]))) == [["a"], [f"'{cell}"]]


@pytest.mark.parametrize(
    "cell", [-5, -0.25, "-5", "-0.25", "plain", 'quo"te', "com,ma", "line\nbreak", "‹key›"]
)
def test_everything_else_stays_as_it_is(cell: object) -> None:
    assert read("".join(as_csv([{"a": cell}], ["a"]))) == [["a"], [str(cell)]]


def test_what_is_not_said_is_an_empty_cell_and_no_rows_are_a_header() -> None:
    assert read("".join(as_csv([{"a": None, "b": True}], ["a", "b", "c"]))) == [
        ["a", "b", "c"],
        ["", "true", ""],
    ]
    assert "".join(as_csv([], ["a", "b"])) == "a,b\r\n"


@given(st.lists(st.fixed_dictionaries({"a": st.text(), "b": st.integers()})))
def test_csv_and_json_can_be_read_again(rows: list[dict[str, Any]]) -> None:
    found = read("".join(as_csv(rows, ["a", "b"])))
    assert [(one[0].removeprefix("'"), int(one[1])) for one in found[1:]] == [
        (row["a"].removeprefix("'"), row["b"]) for row in rows
    ]
    assert json.loads("".join(as_json(rows, "rows"))) == {"rows": rows}


def test_a_list_inside_becomes_a_row_each_and_an_empty_one_a_row() -> None:
    rows = [
        {"period": "p", "events": 9, "values": [{"value": "x", "events": 1}, {"value": "y", "events": 2}]},
        {"period": "q", "events": 0, "values": []},
        {"cohort": "c", "returned": [5, None]},
    ]
    assert list(flat(rows)) == [
        {"period": "p", "events": 9, "value": "x", "values_events": 1},
        {"period": "p", "events": 9, "value": "y", "values_events": 2},
        {"period": "q", "events": 0},
        {"cohort": "c", "returned_place": 1, "returned": 5},
        {"cohort": "c", "returned_place": 2, "returned": None},
    ]


@pytest.mark.parametrize("form", [lambda rows: as_csv(rows, ["a"]), lambda rows: as_json(rows, "rows")])
def test_a_large_export_is_never_whole_in_memory(form: Any) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for _ in range(20_000):
            yield {"a": "x" * 1000}

    tracemalloc.start()
    try:
        size = sum(map(len, form(rows())))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 20_000_000
    assert peak < 1_000_000


def test_what_json_has_no_form_for_becomes_text() -> None:
    at = datetime(2026, 11, 20, 12)
    given = [None, True, 1, 0.5, "x", at, at.date(), float("nan"), uuid.UUID(int=1), Decimal("1.5"), [1]]
    assert json.loads(json.dumps([as_text(value) for value in given], allow_nan=False)) == [
        None,
        True,
        1,
        0.5,
        "x",
        "2026-11-20T12:00:00",
        "2026-11-20",
        "nan",
        "00000000-0000-0000-0000-000000000001",
        "1.5",
        "[1]",
    ]
