"""Small real pipelines for tests: a project directory with scripts, its definition, a recording observer."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from orchest.definition import Definition, parse
from orchest.executor import Run, RunResult, RunSpec, Status


def uuid_of(title: str) -> str:
    return str(uuid5(NAMESPACE_URL, title))


def document(steps: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A definition's JSON. Keys are titles; a step may say ``after`` (titles) and any field of a step."""
    return {
        "uuid": uuid_of("pipeline"),
        "name": "pipeline",
        "steps": {
            uuid_of(title): {
                "uuid": uuid_of(title),
                "title": title,
                "file_path": f"{title}.py",
                "incoming_connections": [uuid_of(before) for before in step.get("after", ())],
                **{key: value for key, value in step.items() if key not in ("after", "code")},
            }
            for title, step in steps.items()
        },
        **more,
    }


class Project:
    """A project directory whose steps are given as code, and its runs."""

    def __init__(self, root: Path, steps: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
        self.directory = root / "project"
        self.directory.mkdir()
        self.run_dir = root / "run"
        self.definition: Definition = parse(document(steps, **more))
        for step in self.definition.steps.values():
            code = steps[step.title].get("code")
            if code is not None:
                (self.directory / step.file_path).write_text(code)

    def spec(self, **more: Any) -> RunSpec:
        return RunSpec(self.definition, self.directory, **{"run_dir": self.run_dir, "grace": 2.0, **more})

    def execute(self, observer: "Recorder | None" = None, **more: Any) -> RunResult:
        return Run(self.spec(**more), observer or Recorder(self.definition)).execute()

    def statuses(self, result: RunResult) -> dict[str, Status]:
        return {self.definition.steps[uuid].title: step.status for uuid, step in result.steps.items()}

    def log(self, title: str) -> str:
        return (self.run_dir / "steps" / uuid_of(title) / "log.txt").read_text()


class Recorder:
    """Keeps what the executor said, by title, and lets a test wait for it."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.said: list[tuple[str, Status]] = []
        self._changed = threading.Condition()

    def _say(self, uuid: str, status: Status) -> None:
        with self._changed:
            self.said.append((self.definition.steps[uuid].title, status))
            self._changed.notify_all()

    def step_started(self, step_uuid: str) -> None:
        self._say(step_uuid, Status.STARTED)

    def step_finished(
        self, step_uuid: str, status: Status, exit_code: int | None, reason: str | None
    ) -> None:
        self._say(step_uuid, status)

    def wait_for(self, title: str, status: Status) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: (title, status) in self.said, timeout=20), self.said


class Background:
    """A run in a thread of its own; its result when it ends."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.result: RunResult | BaseException | None = None
        self._thread = threading.Thread(target=self._execute, daemon=True)
        self._thread.start()

    def _execute(self) -> None:
        try:
            self.result = self.run.execute()
        except BaseException as error:
            self.result = error

    def join(self) -> RunResult:
        self._thread.join(30)
        assert isinstance(self.result, RunResult), self.result
        return self.result


def eventually(holds: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait for something another process does; it cannot notify us, so look again until it holds."""
    never = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        never.wait(0.02)
    raise AssertionError(f"never: {what}")
