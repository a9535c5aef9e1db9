"""The scheduler: one of many fires, what was missed is made up for once, and a killed one is replaced."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from clarion.events import Event
from clarion.outbox import Recording
from orchest import jobs, scheduler
from orchest.models import (
    CronRun,
    Environment,
    Job,
    JobStatus,
    Language,
    PipelineRun,
    Project,
    SchedulerLease,
)
from orchest.site import Site
from tests.orchest.building import document, eventually

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class World:
    """A project, a clock, and jobs on a schedule."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.clock = Clock()
        self.site = Site("http://here", root, clock=self.clock)
        self.sessions = sessionmaker(engine, info=Recording(clock=self.clock).info())
        with self.sessions.begin() as session:
            project = Project(name="p", path=str(root), created=NOW)
            session.add(project)
            session.flush()
            self.project = project.uuid

    def job(self, **values: object) -> str:
        with self.sessions.begin() as session:
            job = Job(
                project=session.get_one(Project, self.project),
                pipeline_uuid="p",
                name="j",
                pipeline_name="q",
                definition=document({"a": {}}),
                parameters=[{}],
                created=NOW,
                **{"status": JobStatus.STARTED, "started": NOW, **values},
            )
            session.add(job)
            session.flush()
            return job.uuid

    def fire(self, job: str) -> bool:
        with self.sessions.begin() as session:
            return scheduler.fire(session, self.site, job)

    def scheduled(self, job: str) -> list[datetime | None]:
        with self.sessions() as session:
            query = select(CronRun.scheduled).where(CronRun.job_uuid == job).order_by(CronRun.number)
            return list(session.scalars(query))

    def get(self, job: str) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, job)

    def told(self) -> list[str]:
        with self.sessions() as session:
            return list(session.scalars(select(Event.type).order_by(Event.sequence)))


@pytest.fixture
def world(orchest_engine: Engine, tmp_path: Path) -> World:
    return World(orchest_engine, tmp_path)


def test_what_is_due_is_fired_once_and_the_next_time_is_set(world: World) -> None:
    job = world.job(schedule="*/5 * * * *", next_scheduled_time=NOW)
    assert world.fire(job)
    assert not world.fire(job)
    assert world.scheduled(job) == [NOW]
    assert world.get(job).next_scheduled_time == NOW + timedelta(minutes=5)
    assert world.told() == ["project:cron-job:run:started", "project:cron-job:run:pipeline-run:created"]


def test_times_missed_while_nothing_ran_are_made_up_for_by_one_run_for_the_latest(world: World) -> None:
    job = world.job(schedule="*/5 * * * *", next_scheduled_time=NOW)
    world.clock.now = NOW + timedelta(days=3, minutes=2)
    assert world.fire(job)
    assert world.scheduled(job) == [NOW + timedelta(days=3)]
    assert world.get(job).next_scheduled_time == NOW + timedelta(days=3, minutes=5)


def test_a_paused_job_misses_nothing(world: World) -> None:
    job = world.job(schedule="*/5 * * * *", next_scheduled_time=NOW)
    with world.sessions.begin() as session:
        jobs.pause_job(session, world.site, world.project, job)
    assert world.get(job).next_scheduled_time is None
    world.clock.now = NOW + timedelta(hours=1, minutes=1)
    assert not world.fire(job)
    with world.sessions.begin() as session:
        jobs.resume_job(session, world.site, world.project, job)
    assert world.get(job).next_scheduled_time == NOW + timedelta(hours=1, minutes=5)
    assert world.scheduled(job) == []
    assert world.told() == ["project:cron-job:paused", "project:cron-job:unpaused"]


def test_a_schedule_that_became_unusable_fails_its_job(world: World) -> None:
    job = world.job(schedule="0 4 * * *", timezone="Gone/Zone", next_scheduled_time=NOW)
    assert world.fire(job)
    failed = world.get(job)
    assert (failed.status, failed.next_scheduled_time) == (JobStatus.FAILURE, None)
    assert failed.reason is not None
    assert "Gone/Zone" in failed.reason
    assert world.told() == ["project:cron-job:failed"]
    assert not world.fire(job)


def test_a_job_no_run_of_which_can_be_created_fails(world: World) -> None:
    with world.sessions.begin() as session:
        environment = Environment(
            project_uuid=world.project, name="never built", base="b", language=Language.PYTHON, created=NOW
        )
        session.add(environment)
        session.flush()
        definition = document({"a": {"environment": environment.uuid}})
    for schedule in ("*/5 * * * *", None):
        status = JobStatus.STARTED if schedule else JobStatus.PENDING
        job = world.job(schedule=schedule, status=status, next_scheduled_time=NOW)
        with world.sessions.begin() as session:
            session.execute(update(Job).where(Job.uuid == job).values(definition=definition))
        assert world.fire(job)
        assert "never built" in (world.get(job).reason or "")
        assert world.scheduled(job) == []
    assert world.told() == ["project:cron-job:failed", "project:one-off-job:failed"]


