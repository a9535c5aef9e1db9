"""The shared analytics module under its old name, used as the feature manual says."""

from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from _orchest.internals import analytics
from clarion.analytics import attach
from clarion.analytics.capturing import Analytics
from clarion.outbox import Capture
from orchest.events import CATALOGUE
from tests.clarion.telemetry_sample import switched_on


def test_the_manual_s_example_sends(engine: Engine) -> None:
    app = FastAPI()
    attach(app, Analytics(engine, types=CATALOGUE, telemetry=switched_on(engine, "http://127.0.0.1:9/")))
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
    with Session(engine) as session:
        capture = session.scalars(select(Capture)).one()
    assert (capture.type, capture.telemetry["event_properties"]) == ("heartbeat-trigger", {"active": True})


def test_the_enumeration_has_all_66_types() -> None:
    members: Any = analytics.Event
    assert len(members) == 66
    assert (
        members("project:cron-job:run:pipeline-run:failed").name == "PROJECT_CRON_JOB_RUN_PIPELINE_RUN_FAILED"
    )
    assert {member.value for member in members} == {t.name for t in CATALOGUE}
