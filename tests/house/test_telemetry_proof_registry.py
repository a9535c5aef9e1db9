"""What may be sent is written down, explained, and changed only by who says so in the changelog."""

import copy
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from clarion import anonymous
from clarion.catalogue import example_of
from clarion.cli.docs import pages
from clarion.collector.privacy import SCANNERS
from clarion.envelope import whole_schema
from clarion.losses import telemetry_types
from clarion.registry import (
    EXAMPLE_DAY,
    Difference,
    acknowledged,
    difference,
    expiring,
    fingerprint,
    leaves,
    properties,
    registry,
    telemetry_document,
    widening,
    wider,
)
from orchest.events import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT: dict[str, Any] = registry(CATALOGUE)


@pytest.mark.parametrize("name", pages(CATALOGUE))
def test_the_generated_pages_are_up_to_date(name: str) -> None:
    path = ROOT / "docs" / name
    told = "run: CLARION_APP=orchest.events clarion docs"
    assert path.exists(), told
    assert path.read_text("utf-8") == pages(CATALOGUE)[name], f"{path} is stale; {told}"


def test_a_change_of_what_is_sent_is_acknowledged_in_the_changelog() -> None:
    before = json.loads((ROOT / "docs/reference/telemetry-registry.json").read_text("utf-8"))
    assert acknowledged(SNAPSHOT, (ROOT / "CHANGELOG.md").read_text("utf-8")), (
        f"What telemetry may send has changed (wider: {widening(before, SNAPSHOT) or 'nothing'}). If that "
        "is meant, say in CHANGELOG.md what is sent now, and why; what is wider needs a new notice: "
        f"- telemetry {fingerprint(SNAPSHOT)}, notice {SNAPSHOT['version']}: ..."
    )


def test_a_second_line_for_one_notice_is_one_too_many() -> None:
    line = f"- telemetry {fingerprint(SNAPSHOT)}, notice 5: all of it.\n"
    snapshot = SNAPSHOT | {"version": 5}
    assert acknowledged(snapshot, line)
    assert acknowledged(snapshot, f"- telemetry 0123456789ab, notice 4: less.\n{line}")
    assert not acknowledged(snapshot, f"- telemetry 0123456789ab, notice 5: less.\n{line}")
    assert not acknowledged(SNAPSHOT | {"version": 6}, line)
    assert not acknowledged(snapshot, line.replace("telemetry", "something"))


def test_a_change_of_what_may_be_sent_is_asked_of_its_owners() -> None:
    owned = [line.split() for line in (ROOT / "CODEOWNERS").read_text("utf-8").splitlines()]
    owners = {path: who for path, *who in owned if path != "#"}
    assert all(who and all(one.startswith("@") for one in who) for who in owners.values())
    assert "/docs/reference/telemetry-registry.json" in owners
    assert [path for path in owners if not (ROOT / path.strip("/")).exists()] == []


def test_somebody_answers_for_every_type_and_none_expires_soon() -> None:
    assert [name for name, event in SNAPSHOT["events"].items() if event["upkeep"] is None] == []
    soon = expiring(CATALOGUE, datetime.now(UTC).date())
    assert soon == [], "these expire within two weeks: take them out, or say anew that they are needed"


def test_every_property_says_what_it_is_and_what_for() -> None:
    groups = [*SNAPSHOT["envelope"].values()]
    for event in SNAPSHOT["events"].values():
        assert event["description"]
        groups += [event["event_properties"], event["derived_properties"]]
    for group in groups:
        for name, entry in group.items():
            assert entry["purpose"], name
            assert entry["doc"], name
            assert entry["classification"] in set(anonymous.Classification) - {"text"}, name
            jsonschema.validate(entry["example"], entry["holds"])


def test_the_class_of_a_property_follows_from_its_role_and_its_type() -> None:
    found: dict[str, set[str]] = {}
    for event_type in telemetry_types(CATALOGUE):
        event = SNAPSHOT["events"][event_type.name]
        entries = event["event_properties"] | event["derived_properties"]
        for field in event_type.fields:
            if field.in_telemetry:
                classification = entries[".".join(field.path)]["classification"]
                assert (field.role == "identity") == (classification == "pseudonym"), field
                found.setdefault(field.role, set()).add(classification)
        if not event_type.captured:
            root = {name: entries[name]["classification"] for name in ("uuid", "type", "timestamp")}
            assert root == {"uuid": "event id", "type": "constant", "timestamp": "time"}
    assert found["measure"] == {"count", "number", "yes or no", "one of a list"}


