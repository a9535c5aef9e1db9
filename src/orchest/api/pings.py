"""A ping of the analytics backend over HTTP: a telemetry event that says nothing but that it came."""

from fastapi import APIRouter
from pydantic import Field

from clarion.errors import Conflict
from clarion.outbox import record
from orchest.api.http import Shown, ThePlatform
from orchest.api.problems import problems
from orchest.events import DebugPingEvent

router = APIRouter(prefix="/api/telemetry", tags=["telemetry"])


class PingRecorded(Shown):
    """A ping that is on its way."""

    event_uuid: str = Field(description="The event; `clarion telemetry log` shows when it was sent.")


@router.post("/ping", status_code=202, responses=problems(409))
def ping_backend(platform: ThePlatform) -> PingRecorded:
    """Send a ping to the analytics backend, the way all telemetry goes, to see whether it arrives."""
    decision = platform.analytics.telemetry.decision()
    if not decision:
        raise Conflict(f"telemetry is off, so nothing can be sent: {decision.why.value}")
    with platform.sessions.begin() as session:
        ping = DebugPingEvent("")
        record(session, ping)
        session.flush()
        return PingRecorded(event_uuid=str(ping.uuid))
