"""The allow-list lets through what is declared and describes the rest in shapes, never in values."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.collector.schema import MAX_FAULTS, AllowList, size_of
from clarion.errors import ConfigurationError
from tests.clarion.collector.sample import CREATED, DOCUMENT, FAILED, SCHEMA, properties


def test_what_is_declared_is_allowed_with_and_without_the_transport_switches() -> None:
    whole = properties(FAILED)
    assert SCHEMA.events[FAILED].allows(whole)
    assert SCHEMA.events[FAILED].allows({k: v for k, v in whole.items() if not k.startswith("$")})


@pytest.mark.parametrize(
    ("change", "path", "problem", "kind", "size"),
    [
        ({"trigger": "ada@example.org"}, "event_properties.trigger", "value not allowed", "string", "11-50"),
        ({"step_count": "3"}, "event_properties.step_count", "wrong type", "string", "1"),
        ({"step_count": -1}, "event_properties.step_count", "breaks minimum", "number", ""),
        ({"retried": None}, "event_properties.retried", "wrong type", "null", ""),
        ({"project": "Ada's project"}, "event_properties.project", "breaks pattern", "string", "11-50"),
        ({"note": ["a", "b"]}, "event_properties", "unknown property", "array", "2-5"),
    ],
)
def test_a_fault_says_where_and_what_shape(
    change: Any, path: str, problem: str, kind: str, size: str
) -> None:
    (fault,) = SCHEMA.events[FAILED].faults(properties(FAILED, **change))
    assert (fault.path, fault.problem, fault.type, fault.size) == (path, problem, kind, size)
    assert "ada" not in f"{fault.path}{fault.problem}".lower()


def test_a_missing_property_is_named() -> None:
    given = properties(FAILED)
    del given["event_properties"]["trigger"]
    (fault,) = SCHEMA.events[FAILED].faults(given)
    assert (fault.path, fault.problem) == ("event_properties.trigger", "missing")


def test_keys_of_open_maps_are_data_and_never_in_a_path() -> None:
    document = {
        "events": {
            "a:b": {
                "schema": {
                    "type": "object",
                    "properties": {"counts": {"type": "object", "additionalProperties": {"type": "integer"}}},
                    "additionalProperties": False,
                }
            }
        }
    }
    (fault,) = AllowList.parse(document).events["a:b"].faults({"counts": {"ada.csv": "x"}})
    assert fault.path == "counts.*"


def test_at_most_so_many_shapes_of_one_event() -> None:
    given = properties(**{f"k{n}": n for n in range(100)})
    assert len(SCHEMA.events[CREATED].faults(given)) == MAX_FAULTS


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.floats(), st.lists), max_size=4))
def test_allowed_and_faults_never_disagree(more: dict[str, Any]) -> None:
    schema = SCHEMA.events[CREATED]
    given = properties() | more
    assert schema.allows(given) == (not schema.faults(given))


def test_leaves_are_the_declared_values() -> None:
    assert set(SCHEMA.events[CREATED].leaves) == {
        "event_properties.project",
        "derived_properties.duration_bucket",
        "app_properties.version",
        "system_properties.os",
        "system_properties.cpu_count",
        "schema_version",
    }


def test_a_schema_file_is_read_and_its_hash_kept(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(DOCUMENT))
    loaded = AllowList.load(path)
    assert (loaded.hash, loaded.version, set(loaded.events)) == (DOCUMENT["hash"], 3, {CREATED, FAILED})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "not JSON"),
        ("[]", '"events"'),
        ('{"events": {"a:b": {}}}', "a:b"),
        ('{"events": {"a:b": {"schema": {"type": "object"}}}}', "closed"),
        ('{"events": {"a:b": {"schema": {"type": 7, "additionalProperties": false}}}}', "2020-12"),
    ],
)
def test_a_wrong_schema_file_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        AllowList.load(path)


def test_a_missing_schema_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.json"):
        AllowList.load(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("length", "bucket"),
    [
        (0, "0"),
        (1, "1"),
        (5, "2-5"),
        (6, "6-10"),
        (50, "11-50"),
        (100, "51-100"),
        (1000, "101-1000"),
        (1001, "1000+"),
    ],
)
def test_sizes_are_buckets(length: int, bucket: str) -> None:
    assert size_of("x" * length) == bucket
