"""The platform's schema: what the database itself refuses, and that every index names its query."""

import inspect
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Executable, Index, UniqueConstraint, delete, insert
from sqlalchemy import inspect as inspect_database
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from clarion.database import Base as ClarionBase
from orchest import models
from orchest.models import (
    Base,
    CronRun,
    EnvironmentImageBuild,
    InteractiveSession,
    Job,
    JobStatus,
    Pipeline,
    PipelineRun,
    PipelineRunStep,
    Project,
    Setting,
    Status,
)
from tests.orchest.world import DEFINITION, NOW, PIPELINE, World, make_job, make_run

Change = Callable[[World, Session], None]


def changed(row: str, **values: Any) -> Change:
    def apply(world: World, _session: Session) -> None:
        for name, value in values.items():
            setattr(getattr(world, row), name, value)

    return apply


def added(make: Callable[[World], Any]) -> Change:
    return lambda world, session: session.add(make(world))


def executed(statement: Callable[[World], Executable]) -> Change:
    def execute(world: World, session: Session) -> None:
        session.execute(statement(world))

    return execute


IMPOSSIBLE: dict[str, Change] = {
    "a one-off job that is paused": changed("job", status=JobStatus.PAUSED),
    "a cron job that has succeeded": changed("cron", status=JobStatus.SUCCESS, finished=NOW),
    "a cron job that waits to start": changed("cron", status=JobStatus.PENDING),
    "a job that ended at no time": changed("job", status=JobStatus.ABORTED),
    "a job that ended before its end": changed("job", finished=NOW),
    "a paused job that is scheduled": changed("cron", status=JobStatus.PAUSED),
    "a job without a name": changed("job", name=""),
    "a job that keeps minus two runs": changed("job", max_retained_pipeline_runs=-2),
    "a cron run that waits": changed("cron_run", status=Status.PENDING),
    "a cron run that ended at no time": changed("cron_run", status=Status.SUCCESS),
    "two cron runs of one number": added(lambda w: CronRun(job=w.cron, number=7, started=NOW)),
    "cron run zero": added(lambda w: CronRun(job=w.cron, number=0, started=NOW)),
    "a run that ended and did not": changed("job_run", status=Status.STARTED),
    "a run that never started": changed("job_run", status=Status.STARTED, started=None, finished=None),
    "two runs of a job of one number": added(lambda w: make_run(w.project, job=w.job, number=1)),
    "two interactive runs of one number": added(lambda w: make_run(w.project, number=5)),
    "two runs of a cron run of one number": added(
        lambda w: make_run(w.project, job=w.cron, cron_run=w.cron_run, number=14, number_in_run=2)
    ),
    "a run of a cron run of no job": added(
        lambda w: make_run(w.project, cron_run=w.cron_run, number=9, number_in_run=9)
    ),
    "a run of a cron run without a number in it": added(
        lambda w: make_run(w.project, job=w.cron, cron_run=w.cron_run, number=14)
    ),
    "two builds of an environment under way": added(
        lambda w: EnvironmentImageBuild(environment=w.environment, image_tag=4, requested=NOW)
    ),
    "two builds with one tag": added(
        lambda w: EnvironmentImageBuild(
            environment=w.environment, image_tag=3, requested=NOW, finished=NOW, status=Status.ABORTED
        )
    ),
    "a build that ended at no time": changed("build", status=Status.FAILURE),
    "two projects in one directory": added(lambda _: Project(name="b", path="/private", created=NOW)),
    "a project without a name": changed("project", name=""),
    "two sessions of a pipeline": executed(
        lambda w: insert(InteractiveSession).values(
            project_uuid=w.project.uuid, pipeline_uuid=PIPELINE, uuid="x", definition={}, requested=NOW
        )
    ),
    "a project that goes with all it holds": executed(
        lambda w: delete(Project).where(Project.uuid == w.project.uuid)
    ),
    "a job that goes with its runs": executed(lambda w: delete(Job).where(Job.uuid == w.job.uuid)),
}


def test_the_database_refuses_what_cannot_be(session: Session, world: World) -> None:
    session.commit()
    for what, attempt in IMPOSSIBLE.items():
        refused = False
        try:
            commit(attempt, world, session)
        except IntegrityError:
            refused = True
        session.rollback()
        assert refused, f"the database took {what}"


def commit(attempt: Change, world: World, session: Session) -> None:
    attempt(world, session)
    session.commit()


