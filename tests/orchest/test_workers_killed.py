"""A platform killed in the middle of a build and of a session: what it left is found, ended and told of."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from orchest import builds, environments, sessions
from orchest.builders import Builders
from orchest.events import EnvironmentImageBuildEvent, SessionEvent
from orchest.executor.processes import identify
from orchest.hosting import Hosts
from orchest.models import Environment, EnvironmentImageBuild, InteractiveSession, SessionStatus, Status
from tests.orchest.building import eventually
from tests.orchest.installation import BARE, Installation

TREE = "setsid sleep 62 & echo $!; wait"
"""Prints the pid of a process that leaves its session, so that only the mark still says whose it is."""


@pytest.fixture
def here(database_url: str, orchest_engine: Engine, tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(database_url, tmp_path / "installation")
    yield installation
    installation.platform.close()


@pytest.fixture
def other(here: Installation, database_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process of the same installation, with workers."""
    command = [sys.executable, "-m", "tests.orchest.workers_program", database_url, str(here.root)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def pid_in(log: Path) -> int:
    def pids() -> list[int]:
        return [int(line) for line in log.read_text().splitlines() if line.isdigit()] if log.exists() else []

    eventually(lambda: bool(pids()), f"a pid in {log}", 60)
    return pids()[0]


def gone(pid: int) -> None:
    eventually(lambda: identify(pid) is None, f"process {pid} has ended")


def building(here: Installation) -> tuple[EnvironmentImageBuild, int]:
    """A build that the other process has begun, and the process its script started."""
    project = here.project()

    def act(session: Any) -> EnvironmentImageBuild:
        environment = environments.create_environment(
            session, here.site, project.uuid, name="env", base=BARE, setup_script=TREE
        )
        return builds.request_build(session, here.site, environment)

    build = here.change(act)
    return build, pid_in(builds.directory_of(here.site, build) / "log.txt")


def hosting(here: Installation) -> tuple[InteractiveSession, int]:
    """A session that the other process hosts, and the process its service started."""
    project = here.project("with-session")
    pipeline = here.pipeline(project, {"a": {"command": "sh -c", "args": f"'{TREE}'"}})
    live = here.change(lambda s: sessions.start_session(s, here.site, project.uuid, pipeline.uuid))
    pid = pid_in(sessions.directory_of(here.site, live.uuid) / "0.log")
    here.eventually(select(InteractiveSession.status).filter_by(uuid=live.uuid), SessionStatus.RUNNING, 60)
    return live, pid


def test_a_build_whose_builder_was_killed_fails_with_a_reason(
    here: Installation, other: subprocess.Popen[bytes]
) -> None:
    build, pid = building(here)
    other.kill()
    other.wait(20)
    with here.working(Builders(here.platform)):
        here.eventually(select(EnvironmentImageBuild.status).filter_by(uuid=build.uuid), Status.FAILURE)
        gone(pid)
        directory = builds.directory_of(here.site, build)
        eventually(lambda: not (directory / "venv").exists(), "what was built is removed")
    reason = here.read(select(EnvironmentImageBuild.reason).filter_by(uuid=build.uuid))
    assert reason == "the process that built it has ended"
    assert [told.rsplit(":", 1)[1] for told in here.told(EnvironmentImageBuildEvent)] == [
        "created",
        "started",
        "failed",
    ]
    assert (directory / "log.txt").exists()


def test_a_session_whose_host_was_killed_fails_and_its_services_end(
    here: Installation, other: subprocess.Popen[bytes]
) -> None:
    live, pid = hosting(here)
    other.kill()
    other.wait(20)
    with here.working(Hosts(here.platform)):
        here.eventually(select(InteractiveSession.status).filter_by(uuid=live.uuid), None)
        gone(pid)
        eventually(lambda: not (here.site.sessions / live.uuid).exists(), "its directory is removed")
    verbs = [told.rsplit(":", 1)[1] for told in here.told(SessionEvent)]
    assert verbs == ["started", "succeeded", "failed"]


def test_a_session_that_was_stopping_when_its_host_was_killed_is_stopped(
    here: Installation, other: subprocess.Popen[bytes]
) -> None:
    live, pid = hosting(here)
    other.kill()
    other.wait(20)
    here.change(lambda s: sessions.stop_session(s, here.site, live.project_uuid, live.pipeline_uuid))
    with here.working(Hosts(here.platform)):
        here.eventually(select(InteractiveSession.status).filter_by(uuid=live.uuid), None)
        gone(pid)
    assert [told.rsplit(":", 1)[1] for told in here.told(SessionEvent)][-1] == "stopped"


def test_what_is_deleted_while_its_worker_is_dead_is_cleared_up_by_the_next(
    here: Installation, other: subprocess.Popen[bytes]
) -> None:
    build, of_build = building(here)
    live, of_session = hosting(here)
    other.kill()
    other.wait(20)

    def delete(session: Any) -> None:
        sessions.end_session(session, here.site, live.project_uuid, live.pipeline_uuid)
        environment = session.get_one(Environment, build.environment_uuid)
        environments.delete_environment(session, here.site, environment)

    here.change(delete)
    assert identify(of_build) is not None
    assert identify(of_session) is not None
    with here.working(Builders(here.platform), Hosts(here.platform)):
        gone(of_build)
        gone(of_session)
    assert not (here.site.environments / build.environment_uuid).exists()
    assert not (here.site.sessions / live.uuid).exists()
