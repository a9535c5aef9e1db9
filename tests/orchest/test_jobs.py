"""Jobs: drafts and their changes, what each state allows, what is told, what is refused."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import sessionmaker

from clarion.errors import ClarionError, Conflict, NotFound
from clarion.events import Event
from clarion.outbox import Recording
from orchest import job_changes, jobs
from orchest.errors import InvalidFields
from orchest.jobs import JobValues, Source
from orchest.models import Job, JobStatus, Pipeline, PipelineRun, Project, new_uuid
from orchest.site import Site
from orchest.snapshots import Snapshot, take_snapshot
from tests.orchest.building import document, uuid_of

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
FAMILY = {False: "project:one-off-job", True: "project:cron-job"}


class World:
    """A project with a pipeline of two parameters, at a time that tests move."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.now = NOW
        self.site = Site("http://here", root / "data", clock=lambda: self.now)
        info = Recording(clock=lambda: self.now, telemetry_key=lambda: b"k" * 32).info()
        self.sessions = sessionmaker(engine, info=info, expire_on_commit=False)
        definition = document({"a": {"parameters": {"rows": 10}}}, parameters={"x": 0})
        with self.sessions.begin() as session:
            project = Project(name="p", path=str(root), created=NOW, env_variables={"A": "project", "P": "1"})
            pipeline = Pipeline(
                project=project,
                uuid=definition["uuid"],
                name="q",
                path="q.orchest",
                definition=definition,
                created=NOW,
                saved=NOW,
                env_variables={"A": "pipeline"},
            )
            session.add_all([project, pipeline])
            session.flush()
            self.project, self.pipeline = project.uuid, pipeline.uuid

    def create(self, **values: Any) -> str:
        uuid = new_uuid()
        with self.sessions.begin() as session:
            pipeline = session.get_one(Pipeline, (self.project, self.pipeline))
            given = JobValues(**{"name": "j", **values})  # type: ignore[typeddict-item]
            snapshot = Snapshot(Path("/snapshot"), 2_000_000)
            jobs.create_job(session, self.site, self.project, Source.of(pipeline), snapshot, given, uuid=uuid)
        return uuid

    def do(self, what: str, job: str) -> Job:
        with self.sessions.begin() as session:
            changed: Job = getattr(jobs, f"{what}_job")(session, self.site, self.project, job)
            return changed

    def update(self, job: str, **values: Any) -> Job:
        with self.sessions.begin() as session:
            given = JobValues(**values)  # type: ignore[typeddict-item]
            return job_changes.update_job(session, self.site, self.project, job, given)

    def get(self, job: str) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, job)

    def events(self) -> list[Event]:
        with self.sessions() as session:
            return list(session.scalars(select(Event).order_by(Event.sequence)))

    def told(self) -> list[str]:
        return [event.type for event in self.events()]


@pytest.fixture
def world(orchest_engine: Engine, tmp_path: Path) -> World:
    return World(orchest_engine, tmp_path)


def test_a_draft_holds_the_pipeline_its_grid_and_variables_of_all_levels(world: World) -> None:
    grid = {"pipeline_parameters": {"x": [1, 2]}, uuid_of("a"): {"rows": [5]}}
    job = world.get(world.create(strategy=grid, env_variables={"J": "job"}))
    assert job.status is JobStatus.DRAFT
    assert job.parameters == [
        {"pipeline": {"x": 1}, uuid_of("a"): {"rows": 5}},
        {"pipeline": {"x": 2}, uuid_of("a"): {"rows": 5}},
    ]
    assert job.env_variables == {"A": "pipeline", "P": "1", "J": "job"}
    (event,) = world.events()
    assert event.type == "project:one-off-job:created"
    assert event.telemetry is not None
    derived = event.telemetry["derived_properties"]["project"]["job"]
    assert (derived["snapshot_size"], derived["definition"]["parameterized_runs_count"]) == (2.0, 2)


