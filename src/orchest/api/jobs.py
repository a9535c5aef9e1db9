"""Jobs and their cron runs over HTTP."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

from fastapi import APIRouter, Request, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.analytics import send_event
from clarion.errors import NotFound
from orchest import jobs, runs
from orchest.analytics import Event
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
from orchest.batches import find_job
from orchest.errors import FieldProblem, InvalidFields
from orchest.job_changes import update_job as change_job
from orchest.jobs import JobValues, Source
from orchest.models import CronRun, Job, JobStatus, Status, new_uuid
from orchest.pipelines import find_pipeline
from orchest.projects import find_project
from orchest.site import Site
from orchest.snapshots import Snapshot, remove_snapshot, take_snapshot

router = APIRouter(prefix="/api/projects/{project_uuid}/jobs", tags=["jobs"])

GRID = (
    "For each parameter the values to try, `{pipeline_parameters: {name: [...]}, <step uuid>: {...}}`: every "
    "combination is one pipeline run. Empty: one run."
)
SCHEDULE = (
    "A cron expression of five fields, six with seconds first, or such as `@daily`; null: it runs once. Of "
    "times missed while the platform was down, the latest is made up for by one run."
)
ZONE = "IANA name of the zone in which the schedule is read."
TIME = "When a job without a schedule starts, with its zone; null: once it is confirmed."
RETAINED = "How many ended pipeline runs are kept, the newest; -1 keeps all."


class NewJob(Body):
    """A job to make of a pipeline, as it and its project's files are now. It is a draft until confirmed."""

    name: Name
    pipeline_uuid: Uuid
    strategy: dict[str, dict[str, list[Any]]] = Field(default={}, description=GRID)
    env_variables: EnvVariables = {}
    schedule: str | None = Field(default=None, max_length=255, description=SCHEDULE)
    timezone: str = Field(default="UTC", min_length=1, max_length=64, description=ZONE)
    next_scheduled_time: datetime | None = Field(default=None, strict=False, description=TIME)
    max_retained_pipeline_runs: int = Field(default=-1, ge=-1, le=1_000_000, description=RETAINED)


class JobChanges(Body):
    """What to change; what is left out stays as it is. A null takes a schedule or a time away."""

    name: Name | None = None
    strategy: dict[str, dict[str, list[Any]]] | None = Field(default=None, description=GRID)
    env_variables: EnvVariables | None = Field(default=None, description="All of them, not only the new.")
    schedule: str | None = Field(default=None, max_length=255, description=SCHEDULE)
    timezone: str | None = Field(default=None, min_length=1, max_length=64, description=ZONE)
    next_scheduled_time: datetime | None = Field(default=None, strict=False, description=TIME)
    max_retained_pipeline_runs: int | None = Field(default=None, ge=-1, le=1_000_000, description=RETAINED)


class Copied(Body):
    """How the copy of a job is called."""

    name: Name | None = Field(default=None, description="By default `Copy of` and the name.")


class JobShown(Shown):
    """A job."""

    uuid: str
    project_uuid: str
    pipeline_uuid: str
    pipeline_name: str
    name: str
    status: JobStatus
    schedule: str | None
    timezone: str
    next_scheduled_time: Time | None = Field(description="When it acts next.")
    strategy: dict[str, Any]
    parameters: list[Any] = Field(description="The parameters of each pipeline run, as the grid says.")
    env_variables: dict[str, str]
    max_retained_pipeline_runs: int
    total_runs: int = Field(description="Pipeline runs it was given so far, deleted ones included.")
    total_cron_runs: int
    snapshot_size: int = Field(description="Bytes of the copy of the project's files.")
    reason: str | None = Field(description="Why it failed or was aborted.")
    created: Time
    started: Time | None
    finished: Time | None
    url: str = Field(description="Its page.")

    @classmethod
    def of(cls, job: Job, site: Site) -> Self:
        kept = {name: getattr(job, name) for name in cls.model_fields if name != "url"}
        return cls(**kept, url=site.links.to("job", project=job.project_uuid, job=job.uuid))


