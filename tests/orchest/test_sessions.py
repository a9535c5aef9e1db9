"""Interactive sessions on real services: start, run, restart, fail, stop, and one event a transition."""

import os
import signal
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Engine, select

from clarion.errors import Conflict, InvalidInput, NotFound
from clarion.testing import FrozenClock
from orchest import sessions
from orchest.events import InteractivePipelineRunEvent, SessionEvent
from orchest.executor.processes import identify
from orchest.failures import Failure, last_failure
from orchest.hosting import Hosts, Patience, sweep
from orchest.models import InteractiveSession, Pipeline, PipelineRun, ServiceProcess, SessionStatus, Status
from tests.orchest.building import eventually
from tests.orchest.installation import Installation

QUICK = Patience(ready_within=20, settled=0.2, poll=0.1, grace=1.0)
FAMILY = "project:pipeline:interactive-session:"
WEB = {"command": "python3 -m http.server", "args": "--bind 127.0.0.1 $PORT", "ports": [8080]}
SLEEP = {"command": "sleep 60"}


@pytest.fixture
def here(database_url: str, orchest_engine: Engine, tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(database_url, tmp_path / "installation")
    yield installation
    installation.platform.close()


def start(here: Installation, pipeline: Pipeline) -> InteractiveSession:
    live: InteractiveSession = here.change(
        lambda s: sessions.start_session(s, here.site, pipeline.project_uuid, pipeline.uuid)
    )
    return live


def stop(here: Installation, pipeline: Pipeline) -> None:
    here.change(lambda s: sessions.stop_session(s, here.site, pipeline.project_uuid, pipeline.uuid))


def restart(here: Installation, pipeline: Pipeline, name: str) -> None:
    here.change(lambda s: sessions.restart_service(s, pipeline.project_uuid, pipeline.uuid, name))


def status(live: InteractiveSession) -> Any:
    return select(InteractiveSession.status).where(InteractiveSession.uuid == live.uuid)


def service(here: Installation, live: InteractiveSession, name: str) -> ServiceProcess:
    with here.platform.readers() as session:
        return session.get_one(ServiceProcess, (live.uuid, name))


def running(here: Installation, pipeline: Pipeline) -> InteractiveSession:
    live = start(here, pipeline)
    here.eventually(status(live), SessionStatus.RUNNING)
    return live


def verbs(here: Installation) -> list[str]:
    return [told.removeprefix(FAMILY) for told in here.told(SessionEvent)]


def a_run(here: Installation, live: InteractiveSession, state: Status) -> PipelineRun:
    now = here.site.clock()
    run = PipelineRun(
        project_uuid=live.project_uuid,
        pipeline_uuid=live.pipeline_uuid,
        pipeline_name="pipeline",
        session_uuid=live.uuid,
        number=1,
        definition=live.definition,
        status=state,
        requested=now,
        started=now,
        finished=now if state.final else None,
    )
    here.change(lambda session: session.add(run))
    return run


def fetch(port: int, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def gone(pid: int | None) -> None:
    assert pid is not None
    eventually(lambda: identify(pid) is None, f"process {pid} has ended")


def test_a_session_without_services_runs_and_stops(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {})
    with here.working(Hosts(here.platform, QUICK)):
        live = running(here, pipeline)
        stop(here, pipeline)
        here.eventually(status(live), None)
    assert verbs(here) == ["started", "succeeded", "stopped"]
    statuses = [p["project"]["pipeline"]["session"]["status"] for p in here.payloads(SessionEvent)]
    assert statuses == ["LAUNCHING", "RUNNING", "STOPPING"]


def test_a_service_is_a_real_process_that_answers_on_its_port(here: Installation) -> None:
    project = here.project()
    (Path(project.path) / "hello.txt").write_text("from the project")
    pipeline = here.pipeline(project, {"web": WEB})
    with here.working(Hosts(here.platform, QUICK)):
        live = running(here, pipeline)
        web = service(here, live, "web")
        assert fetch(web.ports["8080"], "/hello.txt") == "from the project"
        assert web.log_path is not None
        eventually(lambda: "GET /hello.txt" in Path(str(web.log_path)).read_text(), "the request in the log")
        stop(here, pipeline)
        here.eventually(status(live), None)
        gone(web.pid)
    assert not (here.site.sessions / live.uuid).exists()


def test_only_the_services_of_the_interactive_scope_are_started(here: Installation) -> None:
    batch = {"command": "false", "scope": ["noninteractive"]}
    pipeline = here.pipeline(here.project(), {"mine": SLEEP, "batch": batch})
    with here.working(Hosts(here.platform, QUICK)):
        live = running(here, pipeline)
        with here.platform.readers() as session:
            names = session.scalars(select(ServiceProcess.name)).all()
    assert names == ["mine"]
    assert live.uuid


def test_a_pipeline_has_one_session_at_most(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {})
    start(here, pipeline)
    with pytest.raises(Conflict, match="has a session already, it is LAUNCHING"):
        start(here, pipeline)
    assert verbs(here) == ["started"]


def test_a_session_nobody_has_taken_is_gone_when_it_is_stopped(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {})
    live = start(here, pipeline)
    stop(here, pipeline)
    assert here.read(status(live)) is None
    assert verbs(here) == ["started", "stopped"]
    with pytest.raises(NotFound, match="has no session"):
        stop(here, pipeline)


def failure(here: Installation, pipeline: Pipeline) -> Failure:
    """Why the pipeline's last session failed."""
    found = last_failure(here.site, pipeline.project_uuid, pipeline.uuid)
    assert found is not None
    return found


def test_a_service_that_cannot_start_fails_the_session(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"a": SLEEP, "b": {"command": "no-such-program"}})
    with here.working(Hosts(here.platform, QUICK)):
        live = start(here, pipeline)
        here.eventually(status(live), None)
    assert verbs(here) == ["started", "failed"]
    assert failure(here, pipeline).reason == "service 'b' ended with exit code 127"
    assert failure(here, pipeline).logs == {
        "b": "cannot execute no-such-program: No such file or directory\n"
    }


def test_a_failure_is_kept_until_the_next_session(here: Installation) -> None:
    project = here.project()
    flag = Path(project.path) / "well"
    needs_flag = {"command": "sh -c", "args": "'test -e well && exec sleep 60'"}
    pipeline = here.pipeline(project, {"a": needs_flag})
    with here.working(Hosts(here.platform, QUICK)):
        live = start(here, pipeline)
        here.eventually(status(live), None)
        assert failure(here, pipeline).reason == "service 'a' ended with exit code 1"
        flag.touch()
        running(here, pipeline)
        assert last_failure(here.site, pipeline.project_uuid, pipeline.uuid) is None


def test_the_failure_of_a_deleted_pipeline_is_swept_away(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"a": {"command": "false"}})
    with here.working(Hosts(here.platform, QUICK)):
        live = start(here, pipeline)
        here.eventually(status(live), None)
    sweep(here.platform)
    assert failure(here, pipeline)
    here.change(lambda s: s.delete(s.get_one(Pipeline, (pipeline.project_uuid, pipeline.uuid))))
    sweep(here.platform)
    assert last_failure(here.site, pipeline.project_uuid, pipeline.uuid) is None


