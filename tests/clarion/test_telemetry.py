"""Telemetry from record to the wire: what is sent, when it is not, and how it is forgotten."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from clarion.analytics import TelemetryData, attach, capturing, enumeration, send_event
from clarion.analytics.previewing import preview, shown
from clarion.anonymous import iso, pseudonym, pseudonym_uuid
from clarion.backlog import purge, trim
from clarion.consent import Why
from clarion.deliverees.analytics import AnalyticsSubscriber, deliveree_of
from clarion.deliverees.backends import USER_AGENT
from clarion.egress import Egress, EgressPolicy
from clarion.envelope import SCHEMA_VERSION, whole_schema
from clarion.errors import ConfigurationError, InvalidAddress, NotFound
from clarion.events import Event
from clarion.lanes import Limits
from clarion.losses import losses
from clarion.messages import Answer, Request
from clarion.outbox import Attempt, Capture, Delivery, Recording, record, redeliver, replay
from clarion.relay import Relay
from clarion.retention import prune
from clarion.telemetry import (
    SettingReader,
    TelemetryState,
    identify,
    reset_identity,
    rotate,
    rotates_at,
    show_notice,
    switch,
)
from clarion.testing import LOOPBACK, FrozenClock, Received, Receiver, Reply, drain
from tests.clarion.plain import add_plain
from tests.clarion.sample import ABOUT_ORDER, ABOUT_SHOP, OrderEvent, ShopEvent
from tests.clarion.telemetry_sample import (
    APP,
    NOW,
    SYSTEM,
    TYPES,
    WRITE_KEY,
    an_analytics,
    asking,
    events_in,
    recording,
    switched_on,
)

ALIVE = TelemetryData({"active": True})
OK = Reply(200, (("content-type", "application/json"),), b'{"status":"Ok"}')


@pytest.fixture(autouse=True)
def meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test run's environment says against telemetry is answered: here it is meant."""
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)


def count(engine: Engine, table: Any, *where: Any) -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(table).where(*where)) or 0


def state(engine: Engine) -> TelemetryState:
    with Session(engine) as session:
        return session.scalars(select(TelemetryState)).one()


def send_many(engine: Engine, telemetry: Any, how_many: int) -> None:
    analytics = an_analytics(engine, telemetry)
    for _ in range(how_many):
        assert analytics.send("shop-heartbeat", ALIVE)


def test_events_and_captures_arrive_as_posthog_batches(engine: Engine) -> None:
    with Receiver(lambda _: OK) as receiver:
        telemetry = switched_on(engine, receiver.url)
        with Session(engine, info=recording(telemetry)) as session:
            event = ShopEvent("opened", **ABOUT_SHOP)
            record(session, event)
            session.commit()
        result = an_analytics(engine, telemetry).send("shop-heartbeat", ALIVE)
        assert drain(engine, clock=FrozenClock(NOW)) == 2
        [request] = receiver.received
    assert request.path == "/batch/"
    assert request.headers["content-type"] == "application/json"
    body = json.loads(request.body)
    assert set(body) == {"api_key", "batch", "sent_at"}
    assert body["api_key"] == WRITE_KEY
    assert body["sent_at"] == "2026-01-01T00:00:00.000Z"
    stored = state(engine)
    opened, alive = body["batch"]
    assert opened["event"] == "shop:opened"
    assert opened["uuid"] == str(pseudonym_uuid(stored.key, event.uuid)) != str(event.uuid)
    assert {opened["distinct_id"], alive["distinct_id"]} == {str(stored.installation)}
    assert opened["timestamp"] == "2026-01-01T00:00:00.000Z"
    assert opened["properties"]["event_properties"]["shop"] == {"uuid": pseudonym(stored.key, "shop", "s1")}
    assert alive["uuid"] == getattr(result, "id", None)
    assert alive["properties"] == {
        "event_properties": {"active": True},
        "derived_properties": {},
        "app_properties": {
            "version": "1.2.3",
            "dev": False,
            "cloud": False,
            "max_interactive_runs_parallelism": None,
            "max_job_runs_parallelism": "2-5",
            "max_builds_parallelism": None,
        },
        "system_properties": {"host_os": "linux", "gpu_enabled_instance": False, "deployment": "container"},
        "schema_version": SCHEMA_VERSION,
        "$process_person_profile": False,
        "$geoip_disable": True,
    }