class CronRunShown(Shown):
    """A run of a cron job: the pipeline runs of one scheduled time, or of one trigger."""

    uuid: str
    job_uuid: str
    number: int
    status: Status
    scheduled: Time | None = Field(description="Null if it was triggered by hand.")
    started: Time
    finished: Time | None
    total_pipeline_runs: int
    reason: str | None


def given(body: NewJob | JobChanges) -> JobValues:
    """What a request says of a job. Raises InvalidFields."""
    nullable = {"schedule", "next_scheduled_time"}
    values = {name: getattr(body, name) for name in body.model_fields_set - {"pipeline_uuid"}}
    values = {name: value for name, value in values.items() if value is not None or name in nullable}
    time = values.get("next_scheduled_time")
    if time is not None:
        if time.tzinfo is None:
            what = "say in which zone the time is, for example with a Z at its end"
            raise InvalidFields([FieldProblem("/next_scheduled_time", what)])
        try:
            values["next_scheduled_time"] = time.astimezone(UTC)
        except OverflowError:
            raise InvalidFields([FieldProblem("/next_scheduled_time", "is out of range")]) from None
    return cast("JobValues", values)


def with_snapshot(
    site: Site, directory: str, once: Once, body: Body, create: Callable[[Session, Snapshot, str], Job]
) -> Response:
    """Create a job with a copy of ``directory``, which goes again unless there is a job that has it."""
    uuid = new_uuid()
    snapshot = take_snapshot(site, Path(directory), uuid)
    kept = False
    try:
        answer = once(body, lambda session: JobShown.of(create(session, snapshot, uuid), site))
        kept = not once.replayed
        return answer
    finally:
        if not kept:
            remove_snapshot(snapshot.path)


@router.post("", status_code=201, response_model=JobShown, responses=problems(404, 409))
def create_job(project_uuid: Uuid, body: NewJob, once: Once, readers: Readers, site: TheSite) -> Response:
    """Make a draft of a job of a pipeline, with a copy of the project's files."""
    with readers() as session:
        directory = find_pipeline(session, project_uuid, body.pipeline_uuid).project.path
    values = given(body)

    def create(session: Session, snapshot: Snapshot, uuid: str) -> Job:
        source = Source.of(find_pipeline(session, project_uuid, body.pipeline_uuid))
        return jobs.create_job(session, site, project_uuid, source, snapshot, values, uuid=uuid)

    return with_snapshot(site, directory, once, body, create)


@router.get("", responses=problems(404))
def list_jobs(project_uuid: Uuid, page: PageQuery, readers: Readers, site: TheSite) -> Page[JobShown]:
    """The jobs of a project, the newest first."""
    with readers() as session:
        find_project(session, project_uuid)
        query = select(Job).where(Job.project_uuid == project_uuid)
        return page.page(session, query, (Job.created, Job.uuid), lambda job: JobShown.of(job, site))


@router.get("/{job_uuid}", responses=problems(404))
def show_job(project_uuid: Uuid, job_uuid: Uuid, readers: Readers, site: TheSite) -> JobShown:
    """One job."""
    with readers() as session:
        return JobShown.of(find_job(session, project_uuid, job_uuid), site)


@router.patch("/{job_uuid}", responses=problems(404, 409))
def update_job(
    project_uuid: Uuid, job_uuid: Uuid, body: JobChanges, sessions: Writers, site: TheSite, nudge: Nudge
) -> JobShown:
    """Change a job: a draft in everything, later only what does not change what it ran."""
    values = given(body)
    with sessions.begin() as session:
        shown = JobShown.of(change_job(session, site, project_uuid, job_uuid, values), site)
    nudge()
    return shown


Change = Callable[[Session, Site, str, str], Job]


def changed(
    sessions: Writers, site: Site, nudge: Nudge, change: Change, project_uuid: str, job_uuid: str
) -> JobShown:
    with sessions.begin() as session:
        shown = JobShown.of(change(session, site, project_uuid, job_uuid), site)
    nudge()
    return shown