@pytest.mark.parametrize("value", ["RUNNING", "private"])
def test_a_state_is_one_of_the_declared(session: Session, world: World, value: str) -> None:
    world.job.status = value  # type: ignore[assignment]
    with pytest.raises(StatementError):
        session.flush()
    session.rollback()
    with pytest.raises(IntegrityError):
        session.connection().exec_driver_sql(
            "INSERT INTO jupyter_image_builds (uuid, image_tag, status, requested, setup_script, gpu_support,"
            f" language, base_is_ours) VALUES ('x', 1, '{value}', '2026-01-01T00:00:00.000000Z', '', "
            "false, 'python', true)"
        )


def test_rows_come_back_as_they_went(session: Session, world: World) -> None:
    session.commit()
    session.expire_all()
    run = session.get_one(PipelineRun, world.cron_pipeline_run.uuid)
    assert run.status is Status.FAILURE
    assert run.requested == NOW
    assert run.requested.utcoffset() == timedelta(0)
    assert run.definition == DEFINITION
    assert [(step.title, step.status) for step in run.steps] == [
        ("private-load", Status.FAILURE),
        ("private-train", Status.ABORTED),
    ]
    assert run.job is world.cron
    assert run.cron_run is world.cron_run
    assert world.cron.is_cron
    assert not world.job.is_cron
    assert world.live_run.is_interactive
    assert not run.is_interactive
    assert world.live.project is world.project


def test_a_naive_time_is_refused(session: Session) -> None:
    session.add(Project(name="p", path="/p", created=datetime(2026, 1, 1)))
    with pytest.raises(StatementError, match="has no time zone"):
        session.flush()


def test_one_file_can_be_a_pipeline_of_two_projects(session: Session, world: World) -> None:
    other = Project(name="other", path="/other", created=NOW)
    same = Pipeline(
        project=other,
        uuid=PIPELINE,
        name="p",
        path="p.orchest",
        definition=DEFINITION,
        created=NOW,
        saved=NOW,
    )
    session.add(same)
    session.commit()
    assert session.get(Pipeline, (other.uuid, PIPELINE)) is same
    assert world.pipeline is not same


def test_steps_go_with_their_run_and_nothing_else_does(session: Session, world: World) -> None:
    session.delete(world.job_run)
    session.commit()
    assert session.get(Job, world.job.uuid) is not None
    remaining = {step.run_uuid for step in session.query(PipelineRunStep)}
    assert remaining == {world.live_run.uuid, world.cron_pipeline_run.uuid}
    session.delete(world.job)
    session.commit()


def test_a_second_job_can_have_runs_of_the_same_numbers(session: Session, world: World) -> None:
    job = make_job(world.project)
    session.add(make_run(world.project, job=job, number=1))
    session.commit()
    assert {run.number for run in session.query(PipelineRun).filter_by(job_uuid=job.uuid)} == {1}


def test_a_setting_is_any_json(session: Session) -> None:
    session.add_all(
        [Setting(key="a", value={"b": [1]}, changed=NOW), Setting(key="c", value=False, changed=NOW)]
    )
    session.commit()
    session.expire_all()
    assert session.get_one(Setting, "a").value == {"b": [1]}
    assert session.get_one(Setting, "c").value is False


def test_finality_is_a_property_of_the_state() -> None:
    assert {s for s in Status if s.final} == {"SUCCESS", "FAILURE", "ABORTED"}
    assert {s for s in JobStatus if s.final} == {"SUCCESS", "FAILURE", "ABORTED"}


def test_tables_are_the_platforms_own(session: Session) -> None:
    assert not Base.metadata.tables.keys() & ClarionBase.metadata.tables.keys()
    names = set(inspect_database(session.connection()).get_table_names())
    assert Base.metadata.tables.keys() <= names


def test_every_index_says_which_query_it_is_for() -> None:
    modules = {inspect.getmodule(mapper.class_) for mapper in Base.registry.mappers}
    source = "\n".join(inspect.getsource(module) for module in modules if module is not None)
    for table in Base.metadata.tables.values():
        for index in table.indexes:
            if not explicit(index):
                continue
            found = re.search(rf'(?P<before>[^\n]*\n[^\n]*\n)[^\n]*"{index.name}"(?P<line>[^\n]*)', source)
            assert found is not None, index.name
            assert "#" in found["before"] or "#" in found["line"], f"{index.name}: which query is it for?"
    assert any(isinstance(c, UniqueConstraint) for t in Base.metadata.tables.values() for c in t.constraints)


def explicit(index: Index) -> bool:
    return len(index.columns) > 1 or bool(index.dialect_options["postgresql"]["where"] is not None)


def test_every_class_is_exported() -> None:
    for mapper in Base.registry.mappers:
        assert mapper.class_.__name__ in models.__all__
