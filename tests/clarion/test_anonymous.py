"""The anonymous types: what leaves is constructed for its type, and never free text."""

import hmac
import json
import math
import re
import sys
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from hashlib import sha256
from typing import Annotated, Any, Literal
from uuid import RFC_4122, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from clarion import anonymous
from clarion.anonymous import Bucket, DurationBucket, NotAnonymous, Pseudonym, Version, convert, schema


class Kind(Enum):
    PY = "py"
    OTHER = "other"


TYPES: list[Any] = [
    bool,
    int,
    float,
    datetime,
    Kind,
    Literal["a", "b"],
    Bucket,
    DurationBucket,
    Version,
    Pseudonym,
    int | None,
    Bucket | None,
    list[Kind],
    dict[Kind, int],
    dict[Literal["x", "y"], list[bool]],
]

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(timezones=st.just(UTC)),
    st.lists(st.text() | st.integers() | st.booleans()),
    st.dictionaries(st.sampled_from([Kind.PY, "x", "secret", "py"]), st.integers() | st.booleans()),
)


@given(st.sampled_from(TYPES), VALUES)
def test_what_leaves_matches_the_types_schema_whatever_goes_in(tp: Any, value: Any) -> None:
    try:
        sent = convert(tp, value)
    except (ValueError, TypeError) as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert not (isinstance(value, str) and len(value) > 8 and value in refusal)
        return
    Draft202012Validator(schema(tp)).validate(json.loads(json.dumps(sent, allow_nan=False)))


@given(st.text(min_size=9))
def test_no_type_lets_free_text_through(secret: str) -> None:
    for tp in TYPES:
        try:
            sent = json.dumps(convert(tp, secret))
        except (ValueError, TypeError):
            continue
        assert sent == '"other"' or re.fullmatch(
            anonymous.PSEUDONYM + "|" + anonymous.VERSION, json.loads(sent)
        )


@pytest.mark.parametrize(
    ("count", "name"),
    [
        (0, "0"),
        (1, "1"),
        (2, "2-5"),
        (5, "2-5"),
        (6, "6-10"),
        (10, "6-10"),
        (11, "11-50"),
        (50, "11-50"),
        (51, "51-100"),
        (100, "51-100"),
        (101, "101-1000"),
        (1000, "101-1000"),
        (1001, "1000+"),
    ],
)
def test_buckets(count: int, name: str) -> None:
    assert convert(Bucket, count) == name


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [(-0.1, 0), (0, 0), (0.2, 1), (1, 1), (3, 4), (4.1, 8), (10**9, 2**20), (10**400, 2**20)],
)
def test_durations_are_powers_of_two(seconds: float, sent: int) -> None:
    assert convert(DurationBucket, seconds) == sent


@pytest.mark.parametrize("value", [True, False, math.nan, math.inf, -math.inf, "3", None, [3]])
@pytest.mark.parametrize("tp", [Bucket, DurationBucket])
def test_a_bucket_holds_no_truth_and_no_number_without_end(tp: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^not a (count|finite number of seconds)$"):
        convert(tp, value)


@pytest.mark.parametrize("value", [-1, -(10**400), 3.0, 0.5])
def test_a_count_is_a_whole_number_from_zero_on(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^not a count$"):
        convert(Bucket, value)


@pytest.mark.parametrize(
    ("tp", "value", "sent"),
    [
        (int, 10**30, 10**9),
        (int, -(10**30), -(10**9)),
        (int | None, 7, 7),
        (int | None, None, None),
        (bool | Kind, "py", "py"),
        (Annotated[int, "in words"], 10**30, 10**9),
        (Annotated[int | None, "in words"], None, None),
        (float, 123.456, 123.0),
        (float, 7, 7.0),
        (float, 1e308, 1e308),
        (datetime, datetime(2026, 1, 1, 12, 30, 0, 999, tzinfo=UTC), "2026-01-01T12:30:00.000Z"),
        (Kind, "ipynb", "other"),
        (Kind, Kind.PY, "py"),
        (Version, "1.2.3rc1", "1.2.3rc1"),
        (dict[Kind, int], {"py": 1, "secret": 2}, {"py": 1}),
        (list[int], list(range(500)), list(range(100))),
    ],
)
def test_conversions(tp: Any, value: Any, sent: Any) -> None:
    assert convert(tp, value) == sent


@pytest.mark.parametrize(
    ("tp", "value"),
    [
        (float, math.nan),
        (float, -math.inf),
        (float, sys.float_info.max),  # rounded it would be infinite
        (float, -(10**400)),
        (datetime, datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))),
        (datetime, datetime(2026, 1, 1)),
    ],
)
def test_what_could_not_be_sent_is_a_value_error(tp: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r"expected (float|datetime)|no year"):
        convert(tp, value)


class Somebodys(str):
    """A text that knows more than it says."""

    note = "hers"


@pytest.mark.parametrize(
    ("tp", "text"), [(Version, "1.2.3"), (Pseudonym, "0" * 32), (Kind, "py"), (Literal["a", "other"], "a")]
)
def test_what_leaves_is_never_the_object_that_was_given(tp: Any, text: str) -> None:
    sent = convert(tp, Somebodys(text))
    assert (type(sent), sent) == (str, text)


