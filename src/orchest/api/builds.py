"""Image builds over HTTP: of environments, and of the user's JupyterLab."""

from pathlib import Path as FilePath
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field
from sqlalchemy import select

from orchest import builds
from orchest.api.environments import UNDER_PROJECT, Script
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
from orchest.environments import find_environment
from orchest.executor import LogChunk, read_chunk
from orchest.models import EnvironmentImageBuild, JupyterImageBuild, Language, Status

router = APIRouter(tags=["environments"])

OF_ENVIRONMENT = UNDER_PROJECT + "/{environment_uuid}/builds"
OF_JUPYTER = "/api/jupyter/builds"
Tag = Annotated[int, Path(ge=1, le=2**31 - 1, description="Counts the builds, from 1.")]
Offset = Annotated[int, Query(ge=0, le=2**53, description="The byte to read from.")]


class NewBuild(Body):
    """Nothing needs to be said: the environment is built as it is described now."""


class NewJupyterBuild(Body):
    """A JupyterLab to build."""

    setup_script: Script = Field(default="", description="Run by bash, stopped by the first failure.")


class BuildShown(Shown):
    """A build: PENDING, STARTED, then SUCCESS, FAILURE or ABORTED."""

    uuid: str
    image_tag: int
    status: Status
    requested: Time
    started: Time | None
    finished: Time | None
    reason: str | None = Field(description="Why it failed or was aborted.")
    setup_script: str
    gpu_support: bool
    language: Language


class LogShown(Shown):
    """A piece of a log."""

    text: str
    next_offset: int = Field(description="Where to go on reading, in bytes.")
    ended: bool = Field(description="Whether nothing more will come after what there is now.")

    @classmethod
    def of(cls, chunk: LogChunk, *, ended: bool) -> Self:
        return cls(text=chunk.text, next_offset=chunk.next_offset, ended=ended)


def log_of(build: builds.Build, offset: int) -> LogShown:
    path = FilePath(build.log_path) if build.log_path is not None else None
    chunk = LogChunk("", offset) if path is None else read_chunk(path, offset)
    return LogShown.of(chunk, ended=build.status.final)


@router.post(OF_ENVIRONMENT, status_code=201, response_model=BuildShown, responses=problems(404, 409))
def build_environment(
    project_uuid: Uuid, environment_uuid: Uuid, body: NewBuild, once: Once, site: TheSite, nudge: Nudge
) -> Response:
    """Build an environment. A build of it that is under way is cancelled."""
    answer = once(
        body,
        lambda session: BuildShown.model_validate(
            builds.request_build(
                session, site, find_environment(session, project_uuid, environment_uuid, lock=True)
            )
        ),
    )
    nudge()
    return answer


@router.get(OF_ENVIRONMENT, responses=problems(404))
def list_builds(
    project_uuid: Uuid, environment_uuid: Uuid, page: PageQuery, readers: Readers
) -> Page[BuildShown]:
    """The builds of an environment, the newest first."""
    with readers() as session:
        find_environment(session, project_uuid, environment_uuid)
        return page.page(
            session,
            select(EnvironmentImageBuild).where(EnvironmentImageBuild.environment_uuid == environment_uuid),
            (EnvironmentImageBuild.image_tag,),
            BuildShown.model_validate,
        )


@router.get(OF_ENVIRONMENT + "/{image_tag}", responses=problems(404))
def show_build(project_uuid: Uuid, environment_uuid: Uuid, image_tag: Tag, readers: Readers) -> BuildShown:
    """One build of an environment."""
    with readers() as session:
        find_environment(session, project_uuid, environment_uuid)
        return BuildShown.model_validate(builds.find_build(session, environment_uuid, image_tag))


@router.get(OF_ENVIRONMENT + "/{image_tag}/log", responses=problems(404))
def show_build_log(
    project_uuid: Uuid, environment_uuid: Uuid, image_tag: Tag, readers: Readers, offset: Offset = 0
) -> LogShown:
    """What a build has printed, from ``offset`` on; also while it runs."""
    with readers() as session:
        find_environment(session, project_uuid, environment_uuid)
        build = builds.find_build(session, environment_uuid, image_tag)
    return log_of(build, offset)


@router.post(OF_ENVIRONMENT + "/{image_tag}/cancel", responses=problems(404, 409))
def cancel_build(
    project_uuid: Uuid,
    environment_uuid: Uuid,
    image_tag: Tag,
    sessions: Writers,
    site: TheSite,
    nudge: Nudge,
) -> BuildShown:
    """Cancel a build. One that has ended stays as it is."""
    with sessions.begin() as session:
        find_environment(session, project_uuid, environment_uuid)
        build = builds.find_build(session, environment_uuid, image_tag)
        builds.cancel_build(session, site, build)
        session.refresh(build)
        shown = BuildShown.model_validate(build)
    nudge()
    return shown


@router.post(OF_JUPYTER, status_code=201, response_model=BuildShown, responses=problems(409))
def build_jupyter(body: NewJupyterBuild, once: Once, site: TheSite, nudge: Nudge) -> Response:
    """Build JupyterLab with a set-up script. A build of it that is under way is cancelled."""
    answer = once(
        body,
        lambda session: BuildShown.model_validate(
            builds.request_jupyter_build(session, site, body.setup_script)
        ),
    )
    nudge()
    return answer


@router.get(OF_JUPYTER)
def list_jupyter_builds(page: PageQuery, readers: Readers) -> Page[BuildShown]:
    """The builds of JupyterLab, the newest first."""
    with readers() as session:
        return page.page(
            session, select(JupyterImageBuild), (JupyterImageBuild.image_tag,), BuildShown.model_validate
        )


@router.get(OF_JUPYTER + "/{image_tag}", responses=problems(404))
def show_jupyter_build(image_tag: Tag, readers: Readers) -> BuildShown:
    """One build of JupyterLab."""
    with readers() as session:
        return BuildShown.model_validate(builds.find_jupyter_build(session, image_tag))


@router.get(OF_JUPYTER + "/{image_tag}/log", responses=problems(404))
def show_jupyter_build_log(image_tag: Tag, readers: Readers, offset: Offset = 0) -> LogShown:
    """What a build of JupyterLab has printed, from ``offset`` on; also while it runs."""
    with readers() as session:
        build = builds.find_jupyter_build(session, image_tag)
    return log_of(build, offset)


@router.post(OF_JUPYTER + "/{image_tag}/cancel", responses=problems(404, 409))
def cancel_jupyter_build(image_tag: Tag, sessions: Writers, site: TheSite, nudge: Nudge) -> BuildShown:
    """Cancel a build of JupyterLab. One that has ended stays as it is."""
    with sessions.begin() as session:
        build = builds.find_jupyter_build(session, image_tag)
        builds.cancel_build(session, site, build)
        session.refresh(build)
        shown = BuildShown.model_validate(build)
    nudge()
    return shown
