"""What tests of the API say often."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from clarion.deliverees.analytics import AnalyticsSubscriber
from clarion.events import Event
from clarion.telemetry import TelemetryState
from orchest.platform import Platform

BASE = "http://127.0.0.1:8470"
NOTIFICATIONS = "/api/notifications"
NOBODY = "00000000-0000-4000-8000-000000000000"


def made(client: TestClient, path: str, body: dict[str, Any]) -> Any:
    """What a POST created."""
    answer = client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def refused(answer: Any, status: int = 422) -> list[str]:
    """The fields that a problem names."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    return [error["field"] for error in problem["errors"]]


def types(platform: Platform) -> list[str]:
    """The types of all events, in order."""
    with platform.readers() as session:
        return list(session.scalars(select(Event.type).order_by(Event.sequence)))


def count(platform: Platform, model: Any) -> int:
    with platform.readers() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def add_analytics(session: Session, now: datetime) -> AnalyticsSubscriber:
    """The hidden subscriber that telemetry goes to, as configuring a backend makes it."""
    state = TelemetryState(
        renewed_at=now, backend="posthog", url="http://127.0.0.1:9", write_key="k", app={}, system={}
    )
    analytics = AnalyticsSubscriber(created_at=now, state=state)
    session.add_all([state, analytics])
    session.flush()
    return analytics
