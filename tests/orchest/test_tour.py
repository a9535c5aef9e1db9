"""What a tour of the platform shows: every type, in order, signed, and anonymous where it is telemetry."""

import json
from collections import Counter
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from clarion.registry import telemetry_document
from orchest.events import CATALOGUE
from orchest.subscribers import SUBSCRIBABLE
from tests.orchest.touring import Toured

LAYERS = ("project", "pipeline", "session", "job", "run")

pytestmark = [pytest.mark.xdist_group("tour"), pytest.mark.timeout(300)]


def test_every_type_of_the_contract_happens(toured: Toured) -> None:
    assert len(CATALOGUE) == 66
    assert len(SUBSCRIBABLE) == 58
    assert {one.type for one in toured.told} == {one.name for one in CATALOGUE}


def test_the_webhook_is_told_of_every_event_once_in_a_sequence_without_gaps(toured: Toured) -> None:
    bodies = [json.loads(request.body) for request in toured.received]
    events = [body for body in bodies if "sequence" in body]
    assert sorted(body["sequence"] for body in events) == list(range(1, len(events) + 1))
    by_sequence = sorted(events, key=lambda body: body["sequence"])
    expected = [one.notification for one in toured.told if one.notification is not None]
    assert [body["data"] for body in by_sequence] == expected
    pings = [body["type"] for body in bodies if "sequence" not in body]
    assert pings == ["debug-ping"]  # of the webhook itself, which is no event


def test_what_is_ended_tells_before_what_contained_it(toured: Toured) -> None:
    """The deletion of the project: innermost first, the project last."""
    types = [one.type for one in toured.told if one.notification is not None]
    assert types[-1] == "project:deleted"
    last = {type: place for place, type in enumerate(types)}
    cron, one_off = "project:cron-job", "project:one-off-job"
    assert last[f"{cron}:run:pipeline-run:deleted"] < last[f"{cron}:deleted"]
    assert last[f"{one_off}:pipeline-run:deleted"] < last[f"{one_off}:deleted"]


def test_each_run_tells_its_life_in_order(toured: Toured) -> None:
    """Of one pipeline run: created, perhaps started, one end, perhaps deleted; nothing twice."""
    lives: dict[str, list[str]] = {}
    for one in toured.told:
        kind, _, verb = one.type.rpartition(":")
        if kind.endswith(":pipeline-run"):
            lives.setdefault(innermost(one.notification)["uuid"], []).append(verb)
    ends = {"succeeded", "failed", "cancelled"}
    for verbs in lives.values():
        assert verbs[0] == "created"
        assert max(Counter(verbs).values()) == 1
        assert len(ends & set(verbs)) == 1
        order = {"created": 0, "started": 1, **dict.fromkeys(ends, 2), "deleted": 3}
        assert verbs == sorted(verbs, key=order.__getitem__)
        if "cancelled" not in verbs:
            assert "started" in verbs


def innermost(payload: Any) -> Any:
    """The layer of the pipeline run, wherever it is nested."""
    while "pipeline_run" not in payload:
        [payload] = [payload[layer] for layer in LAYERS if layer in payload]
    return payload["pipeline_run"]


def test_telemetry_is_sent_as_the_allow_list_says_under_one_id(toured: Toured) -> None:
    schemas = {
        name: Draft202012Validator(entry["schema"])
        for name, entry in telemetry_document(CATALOGUE)["events"].items()
    }
    assert {one["event"] for one in toured.sent} == {t.name for t in CATALOGUE}
    assert len({one["distinct_id"] for one in toured.sent}) == 1
    assert len({one["uuid"] for one in toured.sent}) == len(toured.sent) == len(toured.told)
    for one in toured.sent:
        schemas[one["event"]].validate(one["properties"])


def test_telemetry_holds_no_name_and_no_identifier_of_anything(toured: Toured) -> None:
    text = json.dumps(toured.sent)
    names = {
        value
        for one in toured.told
        for key, value in pairs(one.notification)
        if key in ("name", "title", "url", "uuid", "pipeline_name", "schedule") and value
    }
    assert len(names) > 100
    assert [name for name in names if json.dumps(name) in text] == []


def pairs(payload: Any) -> list[tuple[str, str]]:
    if isinstance(payload, list):
        return [pair for one in payload for pair in pairs(one)]
    if not isinstance(payload, dict):
        return []
    own = [(key, value) for key, value in payload.items() if isinstance(value, str)]
    return own + [pair for one in payload.values() for pair in pairs(one)]


def test_a_secret_parameter_is_nowhere(toured: Toured) -> None:
    assert b"not to be seen" not in b"".join(request.body for request in toured.received)
    assert "not to be seen" not in json.dumps(toured.sent)
    assert any(b"[redacted]" in request.body for request in toured.received)
