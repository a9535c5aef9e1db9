"""Pipeline runs: PENDING > STARTED > SUCCESS, FAILURE or ABORTED; their steps; and what follows from an end.

The rows and their transitions; `orchest.supervisor` decides when a run starts, `orchest.execution` does the
work. Each transition is one guarded UPDATE and one event, and the end of the last run of a job or of a
cron run ends that in the same transaction.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, joinedload, selectinload

from clarion.errors import Conflict, NotFound
from clarion.observe import log
from clarion.outbox import record
from orchest.batches import UNFINISHED, change_row, lock_job, settle
from orchest.builds import newest_image
from orchest.definition import Definition, parse
from orchest.errors import FieldProblem, InvalidFields
from orchest.events import pipeline_run_event
from orchest.executor import Executor, RunDir, StepResult, executor_state, reap_orphans
from orchest.models import (
    CronRun,
    Environment,
    InteractiveSession,
    Job,
    PipelineRun,
    PipelineRunStep,
    SessionStatus,
    Status,
)
from orchest.pipelines import find_pipeline
from orchest.projects import find_project
from orchest.site import Site

BEFORE = {
    Status.STARTED: (Status.PENDING,),
    Status.SUCCESS: (Status.STARTED,),
    Status.FAILURE: UNFINISHED,
    Status.ABORTED: UNFINISHED,
}
VERBS = {
    Status.PENDING: "created",
    Status.STARTED: "started",
    Status.SUCCESS: "succeeded",
    Status.FAILURE: "failed",
    Status.ABORTED: "cancelled",
}
PIPELINE = "pipeline"
"""The key of the pipeline's own parameters among those of its steps."""
WHOLE = (
    joinedload(PipelineRun.project),
    joinedload(PipelineRun.job).joinedload(Job.project),
    joinedload(PipelineRun.cron_run),
    selectinload(PipelineRun.steps),
)
"""All that an event tells of a run, in two statements."""


def find_run(session: Session, project_uuid: str, run_uuid: str) -> PipelineRun:
    """The pipeline run of this project, for reading. Raises NotFound."""
    run = session.get(PipelineRun, run_uuid)
    if run is None or run.project_uuid != project_uuid:
        find_project(session, project_uuid)
        raise NotFound(f"there is no pipeline run {run_uuid} in project {project_uuid}")
    return run


def lock_run(session: Session, run_uuid: str) -> PipelineRun | None:
    """The run with all that belongs to it, held until the transaction ends, its job first; or None."""
    job_uuid = session.scalar(select(PipelineRun.job_uuid).where(PipelineRun.uuid == run_uuid))
    if job_uuid is not None:
        lock_job(session, job_uuid)
    query = select(PipelineRun).options(*WHOLE).where(PipelineRun.uuid == run_uuid)
    query = query.with_for_update(of=PipelineRun).execution_options(populate_existing=True)
    return session.scalar(query)


def session_of(session: Session, run: PipelineRun) -> InteractiveSession | None:
    """The interactive session a run was made in, if that has not ended."""
    if run.session_uuid is None:
        return None
    found = session.get(InteractiveSession, (run.project_uuid, run.pipeline_uuid))
    return found if found is not None and found.uuid == run.session_uuid else None


def tell(session: Session, site: Site, run: PipelineRun, verb: str) -> None:
    """Record the event of a run. An interactive run whose session has ended has nothing left to tell of."""
    live = session_of(session, run)
    if run.is_interactive and live is None:
        log.warning("an interactive run outlived its session; it is ended without an event", run=run.uuid)
        return
    record(session, pipeline_run_event(verb, run, site.links, live))


def create_runs(
    session: Session, site: Site, job: Job, sets: Sequence[Mapping[str, Any]], cron_run: CronRun | None = None
) -> list[PipelineRun]:
    """A pipeline run of the job for each set of parameters, PENDING. The job's row is locked."""
    definition, now = parse(job.definition), site.clock()
    runs = []
    for place, parameters in enumerate(sets, start=1):
        run = PipelineRun(
            project=job.project,
            pipeline_uuid=job.pipeline_uuid,
            pipeline_name=job.pipeline_name,
            job=job,
            cron_run=cron_run,
            number=job.total_runs + place,
            number_in_run=None if cron_run is None else place,
            definition=job.definition,
            parameters=dict(parameters),
            env_variables=job.env_variables,
            requested=now,
            steps=new_steps(definition, definition.steps),
        )
        runs.append(run)
    session.add_all(runs)
    job.total_runs += len(runs)
    session.flush()
    record(session, *(pipeline_run_event("created", run, site.links) for run in runs))
    return runs


def new_steps(definition: Definition, chosen: Iterable[str]) -> list[PipelineRunStep]:
    places = {uuid: place for place, uuid in enumerate(definition.steps)}
    return [
        PipelineRunStep(step_uuid=uuid, position=places[uuid], title=definition.steps[uuid].title)
        for uuid in sorted(chosen, key=places.__getitem__)
    ]


