"""Jobs, and the cron runs of those that have a schedule."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from clarion.database import UTCDateTime
from orchest.models.base import Base, Id, Name, one_of
from orchest.models.projects import Project
from orchest.states import JobStatus, Status

DUE = text("next_scheduled_time IS NOT NULL")


class Job(Base):
    """A pipeline frozen to be run: once (one-off), or again and again on a schedule (cron).

    one-off  DRAFT > PENDING > STARTED > SUCCESS / FAILURE / ABORTED
    cron     DRAFT > STARTED <> PAUSED > ABORTED (or FAILURE: its schedule cannot be used)

    It is a cron job as long as ``schedule`` is set. ``next_scheduled_time`` is when the scheduler must act
    next: the next cron run, or the one time a one-off job is to start; None when there is nothing to do.
    """

    __tablename__ = "jobs"

    uuid: Mapped[Id]
    project_uuid: Mapped[str] = mapped_column(ForeignKey(Project.uuid))
    pipeline_uuid: Mapped[str] = mapped_column(String(36))
    """No foreign key: the job holds a snapshot and outlives the pipeline."""
    name: Mapped[Name]
    pipeline_name: Mapped[Name]
    pipeline_path: Mapped[str] = mapped_column(Text(), default="")
    """Of the pipeline's file in the snapshot, relative to the project."""
    status: Mapped[JobStatus] = mapped_column(one_of(JobStatus), default=JobStatus.DRAFT)
    schedule: Mapped[str | None] = mapped_column(String(255))
    """A cron expression; None for a one-off job."""
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    """IANA name of the zone in which ``schedule`` is read."""
    next_scheduled_time: Mapped[datetime | None] = mapped_column(UTCDateTime())
    definition: Mapped[dict[str, Any]] = mapped_column(JSON())
    """The pipeline's definition when the job was created."""
    parameters: Mapped[list[Any]] = mapped_column(JSON(), default=list)
    """The parameter sets chosen, one a pipeline run: ``{step uuid or "pipeline": {name: value}}``."""
    strategy: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    """The grid ``parameters`` was chosen from: for each parameter the values to try."""
    env_variables: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    max_retained_pipeline_runs: Mapped[int] = mapped_column(Integer(), default=-1)
    """How many ended pipeline runs are kept, the newest; -1 keeps all."""
    snapshot_path: Mapped[str | None] = mapped_column(Text())
    """Of the copy of the project's files."""
    snapshot_size: Mapped[int] = mapped_column(BigInteger(), default=0)
    """Bytes of that copy."""
    total_runs: Mapped[int] = mapped_column(Integer(), default=0)
    """Pipeline runs it has been given so far, deleted ones included: the last one's number."""
    total_cron_runs: Mapped[int] = mapped_column(Integer(), default=0)
    """Cron runs so far; the last one's number."""
    reason: Mapped[str | None] = mapped_column(Text())
    """Why it failed, for people."""
    created: Mapped[datetime] = mapped_column(UTCDateTime())
    started: Mapped[datetime | None] = mapped_column(UTCDateTime())
    finished: Mapped[datetime | None] = mapped_column(UTCDateTime())

    project: Mapped[Project] = relationship()

    __table_args__ = (
        Index("ix_jobs_project_uuid", "project_uuid", "created"),  # a project's jobs, newest first
        Index("ix_jobs_pipeline_uuid", "pipeline_uuid"),  # the jobs of a pipeline
        # the scheduler: jobs whose time has come
        Index("ix_jobs_due", "next_scheduled_time", postgresql_where=DUE, sqlite_where=DUE),
        CheckConstraint("status <> 'PAUSED' OR schedule IS NOT NULL", name="paused"),
        CheckConstraint("schedule IS NULL OR status NOT IN ('PENDING', 'SUCCESS')", name="cron"),
        CheckConstraint(
            "(finished IS NULL) = (status NOT IN ('SUCCESS', 'FAILURE', 'ABORTED'))", name="ended"
        ),
        CheckConstraint(
            "next_scheduled_time IS NULL OR status IN ('DRAFT', 'PENDING', 'STARTED')",
            name="next_scheduled_time",
        ),
        CheckConstraint("max_retained_pipeline_runs >= -1", name="max_retained_pipeline_runs"),
        CheckConstraint("name <> ''", name="name"),
    )

    @property
    def is_cron(self) -> bool:
        return self.schedule is not None


class CronRun(Base):
    """One time a cron job came due (or was triggered): the batch of pipeline runs it started.

    STARTED before its pipeline runs are created, then SUCCESS, FAILURE (any of them failed) or ABORTED (all
    of them were).
    """

    __tablename__ = "cron_runs"

    uuid: Mapped[Id]
    job_uuid: Mapped[str] = mapped_column(ForeignKey(Job.uuid))
    number: Mapped[int] = mapped_column(Integer())
    """Counts from 1 within the job."""
    status: Mapped[Status] = mapped_column(one_of(Status), default=Status.STARTED)
    scheduled: Mapped[datetime | None] = mapped_column(UTCDateTime())
    """The scheduled time it stands for; None if it was triggered by hand."""
    started: Mapped[datetime] = mapped_column(UTCDateTime())
    finished: Mapped[datetime | None] = mapped_column(UTCDateTime())
    total_pipeline_runs: Mapped[int] = mapped_column(Integer(), default=0)
    reason: Mapped[str | None] = mapped_column(Text())

    job: Mapped[Job] = relationship()

    __table_args__ = (
        UniqueConstraint("job_uuid", "number"),  # also: a job's cron runs, newest first
        UniqueConstraint("job_uuid", "scheduled"),  # a scheduled time fires once, whoever fires it
        CheckConstraint("status <> 'PENDING'", name="never_pending"),
        CheckConstraint("(finished IS NULL) = (status = 'STARTED')", name="ended"),
        CheckConstraint("number > 0", name="number"),
    )
