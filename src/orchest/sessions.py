"""Interactive sessions: LAUNCHING > RUNNING > STOPPING > gone.

The rows and their transitions; `orchest.hosting` runs the services. A transition is made once: the row is
locked, or the UPDATE guarded, so that whoever comes second changes nothing and says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from clarion.errors import Conflict, InvalidInput, NotFound
from clarion.outbox import record
from orchest.events import SessionEvent, about_session
from orchest.events.about import interactive_services
from orchest.models import (
    InteractiveSession,
    PipelineRun,
    ServiceProcess,
    SessionStatus,
    Status,
)
from orchest.owners import LAPSE, surely_gone
from orchest.pipelines import find_pipeline
from orchest.runs import abort_interactive_runs
from orchest.services import addresses
from orchest.site import Site

LIVE = (SessionStatus.LAUNCHING, SessionStatus.RUNNING)
MAX_NAME = 255
"""Characters a service's name may have."""


@dataclass(frozen=True, slots=True)
class Hosted:
    """A session that a host has taken: all it needs to know."""

    uuid: str
    project_uuid: str
    pipeline_uuid: str
    definition: dict[str, Any]
    services: tuple[str, ...]
    project_dir: Path
    given: dict[str, str]
    """The variables of the project and the pipeline, which services may inherit."""
    directory: Path


@dataclass(frozen=True, slots=True)
class Seen:
    """What a host sees of its session: its state, and how often each service was asked to restart."""

    status: SessionStatus
    restarts: dict[str, int]


def find_session(
    session: Session, project_uuid: str, pipeline_uuid: str, *, lock: bool = False
) -> InteractiveSession:
    """The pipeline's session. ``lock`` holds its row until the transaction ends. Raises NotFound."""
    live = session.get(InteractiveSession, (project_uuid, pipeline_uuid), with_for_update=lock or None)
    if live is None:
        find_pipeline(session, project_uuid, pipeline_uuid)
        raise NotFound(f"pipeline {pipeline_uuid} of project {project_uuid} has no session")
    return live


def start_session(session: Session, site: Site, project_uuid: str, pipeline_uuid: str) -> InteractiveSession:
    """A session of the pipeline as it is defined now, LAUNCHING until a host has started its services.

    Raises:
        NotFound: there is no such pipeline.
        Conflict: it has a session.
        InvalidInput: a service's name cannot be used.
    """
    pipeline = find_pipeline(session, project_uuid, pipeline_uuid, lock=True)
    old = session.get(InteractiveSession, (project_uuid, pipeline_uuid))
    if old is not None:
        raise Conflict(f"pipeline {pipeline_uuid} has a session already, it is {old.status}")
    live = InteractiveSession(pipeline=pipeline, definition=pipeline.definition, requested=site.clock())
    session.add(live)
    session.flush()
    for number, name in enumerate(interactive_services(pipeline.definition)):
        if not 0 < len(name) <= MAX_NAME:
            raise InvalidInput(
                f"a service's name has 1 to {MAX_NAME} characters, {name[:40]!r} has {len(name)}"
            )
        log_path = str(directory_of(site, live.uuid) / f"{number}.log")
        session.add(ServiceProcess(session_uuid=live.uuid, name=name, log_path=log_path))
    session.flush()
    record(session, SessionEvent("started", **about_session(live, site.links)))
    return live


def stop_session(session: Session, site: Site, project_uuid: str, pipeline_uuid: str) -> None:
    """Ask for the end of a session: its runs are cancelled now, its host ends its services, then it is gone.

    One that is stopping already goes on doing so.

    Raises:
        NotFound: there is no such session.
    """
    live = find_session(session, project_uuid, pipeline_uuid, lock=True)
    if live.status is SessionStatus.STOPPING:
        return
    abort_interactive_runs(session, site, live, "its session was stopped")
    live.status = SessionStatus.STOPPING
    session.flush()
    if live.owner is None:  # no host has taken it: there is nothing to wait for
        end(session, site, live, "stopped")


