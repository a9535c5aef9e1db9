"""What is kept, what is refused, what is only counted, and what small groups show."""

import base64
import json
import random
import re
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion import anonymous
from clarion.collector import wire
from clarion.collector.ingest import MAX_EVENT_BYTES, Judge, Judged, Ruling
from clarion.collector.privacy import KNOWN_NAMES, REDACTED, SCANNERS, Pseudonyms, UnknownNames
from clarion.collector.questions import MOST_VALUES, fold
from clarion.collector.schema import AllowList
from clarion.collector.transport import STRIPPED, library_of, version_of
from tests.clarion.collector.sample import CREATED, KEY, SCHEMA, event, properties

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRET = b"s" * 32


def judge(allowed: AllowList = SCHEMA) -> Judge:
    pseudonyms = Pseudonyms(SECRET)
    return Judge(allowed, pseudonyms, UnknownNames(pseudonyms))


def rule(judge: Judge, given: dict[str, Any]) -> Judged:
    arrivals = wire.posthog_v0({"api_key": KEY, "batch": [given]}, {}, NOW).arrivals
    return judge.batch("orchest", arrivals, NOW)[0]


def lines(judged: Judged) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in judged.lines.splitlines()]


def test_a_kept_event_is_one_line_without_the_id_that_was_sent() -> None:
    judged = rule(judge(), event(installation="ada"))
    (line,) = lines(judged)
    assert judged.ruling is Ruling.KEPT
    assert (line["k"], line["event"], line["app_version"], line["library"]) == (
        "e",
        CREATED,
        "1.2.0",
        "direct",
    )
    assert line["occurred_at"] == "2026-11-20T10:00:00.000"
    assert b"ada" not in judged.lines


@pytest.mark.parametrize("library", sorted(STRIPPED))
def test_listed_transport_keys_are_stripped_and_counted(library: str) -> None:
    said = {"posthog-js": "web", "posthog-js-lite": "js", "segment-python": "analytics-python"}
    said |= {"segment-js": "analytics.js", "segment-node": "@segment/analytics-node", "direct": "clarion"}
    said |= {"rudder-python": "rudder-sdk-python", "other": "somebody's"}
    given = event()
    given["properties"] |= dict.fromkeys(STRIPPED[library], KEY) | {"$lib": said.get(library, library)}
    one = judge()
    assert rule(one, given).ruling is Ruling.KEPT
    counted = {label for (_, name, label), _ in one.counts.items() if name == "stripped"}
    assert {f"{library}:{key}" for key in STRIPPED[library]} <= counted


def test_a_transport_key_of_another_library_is_not_stripped() -> None:
    given = event()
    given["properties"] |= {"$lib": "posthog-python", "$viewport_width": 1}
    judged = rule(judge(), given)
    assert (judged.ruling, lines(judged)[0]["path"]) == (Ruling.QUARANTINED, "$viewport_width")


def test_an_event_larger_than_the_limit_is_refused() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": False}
    allowed = AllowList.parse({"events": {"a:b": {"schema": schema}}})
    judged = rule(
        judge(allowed), {"event": "a:b", "distinct_id": "a", "properties": {"x": "y" * MAX_EVENT_BYTES}}
    )
    assert (judged.ruling, judged.detail) == (Ruling.QUARANTINED, "too large")


def test_counters_start_again_when_they_were_written() -> None:
    one = judge()
    rule(one, event())
    assert one.drain(NOW).count(b'"kept"') == 1
    assert one.drain(NOW) == b""


@given(st.dictionaries(st.text(min_size=6), st.text(min_size=6), min_size=1, max_size=5))
def test_nothing_of_an_undeclared_property_is_written(given: dict[str, str]) -> None:
    given = {f"Qz9{key}": f"Qz9{value}" for key, value in given.items()}
    one = judge()
    written = rule(one, event(**given)).lines + one.drain(NOW)
    assert b"Qz9" not in written


def test_a_name_shows_after_k_installations_and_never_when_it_is_no_identifier() -> None:
    names = UnknownNames(Pseudonyms(SECRET), k=3)
    shown = [names.label("p", "new_field", f"i{n}") for n in (1, 2, 2, 1, 3)]
    assert [REDACTED in label for label in shown] == [True, True, True, True, False]
    odd = [names.label("p", "My Report.csv", f"i{n}") for n in range(9)]
    assert all(REDACTED in label for label in odd)
    assert names.label("p", "$pageview", "i1") == "$pageview"
    assert "$identify" in KNOWN_NAMES


def test_counting_of_names_goes_on_from_what_was_stored() -> None:
    pseudonyms = Pseudonyms(SECRET)
    label = UnknownNames(pseudonyms, k=2).label("p", "new_field", "i1")
    later = UnknownNames(pseudonyms, k=2, seen=[(label, "i1")])
    assert later.label("p", "new_field", "i2") == "new_field"


def test_pseudonyms_are_stable_keyed_and_differ_by_project() -> None:
    one, two = Pseudonyms(SECRET), Pseudonyms(b"t" * 32)
    assert one.installation("p", "i") == Pseudonyms(SECRET).installation("p", "i")
    assert len({one.installation("p", "i"), two.installation("p", "i"), one.installation("q", "i")}) == 3
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}", one.event("p", "e")
    )
    with pytest.raises(ValueError, match="32 bytes"):
        Pseudonyms(b"short")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("1.2.3", "1.2.3"), ("7.91.1", "7.91.1"), ("1.0-ada", ""), (7, ""), ("1.2.3\n", "")],
)
def test_only_version_numbers_are_versions(given: Any, expected: str) -> None:
    assert version_of(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"), [(None, "direct"), ("web", "posthog-js"), ("ada", "other"), (["web"], "other")]
)
def test_libraries_are_a_closed_list(given: Any, expected: str) -> None:
    assert library_of(given) == expected


groups = st.dictionaries(
    st.text(min_size=1, max_size=3), st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=80
).map(lambda found: [(value, max(n, i), i) for value, (n, i) in found.items()])


@given(groups, st.integers(1, 10))
def test_folding_shows_no_small_group_and_loses_no_event(found: list[tuple[str, int, int]], k: int) -> None:
    shown = fold(found, k)
    sizes = {value: installations for value, _, installations in found}
    assert all(sizes[row["value"]] >= k for row in shown if row["installations"] is not None)
    assert len(shown) <= MOST_VALUES + 1
    if all(row["events"] is not None for row in shown):
        assert sum(row["events"] for row in shown) == sum(events for _, events, _ in found)


@pytest.mark.parametrize("length", [24, 32, 48])
def test_nearly_every_token_of_random_bytes_is_found(length: int) -> None:
    chosen = random.Random(length)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        tokens = [encode(chosen.randbytes(length)).decode() for _ in range(1000)]
        assert sum("long_token" in found_in(f'{{"note": "{token}"}}') for token in tokens) > 950
    assert found_in(chosen.randbytes(20 + length).hex()) == ["long_token"]


def found_in(text: str) -> list[str]:
    return [name for name, pattern in SCANNERS.items() if re.search(pattern, text)]


def test_scanners_leave_pseudonyms_and_ids_alone() -> None:
    chosen = random.Random(7)
    for _ in range(1000):
        event_id = uuid.UUID(int=chosen.getrandbits(128), version=4)
        pseudonym = anonymous.pseudonym(b"k" * 32, "project", str(event_id))
        assert found_in(json.dumps({"uuid": str(event_id), "project": {"uuid": pseudonym}})) == []


def test_scanners_leave_what_the_catalogue_allows_alone() -> None:
    assert found_in(msgspec.json.encode(properties()).decode()) == []
