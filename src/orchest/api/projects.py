"""Projects over HTTP."""

from pathlib import Path
from typing import Self

from fastapi import APIRouter, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from orchest import deletion, projects
from orchest.api.http import (
    Body,
    EnvVariables,
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
from orchest.models import Project, new_uuid
from orchest.site import Site

router = APIRouter(prefix="/api/projects", tags=["projects"])


class NewProject(Body):
    """A project to create."""

    name: Name
    path: str | None = Field(
        default=None,
        max_length=4096,
        description="An existing directory, as an absolute path. Without it the platform makes one.",
    )
    env_variables: EnvVariables = {}


class ProjectChanges(Body):
    """What to change; what is left out, or null, stays as it is."""

    name: Name | None = None
    env_variables: EnvVariables | None = Field(default=None, description="All of them, not only the new.")


class ProjectShown(Shown):
    """A project."""

    uuid: str
    name: str
    path: str
    env_variables: dict[str, str]
    created: Time
    url: str = Field(description="Its page.")

    @classmethod
    def of(cls, project: Project, site: Site) -> Self:
        return cls(
            uuid=project.uuid,
            name=project.name,
            path=project.path,
            env_variables=project.env_variables,
            created=project.created,
            url=site.links.to("project", project=project.uuid),
        )


@router.post("", status_code=201, response_model=ProjectShown, responses=problems(409))
def create_project(body: NewProject, once: Once, site: TheSite) -> Response:
    """Create a project, in a directory of its own or in an existing one."""
    uuid = new_uuid()
    path = projects.own_directory(site, body.name, uuid)
    if body.path is not None:
        path = projects.given_directory(site, body.path)

    def create(session: Session) -> ProjectShown:
        project = projects.create_project(
            session, site, uuid=uuid, name=body.name, path=path, env_variables=body.env_variables
        )
        path.mkdir(parents=True, exist_ok=True)
        return ProjectShown.of(project, site)

    try:
        return once(body, create)
    except Exception:
        if body.path is None:
            remove_if_empty(path)
        raise


def remove_if_empty(path: Path) -> None:
    """Take back a directory that was made for a project there is not."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


@router.get("")
def list_projects(page: PageQuery, readers: Readers, site: TheSite) -> Page[ProjectShown]:
    """All projects, the newest first."""
    with readers() as session:
        return page.page(
            session,
            select(Project),
            (Project.created, Project.uuid),
            lambda project: ProjectShown.of(project, site),
        )


@router.get("/{project_uuid}", responses=problems(404))
def show_project(project_uuid: Uuid, readers: Readers, site: TheSite) -> ProjectShown:
    """One project."""
    with readers() as session:
        return ProjectShown.of(projects.find_project(session, project_uuid), site)


@router.patch("/{project_uuid}", responses=problems(404))
def update_project(
    project_uuid: Uuid, body: ProjectChanges, sessions: Writers, site: TheSite
) -> ProjectShown:
    """Change a project's name or its environment variables."""
    with sessions.begin() as session:
        project = projects.update_project(
            session, site, project_uuid, name=body.name, env_variables=body.env_variables
        )
        return ProjectShown.of(project, site)


@router.delete("/{project_uuid}", status_code=204, responses=problems(404, 409))
def delete_project(project_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge) -> None:
    """Delete a project and all in it. What runs is aborted; a directory of the user's own stays."""
    with sessions.begin() as session:
        remains = deletion.delete_project(session, site, project_uuid)
    nudge()
    remains.remove(site)
