"""Every interface the feature manual names, called as it says, on a database its own command has migrated."""

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic_core import to_json
from sqlalchemy import func, inspect, select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

import clarion
from _orchest.internals import analytics
from clarion.addresses import EgressPolicy
from clarion.catalogue import EventType, EventTypeRow
from clarion.deliverees import Webhook
from clarion.events import Event
from clarion.outbox import Capture, Delivery
from clarion.subscriptions import EVERYWHERE, Subscription
from clarion.testing import LOOPBACK
from orchest.app import create_app
from orchest.collecting import switch_on
from orchest.events import CATALOGUE, ProjectEvent, about_project, register
from orchest.events.register import recording_in, register_event
from orchest.platform import Platform, open_platform
from orchest.site import Site
from tests.orchest.test_events import values_for
from tests.orchest.world import LINKS, World

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
BASE = "http://127.0.0.1:8470"
RECORDED = [one for one in CATALOGUE.recorded if one.name != "debug-ping"]


def migration_manager(*arguments: str, database_url: str) -> "subprocess.CompletedProcess[str]":
    """The manual's ``bash scripts/migration_manager.sh orchest-api ...``."""
    command = ["bash", "scripts/migration_manager.sh", *arguments]
    environ = {**os.environ, "CLARION_DATABASE_URL": database_url}
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("manual")
    made = migration_manager("orchest-api", "upgrade", database_url=f"sqlite:///{root / 'orchest.db'}")
    assert made.returncode == 0, made.stderr
    return root


@pytest.fixture
def platform(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """The platform on a copy of it, with telemetry on."""
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")  # a test run is a reason to send nothing; this one means it
    (tmp_path / "orchest.db").write_bytes((migrated / "orchest.db").read_bytes())
    url = f"sqlite:///{tmp_path / 'orchest.db'}"
    switch_on(url, tmp_path / "data", "http://127.0.0.1:9/", "write-key", NOW)
    platform = open_platform(Site(BASE, tmp_path / "data"), url, EgressPolicy.of(LOOPBACK))
    yield platform
    platform.close()


@pytest.fixture
def session(platform: Platform) -> Iterator[Session]:
    """A transaction in which a webhook is subscribed to everything, and there is one of everything."""
    with platform.sessions() as session:
        everything = Subscription(pattern="*", scope=EVERYWHERE)
        webhook = Webhook(name="w", url="http://127.0.0.1:9/", created_at=NOW, subscriptions=[everything])
        session.add(webhook)
        session.flush()
        yield session


@pytest.fixture
def world(session: Session) -> World:
    return World.in_session(session)


def last(session: Session) -> Event:
    return session.scalars(select(Event).order_by(Event.sequence.desc()).limit(1)).one()


def told(session: Session, event: Event) -> list[str]:
    """The kinds of subscribers for which recording it has created a delivery record."""
    kinds = select(clarion.Subscriber.kind).join(Delivery, Delivery.subscriber_id == clarion.Subscriber.id)
    return sorted(session.scalars(kinds.where(Delivery.event_sequence == event.sequence)))


def test_register_event(session: Session, world: World) -> None:
    my_event = ProjectEvent("created", **about_project(world.project, LINKS))
    with recording_in(session):
        register_event(my_event)
    found = last(session)
    assert (found.uuid, found.type) == (my_event.uuid, "project:created")
    assert told(session, found) == ["analytics", "webhook"]
    session.rollback()
    assert session.scalar(select(func.count()).select_from(Delivery)) == 0


@pytest.mark.parametrize("one", RECORDED, ids=lambda one: one.name)
def test_register_an_event_of_each_type(session: Session, world: World, one: EventType) -> None:
    function = f"register_{one.name.replace(':', '_').replace('-', '_')}_event"
    assert issubclass(one.cls, Event)
    getattr(register, function)(session=session, **values_for(one.cls, one.verb, world))
    found = last(session)
    assert (found.type, type(found)) == (one.name, one.cls)
    assert told(session, found) == ["analytics", "webhook"]
    assert to_json(found.notification) == to_json(found.to_notification_payload())
    assert found.notification["type"] == found.telemetry["event_properties"]["type"] == one.name  # type: ignore[index]


def test_each_layer_adds_its_own_to_the_payload_of_its_parent(session: Session, world: World) -> None:
    """The hierarchy of models the manual describes: one table, and each class calls its parent."""
    leaf = CATALOGUE["project:cron-job:run:pipeline-run:failed"]
    assert issubclass(leaf.cls, Event)
    register.register_project_cron_job_run_pipeline_run_failed_event(
        session=session, **values_for(leaf.cls, leaf.verb, world)
    )
    found = last(session)
    assert isinstance(found, ProjectEvent)
    assert {inspect(cls).local_table.name for cls in CATALOGUE.recorded.classes} == {"events"}
    payload: Any = found.notification
    for layer in ("project", "job", "run", "pipeline_run"):
        payload = payload[layer]
        assert payload["uuid"]


def test_the_event_types_are_records_that_migrations_added(session: Session) -> None:
    rows = {row.name: row.description for row in session.scalars(select(EventTypeRow))}
    assert rows == {one.name: one.description for one in CATALOGUE}
    assert clarion.EventType is EventType
    assert {member.value for member in analytics.Event} == set(rows)


def test_the_migration_manager_finds_nothing_left_to_migrate(migrated: Path) -> None:
    """Writing a revision is tried in tests/orchest/test_migrations.py, and in docs/how-to/add-an-event.md."""
    url = f"sqlite:///{migrated / 'orchest.db'}"
    checked = migration_manager("orchest-api", "check", database_url=url)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def captures(platform: Platform) -> list[tuple[str, Any]]:
    with platform.readers() as session:
        return [(one.type, one.telemetry) for one in session.scalars(select(Capture).order_by(Capture.id))]


@pytest.fixture
def app(platform: Platform) -> FastAPI:
    return create_app(platform, workers=False)


def test_send_event_from_the_webserver(app: FastAPI, platform: Platform) -> None:
    active = True
    sent = analytics.send_event(
        app,
        analytics.Event.HEARTBEAT_TRIGGER,
        analytics.TelemetryData(
            event_properties={"active": active},
            derived_properties={},
        ),
    )
    assert sent
    expected = {"event_properties": {"active": True}, "derived_properties": {}}
    assert captures(platform) == [("heartbeat-trigger", expected)]


def test_events_of_the_client_are_relayed(app: FastAPI, platform: Platform) -> None:
    with TestClient(app, base_url=BASE) as client:
        answer = client.post("/analytics", json={"event": "view:loaded", "properties": {"name": "jobs"}})
        assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "refused": 0})
        unknown = client.post("/analytics", json={"event": "my event type", "properties": {"hello": "world"}})
        assert unknown.status_code == 422
        of_the_api = client.post("/analytics", json={"event": "project:created", "properties": {}})
        assert of_the_api.status_code == 403
    expected = {"event_properties": {"name": "jobs"}, "derived_properties": {}}
    assert captures(platform) == [("view:loaded", expected)]