def end_session(session: Session, site: Site, project_uuid: str, pipeline_uuid: str) -> None:
    """End the session of a pipeline that is being deleted, if it has one: its runs, then itself, at once.

    Its host finds the row gone and kills the services.
    """
    live = session.get(InteractiveSession, (project_uuid, pipeline_uuid), with_for_update=True)
    if live is None:
        return
    abort_interactive_runs(session, site, live, "its pipeline was deleted")
    live.status = SessionStatus.STOPPING
    session.flush()
    end(session, site, live, "stopped")


def restart_service(session: Session, project_uuid: str, pipeline_uuid: str, name: str) -> ServiceProcess:
    """Ask for a restart of a service; its host does it and then says so.

    Raises:
        NotFound: there is no such session, or no such service in it.
        Conflict: the session is not running.
    """
    live = find_session(session, project_uuid, pipeline_uuid, lock=True)
    service = session.get(ServiceProcess, (live.uuid, name))
    if service is None:
        raise NotFound(f"the session has no service {name!r}")
    if live.status is not SessionStatus.RUNNING:
        raise Conflict(f"the session is {live.status}; services can be restarted while it is RUNNING")
    service.restarts += 1
    session.flush()
    return service


def claim_sessions(session: Session, site: Site, owner: str) -> list[Hosted]:
    """Take the sessions no host has taken."""
    waiting = select(InteractiveSession).where(
        InteractiveSession.owner.is_(None), InteractiveSession.status == SessionStatus.LAUNCHING
    )
    taken = []
    for live in session.scalars(waiting.with_for_update(skip_locked=True)).all():
        live.owner, live.heartbeat = owner, site.clock()
        session.flush()
        taken.append(hosted(live, site))
    return taken


def hosted(live: InteractiveSession, site: Site) -> Hosted:
    return Hosted(
        uuid=live.uuid,
        project_uuid=live.project_uuid,
        pipeline_uuid=live.pipeline_uuid,
        definition=live.definition,
        services=tuple(service.name for service in live.services),
        project_dir=Path(live.pipeline.project.path),
        given={**live.pipeline.project.env_variables, **live.pipeline.env_variables},
        directory=directory_of(site, live.uuid),
    )


def directory_of(site: Site, session_uuid: str) -> Path:
    """Logs of a session's services, and the records of their processes."""
    return site.sessions / session_uuid


def look(session: Session, taken: Hosted, owner: str) -> Seen | None:
    """What a host should know of its session; None when it is gone, or another's."""
    live = session.scalar(
        select(InteractiveSession).where(
            InteractiveSession.uuid == taken.uuid, InteractiveSession.owner == owner
        )
    )
    if live is None:
        return None
    return Seen(live.status, {service.name: service.restarts for service in live.services})


def service_started(
    session: Session, site: Site, taken: Hosted, name: str, pid: int, ports: dict[str, int]
) -> None:
    """Write down where a service runs."""
    session.execute(
        update(ServiceProcess)
        .where(ServiceProcess.session_uuid == taken.uuid, ServiceProcess.name == name)
        .values(pid=pid, ports=ports, started=site.clock())
    )


def session_running(session: Session, site: Site, taken: Hosted, owner: str) -> bool:
    """All services run: LAUNCHING becomes RUNNING. False when it was not LAUNCHING any more."""
    live = owned(session, taken, owner)
    if live is None or live.status is not SessionStatus.LAUNCHING:
        return False
    live.status, live.started = SessionStatus.RUNNING, site.clock()
    session.flush()
    record(session, SessionEvent("succeeded", **about_session(live, site.links)))
    return True


def service_restarted(
    session: Session,
    site: Site,
    taken: Hosted,
    owner: str,
    name: str,
    *,
    pid: int,
    exit_code: int | None,
    unasked: bool,
) -> bool:
    """A service was restarted, ``unasked`` if it had ended by itself. False: the session is not RUNNING."""
    live = owned(session, taken, owner)
    if live is None or live.status is not SessionStatus.RUNNING:
        return False
    service = session.get_one(ServiceProcess, (live.uuid, name))
    service.pid, service.exit_code, service.started = pid, exit_code, site.clock()
    service.restarts += 1 if unasked else 0
    session.flush()
    values = about_session(live, site.links)
    active = has_active_runs(session, live)
    record(session, SessionEvent("service-restarted", **values, restarted_service=name, active_runs=active))
    return True


