"""Events: how they are built, what they are rendered to, and that a failing value fails nothing else."""

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from clarion.anonymous import Bucket
from clarion.catalogue import catalogue
from clarion.errors import ClarionError, InvalidEvent
from clarion.events import Event
from clarion.observe import counters
from clarion.outbox import Recording, record
from clarion.testing import FrozenClock
from tests.clarion.sample import (
    ABOUT_ORDER,
    ABOUT_PARCEL,
    ABOUT_SHOP,
    Channel,
    OrderEvent,
    ParcelEvent,
    ShopEvent,
)

KEY = b"k" * 32


def recorded(engine: Engine, event: Event, key: bytes | None = KEY) -> dict[str, Any]:
    """Record and commit ``event``; its row as plain values."""
    with Session(engine, info=Recording(FrozenClock(), telemetry_key=lambda: key).info()) as session:
        record(session, event)
        session.commit()
        table = Event.__table__
        return dict(session.execute(select(table).where(table.c.uuid == event.uuid)).mappings().one())


def test_each_class_adds_its_layer_to_its_parents_payload(engine: Engine) -> None:
    row = recorded(engine, ParcelEvent("sent", **ABOUT_PARCEL))
    assert row["notification"] == {
        "uuid": str(row["uuid"]),
        "type": "shop:order:parcel:sent",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "summary": "Parcel sent for order 7",
        "schema_version": 1,
        "shop": {
            "uuid": "s1",
            "name": "Corner shop",
            "order": {
                "uuid": "o1",
                "number": 7,
                "channel": "web",
                "note": None,
                "url": "https://shop.example/s1/o1",
                "parcel": {"uuid": "p1"},
            },
        },
    }
    assert row["scope"] == "shop/s1/order/o1/parcel/p1"


def test_telemetry_is_built_from_what_is_declared_anonymous(engine: Engine) -> None:
    row = recorded(engine, OrderEvent("placed", **ABOUT_ORDER, order_note="call Anna on 555"))
    telemetry = row["telemetry"]
    assert set(telemetry) == {"event_properties", "derived_properties"}
    order = telemetry["event_properties"]["shop"]["order"]
    assert set(order) == {"uuid", "number", "channel"}
    assert set(telemetry["event_properties"]["shop"]) == {"uuid", "order"}
    text = json.dumps(telemetry)
    assert not [secret for secret in ("Anna", "Corner", "s1", "o1", str(row["uuid"])) if secret in text]


def test_a_measure_is_seen_by_telemetry_only(engine: Engine) -> None:
    row = recorded(engine, ShopEvent("opened", **ABOUT_SHOP))
    assert row["telemetry"]["derived_properties"] == {"shop": {"orders_count": 0}}
    assert "orders_count" not in row["notification"]["shop"]


def test_what_is_limited_to_a_verb_is_there_for_that_verb_only(engine: Engine) -> None:
    assert recorded(engine, ShopEvent("closed", **ABOUT_SHOP))["telemetry"]["derived_properties"] == {}
    changes = [{"type": "UPDATED", "changed_object": "note"}]
    updated = recorded(engine, OrderEvent("updated", **ABOUT_ORDER, order_changes=changes))
    assert updated["notification"]["shop"]["order"]["update"] == {"changes": changes}
    with pytest.raises(InvalidEvent, match="unknown field 'order_changes'"):
        OrderEvent("placed", **ABOUT_ORDER, order_changes=changes)


def test_telemetry_that_is_off_stores_nothing(engine: Engine) -> None:
    assert recorded(engine, ShopEvent("opened", **ABOUT_SHOP), key=None)["telemetry"] is None


def test_a_derived_value_that_fails_is_null_and_fails_nothing_else(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    before = counters.value("derived_failed", "shop.order.items_count")
    with Session(engine) as session, caplog.at_level(logging.WARNING, "clarion"):
        session.execute(text("CREATE TABLE IF NOT EXISTS business (n INTEGER)"))
        session.execute(text("INSERT INTO business VALUES (1)"))
        record(session, OrderEvent("failed", **ABOUT_ORDER), OrderEvent("placed", **ABOUT_ORDER))
        session.commit()
        rows = session.scalars(select(Event.__table__.c.notification)).all()
        assert session.scalar(text("SELECT count(*) FROM business")) == 1
        session.execute(text("DROP TABLE business"))
        session.commit()
    assert [row["shop"]["order"].get("items_count", "absent") for row in rows] == [None, "absent"]
    assert rows[0]["shop"]["order"]["url"] == "https://shop.example/s1/o1"
    assert counters.value("derived_failed", "shop.order.items_count") == before + 1
    assert "no_such_table" not in caplog.text  # an error's text may hold names: only its class is logged
    assert [r.getMessage() for r in caplog.records] == ["a value could not be computed"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, -1, 2.5])
def test_a_number_its_type_does_not_allow_is_null_in_telemetry_and_counted(value: Any) -> None:
    before = counters.value("telemetry_failed", "shop.orders_count")
    [field] = [replace(f, type=Bucket) for f in ShopEvent.fields if f.name == "orders_count"]
    event = ShopEvent("opened", **ABOUT_SHOP)
    event.__dict__["computed"]["orders_count"] = value
    assert event.anonymous_value(field, KEY) is None
    assert counters.value("telemetry_failed", "shop.orders_count") == before + 1