def test_a_literal_is_a_closed_list() -> None:
    assert schema(Literal["a", "other"]) == {"enum": ["a", "other"]}
    assert convert(Literal["a", "other"], "b") == "other"


@pytest.mark.parametrize("value", ["1.2.3-anna", "v1", "", "1.2.3.4.5", 1])
def test_a_version_is_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match="not a version"):
        convert(Version, value)


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("tp", "holds"),
    [
        (bool, {"type": "boolean"}),
        (int, {"type": "integer", "minimum": -(10**9), "maximum": 10**9}),
        (float, {"type": "number"}),
        (datetime, TEXT | {"format": "date-time", "pattern": "Z$"}),
        (Kind, {"enum": ["py", "other"]}),
        (Bucket, {"enum": ["0", "1", "2-5", "6-10", "11-50", "51-100", "101-1000", "1000+"]}),
        (DurationBucket, {"enum": [0, *(2**n for n in range(21))]}),
        (Version, TEXT | {"pattern": anonymous.VERSION}),
        (Pseudonym, TEXT | {"pattern": "^[0-9a-f]{32}$"}),
        (Annotated[bool, "in words"], {"type": "boolean"}),
        (bool | None, {"anyOf": [{"type": "boolean"}, {"type": "null"}]}),
        (bool | float, {"anyOf": [{"type": "boolean"}, {"type": "number"}]}),
        (list[bool], {"type": "array", "items": {"type": "boolean"}, "maxItems": 100}),
        (
            dict[Kind, bool],
            {
                "type": "object",
                "properties": {"py": {"type": "boolean"}, "other": {"type": "boolean"}},
                "additionalProperties": False,
            },
        ),
    ],
)
def test_each_type_s_schema(tp: Any, holds: dict[str, Any]) -> None:
    assert schema(tp) == holds


@pytest.mark.parametrize(
    ("tp", "found"),
    [
        (bool, "yes or no"),
        (bool | None, "yes or no"),
        (Kind, "one of a list"),
        (Bucket | None, "bucket"),
        (DurationBucket, "bucket"),
        (int, "count"),
        (float, "number"),
        (Version, "version"),
        (datetime, "time"),
        (Pseudonym, "pseudonym"),
        (list[Pseudonym] | None, "pseudonym"),
        (dict[Kind, int], "count"),
        (bool | int, "count"),
        (dict[Kind, list[bool | datetime]], "time"),
    ],
)
def test_a_type_has_the_class_of_the_gravest_it_holds(tp: Any, found: str) -> None:
    assert anonymous.classification(schema(tp)) == found


@pytest.mark.parametrize(
    ("holds", "found"),
    [({"const": 1}, "constant"), (TEXT | {"format": "uuid"}, "event id"), (TEXT, "text"), ({}, "text")],
)
def test_what_no_type_holds_has_a_class_too(holds: dict[str, Any], found: str) -> None:
    assert anonymous.classification(holds) == found


@pytest.mark.parametrize(
    ("tp", "deep"),
    [
        (bool, 0),
        (bool | None, 0),
        (list[bool], 1),
        (dict[Kind, bool], 1),
        (list[bool] | None, 1),
        (bool | list[list[bool]], 2),
        (dict[Kind, list[dict[Kind, bool]]], 3),
    ],
)
def test_levels_are_those_of_lists_and_maps(tp: Any, deep: int) -> None:
    assert anonymous.levels(schema(tp)) == deep


@pytest.mark.parametrize(("tp", "name"), [(str, "str"), (list[str], "str"), (list, "list"), ("Shop", "Shop")])
def test_a_type_that_could_hold_a_text_is_told_with_what_is_allowed(tp: Any, name: str) -> None:
    told = (
        f"{name} can carry free text; telemetry may only carry bool, int, float, Enum, Literal, datetime, "
        "Bucket, DurationBucket, Version, Pseudonym, and lists and dicts of these with Enum or Literal keys"
    )
    with pytest.raises(NotAnonymous, match=f"^{re.escape(told)}$"):
        schema(tp)


@pytest.mark.parametrize("tp", [str, Any, bytes, list[str], dict[str, int], str | int, object, dict, list])
def test_other_types_are_refused(tp: Any) -> None:
    with pytest.raises(NotAnonymous, match="can carry free text"):
        schema(tp)


def test_pseudonyms_belong_to_one_installation_and_one_layer() -> None:
    a = anonymous.pseudonym(b"a" * 32, "project", "p1")
    assert a == anonymous.pseudonym(b"a" * 32, "project", "p1")
    assert a != anonymous.pseudonym(b"b" * 32, "project", "p1")
    assert a != anonymous.pseudonym(b"a" * 32, "job", "p1")
    assert re.fullmatch(anonymous.PSEUDONYM, a)
    assert a == hmac.new(b"a" * 32, b"project\0p1", sha256).hexdigest()[:32]


def test_a_message_id_is_stable_and_not_the_events() -> None:
    event = uuid4()
    sent = anonymous.pseudonym_uuid(b"a" * 32, event)
    assert sent == anonymous.pseudonym_uuid(b"a" * 32, event) != event
    assert sent != anonymous.pseudonym_uuid(b"b" * 32, event)
    assert (sent.version, sent.variant) == (4, RFC_4122)
