"""Executes the step graph of a pipeline: each step a process of its own, as many at once as allowed.

One thread, the caller's, decides everything: it starts steps, waits for what happens (a step exits, an abort
is asked, a time is up) and tells the observer. It knows no database. A step's end ends all it has started.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clarion.errors import InvalidInput
from orchest.definition import Definition, Step
from orchest.executor.commands import HERE, CannotStart, command_line, environment, step_file
from orchest.executor.plan import Plan
from orchest.executor.processes import Identity, identify, kill_all, kill_group, signal_all
from orchest.executor.rundir import RunDir
from orchest.states import Status

DEFAULT_PARALLELISM = 4
"""Steps at once when neither the definition nor the platform says otherwise."""
_UNKILLABLE = 10.0
"""Seconds after SIGKILL until a step counts as ended though the kernel still holds it (a hung disk)."""


class Observer(Protocol):
    """Is told what happens, always in the thread that called `Run.execute`. An exception kills the run."""

    def step_started(self, step_uuid: str) -> None:
        """The step's process runs."""

    def step_finished(
        self, step_uuid: str, status: Status, exit_code: int | None, reason: str | None
    ) -> None:
        """A final status: SUCCESS, FAILURE or ABORTED; a step that never started has no exit code."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended. ``reason`` is a sentence for the user; None after SUCCESS."""

    status: Status
    exit_code: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: ``status`` is SUCCESS, FAILURE or ABORTED."""

    status: Status
    steps: Mapping[str, StepResult]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RunSpec:
    """All that a run needs to know. Times are in seconds."""

    definition: Definition
    project_dir: Path
    run_dir: Path
    pipeline_dir: Path | None = None
    """Where the pipeline file is: file paths start here and steps run here. None: the project's directory."""
    python: Path = Path(sys.executable)
    """The interpreter of steps whose environment is not in ``environments``."""
    environments: Mapping[str, Path] = field(default_factory=dict)
    """Environment id (`Step.environment`) to its interpreter."""
    pipeline_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Values of this run, over those of the definition."""
    step_parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    env_variables: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[str] | None = None
    """Run just these steps; what comes before them counts as done. None: all."""
    data_dir: Path | None = None
    """Where data between steps is kept; None: in ``run_dir``. A session's runs share one."""
    parallelism: int | None = None
    """The platform's limit of steps at once; the smaller of this and the definition's holds."""
    step_time_limit: float | None = None
    grace: float = 5.0
    """Between SIGTERM and SIGKILL."""
    poll: Callable[[], str | None] | None = None
    """Asked every ``poll_interval`` in the run's thread; a reason it answers aborts the run."""
    poll_interval: float = 1.0


@dataclass(slots=True)
class _Running:
    step: Step
    mark: str
    process: subprocess.Popen[bytes]
    identity: Identity | None
    ends_by: float | None
    kill_at: float | None = None
    killed_at: float | None = None
    status: Status | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Exited:
    uuid: str


@dataclass(frozen=True, slots=True)
class _Aborted:
    reason: str


