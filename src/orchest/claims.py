"""Who executes which run: taking runs, keeping hold of them, and finding those whose executor has died."""

from datetime import datetime

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, aliased

from orchest.batches import move_job
from orchest.models import JobStatus, PipelineRun, Status
from orchest.owners import LAPSE, surely_gone
from orchest.runs import end_run, lock_run, move_run
from orchest.site import Site

LOCK = 7203002
"""The key of the PostgreSQL lock under which runs are taken, so that limits hold over all machines."""


def claim_run(session: Session, site: Site, owner: str, *, interactive: bool) -> str | None:
    """Start the oldest waiting run if the limit of its kind, over all machines, allows one more; its uuid.

    The first run of a one-off job starts the job. Of one interactive session one run at a time is executed:
    its runs share their data.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    kind = PipelineRun.job_uuid.is_(None) if interactive else PipelineRun.job_uuid.is_not(None)
    limit = site.limits.interactive_runs if interactive else site.limits.job_runs
    started = select(func.count()).select_from(PipelineRun).where(kind, PipelineRun.status == Status.STARTED)
    if (session.scalar(started) or 0) >= limit:
        return None
    waiting = select(PipelineRun.uuid).where(kind, PipelineRun.status == Status.PENDING)
    if interactive:
        other = aliased(PipelineRun)
        busy = select(other.uuid).where(
            other.session_uuid == PipelineRun.session_uuid, other.status == Status.STARTED
        )
        waiting = waiting.where(~busy.exists())
    order = (PipelineRun.requested, PipelineRun.number, PipelineRun.uuid)
    uuid = session.scalar(waiting.order_by(*order).limit(1))
    return uuid if uuid is not None and start_run(session, site, uuid, owner) else None


def start_run(session: Session, site: Site, run_uuid: str, owner: str) -> bool:
    """PENDING to STARTED, and its one-off job with it. False: someone was faster, or aborted it."""
    run = lock_run(session, run_uuid)
    if run is None or run.status is not Status.PENDING:
        return False
    if run.job is not None and not run.job.is_cron:
        move_job(session, site, run.job, JobStatus.STARTED, "started", only_from=(JobStatus.PENDING,))
    return move_run(session, site, run, Status.STARTED, owner=owner, run_path=str(site.runs / run.uuid))


def take_over(session: Session, run_uuid: str, from_owner: str, owner: str, now: datetime) -> bool:
    """Hand a started run to the process that executes it. False: it is nobody's to hand over any more."""
    held = update(PipelineRun).where(
        PipelineRun.uuid == run_uuid, PipelineRun.owner == from_owner, PipelineRun.status == Status.STARTED
    )
    values = {"owner": owner, "heartbeat": now}
    handed = session.execute(held.values(values).execution_options(synchronize_session=False))
    return bool(handed.rowcount == 1)  # type: ignore[attr-defined]


def beat(session: Session, run_uuid: str, owner: str, now: datetime) -> None:
    """Say that the run is being executed."""
    take_over(session, run_uuid, owner, owner, now)


def still_owned(session: Session, run_uuid: str, owner: str) -> bool:
    """Whether the run is under way and ``owner``'s."""
    query = select(PipelineRun.uuid).where(
        PipelineRun.uuid == run_uuid, PipelineRun.owner == owner, PipelineRun.status == Status.STARTED
    )
    return session.scalar(query) is not None


def orphans(session: Session, now: datetime, *, silent: bool = True) -> list[tuple[str, str | None, str]]:
    """The started runs whose executor has died: uuid, owner, and what happened, in a user's words.

    With ``silent`` also those whose executor has not been heard of for long.
    """
    query = select(PipelineRun.uuid, PipelineRun.owner, PipelineRun.heartbeat)
    found: list[tuple[str, str | None, str]] = []
    for uuid, owner, heartbeat in session.execute(query.where(PipelineRun.status == Status.STARTED)):
        if owner is not None and surely_gone(owner):
            found.append((uuid, owner, "the process that executed it has ended"))
        elif silent and (heartbeat is None or heartbeat < now - LAPSE):
            why = f"the process that executed it has not been heard of for {LAPSE.total_seconds():.0f} s"
            found.append((uuid, owner, why))
    return found


def fail_orphan(session: Session, site: Site, run_uuid: str, owner: str | None, reason: str) -> bool:
    """Fail a run whose executor has died. False: it has ended, or someone else has it now."""
    return end_run(session, site, run_uuid, Status.FAILURE, reason, owner=owner)
