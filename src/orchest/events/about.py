"""`about_*`: from rows to the values of an event, so that recording one is a line.

    record(session, CronJobPipelineRunEvent("failed", **about_cron_pipeline_run(run, links)))

The rows must have been flushed: that is when they get their uuid and their defaults.
Pure but for relationships that are not loaded yet: each of these is loaded by one SELECT when it is read
(at most four for the deepest event: job, project, cron run, steps). ``changes`` is for ``updated`` only.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from clarion.errors import InvalidEvent
from orchest.events.changes import Change
from orchest.events.jobs import PIPELINE
from orchest.events.redaction import marked_parameters, redact
from orchest.events.sessions import StepRef
from orchest.links import Links
from orchest.models import (
    CronRun,
    Environment,
    EnvironmentImageBuild,
    ImageBuild,
    InteractiveSession,
    Job,
    JupyterImageBuild,
    Pipeline,
    PipelineRun,
    PipelineRunStep,
    Project,
    Status,
)

Values = dict[str, Any]


def about_project(project: Project, links: Links, changes: Iterable[Change] | None = None) -> Values:
    values: Values = {
        "project_uuid": project.uuid,
        "project_name": project.name,
        "project_url": links.to("project", project=project.uuid),
    }
    return with_changes(values, "project_changes", changes)


def about_pipeline(pipeline: Pipeline, links: Links, changes: Iterable[Change] | None = None) -> Values:
    values: Values = {
        **about_project(pipeline.project, links),
        "pipeline_uuid": pipeline.uuid,
        "pipeline_name": pipeline.name,
        "pipeline_url": links.to("pipeline", project=pipeline.project_uuid, pipeline=pipeline.uuid),
    }
    return with_changes(values, "pipeline_changes", changes)


def about_environment(environment: Environment, links: Links) -> Values:
    return {
        **about_project(environment.project, links),
        "environment_uuid": environment.uuid,
        "environment_name": environment.name,
        "environment_url": links.to(
            "environment", project=environment.project_uuid, environment=environment.uuid
        ),
    }


def about_environment_build(build: EnvironmentImageBuild, links: Links) -> Values:
    return {**about_environment(build.environment, links), **about_build(build)}


def about_jupyter_build(build: JupyterImageBuild) -> Values:
    return about_build(build)


def about_build(build: ImageBuild) -> Values:
    return {
        "image_tag": build.image_tag,
        "image_build_status": build.status,
        "image_build_requested_time": build.requested,
        "image_build_started_time": build.started,
        "image_build_finished_time": build.finished,
        "image_build_gpu_support": build.gpu_support,
        "image_build_language": build.language,
        "base_is_ours": build.base_is_ours,
    }


def about_session(session: InteractiveSession, links: Links) -> Values:
    """For ``service-restarted``, add ``restarted_service=name, active_runs=bool``."""
    return {
        **about_pipeline(session.pipeline, links),
        "session_status": session.status,
        "session_services": interactive_services(session.definition),
        "session_definition": session.definition,
    }


def interactive_services(definition: Mapping[str, Any]) -> list[str]:
    """The names of the services that run in a session: those whose scope does not leave it out."""
    services: Mapping[str, Mapping[str, Any]] = definition.get("services") or {}
    return sorted(
        name
        for name, service in services.items()
        if "interactive" in (service.get("scope") or ["interactive"])
    )


def about_interactive_run(run: PipelineRun, session: InteractiveSession, links: Links) -> Values:
    return {
        **about_session(session, links),
        "pipeline_run_uuid": run.uuid,
        "pipeline_run_status": run.status,
        "pipeline_run_number": run.number,
        "pipeline_run_url": links.to(
            "interactive_run", project=run.project_uuid, pipeline=run.pipeline_uuid, run=run.uuid
        ),
        "pipeline_run_steps": [step_ref(step) for step in run.steps],
        "pipeline_run_parameters": run_parameters(run),
        "pipeline_run_failed_steps": failed_steps(run),
        "definition": run.definition,
    }


def about_job(job: Job, links: Links, changes: Iterable[Change] | None = None) -> Values:
    """What both kinds of job tell; see `about_one_off_job` and `about_cron_job`."""
    values: Values = {
        **about_project(job.project, links),
        "job_uuid": job.uuid,
        "job_name": job.name,
        "job_status": job.status,
        "job_pipeline_name": job.pipeline_name,
        "job_url": links.to("job", project=job.project_uuid, job=job.uuid),
        "definition": job.definition,
        "parameter_sets": job.parameters,
        "env_variables": job.env_variables,
        "snapshot_bytes": job.snapshot_size,
    }
    return with_changes(values, "job_changes", changes)


def about_one_off_job(job: Job, links: Links, changes: Iterable[Change] | None = None) -> Values:
    return {**about_job(job, links, changes), "job_total_runs": job.total_runs}


def about_cron_job(job: Job, links: Links, changes: Iterable[Change] | None = None) -> Values:
    return {
        **about_job(job, links, changes),
        "job_schedule": job.schedule,
        "job_next_scheduled_time": job.next_scheduled_time,
    }


def about_cron_run(run: CronRun, links: Links) -> Values:
    return {
        **about_cron_job(run.job, links),
        "run_uuid": run.uuid,
        "run_number": run.number,
        "run_status": run.status,
        "total_pipeline_runs": run.total_pipeline_runs,
    }


def about_one_off_pipeline_run(run: PipelineRun, links: Links) -> Values:
    return {**about_one_off_job(job_of(run), links), **about_job_pipeline_run(run, links)}


def about_cron_pipeline_run(run: PipelineRun, links: Links) -> Values:
    if run.cron_run is None:
        raise InvalidEvent(f"pipeline run {run.uuid} belongs to no cron run")
    return {
        **about_cron_run(run.cron_run, links),
        **about_job_pipeline_run(run, links),
        "pipeline_run_number_in_run": run.number_in_run,
    }


def about_job_pipeline_run(run: PipelineRun, links: Links) -> Values:
    job = job_of(run)
    marked = marked_parameters(run.definition)
    return {
        "pipeline_run_uuid": run.uuid,
        "pipeline_run_status": run.status,
        "pipeline_run_number": run.number,
        "pipeline_run_url": links.to("job_run", project=run.project_uuid, job=job.uuid, run=run.uuid),
        "pipeline_run_parameters": {key: redact(values, marked) for key, values in run.parameters.items()},
        "pipeline_run_failed_steps": failed_steps(run) if run.status == Status.FAILURE else None,
    }


def job_of(run: PipelineRun) -> Job:
    if run.job is None:
        raise InvalidEvent(f"pipeline run {run.uuid} belongs to no job; it is an interactive one")
    return run.job


def failed_steps(run: PipelineRun) -> list[StepRef]:
    return [step_ref(step) for step in run.steps if step.status == Status.FAILURE]


def step_ref(step: PipelineRunStep) -> StepRef:
    return StepRef(uuid=step.step_uuid, title=step.title)


def run_parameters(run: PipelineRun) -> dict[str, Any]:
    """The parameters a run executes with: the definition's own under what the run was given, redacted."""
    steps: Mapping[str, Mapping[str, Any]] = run.definition.get("steps") or {}
    own = {PIPELINE: run.definition.get("parameters")}
    own |= {step.step_uuid: steps.get(step.step_uuid, {}).get("parameters") for step in run.steps}
    marked = marked_parameters(run.definition)
    merged = {key: {**(values or {}), **(run.parameters.get(key) or {})} for key, values in own.items()}
    return {key: redact(values, marked) for key, values in merged.items() if values}


def with_changes(values: Values, name: str, changes: Iterable[Change] | None) -> Values:
    return values if changes is None else {**values, name: list(changes)}