@router.post("/{job_uuid}/confirm", responses=problems(404, 409))
def confirm_job(
    project_uuid: Uuid, job_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge
) -> JobShown:
    """Make a draft a job: it runs, now, at its time or on its schedule."""
    return changed(sessions, site, nudge, jobs.confirm_job, project_uuid, job_uuid)


@router.post("/{job_uuid}/pause", responses=problems(404, 409))
def pause_job(project_uuid: Uuid, job_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge) -> JobShown:
    """Pause a cron job. What runs goes on."""
    return changed(sessions, site, nudge, jobs.pause_job, project_uuid, job_uuid)


@router.post("/{job_uuid}/resume", responses=problems(404, 409))
def resume_job(
    project_uuid: Uuid, job_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge
) -> JobShown:
    """Go on with a paused cron job, at its next time."""
    return changed(sessions, site, nudge, jobs.resume_job, project_uuid, job_uuid)


@router.post("/{job_uuid}/trigger", responses=problems(404, 409))
def trigger_job(
    project_uuid: Uuid, job_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge
) -> JobShown:
    """Run now: a cron job besides its schedule, or a job that waits for its time."""
    return changed(sessions, site, nudge, jobs.trigger_job, project_uuid, job_uuid)


@router.post("/{job_uuid}/abort", responses=problems(404, 409))
def abort_job(project_uuid: Uuid, job_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge) -> JobShown:
    """Abort a job and all that runs of it. One that has ended stays as it is."""
    return changed(sessions, site, nudge, jobs.abort_job, project_uuid, job_uuid)


@router.post("/{job_uuid}/duplicate", status_code=201, response_model=JobShown, responses=problems(404, 409))
def duplicate_job(
    project_uuid: Uuid,
    job_uuid: Uuid,
    body: Copied,
    once: Once,
    readers: Readers,
    site: TheSite,
    request: Request,
) -> Response:
    """Make a draft of the same pipeline, files, parameters and schedule."""
    with readers() as session:
        job = find_job(session, project_uuid, job_uuid)
        directory, is_cron = job.snapshot_path, job.is_cron
    if directory is None or not Path(directory).is_dir():
        raise NotFound(f"the files of job {job_uuid} are gone; it cannot be copied")

    def create(session: Session, snapshot: Snapshot, uuid: str) -> Job:
        return jobs.duplicate_job(session, site, project_uuid, job_uuid, snapshot, uuid=uuid, name=body.name)

    answer = with_snapshot(site, directory, once, body, create)
    if not once.replayed:
        kind = Event.PROJECT_CRON_JOB_DUPLICATED if is_cron else Event.PROJECT_ONE_OFF_JOB_DUPLICATED
        send_event(request.app, kind)
    return answer


@router.delete("/{job_uuid}", status_code=204, responses=problems(404, 409))
def delete_job(project_uuid: Uuid, job_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge) -> None:
    """Delete a job and its runs. What runs is aborted first."""
    with sessions.begin() as session:
        gone = jobs.delete_job(session, site, project_uuid, job_uuid)
    nudge()
    runs.remove_files(site, gone)
    remove_snapshot(site.jobs / job_uuid)


@router.get("/{job_uuid}/cron-runs", responses=problems(404))
def list_cron_runs(
    project_uuid: Uuid, job_uuid: Uuid, page: PageQuery, readers: Readers
) -> Page[CronRunShown]:
    """The runs of a cron job, the newest first."""
    with readers() as session:
        find_job(session, project_uuid, job_uuid)
        query = select(CronRun).where(CronRun.job_uuid == job_uuid)
        return page.page(session, query, (CronRun.number,), CronRunShown.model_validate)


@router.get("/{job_uuid}/cron-runs/{run_uuid}", responses=problems(404))
def show_cron_run(project_uuid: Uuid, job_uuid: Uuid, run_uuid: Uuid, readers: Readers) -> CronRunShown:
    """One run of a cron job."""
    with readers() as session:
        find_job(session, project_uuid, job_uuid)
        run = session.get(CronRun, run_uuid)
        if run is None or run.job_uuid != job_uuid:
            raise NotFound(f"job {job_uuid} has no cron run {run_uuid}")
        return CronRunShown.model_validate(run)