def test_a_job_slower_than_its_schedule_does_not_pile_up_runs(world: World) -> None:
    job = world.job(schedule="*/5 * * * *", next_scheduled_time=NOW)
    for _ in range(jobs.MOST_OPEN_RUNS + 3):
        assert world.fire(job)
        world.clock.now += timedelta(minutes=5)
    assert len(world.scheduled(job)) == jobs.MOST_OPEN_RUNS
    assert world.get(job).next_scheduled_time == world.clock.now


def test_a_job_scheduled_once_starts_at_its_time(world: World) -> None:
    later = NOW + timedelta(hours=1)
    job = world.job(status=JobStatus.PENDING, next_scheduled_time=later)
    assert not world.fire(job)
    world.clock.now = later
    assert world.fire(job)
    assert (world.get(job).total_runs, world.get(job).next_scheduled_time) == (1, None)
    assert not world.fire(job)


def test_a_job_that_cannot_be_fired_holds_up_no_other_and_is_not_tried_without_a_pause(world: World) -> None:
    broken = world.job(schedule="* * * * *", next_scheduled_time=NOW)
    sound = world.job(schedule="* * * * *", next_scheduled_time=NOW)
    with world.sessions.begin() as session:
        session.execute(update(Job).where(Job.uuid == broken).values(parameters=[1]))
    platform: Any = SimpleNamespace(
        sessions=world.sessions, readers=world.sessions, site=world.site, nudge=lambda: None
    )
    due = scheduler.Scheduler(platform)
    assert due.look() == scheduler.POLL
    assert (world.scheduled(broken), world.scheduled(sound)) == ([], [NOW])
    with world.sessions.begin() as session:
        session.execute(update(Job).where(Job.uuid == broken).values(parameters=[{}]))
    assert due.look() == 0.0
    assert world.scheduled(broken) == [NOW]


def test_one_of_two_holds_the_lease_until_it_runs_out(world: World) -> None:
    def hold(holder: str) -> bool:
        with world.sessions.begin() as session:
            return scheduler.hold_lease(session, holder, world.clock.now)

    def holds(holder: str) -> bool:
        with world.sessions.begin() as session:
            return scheduler.holds_lease(session, holder, world.clock.now)

    assert (hold("a"), hold("b"), hold("a")) == (True, False, True)
    assert (holds("a"), holds("b")) == (True, False)
    world.clock.now += scheduler.TTL
    assert not holds("a")
    assert (hold("b"), hold("a")) == (True, False)
    with world.sessions.begin() as session:
        scheduler.give_up_lease(session, "a", world.clock.now)  # not its own: nothing changes
        scheduler.give_up_lease(session, "b", world.clock.now)
    assert hold("a")


PROGRAM = """
import sys
from datetime import timedelta
from pathlib import Path
from clarion.addresses import EgressPolicy
from orchest.platform import open_platform
from orchest.scheduler import Scheduler
from orchest.site import Site
platform = open_platform(Site("http://here", Path(sys.argv[2])), sys.argv[1], EgressPolicy())
scheduler = Scheduler(platform, ttl=timedelta(seconds=1.5))
scheduler.start()
print(scheduler.owner, flush=True)
scheduler._thread.join()
"""


class Process:
    """A scheduler in a process of its own."""

    def __init__(self, url: str, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.holder = self.process.stdout.readline().strip()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def pair(world: World, database_url: str, tmp_path: Path) -> Iterator[list[Process]]:
    processes = [Process(database_url, tmp_path) for _ in range(2)]
    yield processes
    for process in processes:
        process.kill()


def test_of_two_schedulers_one_fires_and_when_it_is_killed_the_other_does(
    world: World, pair: list[Process], database_url: str, tmp_path: Path
) -> None:
    world.clock.now = datetime.now(UTC)
    start = world.clock.now.replace(microsecond=0) + timedelta(seconds=1)
    job = world.job(schedule="* * * * * *", next_scheduled_time=start)

    def holder() -> str | None:
        with world.sessions() as session:
            return session.scalar(select(SchedulerLease.holder))

    def end_what_is_open(session: Session) -> None:
        """As if its runs were done: too many open ones would stop it."""
        session.execute(update(PipelineRun).values(status="ABORTED", finished=datetime.now(UTC)))
        session.execute(update(CronRun).values(status="ABORTED", finished=datetime.now(UTC)))

    killed = 0
    while killed < 2:
        before = len(world.scheduled(job))
        eventually(lambda before=before: len(world.scheduled(job)) > before + 1, "the schedule is fired")
        with world.sessions.begin() as session:
            end_what_is_open(session)
        found = next(process for process in pair if process.holder == holder())
        found.kill()
        killed += 1
        pair.remove(found)
        pair.append(Process(database_url, tmp_path))

    scheduled = world.scheduled(job)
    assert len(set(scheduled)) == len(scheduled) >= 4
    assert scheduled == sorted(scheduled, key=str)
    assert None not in scheduled
    with world.sessions() as session:
        by_run = select(func.count()).select_from(PipelineRun).group_by(PipelineRun.cron_run_uuid)
        assert set(session.scalars(by_run)) == {1}
