"""Pipeline runs over HTTP, of jobs and interactive, with the logs of their steps."""

from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlalchemy import select

from clarion.errors import NotFound
from orchest import runs
from orchest.api.http import (
    Body,
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
from orchest.events.redaction import marked_parameters, redact
from orchest.executor import read_log
from orchest.executor.rundir import LOG_CHUNK
from orchest.models import PipelineRun, Status
from orchest.projects import find_project
from orchest.site import Site

router = APIRouter(prefix="/api/projects/{project_uuid}", tags=["runs"])


class NewRun(Body):
    """An interactive run to start in the pipeline's session."""

    steps: list[Uuid] | None = Field(
        default=None, min_length=1, max_length=1000, description="The steps to run; all by default."
    )


class StepShown(Shown):
    """A step of a run."""

    step_uuid: str
    title: str
    status: Status
    started: Time | None
    finished: Time | None
    exit_code: int | None = Field(description="Negative is the signal that killed it.")
    reason: str | None = Field(description="Why it failed or was aborted.")


class RunShown(Shown):
    """A pipeline run."""

    uuid: str
    project_uuid: str
    pipeline_uuid: str
    pipeline_name: str
    job_uuid: str | None
    cron_run_uuid: str | None
    session_uuid: str | None
    number: int
    number_in_run: int | None
    status: Status
    parameters: dict[str, Any] = Field(description="What it was given; secret ones are redacted.")
    reason: str | None = Field(description="Why it failed or was aborted.")
    requested: Time
    started: Time | None
    finished: Time | None
    url: str = Field(description="Its page.")

    @classmethod
    def of(cls, run: PipelineRun, site: Site) -> Self:
        return cls(**shown(run, site))


class RunWithSteps(RunShown):
    """A pipeline run and its steps."""

    steps: list[StepShown]

    @classmethod
    def of(cls, run: PipelineRun, site: Site) -> Self:
        return cls(**shown(run, site), steps=[StepShown.model_validate(step) for step in run.steps])


class LogShown(Shown):
    """A piece of a step's log."""

    text: str
    next_offset: int = Field(description="Give it as `offset` to go on. As before: there is nothing new yet.")
    ended: bool = Field(description="Whether the step has ended: what is not there now never comes.")


def shown(run: PipelineRun, site: Site) -> dict[str, Any]:
    marked = marked_parameters(run.definition)
    kept = {name: getattr(run, name) for name in RunShown.model_fields if name not in ("url", "parameters")}
    where = {"project": run.project_uuid, "run": run.uuid}
    if run.job_uuid is None:
        url = site.links.to("interactive_run", pipeline=run.pipeline_uuid, **where)
    else:
        url = site.links.to("job_run", job=run.job_uuid, **where)
    parameters = {owner: redact(values, marked) for owner, values in run.parameters.items()}
    return {**kept, "parameters": parameters, "url": url}


@router.post(
    "/pipelines/{pipeline_uuid}/runs",
    status_code=201,
    response_model=RunWithSteps,
    responses=problems(404, 409),
)
def create_interactive_run(
    project_uuid: Uuid, pipeline_uuid: Uuid, body: NewRun, once: Once, site: TheSite, nudge: Nudge
) -> Response:
    """Run all or some steps of a pipeline in its running session."""
    answer = once(
        body,
        lambda session: RunWithSteps.of(
            runs.create_interactive_run(session, site, project_uuid, pipeline_uuid, steps=body.steps), site
        ),
    )
    nudge()
    return answer


@router.get("/runs", responses=problems(404))
def list_runs(
    project_uuid: Uuid,
    page: PageQuery,
    readers: Readers,
    site: TheSite,
    job_uuid: Annotated[Uuid | None, Query(description="Only those of this job.")] = None,
    cron_run_uuid: Annotated[Uuid | None, Query(description="Only those of this cron run.")] = None,
    pipeline_uuid: Annotated[
        Uuid | None, Query(description="Only the interactive ones of this pipeline.")
    ] = None,
    status: Annotated[Status | None, Query(description="Only those in this state.")] = None,
) -> Page[RunShown]:
    """The pipeline runs of a project, the newest first."""
    query = select(PipelineRun).where(PipelineRun.project_uuid == project_uuid)
    if job_uuid is not None:
        query = query.where(PipelineRun.job_uuid == job_uuid)
    if cron_run_uuid is not None:
        query = query.where(PipelineRun.cron_run_uuid == cron_run_uuid)
    if pipeline_uuid is not None:
        query = query.where(PipelineRun.pipeline_uuid == pipeline_uuid, PipelineRun.job_uuid.is_(None))
    if status is not None:
        query = query.where(PipelineRun.status == status)
    with readers() as session:
        find_project(session, project_uuid)
        by = (PipelineRun.requested, PipelineRun.number, PipelineRun.uuid)
        return page.page(session, query, by, lambda run: RunShown.of(run, site))


@router.get("/runs/{run_uuid}", responses=problems(404))
def show_run(project_uuid: Uuid, run_uuid: Uuid, readers: Readers, site: TheSite) -> RunWithSteps:
    """One pipeline run with its steps."""
    with readers() as session:
        return RunWithSteps.of(runs.find_run(session, project_uuid, run_uuid), site)


@router.post("/runs/{run_uuid}/abort", responses=problems(404, 409))
def abort_run(
    project_uuid: Uuid, run_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge
) -> RunWithSteps:
    """Abort a run; its processes are killed. One that has ended stays as it is."""
    with sessions.begin() as session:
        runs.find_run(session, project_uuid, run_uuid)
        runs.abort_run(session, site, run_uuid)
        session.expire_all()
        answer = RunWithSteps.of(runs.find_run(session, project_uuid, run_uuid), site)
    nudge()
    return answer


@router.delete("/runs/{run_uuid}", status_code=204, responses=problems(404, 409))
def delete_run(project_uuid: Uuid, run_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge) -> None:
    """Delete a run of a job, with its logs. One that has not ended is aborted first."""
    with sessions.begin() as session:
        runs.delete_run(session, site, runs.find_run(session, project_uuid, run_uuid))
    nudge()
    runs.remove_files(site, [run_uuid])


@router.get("/runs/{run_uuid}/steps/{step_uuid}/log", responses=problems(404))
def show_log(
    project_uuid: Uuid,
    run_uuid: Uuid,
    step_uuid: Uuid,
    readers: Readers,
    site: TheSite,
    offset: Annotated[int | None, Query(ge=0, le=2**62, description="From this byte on.")] = None,
    tail: Annotated[
        int | None, Query(ge=1, le=LOG_CHUNK, description="Instead of an offset: about so many last bytes.")
    ] = None,
    limit: Annotated[int, Query(ge=4, le=LOG_CHUNK, description="At most so many bytes.")] = LOG_CHUNK,
) -> LogShown:
    """The log of a step, also while it runs: go on with `next_offset` for what is new."""
    with readers() as session:
        run = runs.find_run(session, project_uuid, run_uuid)
        step = next((step for step in run.steps if step.step_uuid == step_uuid), None)
        if step is None:
            raise NotFound(f"pipeline run {run_uuid} has no step {step_uuid}")
        ended = step.status.final
    directory = site.runs / run.uuid
    start = offset or 0
    if offset is None and tail is not None:
        start = runs.log_end(directory, step.step_uuid, tail)
    chunk = read_log(directory, step.step_uuid, start, limit)
    return LogShown(text=chunk.text, next_offset=chunk.next_offset, ended=ended)
