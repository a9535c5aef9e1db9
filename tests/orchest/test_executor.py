"""The executor on real processes."""

import dataclasses
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from clarion.errors import Conflict, InvalidInput
from orchest.definition import parse
from orchest.executor import Executor, LogChunk, Run, RunSpec, Status, executor_state, read_log
from orchest.executor.processes import identify

from .building import Background, Project, Recorder, eventually, uuid_of

EXAMPLE = Path(__file__).parents[2] / "examples/penguins"
MEET = """
import sys, time
from pathlib import Path
def meet(names, mine):
    Path(mine + ".here").touch()
    for _ in range(2000):
        if all(Path(name + ".here").exists() for name in names):
            return
        time.sleep(0.01)
    sys.exit("nobody came")
"""
STAMP = """
import json, os, time
from pathlib import Path
begin = time.monotonic()
{body}
title = os.environ["ORCHEST_STEP_TITLE"]
Path(title + ".span").write_text(json.dumps([begin, time.monotonic()]))
"""
WAIT = "\nimport time\nwhile True: time.sleep(0.05)\n"


def spans(project: Project) -> dict[str, tuple[float, float]]:
    return {path.stem: tuple(json.loads(path.read_text())) for path in project.directory.glob("*.span")}


def alive(pid: int) -> bool:
    return identify(pid) is not None


def test_steps_run_after_those_they_wait_for(tmp_path: Path) -> None:
    code = STAMP.format(body="")
    after = {"A": (), "B": ("A",), "C": ("A",), "D": ("B", "C")}
    project = Project(tmp_path, {title: {"after": before, "code": code} for title, before in after.items()})
    result = project.execute()
    assert result.status is Status.SUCCESS
    times = spans(project)
    assert all(times[before][1] <= times[title][0] for title, befores in after.items() for before in befores)
    assert executor_state(project.run_dir) is Executor.NONE


def test_as_many_at_once_as_allowed_and_no_more(tmp_path: Path) -> None:
    # each waits for its partner: with fewer than two at once nobody would come; the spans show never three
    pairs = [("A", "B"), ("C", "D"), ("E", "F")]
    steps = {
        title: {"code": MEET + STAMP.format(body=f"meet({pair!r}, {title!r})")}
        for pair in pairs
        for title in pair
    }
    project = Project(tmp_path, steps, settings={"max_steps_parallelism": 2})
    assert project.execute(parallelism=5).status is Status.SUCCESS
    edges = sorted(edge for begin, end in spans(project).values() for edge in ((begin, 1), (end, -1)))
    at_once, most = 0, 0
    for _, step in edges:
        at_once += step
        most = max(most, at_once)
    assert most == 2


def test_the_platforms_limit_holds_over_the_definitions(tmp_path: Path) -> None:
    steps = {title: {"code": STAMP.format(body="")} for title in "ABC"}
    project = Project(tmp_path, steps, settings={"max_steps_parallelism": 3})
    assert project.execute(parallelism=1).status is Status.SUCCESS
    ordered = sorted(spans(project).values())
    assert all(ordered[n][1] <= ordered[n + 1][0] for n in range(2))


