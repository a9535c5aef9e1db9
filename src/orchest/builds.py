"""Image builds: of environments and of the user's JupyterLab. PENDING > STARTED > SUCCESS, FAILURE, ABORTED.

The rows and their transitions; `orchest.building` does the work, `orchest.builders` decides when. Each
transition is one guarded UPDATE and one event: the second to try it changes nothing and says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Select, func, select, text, update
from sqlalchemy.orm import Session

from clarion.errors import NotFound
from clarion.events import Event
from clarion.outbox import record
from orchest.events import (
    EnvironmentImageBuildEvent,
    JupyterImageBuildEvent,
    about_environment_build,
    about_jupyter_build,
)
from orchest.models import Environment, EnvironmentImageBuild, JupyterImageBuild, Language, Status
from orchest.owners import LAPSE, surely_gone
from orchest.site import Site

Build = EnvironmentImageBuild | JupyterImageBuild
Made = TypeVar("Made", EnvironmentImageBuild, JupyterImageBuild)
KINDS: tuple[type[EnvironmentImageBuild], type[JupyterImageBuild]] = (
    EnvironmentImageBuild,
    JupyterImageBuild,
)
JUPYTER = "jupyter"
"""The directory of JupyterLab's builds, beside the environments'."""
JUPYTER_BASE = "python-shared"
LOCK = 7203001
"""The key of the PostgreSQL lock under which builds are taken and JupyterLab's are numbered."""
UNFINISHED = (Status.PENDING, Status.STARTED)
BEFORE = {
    Status.STARTED: (Status.PENDING,),
    Status.SUCCESS: (Status.STARTED,),
    Status.FAILURE: UNFINISHED,
    Status.ABORTED: UNFINISHED,
}
VERBS = {
    Status.STARTED: "started",
    Status.SUCCESS: "succeeded",
    Status.FAILURE: "failed",
    Status.ABORTED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """A build that a builder has taken: all it needs to know."""

    kind: type[EnvironmentImageBuild] | type[JupyterImageBuild]
    uuid: str
    directory: Path
    base: str
    setup_script: str
    gpu_support: bool
    language: Language
    cwd: Path | None
    """Where the set-up script runs: the project's directory, or None for the build's own."""


def request_build(session: Session, site: Site, environment: Environment) -> EnvironmentImageBuild:
    """Ask for a build of the environment as it is now. A build under way is cancelled first."""
    session.refresh(environment, with_for_update=True)
    cancel_builds(session, site, environment, "a newer build was requested")
    tags = select(func.max(EnvironmentImageBuild.image_tag)).where(
        EnvironmentImageBuild.environment_uuid == environment.uuid
    )
    build = EnvironmentImageBuild(
        environment=environment,
        image_tag=(session.scalar(tags) or 0) + 1,
        requested=site.clock(),
        setup_script=environment.setup_script,
        gpu_support=environment.gpu_support,
        language=environment.language,
        base_is_ours=environment.base_is_ours,
    )
    return created(session, site, build)


def request_jupyter_build(session: Session, site: Site, setup_script: str) -> JupyterImageBuild:
    """Ask for a build of JupyterLab. A build under way is cancelled first."""
    lock_builds(session)
    running = select(JupyterImageBuild).where(JupyterImageBuild.status.in_(UNFINISHED))
    for old in session.scalars(running).all():
        move(session, site, old, Status.ABORTED, reason="a newer build was requested")
    newest = session.scalar(select(func.max(JupyterImageBuild.image_tag)))
    build = JupyterImageBuild(image_tag=(newest or 0) + 1, requested=site.clock(), setup_script=setup_script)
    return created(session, site, build)


def created(session: Session, site: Site, build: Made) -> Made:
    session.add(build)
    session.flush()
    record(session, event_of(build, site, "created"))
    return build


def cancel_builds(session: Session, site: Site, environment: Environment, reason: str) -> None:
    """Cancel the environment's build under way, if there is one."""
    running = select(EnvironmentImageBuild).where(
        EnvironmentImageBuild.environment_uuid == environment.uuid,
        EnvironmentImageBuild.status.in_(UNFINISHED),
    )
    for build in session.scalars(running).all():
        move(session, site, build, Status.ABORTED, reason=reason)


def cancel_build(session: Session, site: Site, build: Build) -> bool:
    """Cancel a build. Its builder finds out and kills it. False: it had ended, nothing changed."""
    return move(session, site, build, Status.ABORTED, reason="cancelled by the user")


def move(
    session: Session,
    site: Site,
    build: Build,
    to: Status,
    *,
    owner: str | None = None,
    **values: Any,
) -> bool:
    """The transition to ``to`` and its event; with ``owner``, only if that one has it.

    False when the build was not in a state that leads there, and then nothing has changed.
    """
    kind = type(build)
    values[("started" if to is Status.STARTED else "finished")] = site.clock()
    where = [kind.uuid == build.uuid, kind.status.in_(BEFORE[to])]
    if owner is not None and to is not Status.STARTED:
        where.append(kind.owner == owner)
    if to is Status.STARTED:
        values["owner"] = owner
    moved = session.execute(
        update(kind).where(*where).values(status=to, **values).execution_options(synchronize_session=False)
    )
    if moved.rowcount == 0:  # type: ignore[attr-defined]
        return False
    session.refresh(build)
    record(session, event_of(build, site, VERBS[to]))
    return True


def event_of(build: Build, site: Site, verb: str) -> Event:
    if isinstance(build, EnvironmentImageBuild):
        return EnvironmentImageBuildEvent(verb, **about_environment_build(build, site.links))
    return JupyterImageBuildEvent(verb, **about_jupyter_build(build))


def find_build(session: Session, environment_uuid: str, image_tag: int) -> EnvironmentImageBuild:
    """The build of an environment with this tag. Raises NotFound."""
    build = session.scalar(
        select(EnvironmentImageBuild).where(
            EnvironmentImageBuild.environment_uuid == environment_uuid,
            EnvironmentImageBuild.image_tag == image_tag,
        )
    )
    if build is None:
        raise NotFound(f"environment {environment_uuid} has no build {image_tag}")
    return build


def find_jupyter_build(session: Session, image_tag: int) -> JupyterImageBuild:
    """JupyterLab's build with this tag. Raises NotFound."""
    build = session.scalar(select(JupyterImageBuild).where(JupyterImageBuild.image_tag == image_tag))
    if build is None:
        raise NotFound(f"JupyterLab has no build {image_tag}")
    return build


def newest_image(environment_uuid: str) -> Select[str | None]:
    """The query for the directory of the build in use: of the successful ones, the highest tag."""
    return (
        select(EnvironmentImageBuild.image_path)
        .where(
            EnvironmentImageBuild.environment_uuid == environment_uuid,
            EnvironmentImageBuild.status == Status.SUCCESS,
        )
        .order_by(EnvironmentImageBuild.image_tag.desc())
        .limit(1)
    )


def lock_builds(session: Session) -> None:
    """One transaction at a time from here on; SQLite's writers are alone anyhow."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


def in_status(session: Session, status: Status) -> list[Build]:
    """Every build in this state; for the unfinished ones, of which there are few."""
    found: list[Build] = []
    found += session.scalars(select(EnvironmentImageBuild).where(EnvironmentImageBuild.status == status))
    found += session.scalars(select(JupyterImageBuild).where(JupyterImageBuild.status == status))
    return found


def claim_builds(session: Session, site: Site, owner: str) -> list[Assignment]:
    """Take waiting builds, the oldest first, as many as `Limits.builds` allows in the whole installation."""
    lock_builds(session)
    started = sum(
        session.scalar(select(func.count()).select_from(kind).where(kind.status == Status.STARTED)) or 0
        for kind in KINDS
    )
    free = site.limits.builds - started
    if free <= 0:
        return []
    waiting: list[Build] = sorted(
        in_status(session, Status.PENDING), key=lambda build: (build.requested, build.uuid)
    )
    now = site.clock()
    taken = []
    for build in waiting[:free]:
        log_path = str(directory_of(site, build) / "log.txt")
        if move(session, site, build, Status.STARTED, owner=owner, heartbeat=now, log_path=log_path):
            taken.append(assignment(build))
    return taken


def wants_builder(session: Session, site: Site, owner: str) -> bool:
    """Whether there is a build to take or to fail; only reads."""
    started = in_status(session, Status.STARTED)
    if any(orphaned(build, site.clock(), owner) for build in started):
        return True
    return len(started) < site.limits.builds and bool(in_status(session, Status.PENDING))


def directory_of(site: Site, build: Build) -> Path:
    """The directory of one build: its log, its set-up script, and the virtual environment it makes."""
    of = build.environment_uuid if isinstance(build, EnvironmentImageBuild) else JUPYTER
    return site.environments / of / str(build.image_tag)


def assignment(build: Build) -> Assignment:
    environment = build.environment if isinstance(build, EnvironmentImageBuild) else None
    assert build.log_path is not None
    return Assignment(
        kind=type(build),
        uuid=build.uuid,
        directory=Path(build.log_path).parent,
        base=environment.base if environment is not None else JUPYTER_BASE,
        setup_script=build.setup_script,
        gpu_support=build.gpu_support,
        language=build.language,
        cwd=Path(environment.project.path) if environment is not None else None,
    )


def finish_build(
    session: Session, site: Site, taken: Assignment, owner: str, *, image: Path | None, reason: str | None
) -> bool:
    """End a build that ``owner`` has: with the image it made, or the reason it failed.

    False when it was cancelled or taken away before: it stays as it is.
    """
    build = cast(Build | None, session.get(taken.kind, taken.uuid))
    if build is None:
        return False
    to = Status.FAILURE if image is None else Status.SUCCESS
    path = None if image is None else str(image)
    return move(session, site, build, to, owner=owner, image_path=path, reason=reason)


def still_owned(session: Session, taken: Assignment, owner: str) -> bool:
    """Whether the build is under way and ``owner``'s."""
    kind = taken.kind
    query = select(kind.uuid).where(
        kind.uuid == taken.uuid, kind.owner == owner, kind.status == Status.STARTED
    )
    return session.scalar(query) is not None


def beat(session: Session, now: datetime, owner: str, taken: Sequence[Assignment]) -> None:
    """Say that these builds are being worked on."""
    for kind in KINDS:
        uuids = [one.uuid for one in taken if one.kind is kind]
        if uuids:
            mine = (kind.uuid.in_(uuids), kind.owner == owner, kind.status == Status.STARTED)
            session.execute(
                update(kind).where(*mine).values(heartbeat=now).execution_options(synchronize_session=False)
            )


def fail_orphans(session: Session, site: Site, owner: str) -> list[Path]:
    """Fail the builds whose builder has died; the directories in which it may have left something."""
    left = []
    for build in in_status(session, Status.STARTED):
        reason = orphaned(build, site.clock(), owner)
        if reason and move(session, site, build, Status.FAILURE, owner=build.owner, reason=reason):
            left.append(directory_of(site, build))
    return left


def orphaned(build: Build, now: datetime, owner: str) -> str | None:
    """Why a started build is an orphan; None while its builder may live."""
    if build.owner is None or build.heartbeat is None or build.heartbeat < now - LAPSE:
        return f"the process that built it has not been heard of for {LAPSE.total_seconds():.0f} s"
    if build.owner != owner and surely_gone(build.owner):
        return "the process that built it has ended"
    return None
