"""Old deliveries are deleted once a day, by one process of many."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from clarion.addresses import EgressPolicy
from clarion.analytics import TelemetryData
from clarion.analytics.configuring import BackendSettings, configure
from clarion.deliverees import Webhook
from clarion.envelope import AppProperties, SystemProperties
from clarion.outbox import Capture, Delivery, record
from clarion.retention import Kept, Pruned
from clarion.subscriptions import subscribe
from clarion.telemetry import TelemetryState, show_notice
from clarion.testing import FrozenClock, Receiver, drain
from orchest import pruning
from orchest.app import workers_of
from orchest.events import CATALOGUE, DebugPingEvent
from orchest.models import SchedulerLease
from orchest.platform import Platform, open_platform
from orchest.pruning import EVERY, LEASE, TURN, Pruning
from orchest.site import Site
from orchest.telemetry import ask_again

ONE = Pruned(deliveries=1)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def platform(orchest_engine: Engine, tmp_path: Path, clock: FrozenClock) -> Iterator[Platform]:
    url = orchest_engine.url.render_as_string(hide_password=False)
    platform = open_platform(Site("http://here", tmp_path, clock=clock), url, EgressPolicy())
    yield platform
    platform.close()


def deliver(platform: Platform) -> None:
    """One delivery, finished now."""
    with Receiver() as receiver:
        with platform.sessions.begin() as session:
            hook = Webhook(name="ops", url=receiver.url, created_at=platform.site.clock())
            session.add(hook)
            session.flush()
            subscribe(session, CATALOGUE, hook, [("debug-ping", "")])
        with platform.sessions.begin() as session:
            record(session, DebugPingEvent(""))
        drain(platform.engine, clock=platform.site.clock)
        with platform.sessions.begin() as session:
            session.execute(update(Webhook).values(enabled=False))


def deliveries(engine: Engine) -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(Delivery)) or 0


def test_what_is_old_goes_once_a_day_by_whoever_looks_first(platform: Platform, clock: FrozenClock) -> None:
    one, other = Pruning(platform), Pruning(platform)
    deliver(platform)
    assert one.look() == Pruned()
    assert deliveries(platform.engine) == 1
    clock.advance(days=91)
    assert (other.look(), one.look()) == (ONE, None)
    deliver(platform)
    clock.advance(hours=23)
    assert (one.look(), other.look()) == (None, None)
    clock.advance(hours=1)
    assert (one.look(), other.look()) == (Pruned(), None)
    assert deliveries(platform.engine) == 1


def test_a_turn_that_was_not_finished_is_taken_after_an_hour(
    platform: Platform, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    deliver(platform)
    clock.advance(days=91)
    with monkeypatch.context() as broken:
        broken.setattr(pruning, "prune", dies)
        with pytest.raises(KeyboardInterrupt):
            Pruning(platform).look()
    clock.advance(minutes=59)
    assert Pruning(platform).look() is None
    clock.advance(minutes=1)
    assert Pruning(platform).look() == ONE


def test_who_lost_its_turn_does_not_end_the_others(platform: Platform, clock: FrozenClock) -> None:
    with platform.sessions.begin() as session:
        assert pruning.take_turn(session, "slow", clock())
    began = clock()
    clock.advance(hours=2)
    with platform.sessions.begin() as session:
        assert pruning.take_turn(session, "next", clock())
        pruning.end_turn(session, "slow", began)
        lease = session.get_one(SchedulerLease, LEASE)
        session.refresh(lease)
        assert (lease.holder, lease.until) == ("next", clock() + TURN)
        pruning.end_turn(session, "next", clock())
        session.refresh(lease)
        assert (lease.holder, lease.until) == (None, clock() + EVERY)


def test_it_runs_beside_the_platform(platform: Platform, clock: FrozenClock) -> None:
    [worker] = [one for one in workers_of(platform) if isinstance(one, Pruning)]
    worker.start()
    worker.nudge()
    worker.stop()
    with platform.readers() as session:
        assert session.get_one(SchedulerLease, LEASE).until >= clock() + timedelta(hours=1)


def test_a_turn_replaces_an_old_identity_and_tells_of_losses(
    platform: Platform, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    with platform.sessions.begin() as session:
        backend = BackendSettings("http://127.0.0.1:9", "k")
        state = configure(session, backend, AppProperties(), SystemProperties(), clock())
        show_notice(session, clock())
        before = state.installation
    ask_again(platform)
    platform.kept = Kept(identity=timedelta(days=30))
    assert not platform.analytics.send("heartbeat-trigger", TelemetryData({"active": "often"}))
    assert Pruning(platform).look() == Pruned()
    with platform.readers() as session:
        assert session.scalars(select(Capture.type)).all() == ["telemetry:events:lost"]
    clock.advance(days=30)
    assert Pruning(platform).look() == Pruned(identity=True)
    with platform.readers() as session:
        assert session.get_one(TelemetryState, 1).installation != before
        assert session.scalars(select(Capture.type)).all() == []
