"""Pipeline runs, interactive and of jobs, and their steps."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
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
from orchest.models.base import Base, Id, one_of
from orchest.models.jobs import CronRun, Job
from orchest.models.projects import Project
from orchest.states import Status

UNFINISHED = text("status IN ('PENDING', 'STARTED')")
ENDED = "(finished IS NULL) = (status IN ('PENDING', 'STARTED'))"


class PipelineRun(Base):
    """One run of a pipeline: interactive (no job), of a one-off job (job), of a cron job (job and cron run).

    PENDING > STARTED > SUCCESS / FAILURE / ABORTED; also PENDING > ABORTED / FAILURE.
    """

    __tablename__ = "pipeline_runs"

    uuid: Mapped[Id]
    project_uuid: Mapped[str] = mapped_column(ForeignKey(Project.uuid))
    pipeline_uuid: Mapped[str] = mapped_column(String(36))
    """No foreign key: a job's run outlives the pipeline."""
    pipeline_name: Mapped[str] = mapped_column(String(255))
    job_uuid: Mapped[str | None] = mapped_column(ForeignKey(Job.uuid))
    cron_run_uuid: Mapped[str | None] = mapped_column(ForeignKey(CronRun.uuid))
    session_uuid: Mapped[str | None] = mapped_column(String(36))
    """The interactive session it ran in. No foreign key: the session's row goes when it ends."""
    number: Mapped[int] = mapped_column(Integer())
    """Counts from 1 within the job, or within the pipeline's interactive runs."""
    number_in_run: Mapped[int | None] = mapped_column(Integer())
    """Counts from 1 within the cron run."""
    status: Mapped[Status] = mapped_column(one_of(Status), default=Status.PENDING)
    definition: Mapped[dict[str, Any]] = mapped_column(JSON())
    """The pipeline's definition as this run executes it."""
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    """``{step uuid or "pipeline": {name: value}}``, what this run was given over the definition's own."""
    env_variables: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    requested: Mapped[datetime] = mapped_column(UTCDateTime())
    started: Mapped[datetime | None] = mapped_column(UTCDateTime())
    finished: Mapped[datetime | None] = mapped_column(UTCDateTime())
    reason: Mapped[str | None] = mapped_column(Text())
    """Why it failed or was aborted, for people."""
    run_path: Mapped[str | None] = mapped_column(Text())
    """Of the directory with its logs and data."""
    owner: Mapped[str | None] = mapped_column(String(255))
    """The executor that has taken it; None while it waits."""
    heartbeat: Mapped[datetime | None] = mapped_column(UTCDateTime())
    """When its owner last said that it lives; an old one means that the run is an orphan."""

    project: Mapped[Project] = relationship()
    job: Mapped[Job | None] = relationship()
    cron_run: Mapped[CronRun | None] = relationship()
    steps: Mapped[list["PipelineRunStep"]] = relationship(
        back_populates="run",
        cascade="all, delete-orphan",
        passive_deletes=True,
        order_by=lambda: PipelineRunStep.position,
    )

    __table_args__ = (
        UniqueConstraint("job_uuid", "number"),  # also: a job's runs, newest first; retention
        UniqueConstraint("cron_run_uuid", "number_in_run"),  # also: a cron run's runs
        # numbers of interactive runs are unique within their pipeline; also: these runs, newest first
        Index(
            "uq_pipeline_runs_interactive",
            "project_uuid",
            "pipeline_uuid",
            "number",
            unique=True,
            postgresql_where=text("job_uuid IS NULL"),
            sqlite_where=text("job_uuid IS NULL"),
        ),
        Index("ix_pipeline_runs_project_uuid", "project_uuid", "requested"),  # a project's runs, newest first
        # the executor: runs to take, in order; orphans
        Index(
            "ix_pipeline_runs_unfinished",
            "status",
            "requested",
            postgresql_where=UNFINISHED,
            sqlite_where=UNFINISHED,
        ),
        CheckConstraint(ENDED, name="ended"),
        CheckConstraint("status <> 'STARTED' OR started IS NOT NULL", name="started"),
        CheckConstraint("cron_run_uuid IS NULL OR job_uuid IS NOT NULL", name="cron_run"),
        CheckConstraint("(cron_run_uuid IS NULL) = (number_in_run IS NULL)", name="number_in_run"),
        CheckConstraint("number > 0", name="number"),
    )

    @property
    def is_interactive(self) -> bool:
        return self.job_uuid is None


class PipelineRunStep(Base):
    """A step of a run; ABORTED also when it was never reached because another failed."""

    __tablename__ = "pipeline_run_steps"

    run_uuid: Mapped[str] = mapped_column(ForeignKey(PipelineRun.uuid, ondelete="CASCADE"), primary_key=True)
    step_uuid: Mapped[str] = mapped_column(String(36), primary_key=True)
    position: Mapped[int] = mapped_column(Integer(), default=0)
    """Its place in the definition."""
    title: Mapped[str] = mapped_column(Text(), default="")
    status: Mapped[Status] = mapped_column(one_of(Status), default=Status.PENDING)
    started: Mapped[datetime | None] = mapped_column(UTCDateTime())
    finished: Mapped[datetime | None] = mapped_column(UTCDateTime())
    exit_code: Mapped[int | None] = mapped_column(Integer())
    """Negative is the signal that killed it."""
    reason: Mapped[str | None] = mapped_column(Text())

    run: Mapped[PipelineRun] = relationship(back_populates="steps")

    __table_args__ = (CheckConstraint(ENDED, name="ended"),)