def test_a_cron_job_is_created_by_its_creation_not_by_its_duplication(world: World) -> None:
    world.create(schedule="0 4 * * *")
    (event,) = world.events()
    assert (event.type, event.notification["project"]["job"]["schedule"]) == (
        "project:cron-job:created",
        "0 4 * * *",
    )


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"schedule": "never"}, "/schedule"),
        ({"schedule": "0 4 * * *", "timezone": "Nowhere"}, "/timezone"),
        ({"schedule": "0 4 * * *", "next_scheduled_time": NOW}, "/next_scheduled_time"),
        ({"strategy": {"pipeline_parameters": {"y": [1]}}}, "/strategy/pipeline_parameters/y"),
        ({"strategy": {"pipeline_parameters": {"x": []}}}, "/strategy/pipeline_parameters/x"),
        ({"env_variables": {"ORCHEST_DATA_DIR": "/"}}, "/env_variables/ORCHEST_DATA_DIR"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(
    world: World, values: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidFields) as caught:
        world.create(**values)
    assert [problem.field for problem in caught.value.problems] == [field]
    job = world.create()
    with pytest.raises(InvalidFields):
        world.update(job, **values)
    assert world.told() == ["project:one-off-job:created"]
    assert world.get(job).schedule is None


def test_confirming_a_one_off_job_creates_its_runs(world: World) -> None:
    job = world.create(strategy={"pipeline_parameters": {"x": [1, 2, 3]}})
    assert world.do("confirm", job).status is JobStatus.PENDING
    family = "project:one-off-job"
    assert world.told() == [
        f"{family}:created",
        f"{family}:updated",
        *[f"{family}:pipeline-run:created"] * 3,
    ]
    with world.sessions() as session:
        found = session.scalars(select(PipelineRun).order_by(PipelineRun.number)).all()
        assert [(run.number, run.parameters["pipeline"]["x"]) for run in found] == [(1, 1), (2, 2), (3, 3)]
    changes = world.events()[1].notification["project"]["job"]["update"]["changes"]
    assert [(c["changed_object"], c["old_value"], c["new_value"]) for c in changes] == [
        ("STATUS", "DRAFT", "PENDING")
    ]
    with pytest.raises(Conflict, match="only a draft"):
        world.do("confirm", job)


def test_a_job_scheduled_once_waits_for_its_time_and_can_be_triggered_before(world: World) -> None:
    job = world.create(next_scheduled_time=NOW + timedelta(hours=1))
    assert world.do("confirm", job).total_runs == 0
    assert world.do("trigger", job).total_runs == 1
    assert world.get(job).next_scheduled_time is None
    with pytest.raises(Conflict, match="nothing to trigger"):
        world.do("trigger", job)


def test_confirming_a_cron_job_tells_updated_and_started_and_sets_its_time(world: World) -> None:
    job = world.create(schedule="0 4 * * *", timezone="Europe/Amsterdam")
    confirmed = world.do("confirm", job)
    assert confirmed.status is JobStatus.STARTED
    assert confirmed.next_scheduled_time == datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
    assert world.told() == [f"project:cron-job:{verb}" for verb in ("created", "updated", "started")]
    for event in world.events():
        assert event.notification["project"]["job"]["schedule"] == "0 4 * * *"
        assert event.telemetry is not None
        assert "0 4" not in str(event.telemetry)


def test_pause_and_resume_clear_and_recompute_the_time_and_repeating_them_tells_nothing(world: World) -> None:
    job = world.create(schedule="0 4 * * *")
    world.do("confirm", job)
    assert world.do("pause", job).next_scheduled_time is None
    with pytest.raises(Conflict, match="PAUSED"):
        world.do("pause", job)
    world.now = NOW + timedelta(days=10)
    assert world.do("resume", job).next_scheduled_time == datetime(2026, 3, 12, 4, 0, tzinfo=UTC)
    with pytest.raises(Conflict):
        world.do("resume", job)
    assert world.told()[3:] == ["project:cron-job:paused", "project:cron-job:unpaused"]


def test_a_paused_cron_job_can_be_triggered_and_a_one_off_job_not_paused(world: World) -> None:
    job = world.create(schedule="0 4 * * *", strategy={"pipeline_parameters": {"x": [1, 2]}})
    world.do("confirm", job)
    world.do("pause", job)
    assert world.do("trigger", job).total_cron_runs == 1
    run = "project:cron-job:run"
    assert world.told()[-3:] == [f"{run}:started", *[f"{run}:pipeline-run:created"] * 2]
    one_off = world.create()
    world.do("confirm", one_off)
    with pytest.raises(Conflict, match="without a schedule"):
        world.do("pause", one_off)


def test_an_update_lists_its_changes_once_and_telemetry_only_counts_them(world: World) -> None:
    job = world.create(schedule="0 4 * * *", env_variables={"S": "old"})
    world.do("confirm", job)
    world.update(job, name="new", schedule="30 5 * * *", env_variables={"S": "new", "T": "t"})
    event = world.events()[-1]
    assert event.type == "project:cron-job:updated"
    changes = event.notification["project"]["job"]["update"]["changes"]
    assert [(c["type"], c["changed_object"], c.get("new_value")) for c in changes] == [
        ("UPDATED", "NAME", "new"),
        ("UPDATED", "SCHEDULE", "30 5 * * *"),
        ("DELETED", "ENVIRONMENT_VARIABLE", None),
        ("DELETED", "ENVIRONMENT_VARIABLE", None),
        ("UPDATED", "ENVIRONMENT_VARIABLE", {"S": "[redacted]"}),
        ("CREATED", "ENVIRONMENT_VARIABLE", {"T": "[redacted]"}),
    ]
    assert event.telemetry is not None
    for secret in ("30 5", "old", '"new"'):
        assert secret not in str(event.telemetry)
    counts = event.telemetry["derived_properties"]["project"]["job"]["update"]["counts"]
    assert counts["ENVIRONMENT_VARIABLE"] == {"DELETED": 2, "UPDATED": 1, "CREATED": 1}
    assert world.get(job).next_scheduled_time == datetime(2026, 3, 2, 5, 30, tzinfo=UTC)


def test_an_update_that_changes_nothing_tells_nothing(world: World) -> None:
    job = world.create(schedule="0 4 * * *")
    world.update(job, name="j", schedule="0 4 * * *", strategy={}, max_retained_pipeline_runs=-1)
    assert world.told() == ["project:cron-job:created"]


def test_an_update_is_of_the_kind_the_job_was_before_it(world: World) -> None:
    job = world.create()
    world.update(job, schedule="0 4 * * *")
    world.update(job, schedule=None)
    assert world.told()[1:] == ["project:one-off-job:updated", "project:cron-job:updated"]


@pytest.mark.parametrize(
    ("cron", "values", "says"),
    [
        (False, {"schedule": "0 4 * * *"}, "only a draft"),
        (False, {"strategy": {"pipeline_parameters": {"x": [7]}}}, "parameters cannot be changed"),
        (False, {"env_variables": {}}, "environment_variable"),
        (True, {"schedule": None}, "only a draft"),
    ],
)
def test_a_confirmed_job_keeps_what_it_runs(
    world: World, cron: bool, values: dict[str, Any], says: str
) -> None:
    job = world.create(schedule="0 4 * * *" if cron else None)
    world.do("confirm", job)
    told = world.told()
    with pytest.raises(Conflict, match=says):
        world.update(job, **values)
    assert world.told() == told
    assert world.update(job, name="renamed", max_retained_pipeline_runs=3).name == "renamed"


@pytest.mark.parametrize("cron", [False, True])
def test_aborting_cancels_innermost_first_and_once(world: World, cron: bool) -> None:
    job = world.create(
        schedule="0 4 * * *" if cron else None, strategy={"pipeline_parameters": {"x": [1, 2]}}
    )
    with pytest.raises(Conflict, match="draft"):
        world.do("abort", job)
    world.do("confirm", job)
    if cron:
        world.do("trigger", job)
    before = len(world.told())
    assert world.do("abort", job).status is JobStatus.ABORTED
    runs = f"{FAMILY[cron]}{':run' if cron else ''}:pipeline-run:cancelled"
    assert world.told()[before:] == [runs, runs, f"{FAMILY[cron]}:cancelled"]
    world.do("abort", job)
    assert len(world.told()) == before + 3
    assert world.get(job).next_scheduled_time is None


@pytest.mark.parametrize("cron", [False, True])
def test_deleting_tells_of_all_it_ends_and_deletes_and_the_events_stay(world: World, cron: bool) -> None:
    job = world.create(schedule="0 4 * * *" if cron else None)
    world.do("confirm", job)
    if cron:
        world.do("trigger", job)
    before = len(world.told())
    with world.sessions.begin() as session:
        assert len(jobs.delete_job(session, world.site, world.project, job)) == 1
    family, runs = FAMILY[cron], f"{FAMILY[cron]}{':run' if cron else ''}:pipeline-run"
    assert world.told()[before:] == [
        f"{runs}:cancelled",
        f"{family}:cancelled",
        f"{runs}:deleted",
        f"{family}:deleted",
    ]
    last = world.events()[-1].notification["project"]["job"]
    assert (last["uuid"], last["name"], last["status"]) == (job, "j", "ABORTED")
    with pytest.raises(NotFound):
        world.do("abort", job)


def test_a_copy_is_a_draft_of_the_same(world: World) -> None:
    job = world.create(
        strategy={"pipeline_parameters": {"x": [1, 2]}}, schedule="0 4 * * *", env_variables={"J": "1"}
    )
    world.do("confirm", job)
    with world.sessions.begin() as session:
        copy = jobs.duplicate_job(
            session, world.site, world.project, job, Snapshot(Path("/other"), 5), uuid=new_uuid()
        )
    old, new = world.get(job), world.get(copy.uuid)
    assert (new.name, new.status, new.snapshot_path) == ("Copy of j", JobStatus.DRAFT, "/other")
    for same in ("schedule", "timezone", "strategy", "parameters", "env_variables", "definition"):
        assert getattr(new, same) == getattr(old, same)
    assert world.told()[-1] == "project:cron-job:created"


def test_a_job_of_another_project_is_not_found(world: World) -> None:
    job = world.create()
    with world.sessions.begin() as session:
        other = Project(name="o", path="/elsewhere", created=NOW)
        session.add(other)
        session.flush()
        for service in (jobs.confirm_job, jobs.abort_job, jobs.delete_job, jobs.pause_job, jobs.trigger_job):
            with pytest.raises(NotFound):
                service(session, world.site, other.uuid, job)


def test_a_snapshot_has_the_files_and_nothing_else(tmp_path: Path, world: World) -> None:
    source = tmp_path / "source"
    (source / "__pycache__").mkdir(parents=True)
    (source / "a.py").write_text("12345")
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    snapshot = take_snapshot(world.site, source, "job")
    assert sorted(path.name for path in snapshot.path.iterdir()) == ["a.py", "link"]
    assert (snapshot.path / "link").is_symlink()
    assert snapshot.size == 5 + len("/etc/passwd")
    with pytest.raises(ClarionError, match="could not be copied"):
        take_snapshot(world.site, tmp_path / "nothing", "other")
    assert not (world.site.jobs / "other").exists()
