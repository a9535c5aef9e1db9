"""Who is told: patterns, scopes, owners; what can never match is refused when it is made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from sqlalchemy import Engine, event, func, select
from sqlalchemy.orm import Session

from clarion.catalogue import EventType, catalogue
from clarion.errors import InvalidSubscription, NotFound
from clarion.outbox import Delivery, record
from clarion.subscriptions import (
    Subscriber,
    Subscription,
    matches,
    patterns_of,
    scopes_of,
    subscribe,
    subscription,
    who_wants,
)
from tests.clarion.plain import NOW, Plain, add_plain
from tests.clarion.sample import ABOUT_ORDER, ABOUT_PARCEL, OrderEvent, ParcelEvent

TYPES = catalogue(["tests.clarion.sample"])


@pytest.mark.parametrize(
    ("pattern", "type", "covered"),
    [
        ("*", "shop:order:placed", True),
        ("shop:order:placed", "shop:order:placed", True),
        ("shop:*", "shop:order:placed", True),
        ("shop:order:*", "shop:order:parcel:sent", True),
        ("*:failed", "shop:order:parcel:failed", True),
        ("*:parcel:failed", "shop:order:parcel:failed", True),
        ("shop:order:*", "shop:opened", False),
        ("shop:order", "shop:order:placed", False),
        ("*:placed", "shop:order:failed", False),
        ("shop:o*", "shop:order:placed", False),
    ],
)
def test_patterns(pattern: str, type: str, covered: bool) -> None:
    assert matches(pattern, type) is covered


WORD = st.text("abc-", min_size=1, max_size=4)
TYPE = st.lists(WORD, min_size=2, max_size=6).map(":".join)


@given(TYPE, TYPE)
def test_a_pattern_covers_exactly_what_its_wildcard_says(pattern_of: str, type: str) -> None:
    for pattern in patterns_of(pattern_of):
        expected = (
            pattern == "*"
            or pattern == type
            or (pattern.endswith(":*") and type.startswith(pattern[:-1]))
            or (pattern.startswith("*:") and type.endswith(pattern[1:]))
        )
        assert matches(pattern, type) is expected


def test_the_scopes_that_contain_a_scope() -> None:
    assert scopes_of("project/P/job/J") == ["", "project/P", "project/P/job/J"]
    assert scopes_of("") == [""]


def wanted(session: Session, event: OrderEvent) -> list[int]:
    found = [s.id for s in who_wants(session, event)]
    record(session, event)
    told = session.scalars(
        select(Delivery.subscriber_id)
        .where(Delivery.event_sequence == event.sequence)
        .order_by(Delivery.subscriber_id)
    ).all()
    assert list(told) == found  # asking and recording are the same match
    return found


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ("", True),
        ("shop/s1", True),
        ("shop/s1/order/o1", True),
        ("shop/s2", False),
        ("shop/s1/order/o2", False),
        ("shop/s1/order/o1/parcel/p1", False),
    ],
)
def test_a_scope_covers_what_lies_at_or_below_it(engine: Engine, scope: str, told: bool) -> None:
    with Session(engine) as session:
        subscriber = add_plain(session, "http://x", "shop:*", scope=scope)
        assert wanted(session, OrderEvent("placed", **ABOUT_ORDER)) == ([subscriber.id] if told else [])


def test_a_filter_on_one_order_does_not_deliver_the_shops_others(engine: Engine) -> None:
    with Session(engine) as session:
        add_plain(session, "http://x", "shop:order:*", scope="shop/s1/order/o1")
        assert wanted(session, OrderEvent("placed", **{**ABOUT_ORDER, "order_uuid": "o2"})) == []


def test_a_subscriber_gets_an_event_once_however_many_subscriptions_match(engine: Engine) -> None:
    with Session(engine) as session:
        subscriber = add_plain(session, "http://x", "*", "shop:*", "*:failed", "shop:order:parcel:failed")
        assert wanted(session, ParcelEvent("failed", **ABOUT_PARCEL)) == [subscriber.id]


def test_a_subscriber_of_the_same_transaction_is_told(engine: Engine) -> None:
    with Session(engine) as session:
        subscriber = Plain(name="new", target="http://x", created_at=NOW)
        subscriber.subscriptions = [Subscription(pattern="*", scope="")]
        session.add(subscriber)
        record(session, OrderEvent("placed", **ABOUT_ORDER))
        session.commit()
        assert session.scalars(select(Delivery.subscriber_id)).all() == [subscriber.id]


def test_disabled_subscribers_are_not_told(engine: Engine) -> None:
    with Session(engine) as session:
        add_plain(session, "http://x", "*", enabled=False)
        assert wanted(session, OrderEvent("placed", **ABOUT_ORDER)) == []


def test_an_owner_bounds_what_a_subscriber_is_told(engine: Engine) -> None:
    with Session(engine) as session:
        mine = add_plain(session, "http://x", "shop:order:*", scope="shop/s1", owner="shop/s1")
        with pytest.raises(InvalidSubscription, match="lies outside the subscriber's own scope 'shop/s2'"):
            add_plain(session, "http://x", "shop:order:*", owner="shop/s2")
        session.rollback()
        stray = Plain(name="stray", target="http://x", created_at=NOW, owner="shop/s2")
        stray.subscriptions = [Subscription(pattern="*", scope="")]  # past the check
        session.add(stray)
        session.commit()
        assert wanted(session, OrderEvent("placed", **ABOUT_ORDER)) == [mine.id]


def test_asking_who_wants_an_event_is_one_query(engine: Engine) -> None:
    with Session(engine) as session:
        for _ in range(3):
            add_plain(session, "http://x", "*", "shop:*")
        statements: list[str] = []
        event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
        assert len(who_wants(session, OrderEvent("placed", **ABOUT_ORDER))) == 3
    assert len([s for s in statements if s.startswith("SELECT")]) == 1


@pytest.mark.parametrize(
    ("pattern", "scope", "message"),
    [
        (
            "shop:order:plcaed",
            "",
            "no event type matches 'shop:order:plcaed'; did you mean 'shop:order:placed'",
        ),
        ("shop:order", "", "no event type matches 'shop:order'"),
        ("", "", "give an event type or a pattern"),
        ("sh*p:*", "", "one '\\*' may stand first"),
        ("**", "", "one '\\*' may stand first"),
        ("*:order:*", "", "one '\\*' may stand first"),
        ("shop:opened", "shop/s1/order/o1", "can never happen in scope .*lie in shop/..."),
        ("*", "project/P", "can never happen in scope"),
        ("*", "shop", "is not a scope; write layers and identifiers in turn"),
        ("*", "shop/", "is not a scope"),
        ("*", "shop/s1/order", "is not a scope"),
    ],
)
def test_what_can_never_match_is_refused(pattern: str, scope: str, message: str) -> None:
    with pytest.raises(InvalidSubscription, match=message) as caught:
        subscription(TYPES, pattern, scope)
    assert caught.value.status == 422


def test_subscribing_again_replaces_and_one_bad_want_changes_nothing(engine: Engine) -> None:
    with Session(engine) as session:
        subscriber = add_plain(session, "http://x", "shop:*", "*:failed")
        with pytest.raises(InvalidSubscription):
            subscribe(session, TYPES, subscriber, [("*", ""), ("nothing", "")])
        assert {s.pattern for s in subscriber.subscriptions} == {"shop:*", "*:failed"}
        subscribe(session, TYPES, subscriber, [("shop:*", ""), ("shop:*", ""), ("*", "shop/s1")])
        session.commit()
        kept = session.execute(select(Subscription.pattern, Subscription.scope)).all()
        assert sorted(map(tuple, kept)) == [("*", "shop/s1"), ("shop:*", "")]
        session.delete(session.scalars(select(Subscriber)).one())
        session.commit()
        assert session.scalar(select(func.count()).select_from(Subscription)) == 0


@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
def test_examples_conform_to_the_schemas(type: EventType) -> None:
    for schema, example in (
        (type.notification_schema(), type.notification_example(NOW)),
        (type.telemetry_schema(), type.telemetry_example(NOW)),
    ):
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(example)
        assert example


def test_the_catalogue_names_what_is_near() -> None:
    assert "shop:order:placed" in TYPES
    assert len(TYPES) == 7
    with pytest.raises(NotFound, match="did you mean 'shop:order:placed'"):
        TYPES["shop:order:plced"]