def test_a_failure_ends_what_waits_for_it_and_nothing_else(tmp_path: Path) -> None:
    steps: dict[str, Any] = {
        "Bad": {"code": "raise SystemExit(3)"},
        "After": {"after": ["Bad"], "code": ""},
        "Later": {"after": ["After"], "code": ""},
        "Good": {"code": ""},
        "Fine": {"after": ["Good"], "code": ""},
    }
    project = Project(tmp_path, steps)
    recorder = Recorder(project.definition)
    result = project.execute(recorder)
    assert result.status is Status.FAILURE
    assert project.statuses(result) == {
        "Bad": Status.FAILURE,
        "After": Status.ABORTED,
        "Later": Status.ABORTED,
        "Good": Status.SUCCESS,
        "Fine": Status.SUCCESS,
    }
    bad, after = result.steps[uuid_of("Bad")], result.steps[uuid_of("After")]
    assert (bad.exit_code, bad.reason) == (3, "exit code 3")
    assert (after.exit_code, after.reason) == (None, "step 'Bad' before it failed")
    assert ("After", Status.STARTED) not in recorder.said
    assert len(recorder.said) == 8  # three started and ended, two only ended


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"file_path": "missing.py"}, "its file missing.py does not exist"),
        ({"file_path": "link.py"}, "its file link.py leads out of the project"),
        ({"file_path": "directory.py"}, "its file directory.py does not exist"),
        ({"file_path": "script.jl"}, "julia is not installed in its environment"),
    ],
)
def test_a_step_that_cannot_start_fails_with_a_reason(
    tmp_path: Path, fields: dict[str, str], reason: str
) -> None:
    project = Project(tmp_path, {"Bad": fields, "After": {"after": ["Bad"], "code": ""}})
    (tmp_path / "outside.py").write_text("")
    (project.directory / "link.py").symlink_to(tmp_path / "outside.py")
    (project.directory / "directory.py").mkdir()
    (project.directory / "script.jl").write_text("")
    result = project.execute(env_variables={"PATH": "/nowhere"})
    bad = result.steps[uuid_of("Bad")]
    assert (bad.status, bad.exit_code, bad.reason) == (
        Status.FAILURE,
        None,
        f"could not be started: {reason}",
    )
    assert reason in project.log("Bad")
    assert result.steps[uuid_of("After")].status is Status.ABORTED


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": ""}})
    result = project.execute(python=tmp_path / "no-python")
    assert result.steps[uuid_of("A")].exit_code == 127
    assert "cannot execute" in project.log("A")


def test_parameters_too_large_for_an_environment_fail_the_step(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": ""}})
    result = project.execute(pipeline_parameters={"x": "y" * 200_000})
    step = result.steps[uuid_of("A")]
    assert step.status is Status.FAILURE
    assert step.reason is not None
    assert "Argument list too long" in step.reason


def test_a_step_killed_from_outside_says_so(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"}})
    step = project.execute().steps[uuid_of("A")]
    assert (step.status, step.exit_code, step.reason) == (Status.FAILURE, -9, "killed by SIGKILL")


def test_parameters_inputs_and_outputs(tmp_path: Path) -> None:
    first = "import orchest; orchest.output({'n': orchest.get_step_param('n')}, name='first')"
    second = "import orchest; orchest.output((1, {2: 3}))"
    third = """
import json, orchest
inputs = orchest.get_inputs()
assert inputs["unnamed"] == [(1, {2: 3})], inputs
seen = [inputs["first"]["n"], orchest.get_pipeline_param("k"), orchest.get_step_param("none", "default")]
orchest.artifact("seen.json").write_text(json.dumps(seen))
try:
    orchest.get_step_param("none")
except KeyError as error:
    print(error)
"""
    shell = 'python -m orchest input first; python -m orchest param k; echo "$ORCHEST_STEP_PARAMETERS"; pwd'
    steps: dict[str, Any] = {
        "First": {"code": first, "parameters": {"n": 1}},
        "Second": {"code": second},
        "Third": {"code": third, "after": ["First", "Second"], "parameters": {"z": 0}},
        "Shell": {"code": shell, "after": ["First"], "file_path": "shell.sh", "parameters": {"s": [1]}},
    }
    project = Project(tmp_path, steps, parameters={"k": 5, "other": 1})
    result = project.execute(pipeline_parameters={"k": 9}, step_parameters={uuid_of("First"): {"n": 7}})
    assert result.status is Status.SUCCESS, (project.log("Third"), project.log("Shell"))
    assert json.loads((project.run_dir / "artifacts/seen.json").read_text()) == [7, 9, "default"]
    assert "the step has no parameter 'none'; it has ['z']" in project.log("Third")
    assert project.log("Shell").splitlines() == ['{"n": 7}', "9", '{"s": [1]}', str(project.directory)]


def test_nothing_of_our_environment_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "CLARION_DATABASE_URL",
        "DATABASE_URL",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "ORCHEST_TOKEN",
    ):
        monkeypatch.setenv(name, "leaked-secret")
    monkeypatch.setenv("PYTHONPATH", "/leaked-secret")
    monkeypatch.setenv("LC_TIME", "C")
    project = Project(tmp_path, {"A": {"code": "import os, json; print(json.dumps(dict(os.environ)))"}})
    project.execute(env_variables={"GIVEN": "yes", "TZ": "Europe/Amsterdam"})
    log = project.log("A")
    assert "leaked-secret" not in log
    seen = json.loads(log)
    assert (seen["GIVEN"], seen["TZ"], seen["LC_TIME"]) == ("yes", "Europe/Amsterdam", "C")
    others = {name for name in seen if not name.startswith(("ORCHEST_", "LC_", "PYTHON"))}
    assert others <= {"GIVEN", "PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL"}


@pytest.mark.parametrize("name", ["", "A=B", "A\0", "ORCHEST_STEP_UUID"])
def test_environment_variables_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    project = Project(tmp_path, {"A": {"code": ""}})
    with pytest.raises(InvalidInput, match="cannot be an environment variable"):
        project.execute(env_variables={name: "x"})
    assert not project.run_dir.exists()


def test_what_cannot_run_is_refused_before_anything_starts(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": ""}})
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"only": frozenset({"nobody"})}, "no step nobody"),
        ({"step_parameters": {"nobody": {}}}, "no step nobody"),
        ({"parallelism": 0}, "at least 1"),
        ({"pipeline_dir": tmp_path}, "not inside the project"),
    ]
    for fields, message in wrong:
        with pytest.raises(InvalidInput, match=message):
            project.execute(**fields)
    with pytest.raises(InvalidInput, match="does not exist"):
        Run(dataclasses.replace(project.spec(), project_dir=tmp_path / "no"), Recorder(project.definition))