def create_interactive_run(
    session: Session, site: Site, project_uuid: str, pipeline_uuid: str, *, steps: Sequence[str] | None = None
) -> PipelineRun:
    """A run of all steps, or of ``steps``, in the pipeline's running session, of the definition as saved.

    Raises:
        NotFound: there is no such pipeline.
        Conflict: it has no running session, or a step's environment has not been built.
        InvalidFields: it has no such step.
    """
    pipeline = find_pipeline(session, project_uuid, pipeline_uuid, lock=True)
    live = session.get(InteractiveSession, (project_uuid, pipeline_uuid), with_for_update=True)
    if live is None or live.status != SessionStatus.RUNNING:
        state = "no session" if live is None else f"a session that is {live.status}"
        raise Conflict(f"pipeline {pipeline_uuid} has {state}; a run needs a running one")
    definition = parse(pipeline.definition)
    chosen = check_steps(definition, steps)
    check_environments(session, project_uuid, definition, chosen)
    of_pipeline = (PipelineRun.project_uuid == project_uuid, PipelineRun.pipeline_uuid == pipeline_uuid)
    newest = session.scalar(
        select(func.max(PipelineRun.number)).where(*of_pipeline, PipelineRun.job_uuid.is_(None))
    )
    run = PipelineRun(
        project=pipeline.project,
        pipeline_uuid=pipeline_uuid,
        pipeline_name=pipeline.name,
        session_uuid=live.uuid,
        number=(newest or 0) + 1,
        definition=pipeline.definition,
        env_variables={**pipeline.project.env_variables, **pipeline.env_variables},
        requested=site.clock(),
        steps=new_steps(definition, chosen),
    )
    session.add(run)
    session.flush()
    record(session, pipeline_run_event("created", run, site.links, live))
    return run


def check_steps(definition: Definition, steps: Sequence[str] | None) -> list[str]:
    """The steps to run, all by default. Raises InvalidFields."""
    if steps is None:
        return list(definition.steps)
    problems = [
        FieldProblem(f"/steps/{place}", f"the pipeline has no step {uuid}")
        for place, uuid in enumerate(steps)
        if uuid not in definition.steps
    ]
    if problems:
        raise InvalidFields(problems)
    return list(dict.fromkeys(steps))


def check_environments(
    session: Session, project_uuid: str, definition: Definition, chosen: Iterable[str] | None = None
) -> dict[str, Path]:
    """The interpreter of each of the project's environments that the steps name.

    Raises:
        Conflict: one of them has not been built; says which.
    """
    steps = definition.steps.keys() if chosen is None else chosen
    named = {definition.steps[uuid].environment for uuid in steps} - {""}
    if not named:
        return {}
    mine = select(Environment).where(Environment.project_uuid == project_uuid, Environment.uuid.in_(named))
    found = {}
    for environment in session.scalars(mine).all():
        image = session.scalar(newest_image(environment.uuid))
        if image is None:
            raise Conflict(f"environment {environment.name!r} has not been built; build it first")
        found[environment.uuid] = Path(image) / "bin" / "python"
    return found


def move_run(
    session: Session, site: Site, run: PipelineRun, to: Status, *, owner: str | None = None, **values: Any
) -> bool:
    """The transition to ``to`` and its event; with ``owner``, an end only if that one has it.

    False when the run was not in a state that leads there, and then nothing has changed.
    """
    values["finished" if to.final else "started"] = site.clock()
    conditions = [] if owner is None or to is Status.STARTED else [PipelineRun.owner == owner]
    if to is Status.STARTED:
        values |= {"owner": owner, "heartbeat": values["started"]}
    if not change_row(session, run, BEFORE[to], *conditions, status=to, **values):
        return False
    tell(session, site, run, VERBS[to])
    return True


def end_run(
    session: Session,
    site: Site,
    run_uuid: str,
    to: Status,
    reason: str | None = None,
    *,
    owner: str | None = None,
    results: Mapping[str, StepResult] | None = None,
    settling: bool = True,
) -> bool:
    """End a run, its steps, and what it was the last of. With ``owner``, only if that one has it.

    Without ``settling`` its cron run and its job are left to the caller.

    False when it had ended, is another's or is gone: nothing changes and nothing is told.
    """
    run = lock_run(session, run_uuid)
    if run is None or run.status not in BEFORE[to] or (owner is not None and run.owner != owner):
        return False
    close_steps(run, to, site.clock(), reason, results or {})
    if not move_run(session, site, run, to, owner=owner, reason=reason):
        raise Conflict(f"pipeline run {run_uuid} was changed at the same moment")
    if settling and run.job is not None:
        settle(session, site, run.job, run.cron_run)
    return True


def close_steps(
    run: PipelineRun, to: Status, now: datetime, reason: str | None, results: Mapping[str, StepResult]
) -> None:
    """End the steps that are not ended: as they were told to have, else as what became of the run says."""
    for step in run.steps:
        if step.status.final:
            continue
        lost = Status.FAILURE if to is Status.FAILURE and step.status is Status.STARTED else Status.ABORTED
        result = results.get(step.step_uuid, StepResult(lost, None, reason))
        step.status, step.finished = result.status, now
        step.exit_code, step.reason = result.exit_code, result.reason