def test_every_event_on_the_wire_conforms_to_its_closed_schema(engine: Engine) -> None:
    import jsonschema

    with Receiver(lambda _: OK) as receiver:
        telemetry = switched_on(engine, receiver.url)
        with Session(engine, info=recording(telemetry)) as session:
            record(session, ShopEvent("opened", **ABOUT_SHOP), OrderEvent("placed", **ABOUT_ORDER))
            session.commit()
        send_many(engine, telemetry, 1)
        drain(engine, clock=FrozenClock(NOW))
        sent = events_in(receiver.received)
    assert {e["event"] for e in sent} == {"shop:opened", "shop:order:placed", "shop-heartbeat"}
    for event in sent:
        schema = whole_schema(TYPES[event["event"]].telemetry_schema())
        jsonschema.Draft202012Validator(schema).validate(event["properties"])


@pytest.mark.parametrize(
    ("backend", "path", "authorization"),
    [
        ("posthog-v1", "/i/v1/analytics/events", f"Bearer {WRITE_KEY}"),
        ("segment", "/v1/batch", "Basic Y2tfc2hvcDo="),
    ],
)
def test_the_other_backends_frame_the_same_properties(
    engine: Engine, backend: str, path: str, authorization: str
) -> None:
    with Receiver(lambda _: OK) as receiver:
        telemetry = switched_on(engine, receiver.url, backend)
        send_many(engine, telemetry, 1)
        drain(engine, clock=FrozenClock(NOW))
        [request] = receiver.received
    assert (request.path, request.headers["authorization"]) == (path, authorization)
    [event] = json.loads(request.body)["batch"]
    assert event["properties"]["event_properties"] == {"active": True}
    assert str(state(engine).installation) in event.values()


def test_a_request_carries_up_to_a_hundred(engine: Engine) -> None:
    with Receiver(lambda _: OK) as receiver:
        send_many(engine, switched_on(engine, receiver.url), 250)
        drain(engine, clock=FrozenClock(NOW))
        sizes = [len(json.loads(r.body)["batch"]) for r in receiver.received]
    assert sorted(sizes) == [50, 100, 100]
    assert len({e["uuid"] for e in events_in(receiver.received)}) == 250


@pytest.mark.parametrize("status", [400, 413])
def test_one_poisoned_event_dies_alone(engine: Engine, status: int) -> None:
    def reply(request: Received) -> Reply:
        batch = json.loads(request.body)["batch"]
        return Reply(status) if any(e["event"] == "shop-window:opened" for e in batch) else OK

    with Receiver(reply) as receiver:
        telemetry = switched_on(engine, receiver.url)
        analytics = an_analytics(engine, telemetry)
        for number in range(20):
            data = ALIVE if number != 11 else TelemetryData({"name": "cart", "articles": 1, "client": None})
            assert analytics.send("shop-heartbeat" if number != 11 else "shop-window:opened", data)
        drain(engine, clock=FrozenClock(NOW))
    with Session(engine) as session:
        rows = session.execute(
            select(Capture.type, Delivery.state).join(Delivery, Delivery.capture_id == Capture.id)
        ).all()
        assert sorted(rows) == [*[("shop-heartbeat", "delivered")] * 19, ("shop-window:opened", "dead")]
        assert set(session.scalars(select(Delivery.attempts))) == {1}
        [detail] = session.scalars(select(Attempt.detail).where(Attempt.outcome == "dead"))
        assert f"answered {status}" in (detail or "")


def test_halving_ends_when_half_of_the_lease_is_over(engine: Engine) -> None:
    clock = FrozenClock(NOW)

    def reply(_: Received) -> Reply:
        clock.advance(seconds=8)
        return Reply(400)

    with Receiver(reply) as receiver:
        send_many(engine, switched_on(engine, receiver.url), 16)
        assert drain(engine, clock=clock, limits=Limits(lane=16)) == 16
        assert len(receiver.received) < 10
    assert count(engine, Delivery, Delivery.state == "pending") > 0
    assert count(engine, Delivery, Delivery.state == "delivered") == 0