def test_only_some_steps_with_the_data_of_an_earlier_run(tmp_path: Path) -> None:
    steps: dict[str, Any] = {
        "A": {"code": "import orchest; orchest.output(41, name='a')"},
        "B": {"after": ["A"], "code": "import orchest; print(orchest.get_inputs()['a'] + 1)"},
    }
    project = Project(tmp_path, steps)
    shared = tmp_path / "session"
    project.execute(only=frozenset({uuid_of("A")}), data_dir=shared)
    result = project.execute(only=frozenset({uuid_of("B")}), data_dir=shared, run_dir=tmp_path / "second")
    assert project.statuses(result) == {"B": Status.SUCCESS}
    assert read_log(tmp_path / "second", uuid_of("B")).text == "42\n"


def test_steps_run_in_the_pipelines_directory_with_their_environments_python(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd()); print(sys.executable)"
    project = Project(tmp_path, {"A": {"environment": "env"}})
    inner = project.directory / "inner"
    inner.mkdir()
    (inner / "A.py").write_text(code)
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    result = project.execute(pipeline_dir=inner, environments={"env": python}, python=Path("/nowhere"))
    assert result.status is Status.SUCCESS
    assert project.log("A").splitlines() == [str(inner), str(python)]


def test_logs_are_readable_while_the_step_runs(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
print("first line é")
print("to stderr", file=sys.stderr)
for _ in range(2000):
    if Path("go").exists():
        break
    time.sleep(0.01)
print("second")
"""
    project = Project(tmp_path, {"A": {"code": code}})
    background = Background(Run(project.spec(), Recorder(project.definition)))
    uuid = uuid_of("A")
    eventually(lambda: "to stderr" in read_log(project.run_dir, uuid).text, "log of the running step")
    early = read_log(project.run_dir, uuid)
    assert early.text == "first line é\nto stderr\n"
    assert read_log(project.run_dir, uuid, early.next_offset) == dataclasses.replace(early, text="")
    (project.directory / "go").touch()
    assert background.join().status is Status.SUCCESS
    assert read_log(project.run_dir, uuid, early.next_offset).text == "second\n"
    # piece by piece: a character is never cut in two
    text, offset = "", 0
    while (chunk := read_log(project.run_dir, uuid, offset, 4)).text:
        text, offset = text + chunk.text, chunk.next_offset
    assert text == project.log("A")


def test_a_log_that_is_no_text_and_one_that_is_not_there(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": r"import os; os.write(1, b'\xff\xfe ok \xc3')"}})
    project.execute()
    assert read_log(project.run_dir, uuid_of("A")).text.startswith("�� ok ")
    for far in (100, 2**62):  # no file system can hold so much, and one says so when it is sought
        assert read_log(project.run_dir, uuid_of("A"), far) == LogChunk("", far)
    assert read_log(project.run_dir, "nobody", 7) == read_log(tmp_path / "no-run", "x", 7)


GRANDCHILDREN = """
import os, subprocess, sys, time
from pathlib import Path
code = "import signal, time\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\nwhile True: time.sleep(0.05)"
near = subprocess.Popen([sys.executable, "-c", code])
far = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)  # leaves the group
Path("pids.tmp").write_text(f"{os.getpid()} {near.pid} {far.pid}")
Path("pids.tmp").rename("pids")
"""


def started_pids(project: Project) -> list[int]:
    file = project.directory / "pids"
    eventually(file.exists, "pids of the step")
    return [int(pid) for pid in file.read_text().split()]


def test_an_abort_kills_the_whole_tree(tmp_path: Path) -> None:
    steps: dict[str, Any] = {"A": {"code": GRANDCHILDREN + WAIT}, "B": {"after": ["A"], "code": ""}}
    project = Project(tmp_path, steps)
    recorder = Recorder(project.definition)
    run = Run(project.spec(grace=0.2), recorder)
    background = Background(run)
    pids = started_pids(project)
    assert all(map(alive, pids))
    run.abort("the job was aborted")
    run.abort("again")
    result = background.join()
    assert result.status is Status.ABORTED
    assert result.reason == "the job was aborted"
    assert project.statuses(result) == {"A": Status.ABORTED, "B": Status.ABORTED}
    assert result.steps[uuid_of("A")].reason == "the run was aborted: the job was aborted"
    assert not any(map(alive, pids))
    assert executor_state(project.run_dir) is Executor.NONE


def test_a_step_may_clean_up_when_it_is_aborted(tmp_path: Path) -> None:
    code = """
