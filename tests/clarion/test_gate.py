"""The last gate agrees with JSON Schema on what is declared, and lets no text pass where nothing is."""

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from clarion import gate
from clarion.catalogue import EventType, declared
from clarion.envelope import SCHEMA_VERSION, SWITCHES, AppProperties, detect_system, render, whole_schema
from clarion.losses import Loss, given_up
from clarion.outbox import Attempt, Capture, Delivery
from clarion.telemetry import TelemetryState
from clarion.testing import FrozenClock, Receiver, Reply, drain
from orchest.events import CATALOGUE
from tests.clarion.telemetry_sample import NOW, TYPES, an_analytics, events_in, switched_on

EVERY = [*CATALOGUE, *TYPES]


def sent(event_type: EventType) -> dict[str, Any]:
    """An example of a type's properties, as they leave."""
    return {
        **event_type.telemetry_example(datetime(2026, 1, 1, tzinfo=UTC)),
        "app_properties": render(AppProperties(version="1.2", max_builds_parallelism=3)),  # type: ignore[arg-type]
        "system_properties": render(detect_system()),
        "schema_version": SCHEMA_VERSION,
        **SWITCHES,
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def with_value(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> Any:
    changed: Any = {"": copy.deepcopy(document)}
    holder = changed
    for key in ("", *path[:-1]):
        holder = holder[key]
    if not path:
        return value
    holder[path[-1]] = value
    return changed[""]


@pytest.mark.parametrize("event_type", EVERY, ids=lambda t: t.name)
def test_what_is_declared_passes(event_type: EventType) -> None:
    assert declared(event_type.name) == event_type
    assert gate.refusal(event_type.name, sent(event_type)) == ""


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.just(10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "other", "jobs", "1.2.3", "0" * 32, "1.2\n", "2026-01-01T00:00:00.000Z", "1+"]),
    st.text(max_size=10),
    st.lists(st.integers(), max_size=3),
    st.just([1] * 101),
    st.dictionaries(st.sampled_from(["py", "other", "name"]), st.integers(), max_size=2),
)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), event_type=st.sampled_from(EVERY), value=VALUES)
def test_it_agrees_with_json_schema(data: st.DataObject, event_type: EventType, value: Any) -> None:
    """Where it is stricter, it is about a line's end, or about an id or a time that is none."""
    document = sent(event_type)
    path = data.draw(st.sampled_from(list(places(document))))
    changed = with_value(document, path, value)
    validator = jsonschema.Draft202012Validator(whole_schema(event_type.telemetry_schema()))
    passes = gate.refusal(event_type.name, changed) == ""
    if validator.is_valid(changed) and not passes:
        assert isinstance(value, str)
        assert path[-1] in ("uuid", "timestamp") or path[-1].endswith("_time") or value.endswith("\n")
    else:
        assert passes == validator.is_valid(changed)


COUNT = {"type": "integer", "minimum": -(10**9), "maximum": 10**9}
FLAGS = {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}
TIME = {"type": "string", "format": "date-time", "pattern": "Z$"}
ID = {"type": "string", "format": "uuid"}


@pytest.mark.parametrize(
    ("schema", "value", "passes"),
    [
        (COUNT, 10**9, True),
        (COUNT, 10**9 + 1, False),
        (COUNT, -(10**9), True),
        (COUNT, -(10**9) - 1, False),
        (COUNT, 1.0, True),
        (COUNT, 1.5, False),
        (COUNT, True, False),
        (COUNT, "1", False),
        ({"type": "number"}, 1.5, True),
        ({"type": "number"}, True, False),
        ({"type": "boolean"}, 1, False),
        ({"enum": [0, 1]}, True, False),
        ({"const": True}, 1, False),
        (FLAGS, [True] * 3, True),
        (FLAGS, [True] * 4, False),
        (FLAGS, [True, 1], False),
        (FLAGS, {}, False),
        (FLAGS, "ann", False),
        (TIME, "2026-01-01T00:00:00.000Z", True),
        (TIME, "2026-01-01T00:00:00.000", False),
        (TIME, "ann's birthdayZ", False),
        (TIME, f"2026-01-01T00:00:00.{'0' * 11}Z", True),
        (TIME, f"2026-01-01T00:00:00.{'0' * 12}Z", False),
        (TIME, 7, False),
        (ID, "7d1c2b3a-0000-4000-8000-000000000000", True),
        (ID, "7D1C2B3A-0000-4000-8000-000000000000", False),
        (ID, "7d1c2b3a000040008000000000000000", False),
        (ID, "ann", False),
        ({"type": "string"}, "ann", False),
        ({"anyOf": [COUNT, {"type": "null"}]}, None, True),
        ({"anyOf": [COUNT, {"type": "null"}]}, "ann", False),
    ],
)
def test_each_word_of_a_schema(schema: dict[str, Any], value: Any, passes: bool) -> None:
    assert (list(gate.faults(schema, value)) == []) is passes


