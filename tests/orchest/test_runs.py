"""Pipeline runs: what a transition costs, what one run's end does to others, what is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session, sessionmaker

from clarion.deliverees.webhook import Webhook
from clarion.errors import Conflict, NotFound
from clarion.events import Event
from clarion.outbox import Recording, record
from clarion.subscriptions import Subscription
from orchest import claims, retention, runs
from orchest.events import pipeline_run_event
from orchest.executor import StepResult
from orchest.models import (
    CronRun,
    InteractiveSession,
    Job,
    JobStatus,
    Pipeline,
    PipelineRun,
    PipelineRunStep,
    Project,
    SessionStatus,
    Status,
)
from orchest.site import Limits, Site
from tests.orchest.building import document, uuid_of
from tests.orchest.world import NOW

STEPS = {f"step {number}": {} for number in range(40)}


class World:
    """A project with a pipeline, its running session, and jobs with started runs."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine = engine
        self.site = Site("http://here", root, clock=lambda: NOW, limits=Limits(2, 2, 1))
        self.sessions = sessionmaker(engine, info=Recording(clock=lambda: NOW).info())
        definition = document({"a": {}, "b": {"after": ["a"]}})
        with self.sessions.begin() as session:
            project = Project(name="p", path=str(root), created=NOW)
            pipeline = Pipeline(
                project=project,
                uuid=definition["uuid"],
                name="q",
                path="q.orchest",
                definition=definition,
                created=NOW,
                saved=NOW,
            )
            session.add_all([project, pipeline])
            session.flush()
            session.add(
                InteractiveSession(
                    pipeline=pipeline, status=SessionStatus.RUNNING, definition=definition, requested=NOW
                )
            )
            self.project, self.pipeline = project.uuid, pipeline.uuid

    def batch(
        self, count: int, cron: bool = False, steps: dict[str, Any] | None = None, **values: Any
    ) -> tuple[str, list[str]]:
        """A job with so many pending runs."""
        with self.sessions.begin() as session:
            job = Job(
                project=session.get_one(Project, self.project),
                pipeline_uuid=self.pipeline,
                name="j",
                pipeline_name="q",
                definition=document(steps or {"a": {}, "b": {"after": ["a"]}}),
                created=NOW,
                schedule="0 4 * * *" if cron else None,
                status=JobStatus.STARTED if cron else JobStatus.PENDING,
                **values,
            )
            session.add(job)
            session.flush()
            cron_run = None
            if cron:
                job.total_cron_runs = 1
                cron_run = CronRun(job=job, number=1, started=NOW, total_pipeline_runs=count)
                session.add(cron_run)
                session.flush()
            made = runs.create_runs(session, self.site, job, [{}] * count, cron_run)
            return job.uuid, [run.uuid for run in made]

    def start(self, *uuids: str, owner: str = "me") -> None:
        for uuid in uuids:
            with self.sessions.begin() as session:
                assert claims.start_run(session, self.site, uuid, owner)

    def end(self, uuid: str, to: Status = Status.SUCCESS, **options: Any) -> bool:
        with self.sessions.begin() as session:
            return runs.end_run(session, self.site, uuid, to, **options)

    def get(self, kind: Any, uuid: str) -> Any:
        with self.sessions() as session:
            row = session.get_one(kind, uuid)
            if kind is PipelineRun:
                assert row.steps is not None
            return row

    def told(self) -> list[str]:
        with self.sessions() as session:
            return list(session.scalars(select(Event.type).order_by(Event.sequence)))


@pytest.fixture
def world(orchest_engine: Engine, tmp_path: Path) -> World:
    return World(orchest_engine, tmp_path)


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """What is sent to the database meanwhile."""
    sent: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", listen)


def subscribe(session: Session, count: int) -> None:
    for number in range(count):
        webhook = Webhook(name=f"w{number}", url="http://127.0.0.1:9/", created_at=NOW)
        session.add(webhook)
        session.flush()
        session.add(Subscription(subscriber_id=webhook.id, pattern="*", scope=""))