def fail_session(session: Session, site: Site, taken: Hosted, owner: str) -> bool:
    """The session cannot go on: its runs are cancelled, it is gone. One that was stopping is stopped.

    False when it was gone before.
    """
    live = owned(session, taken, owner)
    if live is None:
        return False
    close(session, site, live)
    return True


def session_stopped(session: Session, site: Site, taken: Hosted, owner: str) -> bool:
    """Its services have ended. False when it was gone before."""
    live = owned(session, taken, owner)
    if live is None:
        return False
    abort_interactive_runs(session, site, live, "its session was stopped")
    live.status = SessionStatus.STOPPING
    session.flush()
    end(session, site, live, "stopped")
    return True


def fail_orphans(session: Session, site: Site, owner: str) -> list[tuple[Hosted, bool]]:
    """End the sessions whose host has died, which may have left something; and whether each failed.

    One that was stopping anyhow is stopped.
    """
    left = []
    rows = select(InteractiveSession).where(InteractiveSession.owner.is_not(None))
    for live in session.scalars(rows.with_for_update(skip_locked=True)).all():
        if orphaned(live, site.clock(), owner):
            left.append((hosted(live, site), live.status is not SessionStatus.STOPPING))
            close(session, site, live)
    return left


def wants_host(session: Session, now: datetime, owner: str) -> bool:
    """Whether there is a session to take or to clear up after; only reads."""
    return any(
        live.status is SessionStatus.LAUNCHING if live.owner is None else orphaned(live, now, owner)
        for live in session.scalars(select(InteractiveSession))
    )


def orphaned(live: InteractiveSession, now: datetime, owner: str) -> bool:
    """Whether the host of a session that has one is dead."""
    assert live.owner is not None
    if live.heartbeat is None or live.heartbeat < now - LAPSE:
        return True
    return live.owner != owner and surely_gone(live.owner)


def beat(session: Session, now: datetime, owner: str, taken: Sequence[Hosted]) -> None:
    """Say that these sessions are being hosted."""
    session.execute(
        update(InteractiveSession)
        .where(InteractiveSession.uuid.in_([one.uuid for one in taken]), InteractiveSession.owner == owner)
        .values(heartbeat=now)
        .execution_options(synchronize_session=False)
    )


def owned(session: Session, taken: Hosted, owner: str) -> InteractiveSession | None:
    """The row, locked, if the session is still there and ``owner``'s."""
    return session.scalar(
        select(InteractiveSession)
        .where(InteractiveSession.uuid == taken.uuid, InteractiveSession.owner == owner)
        .with_for_update()
    )


def close(session: Session, site: Site, live: InteractiveSession) -> None:
    """End a session that cannot go on: it failed, unless it was stopping."""
    stopping = live.status is SessionStatus.STOPPING
    abort_interactive_runs(
        session, site, live, "its session was stopped" if stopping else "its session failed"
    )
    end(session, site, live, "stopped" if stopping else "failed")


def end(session: Session, site: Site, live: InteractiveSession, verb: str) -> None:
    """The last event of a session, and its row is gone."""
    values = about_session(live, site.links)
    session.delete(live)
    session.flush()
    record(session, SessionEvent(verb, **values))


def has_active_runs(session: Session, live: InteractiveSession) -> bool:
    """Whether a pipeline run of the session waits or runs now."""
    return bool(session.scalar(select(exists(active_runs(live).with_only_columns(PipelineRun.uuid)))))


def active_runs(live: InteractiveSession) -> Any:
    return select(PipelineRun).where(
        PipelineRun.session_uuid == live.uuid,
        PipelineRun.status.in_((Status.PENDING, Status.STARTED)),
    )


def service_addresses(live: InteractiveSession) -> dict[str, str]:
    """Where the session's services are reached, as environment variables for the steps of its runs."""
    return addresses({service.name: service.ports for service in live.services})
