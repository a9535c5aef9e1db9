"""The states of jobs and of cron runs, and how they follow from the pipeline runs they consist of.

Each transition is one guarded UPDATE and, if the contract names one, one event in the same transaction: the
second to try it changes nothing and says nothing. Whoever changes a job, its cron runs or its pipeline runs
locks the job's row first (`lock_job`), so that of two runs that end at once one sees that it is the last.
"""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from clarion.errors import NotFound
from clarion.outbox import record
from orchest.events import Change, CronRunEvent, about_cron_run, job_event
from orchest.models import Base, CronRun, Job, JobStatus, PipelineRun, Project, Status
from orchest.projects import find_project
from orchest.site import Site

UNFINISHED = (Status.PENDING, Status.STARTED)
ACTIVE = (JobStatus.PENDING, JobStatus.STARTED, JobStatus.PAUSED)
"""What can be aborted, and fail."""
BEFORE: dict[JobStatus, Collection[JobStatus]] = {
    JobStatus.PENDING: (JobStatus.DRAFT,),
    JobStatus.STARTED: (JobStatus.DRAFT, JobStatus.PENDING, JobStatus.PAUSED),
    JobStatus.PAUSED: (JobStatus.STARTED,),
    JobStatus.SUCCESS: (JobStatus.PENDING, JobStatus.STARTED),
    JobStatus.FAILURE: ACTIVE,
    JobStatus.ABORTED: ACTIVE,
}
"""The states each state of a job can be reached from."""
JOB_VERBS = {JobStatus.SUCCESS: "succeeded", JobStatus.FAILURE: "failed", JobStatus.ABORTED: "cancelled"}
CRON_RUN_VERBS = {Status.SUCCESS: "succeeded", Status.FAILURE: "failed"}


def find_job(session: Session, project_uuid: str, job_uuid: str) -> Job:
    """The job of this project. Raises NotFound."""
    job = session.get(Job, job_uuid)
    if job is None or job.project_uuid != project_uuid:
        find_project(session, project_uuid)
        raise NotFound(f"there is no job {job_uuid} in project {project_uuid}")
    return job


def hold_project(session: Session, project_uuid: str) -> bool:
    """Keep the project from being deleted until the transaction ends; False: there is none.

    To be called before `lock_job` by whoever will insert rows of the project: its deletion locks it first
    and its jobs then, and two that lock in different orders wait for each other.
    """
    held = select(Project.uuid).where(Project.uuid == project_uuid)
    return session.scalar(held.with_for_update(read=True, key_share=True)) is not None


def lock_job(session: Session, job_uuid: str) -> Job | None:
    """The job as it is now, its row held until the transaction ends; None if there is none."""
    query = select(Job).where(Job.uuid == job_uuid).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def change_row(session: Session, row: Any, before: Iterable[str], *conditions: Any, **values: Any) -> bool:
    """Give a row these values if its status is one of ``before``; False when it was not, or not any more."""
    kind: Any = type(row)
    assert issubclass(kind, Base)
    guarded = update(kind).where(kind.uuid == row.uuid, kind.status.in_(list(before)), *conditions)
    session.flush()
    changed = session.execute(guarded.values(**values).execution_options(synchronize_session=False))
    if changed.rowcount != 1:  # type: ignore[attr-defined]
        return False
    for name, value in values.items():
        set_committed_value(row, name, value)
    return True


def move_job(
    session: Session,
    site: Site,
    job: Job,
    to: JobStatus,
    verb: str | None = None,
    *,
    changes: list[Change] | None = None,
    only_from: Collection[JobStatus] | None = None,
    **values: Any,
) -> bool:
    """The transition of a job and its event, ``verb``, if there is one. False: nothing has changed."""
    now = site.clock()
    if to.final:
        values |= {"finished": now, "next_scheduled_time": None}
    if to is JobStatus.STARTED and job.started is None:
        values["started"] = now
    if not change_row(session, job, only_from or BEFORE[to], status=to, **values):
        return False
    if verb is not None:
        record(session, job_event(verb, job, site.links, changes))
    return True


def end_job(session: Session, site: Site, job: Job, to: JobStatus, reason: str | None = None) -> bool:
    """End a job that can be ended; its runs are the caller's business. False: nothing has changed."""
    return move_job(session, site, job, to, JOB_VERBS[to], reason=reason)


def end_cron_run(session: Session, site: Site, run: CronRun, to: Status, reason: str | None = None) -> bool:
    """End a cron run. An aborted one has no event of its own: its pipeline runs have told."""
    moved = change_row(session, run, (Status.STARTED,), status=to, finished=site.clock(), reason=reason)
    if moved and to in CRON_RUN_VERBS:
        record(session, CronRunEvent(CRON_RUN_VERBS[to], **about_cron_run(run, site.links)))
    return moved


def outcome(counts: dict[Status, int]) -> Status | None:
    """What a batch of pipeline runs has come to; None while one of them is unfinished.

    FAILURE if any failed; ABORTED if none was left to succeed; else SUCCESS.
    """
    if any(counts.get(status) for status in UNFINISHED):
        return None
    if counts.get(Status.FAILURE):
        return Status.FAILURE
    return Status.SUCCESS if counts.get(Status.SUCCESS) else Status.ABORTED


def settle(session: Session, site: Site, job: Job, cron_run: CronRun | None) -> None:
    """After a pipeline run has ended: if it was the last, end the cron run, or the one-off job."""
    mine = PipelineRun.job_uuid == job.uuid
    if cron_run is not None:
        mine = PipelineRun.cron_run_uuid == cron_run.uuid
    session.flush()
    found = session.execute(select(PipelineRun.status, func.count()).where(mine).group_by(PipelineRun.status))
    to = outcome({row[0]: row[1] for row in found})
    if to is None:
        return
    if cron_run is not None:
        end_cron_run(session, site, cron_run, to)
    elif not job.is_cron:
        end_job(session, site, job, JobStatus(to))