class Run:
    """One execution. `execute` blocks until all has ended; `abort` may be called from any thread."""

    def __init__(self, spec: RunSpec, observer: Observer) -> None:
        self._spec = _checked(spec)
        self._observer = observer
        self._dir = RunDir(spec.run_dir)
        chosen = spec.only if spec.only is not None else spec.definition.steps.keys()
        graph = {
            u: [b for b in before if b in chosen]
            for u, before in spec.definition.graph().items()
            if u in chosen
        }
        self._plan = Plan(graph)
        limits = (spec.definition.settings.max_steps_parallelism, spec.parallelism)
        self._parallelism = min((limit for limit in limits if limit is not None), default=DEFAULT_PARALLELISM)
        self._running: dict[str, _Running] = {}
        self._results: dict[str, StepResult] = {}
        self._happened: queue.SimpleQueue[_Exited | _Aborted] = queue.SimpleQueue()
        self._abort_reason: str | None = None
        self._next_poll = 0.0

    def abort(self, reason: str = "aborted by the user") -> None:
        """Ask for the end of the run: running steps get SIGTERM, after the grace SIGKILL; nothing starts."""
        self._happened.put(_Aborted(reason))

    def execute(self) -> RunResult:
        """Run it. Raises `clarion.errors.Conflict` when another executor has this run directory.

        The thread must live until this returns: the kernel ends the steps with the thread that started them.
        """
        self._dir.claim()
        try:
            self._loop()
        finally:
            for running in list(self._running.values()):  # only after an error of the observer or ours
                self._kill(running)
                running.process.wait(_UNKILLABLE)
            self._dir.release()
        status = Status.ABORTED if self._abort_reason is not None else self._plan.outcome()
        return RunResult(status, dict(self._results), self._abort_reason)

    def _loop(self) -> None:
        if not self._happened.empty():  # aborted before it began
            self._handle(self._happened.get())
        self._keep_times()
        self._start_ready()
        while self._running:
            self._handle(self._wait())
            self._keep_times()
            self._start_ready()

    def _handle(self, happened: _Exited | _Aborted | None) -> None:
        if isinstance(happened, _Exited) and happened.uuid in self._running:
            self._ended(self._running[happened.uuid])
        elif isinstance(happened, _Aborted):
            self._abort_now(happened.reason)

    def _wait(self) -> _Exited | _Aborted | None:
        now = time.monotonic()
        times = [at for r in self._running.values() for at in (r.kill_at, r.ends_by) if at is not None]
        times += [r.killed_at + _UNKILLABLE for r in self._running.values() if r.killed_at is not None]
        if self._spec.poll is not None:
            times.append(self._next_poll)
        try:
            return self._happened.get(timeout=max(0.0, min(times) - now) if times else None)
        except queue.Empty:
            return None

    def _start_ready(self) -> None:
        while self._abort_reason is None and len(self._running) < self._parallelism:
            uuid = self._plan.start_next()
            if uuid is None:
                return
            self._start(self._spec.definition.steps[uuid])

    def _start(self, step: Step) -> None:
        mark = self._dir.prepare_step(step.uuid)
        try:
            process = self._spawn(step, mark)
        except (CannotStart, OSError, ValueError) as error:
            self._dir.log(step.uuid).write_text(f"Orchest could not start this step: {error}\n")
            self._dir.ended(step.uuid)
            self._finish(step.uuid, StepResult(Status.FAILURE, None, f"could not be started: {error}"))
            return
        identity = identify(process.pid)
        limit = self._spec.step_time_limit
        ends_by = None if limit is None else time.monotonic() + limit
        self._running[step.uuid] = _Running(step, mark, process, identity, ends_by)
        self._dir.started(step.uuid, mark, identity)
        threading.Thread(target=self._await_exit, args=(step.uuid, process), daemon=True).start()
        self._observer.step_started(step.uuid)

    def _spawn(self, step: Step, mark: str) -> subprocess.Popen[bytes]:
        spec = self._spec
        project = spec.project_dir.resolve()
        working = (spec.pipeline_dir or project).resolve()
        python = spec.environments.get(step.environment, spec.python)
        variables = environment(
            spec.definition,
            step,
            python,
            given=spec.env_variables,
            own=os.environ,
            parameters=(
                {**spec.definition.parameters, **spec.pipeline_parameters},
                {**step.parameters, **spec.step_parameters.get(step.uuid, {})},
            ),
            project_dir=project,
            data_dir=(spec.data_dir or self._dir.data).resolve(),
            artifacts_dir=self._dir.artifacts,
            mark=mark,
        )
        path = step_file(step, project, working)
        command = command_line(step, path, python, self._dir.notebook(step.uuid), variables["PATH"])
        launcher = [sys.executable, "-I", "-S", str(HERE / "launch.py"), str(os.getpid())]
        with self._dir.log(step.uuid).open("wb") as log:
            return subprocess.Popen(
                [*launcher, *command],
                cwd=working,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _await_exit(self, uuid: str, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ChildProcessError):  # the host program reaped it: it has ended all the same
            # not reaped yet: as a zombie it keeps its pid, and so its group is surely still its own
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self._happened.put(_Exited(uuid))

    def _ended(self, running: _Running) -> None:
        kill_group(running.process.pid)  # what it left in the background ends with it
        kill_all(running.mark)
        code = running.process.poll()
        if running.status is not None:
            result = StepResult(running.status, code, running.reason)
        elif code == 0:
            result = StepResult(Status.SUCCESS, 0)
        else:
            result = StepResult(Status.FAILURE, code, _describe(code))
        del self._running[running.step.uuid]
        self._dir.ended(running.step.uuid)
        self._finish(running.step.uuid, result)

    def _finish(self, uuid: str, result: StepResult) -> None:
        aborted = self._plan.finish(uuid, result.status)
        self._tell(uuid, result)
        step = self._spec.definition.steps[uuid]
        for after in aborted:
            self._tell(
                after, StepResult(Status.ABORTED, None, f"step '{step.title or uuid}' before it failed")
            )

    def _tell(self, uuid: str, result: StepResult) -> None:
        self._results[uuid] = result
        self._observer.step_finished(uuid, result.status, result.exit_code, result.reason)

    def _abort_now(self, reason: str) -> None:
        if self._abort_reason is not None:
            return
        self._abort_reason = reason
        for running in self._running.values():
            self._terminate(running, Status.ABORTED, f"the run was aborted: {reason}")
        for uuid in self._plan.abort_pending():
            self._tell(uuid, StepResult(Status.ABORTED, None, f"the run was aborted: {reason}"))

    def _keep_times(self) -> None:
        now = time.monotonic()
        if self._spec.poll is not None and now >= self._next_poll:
            self._next_poll = now + self._spec.poll_interval
            reason = self._spec.poll()
            if reason is not None:
                self._abort_now(reason)
        for running in list(self._running.values()):
            if running.ends_by is not None and now >= running.ends_by:
                self._terminate(running, Status.FAILURE, f"took longer than {self._spec.step_time_limit:g} s")
            if running.kill_at is not None and now >= running.kill_at:
                self._kill(running)
            if running.killed_at is not None and now >= running.killed_at + _UNKILLABLE:
                self._ended(running)

    def _terminate(self, running: _Running, status: Status, reason: str) -> None:
        running.ends_by = None
        if running.status is None:
            running.status, running.reason = status, reason
            running.kill_at = time.monotonic() + self._spec.grace
            signal_all(running.mark, signal.SIGTERM, running.identity)

    def _kill(self, running: _Running) -> None:
        running.kill_at, running.killed_at = None, time.monotonic()
        kill_all(running.mark, running.identity)


def _checked(spec: RunSpec) -> RunSpec:
    """Refuse what would only fail once steps are running."""
    if not spec.project_dir.is_dir():
        raise InvalidInput(f"the project's directory {spec.project_dir} does not exist")
    working = spec.pipeline_dir or spec.project_dir
    if not working.resolve().is_relative_to(spec.project_dir.resolve()):
        raise InvalidInput(f"the pipeline's directory {working} is not inside the project")
    named = set(spec.only or ()) | set(spec.step_parameters)
    unknown = sorted(named - spec.definition.steps.keys())
    if unknown:
        raise InvalidInput(f"the definition has no step {', '.join(unknown)}")
    if spec.parallelism is not None and spec.parallelism < 1:
        raise InvalidInput("parallelism must be at least 1")
    for name, value in spec.env_variables.items():
        if not name or "=" in name or "\0" in name + value or name.startswith("ORCHEST_"):
            raise InvalidInput(
                f"{name!r} cannot be an environment variable (no '=', no NUL, no ORCHEST_ names)"
            )
    return spec


def _describe(code: int | None) -> str:
    if code is None:
        return "could not be killed"
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit code {code}"
