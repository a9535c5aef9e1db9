"""The daily report of what telemetry lost: counted once, told once, never while telemetry is off."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from clarion.analytics import Accepted, Disabled, TelemetryData
from clarion.analytics.capturing import Analytics
from clarion.analytics.reporting import EVERY, report
from clarion.backlog import trim
from clarion.consent import Why
from clarion.losses import Loss, losses, telemetry_types
from clarion.outbox import Capture
from clarion.telemetry import reset_identity, switch
from clarion.testing import FrozenClock, Receiver, Reply, drain
from tests.clarion.telemetry_sample import NOW, TYPES, an_analytics, asking, events_in, switched_on

NOWHERE = "http://127.0.0.1:9/"
TYPE = "telemetry:events:lost"
ALIVE = TelemetryData({"active": True})
WRONG = TelemetryData({"active": "often"})
OK = Reply(200, (), b'{"status":"Ok"}')


@pytest.fixture(autouse=True)
def meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOW)


@pytest.fixture
def analytics(engine: Engine, clock: FrozenClock) -> Analytics:
    return an_analytics(engine, switched_on(engine, NOWHERE), clock=clock)


def told(engine: Engine) -> list[dict[str, Any]]:
    """What the reports say that wait to be sent, oldest first."""
    with Session(engine) as session:
        stored = session.scalars(select(Capture).where(Capture.type == TYPE).order_by(Capture.id))
        return [one.telemetry["event_properties"]["lost"] for one in stored]


def lost(engine: Engine) -> dict[str, int]:
    with Session(engine) as session:
        return losses(session)


def change(engine: Engine, how: Callable[[Session], Any]) -> None:
    with Session(engine) as session, session.begin():
        how(session)


def test_what_was_refused_is_told_once_and_in_buckets(analytics: Analytics, engine: Engine) -> None:
    assert report(analytics) is None  # nothing was lost
    for _ in range(3):
        assert not analytics.send("shop-heartbeat", WRONG)
    with pytest.raises(ValueError, match="undeclared"):
        analytics.send("shop-heartbeat", TelemetryData({"passive": True}))
    assert lost(engine) == {"schema_reject": 4}
    analytics.clock.advance(days=1)  # type: ignore[attr-defined]
    assert isinstance(report(analytics), Accepted)
    assert told(engine) == [{"schema_reject": "2-5"}]
    analytics.clock.advance(days=1)  # type: ignore[attr-defined]
    assert report(analytics) is None
    assert not analytics.send("shop-heartbeat", WRONG)
    analytics.clock.advance(days=1)  # type: ignore[attr-defined]
    assert report(analytics)
    assert told(engine) == [{"schema_reject": "2-5"}, {"schema_reject": "1"}]
    assert lost(engine) == {"schema_reject": 5}


def test_at_most_one_a_day(analytics: Analytics, engine: Engine, clock: FrozenClock) -> None:
    assert not analytics.send("shop-heartbeat", WRONG)
    assert report(analytics)
    assert not analytics.send("shop-heartbeat", WRONG)
    clock.advance(seconds=EVERY.total_seconds() - 1)
    assert report(analytics) is None
    clock.advance(seconds=1)
    assert report(analytics)
    clock.advance(days=-30)  # a clock that was wrong does not silence it for a month
    assert not analytics.send("shop-heartbeat", WRONG)
    assert report(analytics)
    assert told(engine) == [{"schema_reject": "1"}] * 3


def test_one_of_many_processes_tells(engine: Engine, analytics: Analytics, clock: FrozenClock) -> None:
    assert not analytics.send("shop-heartbeat", WRONG)
    many = [an_analytics(engine, asking(engine), clock=clock) for _ in range(4)]
    barrier, said = threading.Barrier(len(many)), []

    def tell(one: Analytics) -> None:
        barrier.wait(10)
        said.append(report(one))

    threads = [threading.Thread(target=tell, args=(one,)) for one in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(isinstance(one, Accepted) for one in said) == [False, False, False, True]
    assert told(engine) == [{"schema_reject": "1"}]


def test_what_the_backend_would_not_take_or_never_took(engine: Engine, clock: FrozenClock) -> None:
    refusing = [500]
    with Receiver(lambda _: Reply(refusing[0])) as receiver:
        analytics = an_analytics(engine, switched_on(engine, receiver.url), clock=clock)
        assert analytics.send("shop-heartbeat", ALIVE)
        drain(engine, clock=clock)
        clock.advance(days=7)  # the next attempt is the last
        drain(engine, clock=clock)
        refusing[0] = 403
        for _ in range(2):
            assert analytics.send("shop-heartbeat", ALIVE)
        drain(engine, clock=clock)
        assert report(analytics) is None  # what was given up a moment ago may not be settled yet
        clock.advance(days=1)
        assert report(analytics)
        assert told(engine) == [{"expired": "1", "refused": "2-5"}]
        clock.advance(days=1)
        assert report(analytics) is None


def test_what_was_dropped_because_too_much_waited(analytics: Analytics, engine: Engine) -> None:
    for _ in range(5):
        assert analytics.send("shop-heartbeat", ALIVE)
    change(engine, lambda session: trim(session, keep=2))
    assert report(analytics)
    assert told(engine) == [{"queue_full": "2-5"}]


def test_nothing_is_told_while_it_is_off_and_what_was_purged_only_after(
    analytics: Analytics, engine: Engine, clock: FrozenClock
) -> None:
    with Receiver(lambda _: OK) as receiver:
        switched_on(engine, receiver.url)
        for _ in range(2):
            assert analytics.send("shop-heartbeat", ALIVE)
        change(engine, lambda session: switch(session, False, NOW))
        for _ in range(3):
            clock.advance(days=2)
            assert report(analytics) == Disabled(Why.SETTING.value)
            assert not analytics.send("shop-heartbeat", WRONG)
        assert drain(engine, clock=clock) == 0
        assert (receiver.received, told(engine)) == ([], [])
        assert lost(engine) == {"disabled_purged": 2}  # what is refused while it is off is no loss
        change(engine, lambda session: switch(session, True, NOW))
        assert report(analytics)
        drain(engine, clock=clock)
        [event] = events_in(receiver.received)
    assert event["event"] == TYPE
    assert event["properties"]["event_properties"] == {"lost": {"disabled_purged": "2-5"}}


def test_the_environment_s_no_is_one_too(
    analytics: Analytics, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not analytics.send("shop-heartbeat", WRONG)
    analytics.telemetry.environ = {"DO_NOT_TRACK": "1"}
    assert report(analytics) == Disabled(Why.DO_NOT_TRACK.value)
    assert told(engine) == []


def test_a_new_identity_tells_nothing_of_the_old_one(
    analytics: Analytics, engine: Engine, clock: FrozenClock
) -> None:
    assert analytics.send("shop-heartbeat", ALIVE)
    assert not analytics.send("shop-heartbeat", WRONG)
    change(engine, lambda session: reset_identity(session, clock()))
    clock.advance(days=2)
    assert report(analytics) is None
    assert told(engine) == []


def test_a_report_needs_a_subscriber_and_loses_nothing_without(
    analytics: Analytics, engine: Engine, clock: FrozenClock
) -> None:
    from clarion.deliverees.analytics import AnalyticsSubscriber

    def enabled(session: Session, on: bool) -> None:
        session.scalars(select(AnalyticsSubscriber)).one().enabled = on

    assert not analytics.send("shop-heartbeat", WRONG)
    change(engine, lambda session: enabled(session, False))
    assert report(analytics) == Disabled(Why.UNCONFIGURED.value)
    change(engine, lambda session: enabled(session, True))
    assert report(analytics)
    assert told(engine) == [{"schema_reject": "1"}]


def test_what_waits_for_more_than_a_day_is_said_in_the_log(
    analytics: Analytics, engine: Engine, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    assert analytics.send("shop-heartbeat", ALIVE)
    with caplog.at_level(logging.WARNING, "clarion"):
        clock.advance(hours=24)
        report(analytics)
        assert caplog.messages == []
        clock.advance(hours=1)
        report(analytics)
    assert caplog.messages == [
        "telemetry has been waiting for 25 hours: does a relay run, and does the backend answer?"
    ]


def test_every_reason_fits_its_column_and_is_declared() -> None:
    declared = telemetry_types(TYPES)[TYPE].telemetry_example(NOW)["event_properties"]["lost"]
    assert declared.keys() == {one.value for one in Loss}
    assert all(len(one.value) <= 16 for one in Loss)