def test_a_service_without_a_command_fails_the_session(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"redis": {"image": "redis:7", "ports": [6379]}})
    with here.working(Hosts(here.platform, QUICK)):
        live = start(here, pipeline)
        here.eventually(status(live), None)
    assert verbs(here) == ["started", "failed"]
    what = "service 'redis' has no command; only processes can be services here"
    assert failure(here, pipeline).reason == what


def test_a_service_that_never_answers_fails_the_session(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"mute": {**SLEEP, "ports": [80]}})
    with here.working(Hosts(here.platform, Patience(ready_within=0.5, grace=1.0))):
        live = start(here, pipeline)
        here.eventually(status(live), None)
    assert verbs(here) == ["started", "failed"]
    assert failure(here, pipeline).reason == "service 'mute' did not answer on its ports within 0.5 s"


def test_a_service_in_an_environment_that_is_not_built_fails_the_session(here: Installation) -> None:
    image = "environment@6b1c5931-8bf7-4587-b3ae-06f7ee5ccb8a"
    pipeline = here.pipeline(here.project(), {"a": {**SLEEP, "image": image}})
    with here.working(Hosts(here.platform, QUICK)):
        live = start(here, pipeline)
        here.eventually(status(live), None)
    assert verbs(here) == ["started", "failed"]


