"""Events of jobs, one-off and cron; of cron runs; and of the pipeline runs of both."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped

from clarion.declarations import fact, identity, measure
from orchest.events.changes import Change, Counts, count_changes
from orchest.events.materials import extension_count, shape_count
from orchest.events.projects import UPDATES, ProjectEvent
from orchest.events.schedules import ScheduleKind, schedule_kind
from orchest.events.sessions import RUNS, StepRef
from orchest.events.upkeep import kept
from orchest.models import JobStatus, Status

DEFINED = ("created", "updated")
JOBS = "How jobs are used."


class JobEvent(ProjectEvent, layer="job"):
    """What both kinds of job tell."""

    materials = frozenset({"definition", "parameter_sets", "env_variables", "snapshot_bytes"})

    job_uuid: Mapped[str] = identity(doc="The job.")
    job_name: Mapped[str] = fact(doc="The job's name.")
    job_status: Mapped[JobStatus] = fact(anonymous=True, doc="The state of the job.", purpose=JOBS)
    job_pipeline_name: Mapped[str] = fact(doc="The name of the pipeline that the job runs.")
    job_url: Mapped[str] = fact(doc="The job's page.")
    job_changes: Mapped[list[Change]] = fact(
        key="update.changes", verbs=("updated",), doc="What was changed."
    )

    @measure(key="update.counts", verbs=("updated",), purpose=UPDATES)
    def job_change_counts(self) -> Counts:
        """How many changes of each type were made to each kind of thing."""
        return count_changes(self.job_changes)

    @measure(key="snapshot_size", verbs=("created",), purpose="How much jobs copy.")
    def snapshot_size(self) -> float:
        """Megabytes (10^6 bytes) of the files that were copied for the job."""
        size: int = self.given("snapshot_bytes")
        return size / 1e6

    @measure(key="definition.parameterized_runs_count", verbs=DEFINED, purpose=JOBS)
    def parameterized_runs_count(self) -> int:
        """Pipeline runs the job consists of, one for each set of parameters."""
        return len(self.given("parameter_sets"))

    @measure(key="definition.env_variables_count", verbs=DEFINED, purpose=JOBS)
    def env_variables_count(self) -> int:
        """Environment variables the job was given."""
        return len(self.given("env_variables"))

    definition_pipeline_parameters_count = shape_count(
        "pipeline_parameters_count", "Parameters of the pipeline.", DEFINED
    )
    definition_step_count = shape_count("step_count", "Steps of the pipeline.", DEFINED)
    definition_unique_environments_count = shape_count(
        "unique_environments_count", "Different environments its steps run in.", DEFINED
    )
    definition_step_parameters_count = shape_count(
        "step_parameters_count", "Parameters of its steps.", DEFINED
    )
    definition_step_file_extension_count = extension_count(DEFINED)
    definition_services_count = shape_count("services_count", "Services of the pipeline.", DEFINED)
    definition_binds_count = shape_count("binds_count", "Paths that are bound into its services.", DEFINED)
    definition_max_depth = shape_count("max_depth", "Steps on the longest path through it.", DEFINED)
    definition_edge_count = shape_count("edge_count", "Connections between its steps.", DEFINED)


class OneOffJobEvent(JobEvent, kind="project:one-off-job"):
    """A job that runs once."""

    upkeep = kept("orchest/batches.py", "orchest/job_changes.py", "orchest/jobs.py")

    verbs = {
        "created": "Job {name} was created in project {project.name}",
        "updated": "Job {name} of project {project.name} was changed",
        "started": "Job {name} of project {project.name} started",
        "succeeded": "Job {name} of project {project.name} succeeded",
        "failed": "Job {name} of project {project.name} failed",
        "cancelled": "Job {name} of project {project.name} was cancelled",
        "deleted": "Job {name} of project {project.name} was deleted",
    }

    job_total_runs: Mapped[int] = fact(anonymous=True, doc="Pipeline runs of the job.", purpose=JOBS)


class CronJobEvent(JobEvent, kind="project:cron-job"):
    """A job that runs on a schedule."""

    upkeep = kept("orchest/batches.py", "orchest/job_changes.py", "orchest/jobs.py")

    verbs = {
        "created": "Cron job {name} was created in project {project.name}",
        "updated": "Cron job {name} of project {project.name} was changed",
        "started": "Cron job {name} of project {project.name} was scheduled",
        "failed": "Cron job {name} of project {project.name} failed",
        "cancelled": "Cron job {name} of project {project.name} was cancelled",
        "deleted": "Cron job {name} of project {project.name} was deleted",
        "paused": "Cron job {name} of project {project.name} was paused",
        "unpaused": "Cron job {name} of project {project.name} was resumed",
    }

    job_schedule: Mapped[str | None] = fact(
        doc="Its schedule, a cron expression; null if an update took it away."
    )
    job_next_scheduled_time: Mapped[datetime | None] = fact(doc="When it runs next.")

    @measure(key="schedule_kind", purpose="How often cron jobs run.")
    def job_schedule_kind(self) -> ScheduleKind | None:
        """How often it runs, in a word."""
        return schedule_kind(self.job_schedule) if self.job_schedule is not None else None


class CronRunEvent(CronJobEvent, kind="project:cron-job:run", layer="run"):
    """A run of a cron job: the batch of pipeline runs that one scheduled time starts."""

    upkeep = kept("orchest/batches.py", "orchest/jobs.py")

    verbs = {
        "started": "Run {number} of cron job {project.job.name} started",
        "succeeded": "Run {number} of cron job {project.job.name} succeeded",
        "failed": "Run {number} of cron job {project.job.name} failed",
    }

    run_uuid: Mapped[str] = identity(doc="The run of the cron job.")
    run_number: Mapped[int] = fact(anonymous=True, doc="Counts the job's runs, from 1.", purpose=JOBS)
    run_status: Mapped[Status] = fact(anonymous=True, doc="The state of the run.", purpose=JOBS)
    total_pipeline_runs: Mapped[int] = fact(
        anonymous=True, doc="Pipeline runs that the run consists of.", purpose=JOBS
    )


class JobPipelineRunLayer:
    """What a pipeline run of either kind of job tells. A mixin: the two have different parents."""

    pipeline_run_uuid: Mapped[str] = identity(doc="The pipeline run.")
    pipeline_run_status: Mapped[Status] = fact(
        anonymous=True, doc="The state of the pipeline run.", purpose=RUNS
    )
    pipeline_run_number: Mapped[int] = fact(
        anonymous=True, doc="Counts the pipeline runs of the job, from 1.", purpose=RUNS
    )
    pipeline_run_url: Mapped[str] = fact(doc="The run's page.")
    pipeline_run_parameters: Mapped[dict[str, Any]] = fact(
        doc="The parameters the job gave to the run, with secrets redacted."
    )
    pipeline_run_failed_steps: Mapped[list[StepRef] | None] = fact(
        doc="The steps that failed; null unless the run did."
    )

    @measure(purpose=RUNS)
    def pipeline_run_failed_steps_count(self) -> int:
        """Steps that failed."""
        return len(self.pipeline_run_failed_steps or ())

    @measure(purpose="Whether parameters are used.")
    def pipeline_run_parameters_count(self) -> int:
        """Parameters the job gave to the run, the pipeline's and its steps'."""
        return sum(len(values) for values in self.pipeline_run_parameters.values())

    @measure(purpose="Whether parameters are used.")
    def pipeline_run_parameterized_steps_count(self) -> int:
        """Steps to which the job gave parameters."""
        return len(self.pipeline_run_parameters.keys() - {PIPELINE})


PIPELINE = "pipeline"
"""The key of the pipeline's own parameters among those of its steps."""


