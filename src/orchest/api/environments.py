"""Environments over HTTP."""

from typing import Annotated, Self

from fastapi import APIRouter, Response
from pydantic import Field, StringConstraints
from sqlalchemy import select

from orchest import bases, environments
from orchest.api.http import (
    Body,
    Name,
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
from orchest.models import Environment, Language
from orchest.projects import find_project
from orchest.site import Site

router = APIRouter(tags=["environments"])

UNDER_PROJECT = "/api/projects/{project_uuid}/environments"
Script = Annotated[str, StringConstraints(max_length=1024 * 1024)]
BaseName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
TheLanguage = Annotated[Language, Field(strict=False)]
BASE = (
    "One of ours (see `/api/environment-bases`), `python3.N`, or the absolute path of a Python interpreter."
)
SCRIPT = "Run by bash, which stops at the first command that fails, in the project's directory."


class NewEnvironment(Body):
    """An environment to create; it can be used when it has been built."""

    name: Name
    base: BaseName = Field(default=bases.DEFAULT, description=BASE)
    language: TheLanguage = Language.PYTHON
    gpu_support: bool = False
    setup_script: Script = Field(default="", description=SCRIPT)
    uuid: Uuid | None = Field(default=None, description="If a pipeline definition names it already.")


class EnvironmentChanges(Body):
    """What to change; what is left out, or null, stays as it is. The next build brings it about."""

    name: Name | None = None
    base: BaseName | None = Field(default=None, description=BASE)
    language: TheLanguage | None = None
    gpu_support: bool | None = None
    setup_script: Script | None = Field(default=None, description=SCRIPT)


class EnvironmentShown(Shown):
    """An environment."""

    uuid: str
    project_uuid: str
    name: str
    base: str
    base_is_ours: bool = Field(description="Whether the base is one the platform comes with.")
    language: Language
    gpu_support: bool
    setup_script: str
    created: Time
    url: str = Field(description="Its page.")

    @classmethod
    def of(cls, environment: Environment, site: Site) -> Self:
        return cls(
            uuid=environment.uuid,
            project_uuid=environment.project_uuid,
            name=environment.name,
            base=environment.base,
            base_is_ours=environment.base_is_ours,
            language=environment.language,
            gpu_support=environment.gpu_support,
            setup_script=environment.setup_script,
            created=environment.created,
            url=site.links.to("environment", project=environment.project_uuid, environment=environment.uuid),
        )


class BaseShown(Shown):
    """A base of ours."""

    name: str
    description: str


@router.get("/api/environment-bases")
def list_environment_bases() -> list[BaseShown]:
    """The bases the platform comes with."""
    return [BaseShown.model_validate(base) for base in bases.BASES.values()]


@router.post(UNDER_PROJECT, status_code=201, response_model=EnvironmentShown, responses=problems(404, 409))
def create_environment(project_uuid: Uuid, body: NewEnvironment, once: Once, site: TheSite) -> Response:
    """Create an environment. Ask for a build to make it usable."""
    return once(
        body,
        lambda session: EnvironmentShown.of(
            environments.create_environment(session, site, project_uuid, **dict(body)), site
        ),
    )


@router.get(UNDER_PROJECT, responses=problems(404))
def list_environments(
    project_uuid: Uuid, page: PageQuery, readers: Readers, site: TheSite
) -> Page[EnvironmentShown]:
    """The environments of a project, the newest first."""
    with readers() as session:
        find_project(session, project_uuid)
        return page.page(
            session,
            select(Environment).where(Environment.project_uuid == project_uuid),
            (Environment.created, Environment.uuid),
            lambda environment: EnvironmentShown.of(environment, site),
        )


@router.get(UNDER_PROJECT + "/{environment_uuid}", responses=problems(404))
def show_environment(
    project_uuid: Uuid, environment_uuid: Uuid, readers: Readers, site: TheSite
) -> EnvironmentShown:
    """One environment."""
    with readers() as session:
        found = environments.find_environment(session, project_uuid, environment_uuid)
        return EnvironmentShown.of(found, site)


@router.patch(UNDER_PROJECT + "/{environment_uuid}", responses=problems(404))
def update_environment(
    project_uuid: Uuid, environment_uuid: Uuid, body: EnvironmentChanges, sessions: Writers, site: TheSite
) -> EnvironmentShown:
    """Change an environment. What was built stays in use until a new build has succeeded."""
    changes = body.model_dump(exclude_none=True)
    with sessions.begin() as session:
        changed = environments.update_environment(session, project_uuid, environment_uuid, changes)
        return EnvironmentShown.of(changed, site)


@router.delete(UNDER_PROJECT + "/{environment_uuid}", status_code=204, responses=problems(404, 409))
def delete_environment(
    project_uuid: Uuid, environment_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge
) -> None:
    """Delete an environment, its builds and its files. Not while a pipeline run is running in it."""
    with sessions.begin() as session:
        found = environments.find_environment(session, project_uuid, environment_uuid, lock=True)
        environments.delete_environment(session, site, found)
    nudge()
    environments.remove_directory(site, environment_uuid)