def test_the_verdicts_of_the_newer_format_are_each_event_s_own(engine: Engine) -> None:
    def reply(request: Received) -> Reply:
        uuids = [e["uuid"] for e in json.loads(request.body)["batch"]]
        words = ["ok", "drop", "retry", "warning"]
        said = {u: {"result": w, "details": "why"} for u, w in zip(uuids, words, strict=True)}
        return Reply(200, (), json.dumps({"results": said}).encode())

    with Receiver(reply) as receiver:
        send_many(engine, switched_on(engine, receiver.url, "posthog-v1"), 4)
        drain(engine, clock=FrozenClock(NOW))
    with Session(engine) as session:
        states = session.scalars(select(Delivery.state).order_by(Delivery.id)).all()
    assert states == ["delivered", "dead", "pending", "delivered"]


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (500, {}, "pending"),
        (503, {}, "pending"),
        (429, {"retry-after": "120"}, "pending"),
        (408, {}, "pending"),
        (204, {}, "pending"),
        (401, {}, "dead"),
        (403, {}, "dead"),
        (404, {}, "dead"),
        (302, {"location": "https://example.com"}, "dead"),
    ],
)
def test_what_an_answer_means(engine: Engine, status: int, headers: dict[str, str], expected: str) -> None:
    with Receiver(lambda _: Reply(status, tuple(headers.items()))) as receiver:
        send_many(engine, switched_on(engine, receiver.url), 3)
        drain(engine, clock=FrozenClock(NOW))
    assert count(engine, Delivery, Delivery.state == expected) == 3


def test_a_backend_that_is_away_is_tried_for_a_week_and_then_given_up(engine: Engine) -> None:
    """The first day as it goes, by waits that double up to an hour; then the seventh day's end."""
    clock, waits = FrozenClock(NOW), []
    with Receiver(lambda _: Reply(500)) as receiver:
        send_many(engine, switched_on(engine, receiver.url), 1)
        while clock() - NOW < timedelta(days=1):
            assert drain(engine, clock=clock) == 1
            with Session(engine) as session:
                due = session.scalars(select(Delivery.due_at)).one()
            waits.append((due - clock()).total_seconds())
            clock.now = due
        for moment, expected in ((timedelta(days=7, seconds=-1), "pending"), (timedelta(days=8), "dead")):
            clock.now = NOW + moment
            assert drain(engine, clock=clock) == 1
            assert count(engine, Delivery, Delivery.state == expected) == 1
        uuids = {e["uuid"] for e in events_in(receiver.received)}
    assert waits[:12] == [2**n / 2 for n in range(1, 12)] + [1800]  # half of each wait: the draw is a half
    assert set(waits[12:]) == {1800}
    assert len(uuids) == 1  # the same over all attempts
    with Session(engine) as session:
        detail = session.scalars(select(Attempt.detail).order_by(Attempt.number.desc()).limit(1)).one()
    assert detail == "The backend answered 500."


async def test_a_backend_that_takes_nothing_is_left_alone_and_tried_with_one_request(engine: Engine) -> None:
    clock, answers = FrozenClock(NOW), iter([Reply(503, (("retry-after", "7200"),)), Reply(503)])
    with Receiver(lambda _: next(answers, OK)) as receiver:
        send_many(engine, switched_on(engine, receiver.url), 250)
        async with Egress(EgressPolicy.of(LOOPBACK)) as egress:
            relay = Relay(engine, egress, clock=clock, limits=Limits(lane=1), random=lambda: 0.5)
            await relay.drain()
            assert [len(json.loads(r.body)["batch"]) for r in receiver.received] == [100]
            clock.advance(seconds=3599)  # two hours were asked for: an hour is the most
            assert await relay.drain() == 0
            clock.advance(seconds=1)
            assert await relay.drain() == 100
            clock.advance(seconds=3)
            await relay.drain()
    assert [len(json.loads(r.body)["batch"]) for r in receiver.received[:3]] == [100, 100, 100]
    assert count(engine, Delivery, Delivery.state == "delivered") == 250


class Noting:
    """A sender that notes what it is given, in that order."""

    def __init__(self, egress: Egress) -> None:
        self.egress = egress
        self.bodies: list[bytes] = []

    async def send(self, request: Request) -> Answer:
        if request.headers.get("user-agent") == USER_AGENT:
            self.bodies.append(request.body)
        return await self.egress.send(request)


LATER = NOW + timedelta(hours=1)


def all_due(place: int, delivery: Delivery, capture: Capture) -> None:
    pass


def some_due(place: int, delivery: Delivery, capture: Capture) -> None:
    """Some were tried and have to wait, one is being sent, and one ought to have been sent long ago."""
    if place < 40:
        delivery.due_at, delivery.attempts = LATER + timedelta(minutes=5), 1
    if place == 40:
        delivery.due_at, delivery.lease_token = LATER + timedelta(seconds=60), uuid4()
    if place == 200:
        delivery.due_at = NOW - timedelta(hours=1)


def none_of_the_first_may_leave(place: int, delivery: Delivery, capture: Capture) -> None:
    if place < 101:
        capture.telemetry = {"event_properties": {"name": "ann@example.com"}, "derived_properties": {}}


