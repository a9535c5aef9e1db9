"""Interactive sessions over HTTP, and their services."""

from pathlib import Path as FilePath
from typing import Annotated, Self

from fastapi import APIRouter, Path, Response
from pydantic import Field
from sqlalchemy import select

from clarion.errors import NotFound
from orchest import sessions
from orchest.api.builds import LogShown, Offset
from orchest.api.http import (
    Body,
    Nudge,
    Once,
    Page,
    PageQuery,
    Readers,
    Shown,
    TheSite,
    Time,
    Uuid,
    Writers,
    problems,
)
from orchest.executor import LogChunk, read_chunk
from orchest.failures import last_failure
from orchest.models import InteractiveSession, ServiceProcess, SessionStatus
from orchest.pipelines import find_pipeline
from orchest.projects import find_project

router = APIRouter(tags=["sessions"])

OF_PROJECT = "/api/projects/{project_uuid}/sessions"
OF_PIPELINE = "/api/projects/{project_uuid}/pipelines/{pipeline_uuid}/session"
ServiceName = Annotated[
    str, Path(min_length=1, max_length=255, pattern=r"^[^\x00]+$", description="The service's name.")
]


class NewSession(Body):
    """Nothing needs to be said: the session has the services of the pipeline as it is saved now."""


class ServiceShown(Shown):
    """A service of a session."""

    name: str
    pid: int | None = Field(description="Its process; null until it has started.")
    ports: dict[str, int] = Field(
        description="Each port the definition names, and the one of 127.0.0.1 it really listens on."
    )
    restarts: int = Field(description="How often a restart was asked for, or was needed.")
    started: Time | None
    exit_code: int | None = Field(description="Of its last end; negative is the signal that killed it.")


class SessionShown(Shown):
    """An interactive session: LAUNCHING, RUNNING, STOPPING; then there is none."""

    uuid: str
    project_uuid: str
    pipeline_uuid: str
    status: SessionStatus
    requested: Time
    started: Time | None = Field(description="When all of its services ran.")
    services: list[ServiceShown]

    @classmethod
    def of(cls, live: InteractiveSession) -> Self:
        return cls.model_validate(live)


class FailureShown(Shown):
    """Why a session failed."""

    failed: Time
    reason: str
    logs: dict[str, str] = Field(description="The end of what each of its services has printed.")


@router.get(OF_PROJECT, responses=problems(404))
def list_sessions(project_uuid: Uuid, page: PageQuery, readers: Readers) -> Page[SessionShown]:
    """The sessions of a project's pipelines, the newest first."""
    with readers() as session:
        find_project(session, project_uuid)
        return page.page(
            session,
            select(InteractiveSession).where(InteractiveSession.project_uuid == project_uuid),
            (InteractiveSession.requested, InteractiveSession.uuid),
            SessionShown.of,
        )


@router.post(OF_PIPELINE, status_code=201, response_model=SessionShown, responses=problems(404, 409))
def start_session(
    project_uuid: Uuid, pipeline_uuid: Uuid, body: NewSession, once: Once, site: TheSite, nudge: Nudge
) -> Response:
    """Start a session of a pipeline. It is RUNNING when all of its services answer."""
    answer = once(
        body,
        lambda session: SessionShown.of(sessions.start_session(session, site, project_uuid, pipeline_uuid)),
    )
    nudge()
    return answer


@router.get(OF_PIPELINE, responses=problems(404))
def show_session(project_uuid: Uuid, pipeline_uuid: Uuid, readers: Readers) -> SessionShown:
    """The session of a pipeline, if it has one."""
    with readers() as session:
        return SessionShown.of(sessions.find_session(session, project_uuid, pipeline_uuid))


@router.get(OF_PIPELINE + "/last-failure", responses=problems(404))
def show_last_failure(
    project_uuid: Uuid, pipeline_uuid: Uuid, readers: Readers, site: TheSite
) -> FailureShown | None:
    """Why the pipeline's last session failed; null when it did not, or a new one has started since."""
    with readers() as session:
        pipeline = find_pipeline(session, project_uuid, pipeline_uuid)
        failure = last_failure(site, pipeline.project_uuid, pipeline.uuid)
    return None if failure is None else FailureShown.model_validate(failure)


@router.delete(OF_PIPELINE, status_code=204, responses=problems(404, 409))
def stop_session(
    project_uuid: Uuid, pipeline_uuid: Uuid, sessions_: Writers, site: TheSite, nudge: Nudge
) -> None:
    """Stop a session: its runs are cancelled, then its services end. It is gone when they have ended."""
    with sessions_.begin() as session:
        sessions.stop_session(session, site, project_uuid, pipeline_uuid)
    nudge()


@router.post(
    OF_PIPELINE + "/services/{name}/restart",
    status_code=202,
    responses=problems(404, 409),
)
def restart_service(
    project_uuid: Uuid, pipeline_uuid: Uuid, name: ServiceName, sessions_: Writers, nudge: Nudge
) -> ServiceShown:
    """Restart a service of a running session. It keeps its ports."""
    with sessions_.begin() as session:
        asked = sessions.restart_service(session, project_uuid, pipeline_uuid, name)
        shown = ServiceShown.model_validate(asked)
    nudge()
    return shown


@router.get(OF_PIPELINE + "/services/{name}/log", responses=problems(404))
def show_service_log(
    project_uuid: Uuid, pipeline_uuid: Uuid, name: ServiceName, readers: Readers, offset: Offset = 0
) -> LogShown:
    """What a service has printed, from ``offset`` on, over its restarts."""
    with readers() as session:
        live = sessions.find_session(session, project_uuid, pipeline_uuid)
        service = session.get(ServiceProcess, (live.uuid, name))
        if service is None:
            raise NotFound(f"the session has no service {name!r}")
        path = service.log_path
    chunk = LogChunk("", offset) if path is None else read_chunk(FilePath(path), offset)
    return LogShown.of(chunk, ended=False)
