"""Changes to jobs, and the list of them that an ``updated`` event carries."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from clarion.errors import Conflict
from clarion.outbox import record
from orchest.definition import parse
from orchest.events import Change, ChangedObject, change, job_event, variable_changes
from orchest.jobs import JobValues, check_schedule, check_variables, locked, parameter_sets
from orchest.models import Job, JobStatus
from orchest.site import Site


def update_job(session: Session, site: Site, project_uuid: str, job_uuid: str, values: JobValues) -> Job:
    """Change what is given; what is as it was is no change, and without any nothing is recorded.

    A draft may be changed in everything, also whether it has a schedule. After that a one-off job keeps
    what it runs; a cron job's new values hold from its next run on.

    Raises:
        NotFound: there is no such job.
        Conflict: its state does not allow this change.
        InvalidFields: a value cannot be used.
    """
    job = locked(session, project_uuid, job_uuid)
    was_cron, before = job.is_cron, snapshot_of(job)
    for name, value in values.items():
        setattr(job, name, value)
    if "env_variables" in values:
        check_variables(job.env_variables)
    with session.no_autoflush:
        changes = changes_of(before, job)
        if changes:
            check_change(job, was_cron, {made["changed_object"] for made in changes})
        if "strategy" in values:
            job.parameters = parameter_sets(parse(job.definition), job.strategy)
        if {"schedule", "timezone", "next_scheduled_time"} & values.keys():
            reschedule(job, site.clock())
    session.flush()
    if changes:
        record(session, job_event("updated", job, site.links, changes, cron=was_cron))
    return job


def reschedule(job: Job, now: datetime) -> None:
    """Check a changed schedule; an active cron job acts on it from now on."""
    time = check_schedule(job, now)
    if job.is_cron and job.status is JobStatus.STARTED:
        job.next_scheduled_time = time


def check_change(job: Job, was_cron: bool, objects: set[ChangedObject]) -> None:
    """Raises Conflict unless the job's state allows these to change."""
    allowed = {ChangedObject.NAME, ChangedObject.MAX_RETAINED_PIPELINE_RUNS}
    if job.status is JobStatus.DRAFT:
        return
    if job.is_cron != was_cron:
        raise Conflict("only a draft can be given a schedule, or lose it")
    if was_cron and not job.status.final:
        allowed |= set(ChangedObject) - {ChangedObject.NEXT_SCHEDULED_TIME}
    if job.status is JobStatus.PENDING and job.total_runs == 0:  # it waits for its time
        allowed |= set(ChangedObject) - {ChangedObject.SCHEDULE}
        if ChangedObject.NEXT_SCHEDULED_TIME in objects and job.next_scheduled_time is None:
            raise Conflict("to start it now, trigger it")
    refused = sorted(changed.value.lower() for changed in objects - allowed)
    if refused:
        raise Conflict(f"of a job that is {job.status}, {', '.join(refused)} cannot be changed")


FIELDS = {
    "name": ChangedObject.NAME,
    "schedule": ChangedObject.SCHEDULE,
    "timezone": ChangedObject.TIMEZONE,
    "next_scheduled_time": ChangedObject.NEXT_SCHEDULED_TIME,
    "max_retained_pipeline_runs": ChangedObject.MAX_RETAINED_PIPELINE_RUNS,
}


def snapshot_of(job: Job) -> dict[str, Any]:
    """What `update_job` can change, as it is now."""
    return {name: getattr(job, name) for name in (*FIELDS, "strategy", "env_variables")}


def changes_of(before: Mapping[str, Any], job: Job) -> list[Change]:
    """How a job differs from what it was; of a grid only that it does."""
    changes: list[Change] = []
    for name, changed in FIELDS.items():
        changes += change(changed, shown(before[name]), shown(getattr(job, name)))
    if before["strategy"] != job.strategy:
        changes += change(ChangedObject.PARAMETERS)
    return changes + variable_changes(before["env_variables"], job.env_variables)


def shown(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