def changed(engine: Engine, change: Callable[[int, Delivery, Capture], None]) -> None:
    """Change what waits, by its place in the order it came in."""
    waits = select(Delivery, Capture).join(Capture, Capture.id == Delivery.capture_id)
    with Session(engine) as session, session.begin():
        rows = session.execute(waits.where(Delivery.state == "pending").order_by(Delivery.id)).all()
        for place, (delivery, capture) in enumerate(rows):
            change(place, delivery, capture)


@pytest.mark.parametrize(
    ("given", "backend"),
    [
        (all_due, "posthog"),
        (all_due, "posthog-v1"),
        (all_due, "segment"),
        (some_due, "posthog"),
        (none_of_the_first_may_leave, "posthog-v1"),
    ],
)
async def test_the_preview_is_the_next_request(
    engine: Engine, given: Callable[[int, Delivery, Capture], None], backend: str
) -> None:
    """Of a relay that has just begun and of one that knows the backend, among webhooks' deliveries."""
    clock = FrozenClock(LATER)
    with Receiver(lambda _: OK) as receiver, Receiver() as hook:
        with Session(engine) as session:
            for _ in range(5):
                add_plain(session, hook.url, "shop:opened")
        telemetry = switched_on(engine, receiver.url, backend)
        async with Egress(EgressPolicy.of(LOOPBACK)) as egress:
            sender = Noting(egress)
            relay = Relay(engine, sender, clock=clock, limits=Limits(in_flight=110))
            for _ in range(2):
                send_many(engine, telemetry, 250)
                with Session(engine, info=recording(telemetry)) as session:
                    record(session, *[ShopEvent("opened", **ABOUT_SHOP) for _ in range(4)])
                    session.commit()
                changed(engine, given)
                sender.bodies.clear()
                shown = preview(an_analytics(engine, telemetry, clock=clock))
                await relay.drain()
                assert sender.bodies[0] == shown
                assert len(json.loads(shown)["batch"]) in (99, 100)


def test_where_nothing_is_due_the_preview_is_what_is_due_first(engine: Engine) -> None:
    def not_due(place: int, delivery: Delivery, capture: Capture) -> None:
        delivery.due_at, delivery.attempts = LATER + timedelta(minutes=1 if 2 <= place < 6 else 2), 1

    with Receiver(lambda _: OK) as receiver:
        telemetry = switched_on(engine, receiver.url)
        send_many(engine, telemetry, 10)
        changed(engine, not_due)
        early = json.loads(preview(an_analytics(engine, telemetry, clock=FrozenClock(LATER))))
        then = FrozenClock(LATER + timedelta(minutes=1))
        shown = preview(an_analytics(engine, telemetry, clock=then))
        drain(engine, clock=then)
    [request] = receiver.received
    assert request.body == shown
    assert early | {"sent_at": iso(then())} == json.loads(shown)
    assert len(early["batch"]) == 4


@pytest.mark.parametrize(("backend", "named"), [("posthog", "sent_at"), ("segment", "sentAt")])
def test_an_attempt_differs_from_the_last_in_when_it_is_sent(
    engine: Engine, backend: str, named: str
) -> None:
    clock, answers = FrozenClock(NOW), iter([Reply(503)])
    with Receiver(lambda _: next(answers, OK)) as receiver:
        send_many(engine, switched_on(engine, receiver.url, backend), 3)
        drain(engine, clock=clock)
        clock.advance(hours=2)
        drain(engine, clock=clock)
    first, second = (json.loads(r.body) for r in receiver.received)
    assert (first.pop(named), second.pop(named)) == (iso(NOW), iso(clock()))
    assert first == second


def test_a_backend_that_hangs_delays_no_webhook(engine: Engine) -> None:
    told, waited = threading.Event(), []

    def hang(_: Received) -> Reply:
        waited.append(told.wait(10))
        return OK

    def tell(_: Received) -> Reply:
        told.set()
        return Reply()

    with Receiver(hang) as backend, Receiver(tell) as hook:
        telemetry = switched_on(engine, backend.url)  # the analytics subscriber is the first by id
        send_many(engine, telemetry, 40)
        with Session(engine, info=recording(telemetry)) as session:
            add_plain(session, hook.url, "*")
            record(session, ShopEvent("closed", **ABOUT_SHOP))
            session.commit()
        drain(engine, clock=FrozenClock(NOW))
    assert waited
    assert all(waited)


