"""Environments: what the steps of a project run in. A build makes one (`orchest.builds`)."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from clarion.errors import Conflict, NotFound
from clarion.observe import log
from clarion.outbox import record
from orchest import builds
from orchest.bases import DEFAULT, check_base
from orchest.events import EnvironmentEvent, about_environment
from orchest.models import Environment, EnvironmentImageBuild, Language, PipelineRun, Status, new_uuid
from orchest.projects import find_project
from orchest.site import Site


def find_environment(
    session: Session, project_uuid: str, environment_uuid: str, *, lock: bool = False
) -> Environment:
    """The environment. ``lock`` holds its row until the transaction ends. Raises NotFound."""
    environment = session.get(Environment, environment_uuid, with_for_update=lock or None)
    if environment is None or environment.project_uuid != project_uuid:
        find_project(session, project_uuid)
        raise NotFound(f"there is no environment {environment_uuid} in project {project_uuid}")
    return environment


def create_environment(
    session: Session,
    site: Site,
    project_uuid: str,
    *,
    name: str,
    base: str = DEFAULT,
    language: Language = Language.PYTHON,
    gpu_support: bool = False,
    setup_script: str = "",
    uuid: str | None = None,
) -> Environment:
    """An environment that has not been built yet. ``uuid`` is given when a definition names it already.

    Raises:
        NotFound: there is no such project.
        Conflict: there is an environment of this uuid.
        InvalidFields: there is no such base.
    """
    project = find_project(session, project_uuid, lock=True)
    if uuid is not None and session.get(Environment, uuid) is not None:
        raise Conflict(f"there is an environment {uuid} already")
    environment = Environment(
        uuid=uuid or new_uuid(),
        project=project,
        name=name,
        base=base,
        base_is_ours=check_base(base),
        language=language,
        gpu_support=gpu_support,
        setup_script=setup_script,
        created=site.clock(),
    )
    session.add(environment)
    session.flush()
    record(session, EnvironmentEvent("created", **about_environment(environment, site.links)))
    return environment


def update_environment(
    session: Session, project_uuid: str, environment_uuid: str, changes: Mapping[str, Any]
) -> Environment:
    """Change some of name, base, language, gpu_support and setup_script; the next build brings it about.

    Raises:
        NotFound: there is no such environment.
        InvalidFields: there is no such base.
    """
    environment = find_environment(session, project_uuid, environment_uuid, lock=True)
    for name, value in changes.items():
        setattr(environment, name, value)
    environment.base_is_ours = check_base(environment.base)
    session.flush()
    return environment


def delete_environment(session: Session, site: Site, environment: Environment) -> None:
    """Delete an environment: the build under way is cancelled, then the environment is deleted.

    After the commit call `remove_directory`.

    Raises:
        Conflict: a pipeline run is running in it.
    """
    check_unused(session, environment)
    builds.cancel_builds(session, site, environment, "its environment was deleted")
    values = about_environment(environment, site.links)
    of_it = EnvironmentImageBuild.environment_uuid == environment.uuid
    session.execute(delete(EnvironmentImageBuild).where(of_it).execution_options(synchronize_session="fetch"))
    session.delete(environment)
    session.flush()
    record(session, EnvironmentEvent("deleted", **values))


def delete_environments(session: Session, site: Site, project_uuid: str) -> list[str]:
    """Delete all of a project's; their uuids, to remove the directories of after the commit."""
    rows = session.scalars(
        select(Environment)
        .where(Environment.project_uuid == project_uuid)
        .order_by(Environment.created, Environment.uuid)
        .with_for_update()
    ).all()
    for environment in rows:
        delete_environment(session, site, environment)
    return [environment.uuid for environment in rows]


def check_unused(session: Session, environment: Environment) -> None:
    running = select(PipelineRun.number, PipelineRun.definition).where(
        PipelineRun.project_uuid == environment.project_uuid, PipelineRun.status == Status.STARTED
    )
    for number, definition in session.execute(running):
        if environment.uuid in environments_of(definition):
            raise Conflict(f"pipeline run {number} is running in this environment; abort it first")


def environments_of(definition: Mapping[str, Any]) -> set[str]:
    """The environments that a definition's steps run in."""
    steps: Mapping[str, Mapping[str, Any]] = definition.get("steps") or {}
    return {named for step in steps.values() if (named := step.get("environment"))}


def remove_directory(site: Site, environment_uuid: str) -> None:
    """Remove what was built of a deleted environment. What cannot be removed yet, a builder does later."""
    directory = site.environments / environment_uuid
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        log.info("files of a deleted environment are left", path=str(directory), error=type(error).__name__)


def interpreter_of(session: Session, environment: Environment) -> Path:
    """The Python interpreter of its newest build that succeeded.

    A build that is replaced later stays until no run that started before uses it.

    Raises:
        Conflict: it has not been built.
    """
    image = session.scalar(builds.newest_image(environment.uuid))
    if image is None:
        raise Conflict(f"environment {environment.name!r} has not been built; build it first")
    return Path(image) / "bin" / "python"