def pipeline_run_verbs(of: str) -> dict[str, str]:
    return {
        "created": f"Pipeline run {{number}} of {of} was created",
        "started": f"Pipeline run {{number}} of {of} started",
        "succeeded": f"Pipeline run {{number}} of {of} succeeded",
        "failed": f"Pipeline run {{number}} of {of} failed",
        "cancelled": f"Pipeline run {{number}} of {of} was cancelled",
        "deleted": f"Pipeline run {{number}} of {of} was deleted",
    }


class OneOffJobPipelineRunEvent(
    JobPipelineRunLayer, OneOffJobEvent, kind="project:one-off-job:pipeline-run", layer="pipeline_run"
):
    """A pipeline run of a job that runs once."""

    upkeep = kept("orchest/runs.py")

    verbs = pipeline_run_verbs("job {project.job.name}")


class CronJobPipelineRunEvent(
    JobPipelineRunLayer, CronRunEvent, kind="project:cron-job:run:pipeline-run", layer="pipeline_run"
):
    """A pipeline run of a run of a cron job."""

    upkeep = kept("orchest/runs.py")

    verbs = pipeline_run_verbs("cron job {project.job.name}")

    pipeline_run_number_in_run: Mapped[int] = fact(
        anonymous=True, doc="Counts the pipeline runs of the cron run, from 1.", purpose=RUNS
    )