def test_an_event_recorded_while_off_does_not_spoil_the_batch_it_is_replayed_in(engine: Engine) -> None:
    with Receiver(lambda _: OK) as receiver:
        telemetry = switched_on(engine, receiver.url)
        with Session(engine) as session:  # no telemetry key: nothing is rendered for telemetry
            record(session, ShopEvent("closed", **ABOUT_SHOP))
            session.commit()
            [old] = session.scalars(select(Event.__table__.c.sequence))
            subscriber = session.scalars(select(AnalyticsSubscriber)).one()
            assert replay(session, subscriber, [old], NOW) == 1
            session.commit()
        send_many(engine, telemetry, 2)
        drain(engine, clock=FrozenClock(NOW))
        assert [e["event"] for e in events_in(receiver.received)] == ["shop-heartbeat"] * 2
    assert count(engine, Delivery, Delivery.state == "delivered") == 2
    assert count(engine, Delivery, Delivery.state == "dead") == 1


# -- off


OFF: list[tuple[str, Callable[[Engine, pytest.MonkeyPatch], None]]] = [
    ("variable", lambda _, patch: patch.setenv("TELEMETRY_DISABLED", "1")),
    ("do not track", lambda _, patch: patch.setenv("DO_NOT_TRACK", "1")),
    ("setting", lambda engine, _: set_enabled(engine)),
    ("variable of another process", lambda engine, _: start(engine, environ={"DO_NOT_TRACK": "1"})),
    ("configuration", lambda engine, _: start(engine, config={"TELEMETRY_DISABLED": True})),
    ("plain settings", lambda engine, _: send_off(engine)),
]


def start(engine: Engine, **said: Any) -> None:
    """An application starts that carries telemetry; the relay is elsewhere."""
    attach({}, an_analytics(engine, asking(engine, **said)))


def send_off(engine: Engine) -> None:
    settings = {"CLARION_DATABASE_URL": engine.url, "TELEMETRY_DISABLED": "yes"}
    assert not send_event(settings, enumeration(TYPES).SHOP_HEARTBEAT, ALIVE)  # type: ignore[attr-defined]
    capturing._opened.pop(engine.url).engine.dispose()