@pytest.mark.parametrize(("steps", "count", "subscribers"), [(2, 1, 0), (40, 60, 30)])
def test_the_deepest_event_costs_at_most_six_statements_with_its_payload(
    world: World, steps: int, count: int, subscribers: int
) -> None:
    _, uuids = world.batch(count, cron=True, steps=dict(list(STEPS.items())[:steps]))
    world.start(*uuids)
    with world.sessions.begin() as session:
        subscribe(session, subscribers)
    results = {uuid_of(title): StepResult(Status.FAILURE, 1, "exit code 1") for title in STEPS}
    world.end(uuids[0], Status.FAILURE, results=results)

    with world.sessions.begin() as session:
        run = session.get_one(PipelineRun, uuids[0])
        with statements(world.engine) as sent:
            made = pipeline_run_event("failed", run, world.site.links)
            record(session, made)
    assert made.type == "project:cron-job:run:pipeline-run:failed"
    assert len(sent) <= 6, sent
    payload = made.to_notification_payload()["project"]["job"]["run"]["pipeline_run"]
    assert len(payload["failed_steps"]) == steps


def test_ending_a_run_costs_the_same_whatever_its_steps_its_siblings_and_who_is_told(world: World) -> None:
    costs = []
    for steps, count, subscribers in ((2, 2, 0), (40, 30, 30)):
        _, uuids = world.batch(count, cron=True, steps=dict(list(STEPS.items())[:steps]))
        world.start(*uuids)
        with world.sessions.begin() as session:
            subscribe(session, subscribers)
        with statements(world.engine) as sent:
            world.end(uuids[0], Status.FAILURE)
        costs.append(len(sent))
    assert costs[0] == costs[1]
    assert costs[0] <= 12


def test_the_last_run_ends_the_job_and_a_failure_is_remembered(world: World) -> None:
    job, (first, second) = world.batch(2)
    world.start(first, second)
    world.end(first, Status.FAILURE)
    assert world.get(Job, job).status is JobStatus.STARTED
    world.end(second)
    assert world.get(Job, job).status is JobStatus.FAILURE
    assert world.told() == [
        "project:one-off-job:pipeline-run:created",
        "project:one-off-job:pipeline-run:created",
        "project:one-off-job:started",
        "project:one-off-job:pipeline-run:started",
        "project:one-off-job:pipeline-run:started",
        "project:one-off-job:pipeline-run:failed",
        "project:one-off-job:pipeline-run:succeeded",
        "project:one-off-job:failed",
    ]


def test_a_cron_run_all_runs_of_which_were_aborted_did_not_succeed(world: World) -> None:
    job, uuids = world.batch(2, cron=True)
    for uuid in uuids:
        with world.sessions.begin() as session:
            assert runs.abort_run(session, world.site, uuid)
    with world.sessions() as session:
        assert session.scalar(select(CronRun.status)) is Status.ABORTED
    assert world.get(Job, job).status is JobStatus.STARTED
    assert "project:cron-job:run:succeeded" not in world.told()


def test_final_states_are_final(world: World) -> None:
    _, (run,) = world.batch(1)
    world.start(run)
    assert world.end(run)
    told = world.told()
    for to in (Status.SUCCESS, Status.FAILURE, Status.ABORTED):
        assert not world.end(run, to, reason="late")
    with world.sessions.begin() as session:
        assert not claims.start_run(session, world.site, run, "late")
    assert (world.get(PipelineRun, run).status, world.told()) == (Status.SUCCESS, told)


def test_only_its_owner_ends_a_run_and_changes_its_steps(world: World) -> None:
    _, (run,) = world.batch(1)
    world.start(run)
    assert not world.end(run, owner="another")
    with world.sessions.begin() as session:
        runs.step_started(session, run, "another", uuid_of("a"), NOW)
    assert {step.status for step in world.get(PipelineRun, run).steps} == {Status.PENDING}
    with world.sessions.begin() as session:
        runs.step_started(session, run, "me", uuid_of("a"), NOW)
        runs.step_ended(session, run, "me", uuid_of("a"), StepResult(Status.FAILURE, 3, "exit code 3"), NOW)
        runs.step_ended(session, run, "me", uuid_of("a"), StepResult(Status.SUCCESS, 0), NOW)
    assert world.end(run, Status.FAILURE, owner="me")
    steps = world.get(PipelineRun, run).steps
    assert [(step.status, step.exit_code) for step in steps] == [(Status.FAILURE, 3), (Status.ABORTED, None)]


