"""Telemetry of the platform, all the way: recorded, relayed, kept by a collector process, asked for."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select

from clarion.addresses import EgressPolicy
from clarion.analytics import Accepted, Disabled, Result, TelemetryData, send_event
from clarion.analytics.reporting import report
from clarion.consent import Why
from clarion.events import Event
from clarion.losses import telemetry_types
from clarion.outbox import Capture, Delivery, record
from clarion.testing import drain
from orchest.analytics import Event as Types
from orchest.app import create_app
from orchest.events import CATALOGUE, Dialog, View
from orchest.models import Project
from orchest.platform import Platform, migrate, open_platform
from orchest.site import Site
from tests.clarion.cli_runs import Ran, call
from tests.clarion.collecting import Running, a_collector
from tests.orchest.test_events import values_for
from tests.orchest.world import World

PROJECT = "orchest"
SENT = telemetry_types(CATALOGUE)

CAPTURES: dict[str, dict[str, Any]] = {
    "view:loaded": {"name": View.JOBS.value},
    "alert:shown": {"dialog": Dialog.SAVE_FAILED.value},
    "confirm:shown": {"dialog": Dialog.DELETE_JOB.value},
    "heartbeat-trigger": {"active": True},
    "project:one-off-job:duplicated": {},
    "project:cron-job:duplicated": {},
    "project:pipeline:saved": {},
}


@dataclass
class Scene:
    """The platform, its web application, and the collector its telemetry goes to."""

    platform: Platform
    app: FastAPI
    collector: Running
    world: World = field(init=False)

    def clarion(self, *arguments: str, status: int = 0) -> Ran:
        ran = call(*arguments)
        assert ran.status == status, ran.all
        return ran

    def happen(self) -> list[Result]:
        """Every recorded type happens once, and every captured type is sent once."""
        with self.platform.sessions() as session:
            if session.scalar(select(Project.uuid)) is None:
                self.world = World.in_session(session)
                session.commit()
            session.add_all(vars(self.world).values())
            for event_type in CATALOGUE.recorded:
                cls: Any = event_type.cls
                record(session, cls(event_type.verb, **values_for(cls, event_type.verb, self.world)))
            session.commit()
        return [
            send_event(self.app, Types(name), TelemetryData(properties))
            for name, properties in CAPTURES.items()
        ]

    def deliver(self) -> int:
        return drain(self.platform.engine)

    def arrived(self) -> Counter[str]:
        events = self.collector.ask("events", PROJECT)["events"]
        return Counter({one["event"]: one["events"] for one in events})

    def stored(self) -> tuple[int, int, int]:
        """How many events hold telemetry, how many captures there are, and deliveries that wait."""
        with self.platform.readers() as session:
            telemetry = select(func.count()).select_from(Event.__table__).where(Event.telemetry.is_not(None))
            waiting = select(func.count()).select_from(Delivery).where(Delivery.state == "pending")
            captures = select(func.count()).select_from(Capture)
            counts = [session.scalar(query) or 0 for query in (telemetry, captures, waiting)]
        return counts[0], counts[1], counts[2]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")  # it is meant, though this is a test run
    for name in ("DO_NOT_TRACK", "TELEMETRY_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("CLARION_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'orchest.db'}"
    monkeypatch.setenv("CLARION_DATABASE_URL", url)
    monkeypatch.setenv("CLARION_APP", "orchest.events")
    monkeypatch.setenv("CLARION_EGRESS_ALLOWED_NETWORKS", "127.0.0.0/8")
    platform = open_platform(Site("https://orchest.example/", tmp_path), url, EgressPolicy())
    try:
        migrate(platform)
        with a_collector(tmp_path, app="orchest.events") as collector:
            yield Scene(platform, create_app(platform, workers=False), collector)
    finally:
        platform.close()


def switch_on(scene: Scene) -> None:
    issued = scene.clarion("collector", "keys", "issue", PROJECT).out.strip()
    scene.clarion("telemetry", "configure", "--url", scene.collector.url, "--write-key", issued)
    scene.clarion("telemetry", "enable")
    forget(scene)


def forget(scene: Scene) -> None:
    """Have the platform read the setting now, which it remembers for a second."""
    reader = scene.platform.analytics.telemetry.reader
    assert reader is not None
    reader.forget()


def test_all_of_it_arrives_while_it_is_on_and_nothing_when_it_is_off(scene: Scene) -> None:
    off_before_it_was_ever_on(scene)
    switch_on(scene)
    everything_arrives_anonymous(scene)
    verify_says_so(scene)
    off_again(scene)


def off_before_it_was_ever_on(scene: Scene) -> None:
    assert scene.happen() == [Disabled(Why.UNCONFIGURED.value)] * len(CAPTURES)
    assert scene.stored() == (0, 0, 0)
    assert scene.deliver() == 0


def everything_arrives_anonymous(scene: Scene) -> None:
    sent = scene.happen()
    assert all(isinstance(one, Accepted) for one in sent), sent
    assert not send_event(scene.app, Types.HEARTBEAT_TRIGGER, TelemetryData({"active": "often"}))
    assert isinstance(report(scene.platform.analytics), Accepted)
    assert scene.deliver() > 0
    assert scene.arrived() == Counter(t.name for t in SENT)
    verdict = scene.collector.ask("verdict", PROJECT)
    assert {one["event"]: one["verdict"] for one in verdict["events"]} == {t.name: "green" for t in SENT}
    assert (verdict["verdict"], verdict["unknown_events"]) == ("green", 0)
    assert all(one["judged_by_this_schema"] == one["kept"] == 1 for one in verdict["events"])
    assert scene.collector.ask("quarantine", PROJECT) == {"shapes": []}
    kept = scene.collector.export(installation_of(scene), PROJECT)
    assert Counter(one["event"] for one in kept) == Counter(t.name for t in SENT)
    assert "private" not in "".join(one["properties"] for one in kept)


def installation_of(scene: Scene) -> str:
    told: dict[str, Any] = json.loads(scene.clarion("telemetry", "status", "--json").out)
    assert (told["on"], told["waiting"], told["refused"]) == (True, 0, 0)
    assert told["lost"] == {"schema_reject": 1}
    return str(told["installation"])


def verify_says_so(scene: Scene) -> None:
    asked = ("telemetry", "verify", "--project", PROJECT, "--token")
    rows = scene.clarion(*asked, scene.collector.token).out.splitlines()[1:]
    shown = {row.split()[0]: row.split()[1:3] for row in rows if row.strip()}
    assert shown == {t.name: ["yes", "yes"] for t in SENT}
    assert scene.arrived() == Counter({t.name: 2 for t in SENT})
    scene.clarion(*asked, "not-the-token", "--patience", "1", status=1)


def off_again(scene: Scene) -> None:
    assert isinstance(
        send_event(scene.app, Types.HEARTBEAT_TRIGGER, TelemetryData({"active": True})), Accepted
    )
    scene.clarion("telemetry", "disable")
    forget(scene)
    before, kept = scene.arrived(), scene.stored()
    assert kept[2] == 0
    assert scene.happen() == [Disabled(Why.SETTING.value)] * len(CAPTURES)
    assert scene.stored() == kept
    assert scene.deliver() == 0
    assert scene.arrived() == before
    asked = ("telemetry", "verify", "--project", PROJECT, "--token", scene.collector.token)
    assert Why.SETTING.value in scene.clarion(*asked, status=3).err
    assert scene.arrived() == before
