"""Projects: directories of pipelines and environments."""

import re
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.errors import Conflict, NotFound
from clarion.outbox import record
from orchest.errors import FieldProblem, InvalidFields
from orchest.events import ChangedObject, ProjectEvent, about_project, change, variable_changes
from orchest.models import Project, new_uuid
from orchest.site import Site

MAX_SLUG = 40


def find_project(session: Session, project_uuid: str, *, lock: bool = False) -> Project:
    """The project. ``lock`` holds its row until the transaction ends. Raises NotFound."""
    project = session.get(Project, project_uuid, with_for_update=lock or None)
    if project is None:
        raise NotFound(f"there is no project {project_uuid}")
    return project


def create_project(
    session: Session,
    site: Site,
    *,
    name: str,
    path: Path,
    env_variables: dict[str, Any] | None = None,
    uuid: str | None = None,
) -> Project:
    """A project in the directory ``path``; see `own_directory` and `given_directory`.

    Raises:
        Conflict: the directory is, lies in or holds that of another project.
    """
    check_apart(session, path)
    project = Project(
        uuid=uuid or new_uuid(),
        name=name,
        path=str(path),
        env_variables=env_variables or {},
        created=site.clock(),
    )
    session.add(project)
    session.flush()
    record(session, ProjectEvent("created", **about_project(project, site.links)))
    return project


def update_project(
    session: Session,
    site: Site,
    project_uuid: str,
    *,
    name: str | None = None,
    env_variables: dict[str, Any] | None = None,
) -> Project:
    """Change what is given; what is as it was is no change, and without any nothing is recorded.

    Raises:
        NotFound: there is no such project.
    """
    project = find_project(session, project_uuid, lock=True)
    changes = []
    if name is not None:
        changes += change(ChangedObject.NAME, project.name, name)
        project.name = name
    if env_variables is not None:
        changes += variable_changes(project.env_variables, env_variables)
        project.env_variables = env_variables
    if changes:
        session.flush()
        record(session, ProjectEvent("updated", **about_project(project, site.links, changes)))
    return project


def check_apart(session: Session, path: Path) -> None:
    """Raises Conflict unless no other project has files below ``path``, or above it."""
    for other, uuid in session.execute(select(Project.path, Project.uuid)):
        theirs = Path(other)
        if path == theirs or path.is_relative_to(theirs) or theirs.is_relative_to(path):
            raise Conflict(f"{path} shares files with {theirs}, the directory of project {uuid}")


def own_directory(site: Site, name: str, project_uuid: str) -> Path:
    """Where a project that was given no directory keeps its files: readable, and the project's alone."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_SLUG].strip("-") or "project"
    return site.projects.resolve() / f"{slug}-{project_uuid[:8]}"


def given_directory(site: Site, path: str) -> Path:
    """A directory of the user's own, links followed.

    Raises:
        InvalidFields: it is not an absolute path of a directory, or lies where the platform keeps files.
    """
    given = Path(path)
    if not given.is_absolute():
        raise InvalidFields([FieldProblem("/path", f"{path!r} must be an absolute path")])
    try:
        found = given.resolve(strict=True)
    except (OSError, RuntimeError):
        raise InvalidFields([FieldProblem("/path", f"there is no directory {path!r}")]) from None
    if not found.is_dir():
        raise InvalidFields([FieldProblem("/path", f"{path!r} is not a directory")])
    data = site.data.resolve()
    if found == data or data.is_relative_to(found) or found.is_relative_to(data):
        raise InvalidFields([FieldProblem("/path", f"{path!r} and the platform's own files overlap")])
    return found