def test_a_restarted_service_keeps_its_ports(here: Installation) -> None:
    """Original: service-restarted could be subscribed to and never fired."""
    pipeline = here.pipeline(here.project(), {"web": WEB})
    with here.working(Hosts(here.platform, QUICK)):
        live = running(here, pipeline)
        before = service(here, live, "web")
        restart(here, pipeline, "web")
        eventually(lambda: service(here, live, "web").pid != before.pid, "another process")
        after = service(here, live, "web")
        gone(before.pid)
        assert after.ports == before.ports
        assert "Directory listing" in fetch(after.ports["8080"])
        assert (after.restarts, after.exit_code) == (1, -signal.SIGTERM)
    assert verbs(here) == ["started", "succeeded", "service-restarted", "stopped"]
    payload = here.payloads(SessionEvent)[2]
    assert payload["summary"] == "Service web of pipeline pipeline was restarted"


@pytest.mark.parametrize(
    ("state", "active"),
    [(None, False), (Status.SUCCESS, False), (Status.PENDING, True), (Status.STARTED, True)],
)
def test_active_runs_says_whether_a_run_is_active_now(
    here: Installation, state: Status | None, active: bool
) -> None:
    """Original: whether one had ever existed."""
    pipeline = here.pipeline(here.project(), {})
    live = start(here, pipeline)
    if state is not None:
        a_run(here, live, state)
    with here.platform.readers() as session:
        row = session.get_one(InteractiveSession, (pipeline.project_uuid, pipeline.uuid))
        assert sessions.has_active_runs(session, row) is active


def kill_and_await_another(here: Installation, live: InteractiveSession, name: str) -> None:
    pid = service(here, live, name).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: service(here, live, name).pid != pid, "another process")


def test_a_service_that_ends_is_restarted_until_it_is_hopeless(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"frail": SLEEP})
    with here.working(Hosts(here.platform, QUICK)):
        live = running(here, pipeline)
        for _ in range(3):
            kill_and_await_another(here, live, "frail")
        last = service(here, live, "frail")
        assert (last.restarts, last.exit_code) == (3, -signal.SIGKILL)
        assert last.pid is not None
        os.kill(last.pid, signal.SIGKILL)
        here.eventually(status(live), None)
    assert verbs(here) == ["started", "succeeded", *["service-restarted"] * 3, "failed"]
    assert failure(here, pipeline).reason == "service 'frail' was killed by SIGKILL, after 3 restarts"


def test_a_service_can_be_restarted_only_while_the_session_runs(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"a": SLEEP})
    start(here, pipeline)
    with pytest.raises(Conflict, match="the session is LAUNCHING"):
        restart(here, pipeline, "a")
    with pytest.raises(NotFound, match="no service 'b'"):
        restart(here, pipeline, "b")


def test_services_find_each_other_and_inherit_variables(here: Installation) -> None:
    show = {
        "command": "sh -c",
        "args": "'echo $0; env; exec sleep 60' shown",
        "env_variables_inherit": ["FROM_PROJECT"],
        "order": 2,
    }
    project = here.project()

    def give(session: Any) -> None:
        session.get_one(type(project), project.uuid).env_variables = {"FROM_PROJECT": "yes", "OTHER": "no"}

    here.change(give)
    pipeline = here.pipeline(project, {"my-web": WEB, "show": show})
    with here.working(Hosts(here.platform, QUICK)):
        live = running(here, pipeline)
        port = service(here, live, "my-web").ports["8080"]
        log = Path(str(service(here, live, "show").log_path))
        eventually(lambda: "FROM_PROJECT=yes" in log.read_text(), "the variables")
        assert f"MY_WEB_SERVICE_PORT={port}\n" in log.read_text()
        assert "OTHER=" not in log.read_text()
        with here.platform.readers() as session:
            row = session.get_one(InteractiveSession, (pipeline.project_uuid, pipeline.uuid))
            assert sessions.service_addresses(row)["MY_WEB_SERVICE_PORT_8080"] == str(port)