import signal, sys, time
from pathlib import Path
def stop(*_):
    Path("cleaned").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
Path("pids").write_text("1")
"""
    project = Project(tmp_path, {"A": {"code": code + WAIT}})
    run = Run(project.spec(grace=20), Recorder(project.definition))
    background = Background(run)
    started_pids(project)
    run.abort()
    assert background.join().steps[uuid_of("A")].status is Status.ABORTED  # exit code 0, but not a success
    assert (project.directory / "cleaned").exists()


def test_an_abort_before_the_start_starts_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": ""}})
    recorder = Recorder(project.definition)
    run = Run(project.spec(), recorder)
    run.abort()
    assert run.execute().status is Status.ABORTED
    assert recorder.said == [("A", Status.ABORTED)]


def test_a_poll_can_abort(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": GRANDCHILDREN + WAIT}})
    asked = threading.Event()

    def poll() -> str | None:
        return "asked elsewhere" if asked.is_set() else None

    run = Run(project.spec(poll=poll, poll_interval=0.05, grace=0.1), Recorder(project.definition))
    background = Background(run)
    started_pids(project)
    asked.set()
    assert background.join().reason == "asked elsewhere"


def test_a_step_that_takes_too_long_fails(tmp_path: Path) -> None:
    steps: dict[str, Any] = {"Slow": {"code": GRANDCHILDREN + WAIT}, "Quick": {"code": ""}}
    project = Project(tmp_path, steps)
    result = project.execute(step_time_limit=1.5, grace=0.1)
    slow = result.steps[uuid_of("Slow")]
    assert (slow.status, slow.reason) == (Status.FAILURE, "took longer than 1.5 s")
    assert result.steps[uuid_of("Quick")].status is Status.SUCCESS
    assert not any(map(alive, started_pids(project)))


def test_what_a_step_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": GRANDCHILDREN}})
    assert project.execute().status is Status.SUCCESS
    assert not any(map(alive, started_pids(project)))


@pytest.mark.parametrize("ends", [True, False], ids=["by-itself", "by-abort"])
def test_a_child_that_has_cleared_its_environment_ends_too(tmp_path: Path, ends: bool) -> None:
    code = """