def test_limits_hold_for_each_kind_and_one_session_runs_one_at_a_time(world: World) -> None:
    world.batch(3)
    for _ in range(2):
        with world.sessions.begin() as session:
            runs.create_interactive_run(session, world.site, world.project, world.pipeline)

    def claim(interactive: bool) -> str | None:
        with world.sessions.begin() as session:
            return claims.claim_run(session, world.site, "me", interactive=interactive)

    taken = [claim(False) for _ in range(3)]
    assert [uuid is not None for uuid in taken] == [True, True, False]
    assert world.get(PipelineRun, taken[0]).number == 1
    assert (claim(True) is not None, claim(True)) == (True, None)
    world.end(taken[0])
    assert claim(False) is not None


def test_an_interactive_run_needs_a_running_session_and_known_steps(world: World) -> None:
    def create(*steps: str) -> str:
        with world.sessions.begin() as session:
            run = runs.create_interactive_run(
                session, world.site, world.project, world.pipeline, steps=list(steps) or None
            )
            return run.uuid

    assert world.get(PipelineRun, create(uuid_of("b"))).steps[0].title == "b"
    with pytest.raises(Exception, match="has no step"):
        create(uuid_of("z"))
    with world.sessions.begin() as session:
        live = session.get_one(InteractiveSession, (world.project, world.pipeline))
        runs.abort_interactive_runs(session, world.site, live, "its session was stopped")
        live.status = SessionStatus.STOPPING
    with pytest.raises(Conflict, match="STOPPING"):
        create()
    family = "project:pipeline:interactive-session:pipeline-run"
    assert world.told() == [f"{family}:created", f"{family}:cancelled"]


def test_retention_deletes_the_oldest_ended_runs_and_tells(world: World) -> None:
    job, uuids = world.batch(4, max_retained_pipeline_runs=2)
    world.start(*uuids)
    for uuid in uuids[:3]:
        world.end(uuid, Status.FAILURE if uuid == uuids[0] else Status.SUCCESS)

    def forget() -> list[str]:
        with world.sessions.begin() as session:
            return retention.forget(session, world.site, job)

    assert forget() == []  # what has come of the job is not decided yet
    world.end(uuids[3])
    assert world.get(Job, job).status is JobStatus.FAILURE
    assert forget() == uuids[:2]
    assert forget() == []
    assert world.told()[-2:] == ["project:one-off-job:pipeline-run:deleted"] * 2
    with world.sessions() as session:
        assert session.scalars(select(PipelineRun.number).order_by(PipelineRun.number)).all() == [3, 4]
        assert len(session.scalars(select(PipelineRunStep.run_uuid)).all()) == 4


def test_deleting_an_unfinished_run_cancels_it_and_may_end_the_job(world: World) -> None:
    job, (run,) = world.batch(1)
    world.start(run)
    with world.sessions.begin() as session:
        runs.delete_run(session, world.site, session.get_one(PipelineRun, run))
    assert world.told()[-3:] == [
        "project:one-off-job:pipeline-run:cancelled",
        "project:one-off-job:cancelled",
        "project:one-off-job:pipeline-run:deleted",
    ]
    assert world.get(Job, job).status is JobStatus.ABORTED


def test_a_run_of_another_project_is_not_found(world: World, tmp_path: Path) -> None:
    _, (run,) = world.batch(1)
    with world.sessions.begin() as session:
        other = Project(name="o", path="/elsewhere", created=NOW)
        session.add(other)
        session.flush()
        assert runs.find_run(session, world.project, run).uuid == run
        with pytest.raises(NotFound):
            runs.find_run(session, other.uuid, run)


def test_the_end_of_a_log_begins_with_a_line(world: World, tmp_path: Path) -> None:
    log = tmp_path / "steps" / "s" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("first line\nsecond line\nthird line\n")
    assert runs.log_end(tmp_path, "s", 15) == len("first line\nsecond line\n")
    assert runs.log_end(tmp_path, "s", 1000) == 0
    assert runs.log_end(tmp_path, "none", 10) == 0
