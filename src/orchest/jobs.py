"""Jobs: a pipeline frozen, to be run once or on a schedule, with a grid of parameters.

one-off  DRAFT > PENDING > STARTED > SUCCESS / FAILURE / ABORTED
cron     DRAFT > STARTED <> PAUSED > ABORTED (or FAILURE: its schedule cannot be used, or no run created)

The rows, their transitions and their events; nothing is started here. Services change rows under the
lock of the job's row, and never commit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from clarion.errors import Conflict, NotFound
from clarion.outbox import record
from orchest import cron
from orchest.batches import (
    ACTIVE,
    UNFINISHED,
    end_cron_run,
    end_job,
    find_job,
    hold_project,
    lock_job,
    move_job,
)
from orchest.definition import Definition, parse
from orchest.documents import pointer
from orchest.errors import FieldProblem, InvalidFields
from orchest.events import ChangedObject, CronRunEvent, about_cron_run, change, job_event
from orchest.models import CronRun, Job, JobStatus, Pipeline, PipelineRun, Status
from orchest.parameters import InvalidGrid, expand
from orchest.projects import find_project
from orchest.runs import PIPELINE, check_environments, create_runs, end_run, erase_run, lock_run
from orchest.site import Site
from orchest.snapshots import Snapshot

MOST_OPEN_RUNS = 10
"""Cron runs of one job that may be unfinished; a time that comes due beyond them is skipped. Without a limit
a job that takes longer than its schedule would pile up runs for ever."""


class JobValues(TypedDict, total=False):
    """What of a job can be set; what is left out stays as it is. None takes a schedule or a time away."""

    name: str
    strategy: dict[str, Any]
    env_variables: dict[str, str]
    schedule: str | None
    timezone: str
    next_scheduled_time: datetime | None
    max_retained_pipeline_runs: int


@dataclass(frozen=True, slots=True)
class Source:
    """What a job is made of: a pipeline and where its files are, or another job."""

    definition: Mapping[str, Any]
    pipeline_uuid: str
    pipeline_name: str
    pipeline_path: str
    env_variables: Mapping[str, str]

    @classmethod
    def of(cls, pipeline: Pipeline) -> "Source":
        """The pipeline as it is now; its variables over its project's."""
        return cls(
            pipeline.definition,
            pipeline.uuid,
            pipeline.name,
            pipeline.path,
            {**pipeline.project.env_variables, **pipeline.env_variables},
        )


def create_job(
    session: Session,
    site: Site,
    project_uuid: str,
    source: Source,
    snapshot: Snapshot,
    values: JobValues,
    *,
    uuid: str,
) -> Job:
    """A draft of a job. ``values`` must have a name; variables are given over those of the source.

    Raises:
        NotFound: there is no such project.
        InvalidFields: a schedule, a zone, a time, the grid or a variable cannot be used.
    """
    project = find_project(session, project_uuid, lock=True)
    job = Job(
        uuid=uuid,
        project=project,
        pipeline_uuid=source.pipeline_uuid,
        pipeline_name=source.pipeline_name,
        pipeline_path=source.pipeline_path,
        name=values["name"],
        status=JobStatus.DRAFT,
        definition=dict(source.definition),
        strategy=values.get("strategy", {}),
        env_variables={**source.env_variables, **check_variables(values.get("env_variables", {}))},
        schedule=values.get("schedule"),
        timezone=values.get("timezone", "UTC"),
        next_scheduled_time=values.get("next_scheduled_time"),
        max_retained_pipeline_runs=values.get("max_retained_pipeline_runs", -1),
        snapshot_path=str(snapshot.path),
        snapshot_size=snapshot.size,
        created=site.clock(),
    )
    job.parameters = parameter_sets(parse(job.definition), job.strategy)
    check_schedule(job, site.clock())
    session.add(job)
    session.flush()
    record(session, job_event("created", job, site.links))
    return job