import subprocess, sys
from pathlib import Path
code = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print(1, flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code], env={}, stdout=subprocess.PIPE)
child.stdout.readline()
Path("pids.tmp").write_text(str(child.pid))
Path("pids.tmp").rename("pids")
"""
    project = Project(tmp_path, {"A": {"code": code + ("" if ends else WAIT)}})
    run = Run(project.spec(grace=0.2), Recorder(project.definition))
    background = Background(run)
    (pid,) = started_pids(project)
    if not ends:
        run.abort()
    background.join()
    assert not alive(pid)


def test_an_error_of_the_observer_kills_the_run_and_is_raised(tmp_path: Path) -> None:
    steps: dict[str, Any] = {"A": {"code": GRANDCHILDREN + WAIT}, "B": {"code": ""}}
    project = Project(tmp_path, steps)

    class Broken(Recorder):
        def step_finished(self, *_: object) -> None:
            started_pids(project)
            raise OSError("the database is gone")

    with pytest.raises(OSError, match="the database is gone"):
        project.execute(Broken(project.definition))
    assert not any(map(alive, started_pids(project)))
    assert executor_state(project.run_dir) is Executor.NONE


def test_one_run_directory_has_one_executor(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": GRANDCHILDREN + WAIT}})
    run = Run(project.spec(grace=0.1), Recorder(project.definition))
    background = Background(run)
    pids = started_pids(project)
    assert executor_state(project.run_dir) is Executor.ALIVE
    with pytest.raises(Conflict):
        project.execute()
    assert all(map(alive, pids))
    run.abort()
    background.join()


def test_a_run_can_be_executed_again(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": "print('once')"}})
    assert project.execute().status is project.execute().status is Status.SUCCESS
    assert project.log("A") == "once\n"


def test_the_run_directory_is_private(tmp_path: Path) -> None:
    project = Project(tmp_path, {"A": {"code": ""}})
    project.execute()
    assert project.run_dir.stat().st_mode & 0o077 == 0


class TestExample:
    def run(self, tmp_path: Path, **parameters: Any) -> tuple[dict[str, Status], Path]:
        definition = parse((EXAMPLE / "penguins.orchest").read_text())
        bare = Path(os.path.realpath(sys.executable))  # not our environment: nothing is installed there
        spec = RunSpec(definition, EXAMPLE, tmp_path / "run", python=bare, pipeline_parameters=parameters)
        result = Run(spec, Recorder(definition)).execute()
        return {definition.steps[u].title: step.status for u, step in result.steps.items()}, tmp_path / "run"

    @pytest.mark.parametrize("k", json.loads((EXAMPLE / "grid.json").read_text())["pipeline_parameters"]["k"])
    def test_it_finds_the_species(self, tmp_path: Path, k: int) -> None:
        statuses, run_dir = self.run(tmp_path, k=k)
        assert set(statuses.values()) == {Status.SUCCESS}
        metrics = json.loads((run_dir / "artifacts/metrics.json").read_text())
        assert (metrics["birds"], metrics["dropped"], metrics["k"]) == (342, 2, k)
        assert 0.95 < metrics["accuracy"] < 1
        assert 0.7 < metrics["r2"] < 0.8
        assert f"{k} nearest birds" in (run_dir / "artifacts/report.md").read_text()

    def test_an_unknown_column_fails_its_step(self, tmp_path: Path) -> None:
        statuses, run_dir = self.run(tmp_path, target="wingspan_mm")
        assert statuses.pop("Fit body mass") is Status.FAILURE
        assert statuses.pop("Report") is Status.ABORTED
        assert set(statuses.values()) == {Status.SUCCESS}
        logs = [log.read_text() for log in run_dir.glob("steps/*/log.txt")]
        assert any("no column 'wingspan_mm' to fit" in log for log in logs)
        assert not (run_dir / "artifacts/report.md").exists()


def test_the_signal_of_a_real_time_kind_is_described(tmp_path: Path) -> None:
    number = signal.SIGRTMIN + 2
    project = Project(tmp_path, {"A": {"code": f"import os; os.kill(os.getpid(), {number})"}})
    assert project.execute().steps[uuid_of("A")].reason == f"killed by signal {number}"