def test_an_event_of_the_greatest_size_passes() -> None:
    room = gate.MAX_BYTES - len('{"a":""}') - 1  # json.dumps puts a space behind a colon
    assert gate.refusal("not:declared", {"a": "x" * room}) == "it holds what no declared type could have made"
    assert "more than" in gate.refusal("not:declared", {"a": "x" * (room + 1)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "ann's laptop"}, "event_properties.name is not as declared"),
        ({"ann": 1}, "event_properties is not as declared"),
        ({"articles": 3}, "event_properties.articles is not as declared"),
        ({"client": "1.2\n"}, "event_properties.client is not as declared"),
        ({"name": float("nan")}, "it is not JSON"),
        ({"name": "x" * gate.MAX_BYTES}, "it has more than 32768 bytes"),
    ],
)
def test_what_is_wrong_is_said_without_its_words(change: dict[str, Any], said: str) -> None:
    properties = sent(declared("shop-window:opened"))  # type: ignore[arg-type]
    properties["event_properties"] |= change
    assert gate.refusal("shop-window:opened", properties) == said
    assert "ann" not in said.replace("declared", "")


def test_a_declared_property_that_is_missing_is_named() -> None:
    properties = sent(declared("shop-window:opened"))  # type: ignore[arg-type]
    del properties["app_properties"]["version"]
    assert gate.refusal("shop-window:opened", properties) == "app_properties.version is not as declared"


def listed(levels: int) -> Any:
    return [listed(levels - 1)] if levels else 1


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels else 1


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        ({"name": "jobs", "count": 3, "share": 0.5, "none": None, "at": "2026-01-01T00:00:00.000Z"}, True),
        ({"$geoip_disable": True, "version": "1.2.3", "bucket": "1000+"}, True),
        ({"name": "two words"}, False),
        ({"name": "/home/ann"}, False),
        ({"ann@example.com": 1}, False),
        ({"name": "x" * 65}, False),
        ({"name": ""}, False),
        ([1] * 100, True),
        ([1] * 101, False),
        (listed(9), True),
        (listed(10), False),
        (nested(9), True),
        (nested(10), False),
        (object(), False),
    ],
)
def test_of_a_type_that_is_not_declared_only_its_shape_can_be_told(value: Any, passes: bool) -> None:
    assert declared("not:declared") is None
    assert gate.shaped(value) is passes
    if type(value) is not object:  # no JSON at all
        problem = gate.refusal("not:declared", value)
        assert problem == ("" if passes else "it holds what no declared type could have made")


def test_every_declared_type_has_that_shape() -> None:
    assert [t.name for t in EVERY if not gate.shaped(sent(t))] == []


@pytest.mark.parametrize("alone", [True, False])
def test_what_was_changed_in_the_database_is_not_sent(
    engine: Engine, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    with Receiver(lambda _: Reply(200)) as receiver:
        analytics = an_analytics(engine, switched_on(engine, receiver.url))
        for _ in range(1 if alone else 3):
            assert analytics.send("shop-heartbeat", data())
        with Session(engine) as session, session.begin():
            first = session.scalars(select(Capture.id).order_by(Capture.id).limit(1)).one()
            text = {"event_properties": {"active": "ann"}, "derived_properties": {}}
            session.execute(update(Capture).where(Capture.id == first).values(telemetry=text))
        drain(engine, clock=FrozenClock(NOW))
        wire = b"".join(request.body for request in receiver.received)
    assert b"ann" not in wire
    assert len(events_in(receiver.received)) == (0 if alone else 2)
    with Session(engine) as session:
        dead = session.scalars(select(Attempt.detail).where(Attempt.outcome == "dead")).all()
        states = session.scalars(select(Delivery.state).order_by(Delivery.id)).all()
        assert given_up(session, None, NOW + timedelta(seconds=1)) == {Loss.SCHEMA_REJECT: 1}
    assert states == ["dead"] if alone else ["dead", "delivered", "delivered"]
    assert [("event_properties.active is not as declared" in detail) for detail in dead] == [True]


def test_what_no_longer_fits_after_an_update_of_the_envelope_is_not_sent(engine: Engine) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    with Session(engine) as session, session.begin():
        state = session.scalars(select(TelemetryState)).one()
        state.app = {**state.app, "owner": "ann"}
    with Session(engine) as session:
        from clarion.analytics.previewing import example
        from clarion.deliverees.analytics import deliveree_of

        deliveree = deliveree_of(session.scalars(select(TelemetryState)).one())
        assert json.loads(deliveree.body([example(TYPES, "shop-heartbeat", NOW)], NOW))["batch"] == []


def data() -> Any:
    from clarion.analytics import TelemetryData

    return TelemetryData({"active": True})
