"""What may come, in a word; and a stored payload beside its schema."""

import json
from typing import Annotated, Any, Literal

import pytest

from clarion import anonymous
from clarion.collector.kinds import allowed_of, kind_of, laid_out
from tests.clarion.collector.sample import FAILED, SCHEMA, properties


@pytest.mark.parametrize(
    ("declared", "kind", "allowed"),
    [
        (bool, "yes or no", ""),
        (bool | None, "yes or no", ""),
        (int, "count", "-1,000,000,000 to 1,000,000,000"),
        (float, "number", ""),
        (Literal["cron", "other"], "one of a list", "cron, other"),
        (anonymous.Bucket, "bucket", "0, 1, 2-5, 6-10, 11-50, 51-100, 101-1000, 1000+"),
        (anonymous.Version, "version", anonymous.VERSION),
        (anonymous.Pseudonym, "pseudonym", anonymous.PSEUDONYM),
        (list[bool], "list: yes or no", ""),
        (dict[Literal["py"], int] | None, "map: count", ""),
    ],
)
def test_every_anonymous_type_has_a_word(declared: Any, kind: str, allowed: str) -> None:
    schema = anonymous.schema(Annotated[declared, "x"])
    assert (kind_of(schema), allowed_of(schema)) == (kind, allowed)


def test_free_text_is_called_by_its_name() -> None:
    assert kind_of({"type": "string"}) == "text"


def test_a_payload_lies_beside_its_schema() -> None:
    stored = {k: v for k, v in properties(FAILED, step_count=-1, note="<b>").items() if not k.startswith("$")}
    del stored["event_properties"]["trigger"]
    rows = {row["path"]: row for row in laid_out(json.dumps(stored), SCHEMA.events[FAILED])}
    assert rows["event_properties.retried"] == {
        "path": "event_properties.retried",
        "value": "false",
        "kind": "yes or no",
        "allowed": "",
        "problem": "",
    }
    assert rows["event_properties.step_count"]["problem"] == "breaks minimum"
    assert (rows["event_properties.note"]["kind"], rows["event_properties.note"]["value"]) == (
        "not declared",
        '"<b>"',
    )
    assert (rows["event_properties.trigger"]["value"], rows["event_properties.trigger"]["problem"]) == (
        None,
        "missing",
    )


def test_a_payload_that_conforms_has_no_problem() -> None:
    stored = {k: v for k, v in properties(FAILED).items() if not k.startswith("$")}
    rows = laid_out(json.dumps(stored), SCHEMA.events[FAILED])
    assert {row["problem"] for row in rows} == {""}
    assert [row["path"] for row in rows] == [
        "event_properties.project",
        "event_properties.trigger",
        "event_properties.step_count",
        "event_properties.retried",
        "derived_properties.duration_bucket",
        "app_properties.version",
        "system_properties.os",
        "system_properties.cpu_count",
        "schema_version",
    ]