def parameter_sets(definition: Definition, grid: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameters of each pipeline run of a grid. Raises InvalidFields."""
    try:
        found = expand(definition, dict(grid))
    except InvalidGrid as error:
        problems = [FieldProblem(pointer("strategy") + p.path, p.message) for p in error.problems]
        raise InvalidFields(problems) from None
    sets = []
    for run in found:
        own = {PIPELINE: dict(run.pipeline)} if run.pipeline else {}
        sets.append({**own, **{uuid: dict(given) for uuid, given in run.steps.items()}})
    return sets


def check_variables(given: Mapping[str, str]) -> Mapping[str, str]:
    """Raises InvalidFields for a name that steps get from us."""
    problems = [
        FieldProblem(pointer("env_variables", name), f"{name}: names with ORCHEST_ are the platform's own")
        for name in given
        if name.startswith("ORCHEST_")
    ]
    if problems:
        raise InvalidFields(problems)
    return given


def check_schedule(job: Job, now: datetime) -> datetime | None:
    """When a job that is to begin now acts first, None is at once. Raises InvalidFields."""
    if job.schedule is None:
        return job.next_scheduled_time
    if job.status is JobStatus.DRAFT and job.next_scheduled_time is not None:
        what = "a job with a schedule has no other time to start"
        raise InvalidFields([FieldProblem("/next_scheduled_time", what)])
    return cron.check(job.schedule, job.timezone, now)


def locked(session: Session, project_uuid: str, job_uuid: str) -> Job:
    """The job, its row held until the transaction ends. Raises NotFound."""
    hold_project(session, project_uuid)
    find_job(session, project_uuid, job_uuid)
    job = lock_job(session, job_uuid)
    if job is None:
        raise NotFound(f"there is no job {job_uuid} in project {project_uuid}")
    return job


def confirm_job(session: Session, site: Site, project_uuid: str, job_uuid: str) -> Job:
    """A draft becomes a job: a one-off one is PENDING, now or at its time; a cron job STARTED, with its time.

    Raises:
        NotFound: there is no such job.
        Conflict: it is no draft, or an environment of its steps has not been built.
        InvalidFields: its schedule never comes.
    """
    job = locked(session, project_uuid, job_uuid)
    if job.status is not JobStatus.DRAFT:
        raise Conflict(f"the job is {job.status}; only a draft can be confirmed")
    check_environments(session, project_uuid, parse(job.definition))
    to = JobStatus.STARTED if job.is_cron else JobStatus.PENDING
    time = check_schedule(job, site.clock())
    changes = change(ChangedObject.STATUS, job.status.value, to.value)
    move_job(session, site, job, to, "updated", changes=changes, next_scheduled_time=time)
    if job.is_cron:
        record(session, job_event("started", job, site.links))
    elif time is None or time <= site.clock():
        start_runs(session, site, job)
    return job


def start_runs(session: Session, site: Site, job: Job) -> None:
    """Create the pipeline runs of a one-off job whose time has come. Its row is locked."""
    check_environments(session, job.project_uuid, parse(job.definition))
    job.next_scheduled_time = None
    create_runs(session, site, job, job.parameters)


def start_cron_run(session: Session, site: Site, job: Job, scheduled: datetime | None) -> CronRun:
    """Create a cron run and its pipeline runs, for a scheduled time or by hand. The job's row is locked."""
    check_environments(session, job.project_uuid, parse(job.definition))
    job.total_cron_runs += 1
    run = CronRun(
        job=job,
        number=job.total_cron_runs,
        status=Status.STARTED,
        scheduled=scheduled,
        started=site.clock(),
        total_pipeline_runs=len(job.parameters),
    )
    session.add(run)
    session.flush()
    record(session, CronRunEvent("started", **about_cron_run(run, site.links)))
    create_runs(session, site, job, job.parameters, run)
    return run


def pause_job(session: Session, site: Site, project_uuid: str, job_uuid: str) -> Job:
    """Pause a cron job: what runs goes on, nothing new begins. Raises NotFound, Conflict."""
    job = locked(session, project_uuid, job_uuid)
    check_cron(job, JobStatus.STARTED, "paused")
    move_job(session, site, job, JobStatus.PAUSED, "paused", next_scheduled_time=None)
    return job


def resume_job(session: Session, site: Site, project_uuid: str, job_uuid: str) -> Job:
    """Go on with a paused cron job at its next time; what came due meanwhile is not made up for.

    Raises:
        NotFound, Conflict: there is no such job, or it is not paused.
        InvalidFields: its schedule never comes.
    """
    job = locked(session, project_uuid, job_uuid)
    check_cron(job, JobStatus.PAUSED, "resumed")
    time = check_schedule(job, site.clock())
    move_job(session, site, job, JobStatus.STARTED, "unpaused", next_scheduled_time=time)
    return job


def check_cron(job: Job, status: JobStatus, what: str) -> None:
    if not job.is_cron:
        raise Conflict(f"a job without a schedule cannot be {what}")
    if job.status is not status:
        raise Conflict(f"the job is {job.status}; only one that is {status} can be {what}")


def trigger_job(session: Session, site: Site, project_uuid: str, job_uuid: str) -> Job:
    """Run now, besides the schedule: a cron job, also a paused one; or a one-off job that waits for its time.

    Raises:
        NotFound: there is no such job.
        Conflict: it is in no state for this, or an environment of its steps has not been built.
    """
    job = locked(session, project_uuid, job_uuid)
    if job.is_cron and job.status in (JobStatus.STARTED, JobStatus.PAUSED):
        start_cron_run(session, site, job, None)
    elif not job.is_cron and job.status is JobStatus.PENDING and job.next_scheduled_time is not None:
        start_runs(session, site, job)
    else:
        raise Conflict(f"the job is {job.status}; there is nothing to trigger")
    session.flush()
    return job


def abort_job(
    session: Session, site: Site, project_uuid: str, job_uuid: str, reason: str = "aborted by the user"
) -> Job:
    """Abort a job and what runs of it, innermost first. One that has ended stays as it is.

    Raises:
        NotFound: there is no such job.
        Conflict: it is a draft.
    """
    job = locked(session, project_uuid, job_uuid)
    if job.status is JobStatus.DRAFT:
        raise Conflict("the job is a draft; it has nothing to abort, it can be deleted")
    stop(session, site, job, reason)
    return job


def stop(session: Session, site: Site, job: Job, reason: str) -> None:
    """Abort what of a job has not ended: its pipeline runs, its cron runs, itself."""
    unfinished = PipelineRun.job_uuid == job.uuid, PipelineRun.status.in_(UNFINISHED)
    query = select(PipelineRun.uuid).where(*unfinished).order_by(PipelineRun.number)
    for uuid in session.scalars(query).all():
        end_run(session, site, uuid, Status.ABORTED, reason, settling=False)
    open_runs = select(CronRun).where(CronRun.job_uuid == job.uuid, CronRun.status == Status.STARTED)
    for run in session.scalars(open_runs).all():
        end_cron_run(session, site, run, Status.ABORTED, reason)
    if job.status in ACTIVE:
        end_job(session, site, job, JobStatus.ABORTED, reason)


def delete_job(session: Session, site: Site, project_uuid: str, job_uuid: str) -> list[str]:
    """Delete a job with its runs, aborted before if need be; the uuids of the runs, whose files are left.

    Raises:
        NotFound: there is no such job.
    """
    job = locked(session, project_uuid, job_uuid)
    stop(session, site, job, "the job was deleted")
    query = select(PipelineRun.uuid).where(PipelineRun.job_uuid == job.uuid).order_by(PipelineRun.number)
    uuids = list(session.scalars(query))
    for uuid in uuids:
        run = lock_run(session, uuid)
        if run is not None:
            erase_run(session, site, run)
    session.execute(delete(CronRun).where(CronRun.job_uuid == job.uuid))
    event = job_event("deleted", job, site.links)
    record(session, event)
    session.execute(delete(Job).where(Job.uuid == job.uuid))
    session.expunge(job)
    return uuids


def delete_jobs(session: Session, site: Site, project_uuid: str) -> list[str]:
    """Delete every job of a project that is about to go; the uuids of their pipeline runs."""
    query = select(Job.uuid).where(Job.project_uuid == project_uuid).order_by(Job.created)
    return [
        run for uuid in session.scalars(query).all() for run in delete_job(session, site, project_uuid, uuid)
    ]


def duplicate_job(
    session: Session,
    site: Site,
    project_uuid: str,
    job_uuid: str,
    snapshot: Snapshot,
    *,
    uuid: str,
    name: str | None = None,
) -> Job:
    """A draft of the same: definition, files (``snapshot``, a copy), grid, variables, schedule, retention.

    Raises:
        NotFound: there is no such job.
    """
    job = find_job(session, project_uuid, job_uuid)
    source = Source(
        job.definition, job.pipeline_uuid, job.pipeline_name, job.pipeline_path, job.env_variables
    )
    values = JobValues(
        name=name or f"Copy of {job.name}"[:255],
        strategy=job.strategy,
        schedule=job.schedule,
        timezone=job.timezone,
        max_retained_pipeline_runs=job.max_retained_pipeline_runs,
    )
    return create_job(session, site, project_uuid, source, snapshot, values, uuid=uuid)
