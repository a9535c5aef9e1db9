"""An executor that is killed with SIGKILL leaves nothing running and no run undecided."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from clarion.errors import Conflict
from orchest.executor import Executor, Run, Status, executor_state, reap_orphans
from orchest.executor.processes import MARK, Identity, identify, kill_all
from orchest.executor.rundir import RunDir

from .building import Project, Recorder, eventually, uuid_of
from .test_executor import GRANDCHILDREN, WAIT, alive, started_pids

EXECUTOR = """
import sys
from pathlib import Path
from orchest.definition import parse
from orchest.executor import Run, RunSpec
class Nobody:
    def step_started(self, *_): pass
    def step_finished(self, *_): pass
definition, project, run = sys.argv[1:]
Run(RunSpec(parse(Path(definition).read_text()), Path(project), Path(run)), Nobody()).execute()
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, {"A": {"code": GRANDCHILDREN + WAIT}, "B": {"after": ["A"], "code": ""}})


@pytest.fixture
def executor(project: Project, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    definition = tmp_path / "a.orchest"
    definition.write_text(project.definition.to_json())
    places = [str(definition), str(project.directory), str(project.run_dir)]
    with subprocess.Popen([sys.executable, "-c", EXECUTOR, *places]) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(20)
            reap_orphans(project.run_dir)


def kill(executor: subprocess.Popen[bytes]) -> None:
    executor.send_signal(signal.SIGKILL)
    executor.wait(20)


def test_orphans_are_found_and_killed(project: Project, executor: subprocess.Popen[bytes]) -> None:
    leader, near, far = started_pids(project)
    assert executor_state(project.run_dir) is Executor.ALIVE
    with pytest.raises(Conflict):
        reap_orphans(project.run_dir)
    kill(executor)
    assert executor_state(project.run_dir) is Executor.GONE
    eventually(lambda: not alive(leader), "the kernel ends the step with its executor")
    assert alive(near)
    assert alive(far)
    (orphan,) = reap_orphans(project.run_dir)
    assert orphan.step_uuid == uuid_of("A")
    assert set(orphan.pids) == {near, far}
    assert not alive(near)
    assert not alive(far)
    assert executor_state(project.run_dir) is Executor.NONE
    assert reap_orphans(project.run_dir) == []


def test_a_run_taken_over_reaps_first(project: Project, executor: subprocess.Popen[bytes]) -> None:
    _, near, far = started_pids(project)
    kill(executor)
    (project.directory / "A.py").write_text("print('again')")
    result = Run(project.spec(), Recorder(project.definition)).execute()
    assert result.status is Status.SUCCESS
    assert not alive(near)
    assert not alive(far)
    assert project.log("A") == "again\n"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", WAIT], start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_pid_used_again_is_not_killed(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    now = identify(stranger.pid)
    assert now is not None
    run_dir = RunDir(tmp_path)
    wrong = [replace(now, start=now.start - 1), replace(now, boot="another boot")]
    for identity in wrong:
        mark = run_dir.prepare_step("step")
        run_dir.started("step", mark, identity)
        assert reap_orphans(tmp_path) == []
        assert alive(stranger.pid)
    mark = run_dir.prepare_step("step")
    run_dir.started("step", mark, now)
    assert [orphan.pids for orphan in reap_orphans(tmp_path)] == [(stranger.pid,)]
    stranger.wait(20)


def test_a_step_whose_start_was_not_written_down_is_found_by_its_mark(tmp_path: Path) -> None:
    mark = RunDir(tmp_path).prepare_step("step")
    with subprocess.Popen([sys.executable, "-c", WAIT], env={**os.environ, MARK: mark}) as process:
        try:
            assert [orphan.pids for orphan in reap_orphans(tmp_path)] == [(process.pid,)]
        finally:
            process.kill()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '{"mark": 5}', '{"mark": "x", "process": {"pid": "?"}}']
)
def test_files_cut_short_by_a_crash_do_not_stop_the_reaper(tmp_path: Path, text: str) -> None:
    step = RunDir(tmp_path).step("step")
    step.mkdir(parents=True)
    (step / "process.json").write_text(text)
    assert reap_orphans(tmp_path) == []
    (tmp_path / "executor.json").write_text("{")
    assert executor_state(tmp_path) is Executor.GONE


def test_the_state_of_an_executor(tmp_path: Path) -> None:
    def say(host: str, process: Identity) -> Executor:
        (tmp_path / "executor.json").write_text(json.dumps({"host": host, "process": asdict(process)}))
        return executor_state(tmp_path)

    me = identify(os.getpid())
    assert me is not None
    here = socket.gethostname()
    assert executor_state(tmp_path) is Executor.NONE
    assert say(here, me) is Executor.ALIVE
    assert say(here, replace(me, start=me.start + 1)) is Executor.GONE
    assert say(here, replace(me, boot="before the restart")) is Executor.GONE
    assert say("another-host", me) is Executor.ELSEWHERE
    with pytest.raises(Conflict):
        reap_orphans(tmp_path)


def test_killing_spares_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    # an executor started from inside a step of another one carries that one's mark
    monkeypatch.setenv(MARK, "mine")
    code = f"from orchest.executor.processes import kill_all; print(kill_all({'mine'!r}))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    assert shown.stdout == "[]\n"
    assert kill_all("nobody carries this") == []