def test_stopping_cancels_the_runs_first_and_kills_whole_trees(here: Installation) -> None:
    tree = {"command": "sh -c", "args": "'setsid sleep 61 & echo $!; wait'"}
    pipeline = here.pipeline(here.project(), {"tree": tree})
    with here.working(Hosts(here.platform, QUICK)):
        live = running(here, pipeline)
        a_run(here, live, Status.STARTED)
        log = Path(str(service(here, live, "tree").log_path))
        eventually(lambda: log.read_text().strip().isdigit(), "the pid of the grandchild")
        grandchild = int(log.read_text())
        stop(here, pipeline)
        here.eventually(status(live), None)
        gone(grandchild)
    assert here.read(select(PipelineRun.status)) is Status.ABORTED
    ends = here.told(SessionEvent, InteractivePipelineRunEvent)[-2:]
    assert ends == [FAMILY + "pipeline-run:cancelled", FAMILY + "stopped"]


def test_a_session_can_be_stopped_while_it_is_launching(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"mute": {**SLEEP, "ports": [80]}})
    with here.working(Hosts(here.platform, QUICK)):
        live = start(here, pipeline)
        eventually(lambda: here.read(select(InteractiveSession.owner)) is not None, "a host")
        stop(here, pipeline)
        here.eventually(status(live), None)
    assert verbs(here) == ["started", "stopped"]


def test_a_deleted_pipelines_session_is_ended_and_its_services_killed(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"a": SLEEP})
    with here.working(Hosts(here.platform, QUICK)):
        live = running(here, pipeline)
        pid = service(here, live, "a").pid
        here.change(lambda s: sessions.end_session(s, here.site, pipeline.project_uuid, pipeline.uuid))
        assert here.read(status(live)) is None
        gone(pid)
        eventually(lambda: not (here.site.sessions / live.uuid).exists(), "its directory is removed")
    assert verbs(here) == ["started", "succeeded", "stopped"]


def test_a_platform_that_stops_stops_its_sessions(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"a": SLEEP})
    with here.working(Hosts(here.platform, QUICK)):
        live = running(here, pipeline)
        pid = service(here, live, "a").pid
    gone(pid)
    assert here.read(status(live)) is None
    assert verbs(here) == ["started", "succeeded", "stopped"]


def test_a_service_needs_a_usable_name(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"n" * 300: SLEEP})
    with pytest.raises(InvalidInput, match="1 to 255 characters"):
        start(here, pipeline)
    assert verbs(here) == []


def test_of_two_hosts_one_takes_the_session(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {"a": SLEEP})
    with here.working(Hosts(here.platform, QUICK), Hosts(here.platform, QUICK)):
        live = running(here, pipeline)
        stop(here, pipeline)
        here.eventually(status(live), None)
    assert verbs(here) == ["started", "succeeded", "stopped"]


def test_of_sessions_started_at_once_there_is_one(here: Installation) -> None:
    pipeline = here.pipeline(here.project(), {})
    together = Barrier(4)

    def begin(_: int) -> bool:
        together.wait(20)
        try:
            start(here, pipeline)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(begin, range(4))) == [False, False, False, True]
    assert verbs(here) == ["started"]


def test_a_host_that_is_silent_for_too_long_has_lost_its_session(
    orchest_engine: Engine, database_url: str, tmp_path: Path
) -> None:
    clock = FrozenClock()
    here = Installation(database_url, tmp_path / "frozen", clock=clock)
    live = start(here, here.pipeline(here.project(), {}))
    [taken] = here.change(lambda s: sessions.claim_sessions(s, here.site, "one"))
    for silent, ended in ((29, False), (2, True)):
        clock.advance(seconds=silent)
        left = here.change(lambda s: sessions.fail_orphans(s, here.site, "two"))
        assert bool(left) is ended
    assert here.read(status(live)) is None
    assert not here.change(lambda s: sessions.session_running(s, here.site, taken, "one"))
    assert verbs(here) == ["started", "failed"]
    here.platform.close()