def abort_run(session: Session, site: Site, run_uuid: str, reason: str = "aborted by the user") -> bool:
    """Abort a run; whoever executes it finds out and kills it. False: it had ended, nothing changed."""
    return end_run(session, site, run_uuid, Status.ABORTED, reason)


def abort_runs(session: Session, site: Site, runs: Iterable[str], reason: str) -> None:
    """Abort those of these runs that have not ended."""
    for uuid in runs:
        abort_run(session, site, uuid, reason)


def abort_interactive_runs(session: Session, site: Site, live: InteractiveSession, reason: str) -> None:
    """Abort the runs of an interactive session; to be called before its row goes."""
    mine = select(PipelineRun.uuid).where(
        PipelineRun.session_uuid == live.uuid, PipelineRun.status.in_(UNFINISHED)
    )
    abort_runs(session, site, session.scalars(mine.order_by(PipelineRun.number)).all(), reason)


def delete_run(session: Session, site: Site, run: PipelineRun) -> None:
    """Delete a run of a job, aborted before if need be. `remove_files` is for after the commit.

    Raises:
        Conflict: it is an interactive run, which lives and goes with its pipeline.
    """
    if run.is_interactive:
        raise Conflict("an interactive run goes with its pipeline; it cannot be deleted by itself")
    uuid = run.uuid
    abort_run(session, site, uuid, "deleted by the user")
    locked = lock_run(session, uuid)
    if locked is None:
        raise NotFound(f"there is no pipeline run {uuid}")
    erase_run(session, site, locked)


def erase_run(session: Session, site: Site, run: PipelineRun) -> None:
    """Delete the row of a run that has ended, and tell."""
    event = pipeline_run_event("deleted", run, site.links)
    record(session, event)
    session.execute(delete(PipelineRun).where(PipelineRun.uuid == run.uuid))
    session.expunge(run)


def erase_interactive_runs(
    session: Session, site: Site, project_uuid: str, pipeline_uuid: str | None = None
) -> list[str]:
    """Delete the interactive runs of a pipeline, or of a whole project, that is about to go; their uuids.

    Their session has been ended before, and they with it: deleting them has no event.
    """
    mine = [PipelineRun.project_uuid == project_uuid, PipelineRun.job_uuid.is_(None)]
    if pipeline_uuid is not None:
        mine.append(PipelineRun.pipeline_uuid == pipeline_uuid)
    abort_runs(
        session,
        site,
        session.scalars(select(PipelineRun.uuid).where(*mine, PipelineRun.status.in_(UNFINISHED))).all(),
        "its pipeline was deleted",
    )
    uuids = list(session.scalars(select(PipelineRun.uuid).where(*mine)))
    session.execute(delete(PipelineRun).where(*mine).execution_options(synchronize_session="fetch"))
    return uuids


def step_started(session: Session, run_uuid: str, owner: str, step_uuid: str, now: datetime) -> None:
    """The step's process runs. Nothing changes for a run that ``owner`` has lost."""
    change_step(session, run_uuid, owner, step_uuid, status=Status.STARTED, started=now)


def step_ended(
    session: Session, run_uuid: str, owner: str, step_uuid: str, result: StepResult, now: datetime
) -> None:
    """The step ended so. Nothing changes for a run that ``owner`` has lost, or a step that has ended."""
    change_step(
        session,
        run_uuid,
        owner,
        step_uuid,
        status=result.status,
        finished=now,
        exit_code=result.exit_code,
        reason=result.reason,
    )


def change_step(session: Session, run_uuid: str, owner: str, step_uuid: str, **values: Any) -> None:
    held = select(PipelineRun.uuid).where(
        PipelineRun.uuid == run_uuid, PipelineRun.owner == owner, PipelineRun.status == Status.STARTED
    )
    step = PipelineRunStep
    guarded = update(step).where(
        step.run_uuid == run_uuid,
        step.step_uuid == step_uuid,
        step.status.in_(UNFINISHED),
        held.exists(),
    )
    session.execute(guarded.values(**values).execution_options(synchronize_session=False))


def remove_files(site: Site, uuids: Iterable[str]) -> None:
    """Remove the directories of deleted runs. One that is still being executed is left to its executor."""
    for uuid in uuids:
        directory = site.runs / uuid
        if executor_state(directory) in (Executor.ALIVE, Executor.ELSEWHERE):
            continue
        reap_orphans(directory)
        shutil.rmtree(directory, ignore_errors=True)


def log_end(run_dir: Path, step_uuid: str, size: int) -> int:
    """Where about the last ``size`` bytes of a step's log begin: at a line's beginning, if there is one."""
    try:
        with RunDir(run_dir).log(step_uuid).open("rb") as log_file:
            length = log_file.seek(0, 2)
            start = max(length - size, 0)
            if start > 0:
                log_file.seek(start)
                first, newline, _ = log_file.read(size).partition(b"\n")
                if newline:
                    start += len(first) + 1
            return start
    except FileNotFoundError:
        return 0