def test_derived_values_see_what_the_caller_has_not_flushed(engine: Engine) -> None:
    """And an error of the caller's own rows stays the caller's."""
    with Session(engine, info=Recording(telemetry_key=lambda: KEY).info()) as session:
        record(session, ShopEvent("opened", **ABOUT_SHOP), ShopEvent("opened", **ABOUT_SHOP))
        session.commit()
        rows = session.scalars(select(Event.__table__.c.telemetry).order_by(Event.__table__.c.sequence)).all()
    assert [row["derived_properties"]["shop"]["orders_count"] for row in rows] == [0, 1]


@pytest.mark.parametrize(
    ("verb", "values", "message"),
    [
        ("sold", ABOUT_ORDER, "has no verb 'sold'; it has placed, updated, failed"),
        (
            "placed",
            {},
            "missing identity 'shop_uuid'; missing fact 'shop_name'; missing identity 'order_uuid'",
        ),
        ("placed", {**ABOUT_ORDER, "colour": 1}, "unknown field 'colour'"),
        ("placed", {**ABOUT_ORDER, "order_number": "7"}, "'order_number' must be int, not str"),
        ("placed", {**ABOUT_ORDER, "order_number": True}, "'order_number' must be int, not bool"),
        (
            "placed",
            {**ABOUT_ORDER, "order_channel": "post"},
            "'order_channel' must be one of web, shop, other",
        ),
        ("placed", {**ABOUT_ORDER, "order_uuid": "a/b"}, "'order_uuid' must be an identifier"),
        ("placed", {**ABOUT_ORDER, "order_uuid": ""}, "'order_uuid' must be an identifier"),
        ("placed", {**ABOUT_ORDER, "shop_name": 5}, "'shop_name' must be str, not int"),
    ],
)
def test_an_event_built_wrongly_is_refused(verb: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        OrderEvent(verb, **values)
    assert message in str(caught.value)
    assert caught.value.status == 422


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="no time zone"):
        OrderEvent("placed", **ABOUT_ORDER, occurred_at=datetime(2026, 1, 1))


def test_times_are_told_in_utc(engine: Engine) -> None:
    paris = datetime(2026, 6, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
    row = recorded(engine, OrderEvent("placed", **ABOUT_ORDER, occurred_at=paris))
    assert row["notification"]["timestamp"] == "2026-06-01T10:30:00.000Z"
    assert row["occurred_at"] == datetime(2026, 6, 1, 10, 30, tzinfo=UTC)


def test_what_a_database_cannot_hold_does_not_fail_the_caller(engine: Engine) -> None:
    row = recorded(engine, OrderEvent("placed", **ABOUT_ORDER, order_note="a\0b\ud800c"))
    assert row["notification"]["shop"]["order"]["note"] == "a\ufffdb?c"


def test_a_fact_that_json_cannot_hold_adds_nothing(engine: Engine) -> None:
    with Session(engine) as session:
        with pytest.raises(InvalidEvent, match="cannot be written as JSON"):
            record(session, OrderEvent("updated", **ABOUT_ORDER, order_changes=[{"x": object()}]))
        session.commit()
        assert session.execute(select(Event.__table__.c.uuid)).all() == []


def test_events_read_back_are_of_their_class_and_immutable(engine: Engine) -> None:
    recorded(engine, OrderEvent("placed", **ABOUT_ORDER))
    with Session(engine) as session:
        event = session.scalars(select(Event)).one()
        assert isinstance(event, OrderEvent)
        assert (event.order_number, event.order_channel, event.verb) == (7, "web", "placed")
        event.order_number = 8
        with pytest.raises(ClarionError, match="immutable"):
            session.flush()


def test_adding_an_event_to_a_session_says_to_record_it(engine: Engine) -> None:
    with Session(engine) as session:
        session.add(OrderEvent("placed", **ABOUT_ORDER))
        with pytest.raises(ClarionError, match=r"record\(session, event\)"):
            session.flush()


def test_events_carry_the_databases_sequence(engine: Engine) -> None:
    with Session(engine) as session:
        first, second = ShopEvent("opened", **ABOUT_SHOP), ShopEvent("closed", **ABOUT_SHOP)
        record(session, first, second)
        session.commit()
    assert 0 < first.sequence < second.sequence


def test_payloads_match_their_schemas(engine: Engine) -> None:
    events = [
        ShopEvent("opened", **ABOUT_SHOP),
        OrderEvent("placed", **ABOUT_ORDER),
        OrderEvent("updated", **ABOUT_ORDER, order_changes=[]),
        OrderEvent("failed", **ABOUT_ORDER),
        ParcelEvent("failed", **ABOUT_PARCEL),
    ]
    types = catalogue(["tests.clarion.sample"])
    for event in events:
        row = recorded(engine, event)
        for schema, payload in (
            (types[event.type].notification_schema(), row["notification"]),
            (types[event.type].telemetry_schema(), row["telemetry"]),
        ):
            Draft202012Validator.check_schema(schema)
            Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(payload)


def test_an_abstract_class_is_not_recorded() -> None:
    with pytest.raises(InvalidRequestError, match="abstract"):
        Event("happened")


def test_enum_members_and_their_values_are_the_same(engine: Engine) -> None:
    row = recorded(engine, OrderEvent("placed", **{**ABOUT_ORDER, "order_channel": Channel.SHOP}))
    assert row["notification"]["shop"]["order"]["channel"] == "shop"
    assert row["order_channel"] == "shop"