def set_enabled(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        session.execute(text("UPDATE telemetry_state SET enabled = false"))


@pytest.mark.parametrize("off", [o for _, o in OFF], ids=[name for name, _ in OFF])
def test_off_is_asked_again_when_sending_and_forgets_what_waited(
    engine: Engine, off: Callable[[Engine, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver(lambda _: OK) as receiver:
        telemetry = switched_on(engine, receiver.url)
        with Session(engine, info=recording(telemetry)) as session:
            add_plain(session, receiver.url, "*")
            record(session, ShopEvent("closed", **ABOUT_SHOP))
            session.commit()
        send_many(engine, telemetry, 30)
        off(engine, monkeypatch)
        assert drain(engine, clock=FrozenClock(NOW)) == 1  # the webhook, which is none of telemetry's
        assert [r.path for r in receiver.received] == ["/"]
    assert count(engine, Capture) == 0
    assert count(engine, Delivery, Delivery.state == "pending") == 0
    assert count(engine, Event.__table__, Event.telemetry.is_not(None)) == 0
    assert count(engine, Event.__table__) == 1


def test_while_off_a_recorded_event_has_no_telemetry_and_no_delivery(engine: Engine) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    environ: dict[str, str] = {}
    telemetry = asking(engine, environ=environ)
    with Session(engine, info=recording(telemetry)) as session:
        record(session, ShopEvent("closed", **ABOUT_SHOP))
        session.commit()
        environ["TELEMETRY_DISABLED"] = "1"
        record(session, ShopEvent("closed", **ABOUT_SHOP))
        session.commit()
        rows = session.execute(select(Event.telemetry.is_not(None)).order_by(Event.sequence)).scalars().all()
    assert [bool(row) for row in rows] == [True, False]
    assert count(engine, Delivery) == 1


def test_debugging_prints_what_is_recorded_and_stores_none_of_it(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    telemetry = asking(engine, environ={"TELEMETRY_DEBUG": "1"})
    for told in (shown, None):
        here = Recording(FrozenClock(NOW), telemetry_key=telemetry.key, telemetry_shown=told)
        with Session(engine, info=here.info()) as session:
            event = ShopEvent("closed", **ABOUT_SHOP)
            record(session, event)
            session.commit()
        assert event.telemetry is None
    [line] = capsys.readouterr().err.splitlines()
    [printed] = json.loads(line)["batch"]
    assert printed["event"] == "shop:closed"
    assert set(printed["properties"]["event_properties"]["shop"]) == {"uuid"}
    assert "Corner shop" not in line
    assert count(engine, Event.__table__) == 2
    assert count(engine, Event.__table__, Event.telemetry.is_not(None)) == 0
    assert count(engine, Delivery) == 0


def test_switching_off_forgets_what_waits_and_keeps_what_was_sent(engine: Engine) -> None:
    with Receiver(lambda _: OK) as receiver:
        telemetry = switched_on(engine, receiver.url)
        send_many(engine, telemetry, 3)
        drain(engine, clock=FrozenClock(NOW))
        send_many(engine, telemetry, 2)
        with Session(engine) as session, session.begin():
            assert switch(session, False, NOW) == 2
        assert drain(engine, clock=FrozenClock(NOW)) == 0
        assert len(receiver.received) == 1
    assert telemetry.decision().why is Why.SETTING
    assert (count(engine, Capture), count(engine, Delivery)) == (3, 3)
    with Session(engine) as session, session.begin():
        assert switch(session, True, NOW) == 0
    assert telemetry.decision().why is Why.ON


def test_nothing_is_recorded_or_sent_before_the_notice_was_shown(engine: Engine) -> None:
    from clarion.analytics.configuring import BackendSettings, configure

    with Receiver(lambda _: OK) as receiver:
        with Session(engine) as session, session.begin():
            configure(session, BackendSettings(receiver.url, WRITE_KEY), APP, SYSTEM, NOW)
        telemetry = asking(engine)
        assert telemetry.decision().why is Why.NOTICE
        assert not an_analytics(engine, telemetry).send("shop-heartbeat", ALIVE)
        with Session(engine, info=recording(telemetry)) as session:
            record(session, ShopEvent("closed", **ABOUT_SHOP))
            session.commit()
        drain(engine, clock=FrozenClock(NOW))
        assert receiver.received == []
        with Session(engine) as session, session.begin():
            show_notice(session, NOW)
        send_many(engine, telemetry, 1)
        drain(engine, clock=FrozenClock(NOW))
        assert len(receiver.received) == 1


# -- identity and bounds


def test_a_new_identity_cannot_be_linked_to_the_old_one(engine: Engine) -> None:
    with Receiver(lambda _: OK) as receiver:
        telemetry = switched_on(engine, receiver.url)

        def happen() -> None:
            with Session(engine, info=recording(telemetry)) as session:
                record(session, ShopEvent("closed", **ABOUT_SHOP))
                session.commit()

        happen()
        drain(engine, clock=FrozenClock(NOW))
        happen()  # waits under the old key
        with Session(engine) as session, session.begin():
            reset_identity(session, NOW)
        happen()
        drain(engine, clock=FrozenClock(NOW))
        first, second = events_in(receiver.received)
    for path in (("distinct_id",), ("properties", "event_properties", "shop", "uuid")):
        old: Any = first
        new: Any = second
        for part in path:
            old, new = old[part], new[part]
        assert old != new


def remembering(engine: Engine) -> Any:
    """What another process asks: it has read the setting and the key, and has not heard of a new one yet."""
    telemetry = asking(engine)
    telemetry.reader = SettingReader(engine, monotonic=lambda: 0.0)
    assert telemetry.key() is not None
    return telemetry


def test_what_another_process_records_under_the_old_key_does_not_leave(engine: Engine) -> None:
    with Receiver(lambda _: OK) as receiver:
        switched_on(engine, receiver.url)
        elsewhere = remembering(engine)
        with Session(engine) as session, session.begin():
            reset_identity(session, NOW)
        with Session(engine, info=recording(elsewhere)) as session:
            record(session, ShopEvent("closed", **ABOUT_SHOP))
            session.commit()
        analytics = an_analytics(engine, elsewhere)
        assert not analytics.send("shop-heartbeat", ALIVE)
        assert count(engine, Capture) == 0
        assert analytics.send("shop-heartbeat", ALIVE)  # it has asked anew
        drain(engine, clock=FrozenClock(NOW))
        assert [event["event"] for event in events_in(receiver.received)] == ["shop-heartbeat"]
    with Session(engine) as session:
        [detail] = session.scalars(select(Attempt.detail).where(Attempt.outcome == "dead"))
    assert "recorded under a key that was replaced" in (detail or "")


def test_what_was_sent_under_the_old_id_is_not_sent_again_under_the_new_one(engine: Engine) -> None:
    with Receiver(lambda _: OK) as receiver:
        telemetry = switched_on(engine, receiver.url)
        with Session(engine, info=recording(telemetry)) as session:
            record(session, ShopEvent("closed", **ABOUT_SHOP))
            session.commit()
        drain(engine, clock=FrozenClock(NOW))
        with Session(engine) as session, session.begin():
            reset_identity(session, NOW)
            redeliver(session, 1, NOW)
        assert drain(engine, clock=FrozenClock(NOW)) == 1
        assert len(receiver.received) == 1


YEAR = timedelta(days=365)
GIVEN = UUID("8d5f0e5c-0f5f-4c58-9d35-3a8f7c1f0b11")


def identity(engine: Engine) -> tuple[UUID, bytes]:
    stored = state(engine)
    return stored.installation, stored.key


def rotated(engine: Engine, now: datetime, **how: Any) -> bool:
    with Session(engine) as session, session.begin():
        return rotate(session, now, **({"environ": {}} | how))


def test_id_and_key_are_replaced_when_they_are_a_year_old(engine: Engine) -> None:
    telemetry = switched_on(engine, "http://127.0.0.1:9/")
    send_many(engine, telemetry, 2)
    before = identity(engine)
    assert not rotated(engine, NOW + YEAR - timedelta(seconds=1))
    assert not rotated(engine, NOW + 9 * YEAR, after=None)
    assert (identity(engine), count(engine, Capture)) == (before, 2)
    assert rotates_at(state(engine), YEAR, {}) == NOW + YEAR
    assert rotates_at(state(engine), None, {}) is None
    assert rotated(engine, NOW + YEAR)
    after = identity(engine)
    assert not set(before) & set(after)
    assert count(engine, Capture) == 0  # sent under the new id, the old key's names would link the two
    assert not rotated(engine, NOW + YEAR)
    assert rotated(engine, NOW + YEAR + timedelta(days=30), after=timedelta(days=30))
    with Session(engine) as session:
        assert losses(session) == {}


def test_a_given_id_is_never_replaced_until_it_is_reset(engine: Engine) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    later = NOW + 5 * YEAR
    before = identity(engine)
    assert not rotated(engine, later, environ={"TELEMETRY_UUID": str(GIVEN)})
    assert rotates_at(state(engine), YEAR, {"TELEMETRY_UUID": str(GIVEN)}) is None
    assert identity(engine) == before
    with Session(engine) as session, session.begin():
        identify(session, GIVEN)
    assert not rotated(engine, later)
    assert rotates_at(state(engine), YEAR, {}) is None
    assert identity(engine) == (GIVEN, before[1])
    with Session(engine) as session, session.begin():
        reset_identity(session, NOW)
    assert rotated(engine, later)


def test_giving_the_id_that_it_has_keeps_it(engine: Engine) -> None:
    telemetry = switched_on(engine, "http://127.0.0.1:9/")
    send_many(engine, telemetry, 1)
    with Session(engine) as session, session.begin():
        identify(session, state(engine).installation)
    assert count(engine, Capture) == 1
    assert not rotated(engine, NOW + YEAR)


ROTATING = """
import sys
from datetime import datetime
from clarion import deliverees, outbox
from clarion.database import open_engine
from clarion.retention import prune
engine = open_engine(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(prune(engine, datetime.fromisoformat(sys.argv[2])).identity, flush=True)
"""


def test_one_of_several_processes_replaces_it(engine: Engine, database_url: str) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    before = identity(engine)
    command = [sys.executable, "-c", ROTATING, database_url, (NOW + YEAR).isoformat()]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    several = [subprocess.Popen(command, **pipes) for _ in range(3)]
    try:
        assert [one.stdout.readline() if one.stdout else "" for one in several] == ["ready\n"] * 3
        for one in several:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        said = sorted(one.communicate(timeout=60)[0] for one in several)
    finally:
        for one in several:
            one.kill()
            one.wait()
    assert said == ["False\n", "False\n", "True\n"]
    assert state(engine).renewed_at == NOW + YEAR
    assert not set(before) & set(identity(engine))


def test_the_backlog_is_bounded_and_the_oldest_go_first(engine: Engine) -> None:
    telemetry = switched_on(engine, "http://127.0.0.1:9/")
    send_many(engine, telemetry, 12)
    with Session(engine) as session, session.begin():
        kept = session.scalars(select(Capture.uuid).order_by(Capture.id.desc()).limit(5)).all()
        assert trim(session, keep=5) == 7
        assert trim(session, keep=5) == 0
        assert set(session.scalars(select(Capture.uuid))) == set(kept)
    with Session(engine) as session:
        assert losses(session) == {"queue_full": 7}
    assert count(engine, Delivery) == 5


def test_sending_keeps_the_backlog_bounded_by_itself(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clarion.analytics.capturing.TRIM_EVERY", 4)
    monkeypatch.setattr("clarion.backlog.trim.__defaults__", (3,))
    send_many(engine, switched_on(engine, "http://127.0.0.1:9/"), 8)
    assert count(engine, Capture) == 3


def test_pruning_keeps_the_backlog_bounded_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = switched_on(engine, "http://127.0.0.1:9/")
    with Session(engine, info=recording(telemetry)) as session:
        for _ in range(5):
            record(session, ShopEvent("closed", **ABOUT_SHOP))
        session.commit()
    monkeypatch.setattr("clarion.backlog.trim.__defaults__", (2,))
    assert prune(engine, NOW).telemetry == 3
    assert count(engine, Delivery) == 2
    assert count(engine, Event.__table__) == 5


def test_what_is_purged_is_only_telemetry_s(engine: Engine) -> None:
    telemetry = switched_on(engine, "http://127.0.0.1:9/")
    with Session(engine, info=recording(telemetry)) as session:
        add_plain(session, "http://127.0.0.1:9/", "*")
        record(session, ShopEvent("closed", **ABOUT_SHOP))
        session.commit()
        assert purge(session) == 1
        session.commit()
    assert count(engine, Delivery) == 1
    assert count(engine, Event.__table__) == 1


def test_the_subscriber_is_hidden_and_there_is_one_however_often_it_is_configured(engine: Engine) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    before = state(engine)
    switched_on(engine, "http://127.0.0.1:9/other")
    after = state(engine)
    assert count(engine, AnalyticsSubscriber) == 1
    assert AnalyticsSubscriber.hidden
    assert (before.installation, before.key) == (after.installation, after.key)
    assert after.url.endswith("/other")


def test_processes_that_start_at_once_configure_one_installation(engine: Engine) -> None:
    together, failed = threading.Barrier(4), []

    def start() -> None:
        together.wait(10)
        try:
            switched_on(engine, "http://127.0.0.1:9/")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert count(engine, TelemetryState) == 1
    assert count(engine, AnalyticsSubscriber) == 1


def test_id_and_key_are_random_and_the_key_is_shown_nowhere(engine: Engine) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    stored = state(engine)
    assert isinstance(stored.installation, UUID)
    assert stored.installation.version == 4
    assert len(stored.key) == 32
    shown = f"{stored!r} {deliveree_of(stored)!r}"
    assert stored.key.hex() not in shown
    assert WRITE_KEY not in shown


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"url": "http://127.0.0.1:9/", "write_key": ""}, ConfigurationError),
        ({"url": "not a url", "write_key": "k"}, InvalidAddress),
        ({"url": "http://127.0.0.1:9/", "write_key": "k", "backend": "mixpanel"}, ConfigurationError),
    ],
)
def test_a_configuration_that_could_never_send_is_refused(
    engine: Engine, settings: dict[str, str], error: type[Exception]
) -> None:
    from clarion.analytics.configuring import BackendSettings, configure

    with Session(engine) as session, pytest.raises(error):
        configure(session, BackendSettings(**settings), APP, SYSTEM, NOW)
    with Session(engine) as session, pytest.raises(NotFound, match="not configured"):
        show_notice(session, NOW)


def test_the_stored_setting_is_read_by_one_thread_while_others_go_on(engine: Engine) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    clock = [0.0]
    reader = SettingReader(engine, max_age=1.0, monotonic=lambda: clock[0])
    first = reader.read()
    reading, go_on = threading.Event(), threading.Event()
    load = reader._load

    def slowly() -> Any:
        reading.set()
        assert go_on.wait(10)
        return load()

    reader._load = slowly  # type: ignore[method-assign]
    clock[0] = 2.0
    thread = threading.Thread(target=reader.read)
    thread.start()
    assert reading.wait(10)
    assert reader.read() is first
    go_on.set()
    thread.join(10)


def test_a_setting_that_cannot_be_read_is_left_alone_for_a_while(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    clock, takes, tried = [0.0], [0.0], []
    reader = SettingReader(engine, max_age=1.0, monotonic=lambda: clock[0])
    load = reader._load

    def failing() -> Any:
        tried.append(clock[0])
        clock[0] += takes[0]
        return Why.UNKNOWN if clock[0] < 40 else load()

    monkeypatch.setattr(reader, "_load", failing)
    for takes[0], until in ((0.0, 3.0), (2.0, 30.0), (0.0, 50.0)):  # refuses at once, hangs, is back
        while clock[0] < until:
            reader.read()
            clock[0] += 1.0
    assert tried == [0.0, 1.0, 2.0, 3.0, 25.0, 47.0, 48.0, 49.0]
