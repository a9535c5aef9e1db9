"""Deleting a project or a pipeline ends what it contains, innermost first; other projects stay."""

from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clarion.errors import NotFound
from clarion.events import Event
from orchest.deletion import delete_pipeline, delete_project
from orchest.models import (
    CronRun,
    Environment,
    EnvironmentImageBuild,
    InteractiveSession,
    Job,
    Pipeline,
    PipelineRun,
    Project,
    Status,
)
from orchest.site import Site
from tests.orchest.world import NOW, World

MODELS = (
    Project,
    Pipeline,
    Environment,
    EnvironmentImageBuild,
    InteractiveSession,
    Job,
    CronRun,
    PipelineRun,
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site("https://orchest.example", tmp_path, lambda: NOW)


def types(session: Session) -> list[str]:
    return list(session.scalars(select(Event.type).order_by(Event.sequence)))


def counts(session: Session) -> dict[str, int]:
    return {model.__name__: session.scalar(select(func.count()).select_from(model)) or 0 for model in MODELS}


def before(types: list[str], first: str, second: str) -> bool:
    """Whether the last ``first`` comes before the first ``second``."""
    return len(types) - types[::-1].index(first) - 1 < types.index(second)


def test_a_project_goes_with_all_it_contains(session: Session, world: World, site: Site) -> None:
    other = Project(name="other", path="/other", created=NOW)
    session.add(other)
    session.flush()
    remains = delete_project(session, site, world.project.uuid)
    told = types(session)
    run, job = "project:one-off-job:pipeline-run:deleted", "project:one-off-job:deleted"
    cron_run, cron = "project:cron-job:run:pipeline-run:deleted", "project:cron-job:deleted"
    assert before(told, run, job)
    assert before(told, cron_run, cron)
    assert before(told, "project:pipeline:interactive-session:stopped", "project:pipeline:deleted")
    assert told[-1] == "project:deleted"
    for kind in (job, cron, "project:pipeline:deleted", "project:environment:deleted"):
        assert told.count(kind) == 1, kind
        assert before(told, kind, "project:deleted")
    assert counts(session) == {**dict.fromkeys(counts(session), 0), "Project": 1}
    assert session.get(Project, other.uuid) is not None
    assert remains.environments == [world.environment.uuid]
    assert {world.job_run.uuid, world.live_run.uuid} <= set(remains.runs)


def test_what_is_under_way_is_cancelled_before_it_is_deleted(
    session: Session, world: World, site: Site
) -> None:
    job_run, live_run = world.job_run, world.live_run
    for run in (job_run, live_run):
        run.status, run.started, run.finished = Status.STARTED, NOW, None
    live_run.session_uuid = world.live.uuid
    session.flush()
    delete_project(session, site, world.project.uuid)
    told = types(session)
    inner = "project:one-off-job:pipeline-run"
    assert before(told, f"{inner}:cancelled", f"{inner}:deleted")
    live = "project:pipeline:interactive-session"
    assert before(told, f"{live}:pipeline-run:cancelled", f"{live}:stopped")


def test_a_pipeline_leaves_its_jobs(session: Session, world: World, site: Site) -> None:
    delete_pipeline(session, site, world.project.uuid, world.pipeline.uuid)
    told = types(session)
    assert told[-2:] == ["project:pipeline:interactive-session:stopped", "project:pipeline:deleted"]
    left = counts(session)
    assert (left["Pipeline"], left["InteractiveSession"]) == (0, 0)
    assert left["Job"] == 2
    runs = session.scalars(select(PipelineRun.uuid).where(PipelineRun.job_uuid.is_(None))).all()
    assert runs == []


def test_what_is_not_there(session: Session, world: World, site: Site) -> None:
    with pytest.raises(NotFound):
        delete_project(session, site, world.pipeline.uuid)
    with pytest.raises(NotFound):
        delete_pipeline(session, site, world.project.uuid, world.project.uuid)
    assert types(session) == []
