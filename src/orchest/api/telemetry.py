"""Whether telemetry is sent, why, under which id; and to say so. What is set acts at once, everywhere."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy.orm import Session

from clarion.analytics.previewing import configured_state
from clarion.consent import NOTICE
from clarion.telemetry import identify, installation_of, rotates_at, switch
from orchest.api.http import Body, Readers, Shown, ThePlatform, Time, Writers
from orchest.api.problems import problems
from orchest.platform import Platform
from orchest.telemetry import ask_again

router = APIRouter(prefix="/api/telemetry", tags=["telemetry"])


class TelemetryShown(Shown):
    """What becomes of telemetry now."""

    on: bool = Field(description="Whether events are recorded and sent.")
    why: str = Field(description="What decided.")
    enabled: bool | None = Field(description="The stored word; null while nobody said anything.")
    backend: str | None = Field(description="The wire format; null without a backend.")
    url: str | None = Field(description="Where it is sent.")
    installation: str | None = Field(description="The random id it is sent under.")
    replaced: Time | None = Field(description="When id and key are to be replaced; null if the id was given.")
    notice: str = Field(description="What is collected, in words.")
    notice_shown: Time | None = Field(description="When people were told so.")


class TelemetrySet(Body):
    """What to change; what is left out stays."""

    enabled: bool | None = Field(
        default=None,
        description="False also forgets what waits to be sent. True says, too, that people were shown the "
        "notice, which every answer has.",
    )
    installation: UUID | None = Field(
        default=None, strict=False, description="The id to send under; what waits is forgotten."
    )


def shown(platform: Platform, session: Session) -> TelemetryShown:
    decision = platform.analytics.telemetry.decision()
    state = configured_state(session)
    told: datetime | None = None if state is None else state.notice_at
    return TelemetryShown(
        on=decision.on,
        why=decision.why.value,
        enabled=None if state is None else state.enabled,
        backend=None if state is None else state.backend,
        url=None if state is None else state.url,
        installation=None if state is None else str(installation_of(state)),
        replaced=None if state is None else rotates_at(state, platform.kept.identity),
        notice=NOTICE,
        notice_shown=told,
    )


@router.get("")
def show_telemetry(platform: ThePlatform, readers: Readers) -> TelemetryShown:
    """Whether telemetry is sent, what decided, and under which id."""
    with readers() as session:
        return shown(platform, session)


@router.patch("", responses=problems(404))
def set_telemetry(
    body: TelemetrySet, platform: ThePlatform, sessions: Writers, readers: Readers
) -> TelemetryShown:
    """Switch telemetry on or off, or give its id. Nothing turns it on against the environment's word."""
    now = platform.site.clock()
    with sessions.begin() as session:
        if body.enabled is not None:
            switch(session, body.enabled, now)
        if body.installation is not None:
            identify(session, body.installation)
    ask_again(platform)
    with readers() as session:
        return shown(platform, session)