def schemas(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from schemas(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from schemas(inner)


def test_no_schema_has_room_for_a_text() -> None:
    shapes = {anonymous.VERSION, anonymous.PSEUDONYM}
    for event_type in CATALOGUE:
        for schema in schemas(whole_schema(event_type.telemetry_schema())):
            if schema.get("type") == "string":
                closed = schema.get("pattern") in shapes or schema.get("format") in ("uuid", "date-time")
                assert closed, (event_type.name, schema)
            if schema.get("type") == "object" and "properties" in schema:
                assert schema["additionalProperties"] is False
            if schema.get("type") == "array":
                assert schema["maxItems"] <= anonymous.MAX_ITEMS


def changed(**edits: Any) -> dict[str, Any]:
    after = copy.deepcopy(SNAPSHOT)
    entry = after["events"]["heartbeat-trigger"]["event_properties"]
    for name, holds in edits.items():
        entry[name] = {"holds": holds, "doc": "d", "purpose": "p"}
    return after


def test_a_new_property_or_a_wider_one_is_named_and_changes_the_fingerprint() -> None:
    assert widening(SNAPSHOT, SNAPSHOT) == []
    for after, name in (
        (changed(users={"type": "integer"}), "heartbeat-trigger users"),
        (changed(active={"enum": [True, False, "maybe"]}), "heartbeat-trigger active"),
    ):
        assert widening(SNAPSHOT, after) == [name]
        assert fingerprint(after) != fingerprint(SNAPSHOT)
        assert not acknowledged(after, (ROOT / "CHANGELOG.md").read_text("utf-8"))
    more = copy.deepcopy(SNAPSHOT)
    more["events"]["project:archived"] = more["events"].pop("project:deleted")
    assert "project:archived event_properties" in widening(SNAPSHOT, more)
    assert not any("deleted" in name for name in widening(SNAPSHOT, more))


def test_a_better_description_needs_no_acknowledgement() -> None:
    after = copy.deepcopy(SNAPSHOT)
    after["events"]["heartbeat-trigger"]["event_properties"]["active"]["doc"] = "better"
    assert fingerprint(after) == fingerprint(SNAPSHOT)
    assert difference(SNAPSHOT, after) is Difference.ADDITIVE


def test_a_change_is_of_one_class() -> None:
    assert difference(SNAPSHOT, copy.deepcopy(SNAPSHOT)) is Difference.NONE
    without = copy.deepcopy(SNAPSHOT)
    del without["events"]["project:deleted"]
    assert difference(SNAPSHOT, without) is Difference.BREAKING
    assert difference(without, SNAPSHOT) is Difference.WIDENING
    fewer = copy.deepcopy(SNAPSHOT)
    holds = fewer["events"]["view:loaded"]["event_properties"]["name"]["holds"]
    next(one for one in holds["anyOf"] if "enum" in one)["enum"].remove("jobs")
    assert difference(SNAPSHOT, fewer) is Difference.BREAKING
    assert difference(fewer, SNAPSHOT) is Difference.WIDENING
    both = changed(users={"type": "integer"})
    del both["events"]["project:deleted"]
    assert difference(SNAPSHOT, both) is Difference.WIDENING


BOOL, INT = {"type": "boolean"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("old", "new", "is_wider"),
    [
        (BOOL, BOOL, False),
        (BOOL, INT, True),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}, False),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, True),
        ({"anyOf": [BOOL, {"type": "null"}]}, BOOL, False),
        (BOOL, {"anyOf": [BOOL, {"type": "null"}]}, True),
        ({"anyOf": [BOOL, INT]}, {"anyOf": [INT]}, False),
        (
            {"type": "array", "items": BOOL, "maxItems": 5},
            {"type": "array", "items": BOOL, "maxItems": 9},
            True,
        ),
        ({"type": "array", "items": BOOL}, {"type": "array", "items": INT}, True),
        ({"type": "object", "properties": {"a": INT}}, {"type": "object", "properties": {}}, False),
        ({"type": "object", "properties": {}}, {"type": "object", "properties": {"a": INT}}, True),
        ({"const": 1}, {"const": 2}, False),
        ({"type": "string", "pattern": "x"}, {"type": "string"}, True),
    ],
)
def test_what_is_wider(old: dict[str, Any], new: dict[str, Any], is_wider: bool) -> None:
    assert wider(old, new) is is_wider


def test_no_scanner_of_the_collector_takes_fright_at_what_may_be_sent() -> None:
    for name, holds in properties(SNAPSHOT).items():
        text = json.dumps([holds, list(holds.get("properties", ())), example_of(holds, EXAMPLE_DAY, {})])
        allowed = text.replace(json.dumps(anonymous.VERSION), "")
        assert [found for found, pattern in SCANNERS.items() if re.search(pattern, allowed)] == [], name


def test_the_collector_s_allow_list_is_the_catalogue() -> None:
    document = telemetry_document(CATALOGUE)
    assert set(document["events"]) == {t.name for t in telemetry_types(CATALOGUE)}
    assert len(telemetry_types(CATALOGUE)) == len(CATALOGUE) + 1
    assert len(document["hash"]) == 64


def test_the_collector_is_told_who_answers_for_each_type_and_what_each_property_is_for() -> None:
    for name, entry in telemetry_document(CATALOGUE)["events"].items():
        assert entry["owner"], name
        assert entry["since"], name
        paths = {
            f"{group}.{'.'.join(path)}"
            for group in ("event_properties", "derived_properties", "app_properties", "system_properties")
            for path, _ in leaves(entry["schema"]["properties"][group], ())
        }
        assert set(entry["purposes"]) == paths
        assert all(entry["purposes"].values())
