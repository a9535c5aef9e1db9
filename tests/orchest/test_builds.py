"""Builds on real processes: what they make, print and leave, how they end, and one event a transition."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Engine, select

from orchest import builds, environments
from orchest.builders import Builders, sweep
from orchest.building import Bounds
from orchest.events import EnvironmentImageBuildEvent, JupyterImageBuildEvent
from orchest.executor.processes import identify
from orchest.models import Environment, EnvironmentImageBuild, JupyterImageBuild, PipelineRun, Status
from tests.orchest.building import eventually
from tests.orchest.installation import BARE, Installation

FAMILY = "project:environment:image-build:"


@pytest.fixture
def here(database_url: str, orchest_engine: Engine, tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(database_url, tmp_path / "installation")
    yield installation
    installation.platform.close()


@pytest.fixture
def environment(here: Installation) -> Environment:
    project = here.project()
    made: Environment = here.change(
        lambda s: environments.create_environment(s, here.site, project.uuid, name="env", base=BARE)
    )
    return made


def request(here: Installation, environment: Environment, script: str = "") -> EnvironmentImageBuild:
    def act(session: Any) -> EnvironmentImageBuild:
        row = session.get_one(Environment, environment.uuid)
        row.setup_script = script
        session.flush()
        return builds.request_build(session, here.site, row)

    made: EnvironmentImageBuild = here.change(act)
    return made


def cancel(here: Installation, build: EnvironmentImageBuild) -> bool:
    done: bool = here.change(
        lambda s: builds.cancel_build(s, here.site, s.get_one(EnvironmentImageBuild, build.uuid))
    )
    return done


def status(build: Any) -> Any:
    return select(type(build).status).where(type(build).uuid == build.uuid)


def reason(here: Installation, build: Any) -> str:
    text: str = here.read(select(type(build).reason).where(type(build).uuid == build.uuid))
    return text


def log(here: Installation, build: EnvironmentImageBuild) -> str:
    path = builds.directory_of(here.site, build) / "log.txt"
    return path.read_text() if path.exists() else ""


def pid_in(here: Installation, build: EnvironmentImageBuild) -> int:
    """The process id that the set-up script has printed on a line of its own."""
    eventually(lambda: any(line.isdigit() for line in log(here, build).splitlines()), "a pid in the log")
    return next(int(line) for line in log(here, build).splitlines() if line.isdigit())


def gone(pid: int) -> None:
    eventually(lambda: identify(pid) is None, f"process {pid} has ended")


def verbs(here: Installation) -> list[str]:
    return [told.removeprefix(FAMILY) for told in here.told(EnvironmentImageBuildEvent)]


def test_a_build_makes_the_environment_and_runs_the_script_in_it(
    here: Installation, environment: Environment
) -> None:
    directory = Path(here.root / "project")
    (directory / "requirements.txt").write_text("found in the project")
    script = 'cat requirements.txt; python -c "import sys; print(sys.prefix)"; touch "$VIRTUAL_ENV/made"'
    with here.working(Builders(here.platform)):
        build = request(here, environment, script)
        here.eventually(status(build), Status.SUCCESS)
    image = builds.directory_of(here.site, build) / "venv"
    assert (image / "made").exists()
    assert "found in the project" in log(here, build)
    assert str(image) in log(here, build)
    assert verbs(here) == ["created", "started", "succeeded"]
    assert [p["project"]["environment"]["image_build"]["status"] for p in payloads(here)] == [
        "PENDING",
        "STARTED",
        "SUCCESS",
    ]


def payloads(here: Installation) -> list[dict[str, Any]]:
    return here.payloads(EnvironmentImageBuildEvent)


def test_the_notification_of_a_build_is_not_empty(here: Installation, environment: Environment) -> None:
    """Original: it was."""
    request(here, environment)
    [payload] = payloads(here)
    told = payload["project"]["environment"]["image_build"]
    assert told.keys() == {"image_tag", "status", "requested_time", "started_time", "finished_time"}
    assert (told["image_tag"], told["started_time"]) == (1, None)


def test_the_script_sees_nothing_of_the_platforms_secrets(
    here: Installation, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLARION_DATABASE_URL", "postgresql://secret-word@host/db")
    monkeypatch.setenv("PIP_INDEX_URL", "http://mirror.example/simple")
    with here.working(Builders(here.platform)):
        build = request(here, environment, "env")
        here.eventually(status(build), Status.SUCCESS)
    assert "secret-word" not in log(here, build)
    assert "PIP_INDEX_URL=http://mirror.example/simple" in log(here, build)
    assert "ORCHEST_GPU_SUPPORT=false" in log(here, build)


def test_a_script_that_fails_fails_the_build_at_its_first_failure(
    here: Installation, environment: Environment
) -> None:
    with here.working(Builders(here.platform)):
        build = request(here, environment, "(exit 3)\necho not reached")
        here.eventually(status(build), Status.FAILURE)
    assert reason(here, build) == "the set-up script ended with exit code 3"
    assert "not reached" not in log(here, build)
    assert verbs(here) == ["created", "started", "failed"]
    assert not (builds.directory_of(here.site, build) / "venv").exists()


def test_a_base_that_is_not_there_fails_the_build(here: Installation, environment: Environment) -> None:
    here.change(
        lambda s: environments.update_environment(
            s, environment.project_uuid, environment.uuid, {"base": "python3.99"}
        )
    )
    with here.working(Builders(here.platform)):
        build = request(here, environment)
        here.eventually(status(build), Status.FAILURE)
    assert reason(here, build) == "could not be built: there is no interpreter python3.99 on this machine"


def test_a_build_that_takes_too_long_fails(here: Installation, environment: Environment) -> None:
    with here.working(Builders(here.platform, Bounds(time_limit=3, grace=0.5))):
        build = request(here, environment, "echo $$; exec sleep 60")
        pid = pid_in(here, build)
        here.eventually(status(build), Status.FAILURE)
        gone(pid)
    assert reason(here, build) == "it took longer than 3 s"


def test_a_build_that_prints_without_end_fails(here: Installation, environment: Environment) -> None:
    with here.working(Builders(here.platform, Bounds(most_log=100_000, poll=0.05, grace=0.5))):
        build = request(here, environment, "yes")
        here.eventually(status(build), Status.FAILURE)
    assert reason(here, build) == "it printed more than 100000 bytes"


def test_the_log_can_be_read_while_it_runs(here: Installation, environment: Environment) -> None:
    with here.working(Builders(here.platform)):
        build = request(here, environment, "echo half; until [ -e go ]; do sleep 0.05; done; echo whole")
        eventually(lambda: "half\n" in log(here, build), "the first line")
        assert here.read(status(build)) is Status.STARTED
        (here.root / "project" / "go").touch()
        here.eventually(status(build), Status.SUCCESS)
    assert "half\nwhole\n" in log(here, build)


def test_a_cancelled_build_and_all_it_started_is_killed(here: Installation, environment: Environment) -> None:
    script = "setsid sh -c 'echo $$; exec sleep 60' & wait"
    with here.working(Builders(here.platform, Bounds(grace=0.5))):
        build = request(here, environment, script)
        pid = pid_in(here, build)
        assert cancel(here, build)
        gone(pid)
        image = builds.directory_of(here.site, build) / "venv"
        eventually(lambda: not image.exists(), "what was built is removed")
    assert here.read(status(build)) is Status.ABORTED
    assert verbs(here) == ["created", "started", "cancelled"]


def test_a_waiting_build_is_cancelled_without_having_started(
    here: Installation, environment: Environment
) -> None:
    build = request(here, environment)
    assert cancel(here, build)
    assert not cancel(here, build)
    with here.working(Builders(here.platform)):
        second = request(here, environment)
        here.eventually(status(second), Status.SUCCESS)
    assert verbs(here) == ["created", "cancelled", "created", "started", "succeeded"]


def test_a_new_build_aborts_the_one_under_way(here: Installation, environment: Environment) -> None:
    with here.working(Builders(here.platform, Bounds(grace=0.5))):
        first = request(here, environment, "echo $$; exec sleep 60")
        pid = pid_in(here, first)
        second = request(here, environment, "true")
        here.eventually(status(second), Status.SUCCESS)
        gone(pid)
    assert here.read(status(first)) is Status.ABORTED
    assert reason(here, first) == "a newer build was requested"
    assert (first.image_tag, second.image_tag) == (1, 2)
    assert verbs(here) == ["created", "started", "cancelled", "created", "started", "succeeded"]


def test_steps_keep_what_was_built_until_a_new_build_succeeds(
    here: Installation, environment: Environment
) -> None:
    def interpreter() -> Path:
        with here.platform.readers() as session:
            return environments.interpreter_of(session, environment)

    with here.working(Builders(here.platform)):
        first = request(here, environment)
        here.eventually(status(first), Status.SUCCESS)
        old = interpreter()
        failing = request(here, environment, "false")
        here.eventually(status(failing), Status.FAILURE)
        assert interpreter() == old
        third = request(here, environment)
        here.eventually(status(third), Status.SUCCESS)
        assert interpreter() == builds.directory_of(here.site, third) / "venv/bin/python"


def test_a_replaced_image_goes_when_no_run_uses_it(here: Installation, environment: Environment) -> None:
    now = here.site.clock()
    run = PipelineRun(
        project_uuid=environment.project_uuid,
        pipeline_uuid="p",
        pipeline_name="p",
        number=1,
        definition={},
        status=Status.STARTED,
        requested=now,
        started=now,
    )
    with here.working(Builders(here.platform)):
        first = request(here, environment)
        here.eventually(status(first), Status.SUCCESS)
        here.change(lambda session: session.add(run))
        second = request(here, environment)
        here.eventually(status(second), Status.SUCCESS)
    old = builds.directory_of(here.site, first) / "venv"
    sweep(here.platform)
    assert old.exists()

    def end(session: Any) -> None:
        row = session.get(PipelineRun, run.uuid)
        row.status, row.finished = Status.SUCCESS, now

    here.change(end)
    sweep(here.platform)
    assert not old.exists()
    assert (builds.directory_of(here.site, second) / "venv").exists()
    assert "Done" in log(here, first)


def test_no_more_builds_run_at_once_than_allowed(here: Installation, environment: Environment) -> None:
    other = here.change(
        lambda s: environments.create_environment(
            s, here.site, environment.project_uuid, name="other", base=BARE
        )
    )
    with here.working(Builders(here.platform), Builders(here.platform)):
        first = request(here, environment, "until [ -e go ]; do sleep 0.05; done")
        here.eventually(status(first), Status.STARTED)
        second = request(here, other, "true")
        here.platform.workers[0].look()  # type: ignore[attr-defined]
        here.platform.workers[1].look()  # type: ignore[attr-defined]
        assert here.read(status(second)) is Status.PENDING
        (here.root / "project" / "go").touch()
        here.eventually(status(first), Status.SUCCESS)
        here.eventually(status(second), Status.SUCCESS)
    assert sorted(verbs(here)) == sorted(["created", "started", "succeeded"] * 2)


def test_a_platform_that_stops_fails_its_builds(here: Installation, environment: Environment) -> None:
    with here.working(Builders(here.platform, Bounds(grace=0.5))):
        build = request(here, environment, "echo $$; exec sleep 60")
        pid = pid_in(here, build)
    assert here.read(status(build)) is Status.FAILURE
    assert reason(here, build) == "the platform was stopped while it was built"
    assert identify(pid) is None


def test_jupyterlab_is_built_from_the_users_script(here: Installation) -> None:
    def ask(script: str) -> JupyterImageBuild:
        made: JupyterImageBuild = here.change(lambda s: builds.request_jupyter_build(s, here.site, script))
        return made

    with here.working(Builders(here.platform, Bounds(grace=0.5))):
        first = ask("sleep 60")
        here.eventually(status(first), Status.STARTED)
        second = ask("echo lab; pwd")
        here.eventually(status(second), Status.SUCCESS, 60)
    directory = here.site.environments / "jupyter" / "2"
    assert f"lab\n{directory}\n" in (directory / "log.txt").read_text()
    assert [told.removeprefix("jupyter:image-build:") for told in here.told(JupyterImageBuildEvent)] == [
        "created",
        "started",
        "cancelled",
        "created",
        "started",
        "succeeded",
    ]


def test_builds_requested_at_once_leave_one(here: Installation, environment: Environment) -> None:
    together = Barrier(4)

    def ask(_: int) -> int:
        together.wait(20)
        return request(here, environment).image_tag

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(ask, range(4))) == [1, 2, 3, 4]
    assert verbs(here) == ["created", *["cancelled", "created"] * 3]


def test_jupyterlab_requested_at_once_leaves_one(here: Installation) -> None:
    together = Barrier(4)

    def ask(_: int) -> int:
        together.wait(20)
        tag: int = here.change(lambda s: builds.request_jupyter_build(s, here.site, "")).image_tag
        return tag

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(ask, range(4))) == [1, 2, 3, 4]
    told = [told.removeprefix("jupyter:image-build:") for told in here.told(JupyterImageBuildEvent)]
    assert told == ["created", *["cancelled", "created"] * 3]


def test_a_build_cancelled_while_it_ends_has_one_end(here: Installation, environment: Environment) -> None:
    for _ in range(5):
        build = request(here, environment)
        [taken] = here.change(lambda s: builds.claim_builds(s, here.site, "one"))
        together = Barrier(2)

        def finish(taken: builds.Assignment = taken, together: Barrier = together) -> bool:
            together.wait(20)
            done: bool = here.change(
                lambda s: builds.finish_build(s, here.site, taken, "one", image=None, reason="it failed")
            )
            return done

        def stop(build: EnvironmentImageBuild = build, together: Barrier = together) -> bool:
            together.wait(20)
            return cancel(here, build)

        with ThreadPoolExecutor(2) as threads:
            ended = [threads.submit(finish), threads.submit(stop)]
            assert sorted(one.result(30) for one in ended) == [False, True]
    assert len(verbs(here)) == 15
