"""One event's telemetry as it is constructed: every key of it, what is refused, and how that is said."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from clarion.analytics.payload import Occurrence, WrongShape, WrongValue, construct
from clarion.anonymous import pseudonym
from tests.clarion.sample import Channel
from tests.clarion.telemetry_sample import TYPES, Window

KEY = b"k" * 32
WHEN = Occurrence(UUID(int=7), datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))))
ORDER = {"uuid": "o1", "number": 3, "channel": Channel.WEB}


def made(name: str, event: Any = MappingProxyType({}), derived: Any = MappingProxyType({})) -> dict[str, Any]:
    return construct(TYPES[name], event, derived, WHEN, KEY)


def test_a_recorded_type_carries_its_occurrence_and_every_layer() -> None:
    given = {"shop": {"uuid": "s1", "order": {**ORDER, "parcel": {"uuid": "p1"}}}}
    order = {"uuid": pseudonym(KEY, "order", "o1"), "number": 3, "channel": "web"}
    parcel = {"uuid": pseudonym(KEY, "parcel", "p1")}
    assert made("shop:order:parcel:sent", given) == {
        "event_properties": {
            "uuid": "00000000-0000-0000-0000-000000000007",
            "type": "shop:order:parcel:sent",
            "timestamp": "2026-01-01T00:00:00.000Z",
            "schema_version": 1,
            "shop": {"uuid": pseudonym(KEY, "shop", "s1"), "order": {**order, "parcel": parcel}},
        },
        "derived_properties": {},
    }


def test_a_measure_is_derived_and_nothing_else_is() -> None:
    rendered = made("shop:opened", {"shop": {"uuid": "s1"}}, {"shop": {"orders_count": 4}})
    assert rendered["derived_properties"] == {"shop": {"orders_count": 4}}
    assert rendered["event_properties"]["shop"] == {"uuid": pseudonym(KEY, "shop", "s1")}
    computed = {"shop": {"uuid": "s1", "order": {**ORDER, "items_count": 2}}}
    assert made("shop:order:failed", computed)["event_properties"]["shop"]["order"]["items_count"] == 2


def test_a_captured_type_carries_its_properties_and_no_more() -> None:
    given = {"name": Window.CART, "articles": 37, "client": None}
    sent = {"name": "cart", "articles": "11-50", "client": None}
    assert made("shop-window:opened", given) == {"event_properties": sent, "derived_properties": {}}
    with pytest.raises(WrongShape, match="1 undeclared"):
        made("shop-window:opened", {**given, "uuid": "a captured type has none"})


def test_any_mapping_will_do() -> None:
    given: Mapping[str, Any] = MappingProxyType({"shop": MappingProxyType({"uuid": "s1"})})
    assert made("shop:closed", given)["event_properties"]["shop"] == {"uuid": pseudonym(KEY, "shop", "s1")}


@pytest.mark.parametrize("identifier", ["7", 7, UUID(int=7)])
def test_an_identifier_leaves_as_the_pseudonym_of_its_text(identifier: Any) -> None:
    sent = made("shop:closed", {"shop": {"uuid": identifier}})["event_properties"]["shop"]
    assert sent == {"uuid": pseudonym(KEY, "shop", str(identifier))}


@pytest.mark.parametrize("identifier", [None, True, 7.5, b"s1", ["s1"], {"s1": 1}])
def test_what_is_no_identifier_is_refused(identifier: Any) -> None:
    said = f"shop:closed: shop.uuid must be an identifier, not {type(identifier).__name__}"
    with pytest.raises(WrongValue, match=f"^{re.escape(said)}$"):
        made("shop:closed", {"shop": {"uuid": identifier}})


def test_a_value_that_could_not_be_had_is_null() -> None:
    """Whether or not its type is declared to be optional: what fails to be computed is null."""
    given = {"shop": {"uuid": "s1", "order": {"uuid": "o1", "number": None, "channel": None}}}
    order = made("shop:order:placed", given)["event_properties"]["shop"]["order"]
    assert (order["number"], order["channel"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "event", "derived", "said"),
    [
        ("shop-heartbeat", {}, {}, "event_properties do not fit (missing: active); declared are: active"),
        (
            "shop-heartbeat",
            {"active": True, "ann": 1, "bob": {"a": 1, "b": 2}},
            {},
            "event_properties do not fit (2 undeclared); declared are: active",
        ),
        (
            "shop-heartbeat",
            {"active": True},
            {"ann": 1},
            "derived_properties do not fit (1 undeclared); declared are: none",
        ),
        (
            "shop-window:opened",
            {"name": "cart", "ann": 1},
            {},
            "event_properties do not fit (1 undeclared; missing: articles, client); "
            "declared are: name, articles, client",
        ),
        (
            "shop:opened",
            {"shop": "s1"},
            {"shop": {"orders_count": 4}},
            "event_properties do not fit (1 undeclared; missing: shop.uuid); declared are: shop.uuid",
        ),
        (
            "shop:opened",
            {"shop": {"uuid": "s1", "type": 1}, "type": 1},
            {"shop": {"orders_count": 4}},
            "event_properties do not fit (1 undeclared); declared are: shop.uuid",
        ),
        (
            "shop:opened",
            {"shop": {"uuid": "s1"}},
            {"shop": {"orders_count": 4}, "type": 1},
            "derived_properties do not fit (1 undeclared); declared are: shop.orders_count",
        ),
        ("shop-heartbeat", [("active", True)], {}, "event_properties must be a mapping, not list"),
        ("shop-heartbeat", {"active": True}, None, "derived_properties must be a mapping, not NoneType"),
    ],
)
def test_a_wrong_shape_is_told_by_what_is_declared(name: str, event: Any, derived: Any, said: str) -> None:
    with pytest.raises(WrongShape, match=f"^{re.escape(f'{name}: {said}')}$"):
        made(name, event, derived)


def test_a_wrong_value_is_told_by_its_place() -> None:
    given = {"shop": {"uuid": "s1", "order": {**ORDER, "number": "ann"}}}
    said = "shop:order:placed: shop.order.number: expected int, got str"
    with pytest.raises(WrongValue, match=f"^{re.escape(said)}$"):
        made("shop:order:placed", given)


def test_an_instant_is_sent_in_utc() -> None:
    assert WHEN.at.astimezone(UTC) == datetime(2026, 1, 1, tzinfo=UTC)
    sent = made("shop:closed", {"shop": {"uuid": "s1"}})["event_properties"]["timestamp"]
    assert sent == "2026-01-01T00:00:00.000Z"
