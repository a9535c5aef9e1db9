"""The directory of one run: logs, data between steps, and who is executing it.

executor.json             who executes it now; removed when the run ends
data/                     what steps hand to later steps (see sdk/orchest.py)
steps/<uuid>/log.txt      stdout and stderr, written by the step itself: readable while it runs
steps/<uuid>/process.json the mark of what it started, written before the start; then pid and start time
steps/<uuid>/notebook.ipynb   the executed notebook
"""

import fcntl
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from clarion.errors import Conflict
from orchest.executor.processes import Identity, identify, kill_all

LOG_CHUNK = 256 * 1024
"""Most bytes of a log answered at once."""


class Executor(StrEnum):
    """What is known of the process that executes a run."""

    NONE = "none"
    """Never started, or ended in good order."""
    ALIVE = "alive"
    GONE = "gone"
    """It died (or the machine was restarted) without ending the run: `reap_orphans`, then fail the run."""
    ELSEWHERE = "elsewhere"
    """Another machine has it; only that one can tell."""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of a log. ``next_offset`` (bytes) is where to go on; equal to the offset asked: nothing new."""

    text: str
    next_offset: int


@dataclass(frozen=True, slots=True)
class Orphan:
    """What one step of a dead executor had left running, and was killed."""

    step_uuid: str
    pids: tuple[int, ...]


class RunDir:
    """Paths and small files of one run's directory. Created for this user only."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.data = self.path / "data"
        self.artifacts = self.path / "artifacts"

    def step(self, uuid: str) -> Path:
        return self.path / "steps" / uuid

    def log(self, uuid: str) -> Path:
        return self.step(uuid) / "log.txt"

    def notebook(self, uuid: str) -> Path:
        return self.step(uuid) / "notebook.ipynb"

    def claim(self) -> None:
        """Make this process the executor. Raises `Conflict` when a living one, or another machine, is."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.artifacts.mkdir(mode=0o700, exist_ok=True)
        me = identify(os.getpid())
        # of two executors that both find the place free, one must lose
        with (self.path / "executor.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            reap_orphans(self.path)
            process = asdict(me) if me else {"pid": os.getpid()}
            _write(self.path / "executor.json", {"host": socket.gethostname(), "process": process})

    def release(self) -> None:
        """The run has ended in good order."""
        (self.path / "executor.json").unlink(missing_ok=True)

    def prepare_step(self, uuid: str) -> str:
        """A fresh place for one step; answers with the new mark, on disk before anything is started."""
        self.step(uuid).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.notebook(uuid).unlink(missing_ok=True)
        mark = secrets.token_hex(16)
        _write(self.step(uuid) / "process.json", {"mark": mark})
        return mark

    def started(self, uuid: str, mark: str, process: Identity | None) -> None:
        _write(
            self.step(uuid) / "process.json", {"mark": mark, "process": asdict(process) if process else None}
        )

    def ended(self, uuid: str) -> None:
        (self.step(uuid) / "process.json").unlink(missing_ok=True)


def executor_state(run_dir: Path) -> Executor:
    """Whether the run in ``run_dir`` is being executed."""
    entry = _read(run_dir / "executor.json")
    if entry is None:
        return Executor.NONE
    if entry.get("host", socket.gethostname()) != socket.gethostname():
        return Executor.ELSEWHERE
    process = _identity(entry.get("process"))
    return Executor.ALIVE if process is not None and process.alive() else Executor.GONE


def reap_orphans(run_dir: Path) -> list[Orphan]:
    """Kill what a dead executor's steps left running; only what carries their marks or is exactly them.

    Safe to call at any time and again. Raises `Conflict` while the run's executor lives or is elsewhere.
    """
    state = executor_state(run_dir)
    if state in (Executor.ALIVE, Executor.ELSEWHERE):
        raise Conflict(f"the run in {run_dir} still has an executor ({state})")
    orphans = []
    for record in sorted(run_dir.glob("steps/*/process.json")):
        entry = _read(record)
        if entry is not None and isinstance(entry.get("mark"), str):
            pids = kill_all(entry["mark"], _identity(entry.get("process")))
            if pids:
                orphans.append(Orphan(record.parent.name, tuple(pids)))
        record.unlink(missing_ok=True)
    (run_dir / "executor.json").unlink(missing_ok=True)
    return orphans


def read_log(run_dir: Path, step_uuid: str, offset: int = 0, limit: int = LOG_CHUNK) -> LogChunk:
    """Part of a step's log from byte ``offset``; empty when there is none (yet). Not-UTF-8 is replaced.

    While the step writes, call again with ``next_offset``. A character cut by the limit waits for the next.
    """
    return read_chunk(RunDir(run_dir).log(step_uuid), offset, limit)


def read_chunk(path: Path, offset: int = 0, limit: int = LOG_CHUNK) -> LogChunk:
    """Part of any log; see `read_log`."""
    try:
        with path.open("rb") as log:
            if offset >= os.fstat(log.fileno()).st_size:
                return LogChunk("", offset)  # a file system refuses to seek beyond what it could ever hold
            log.seek(max(offset, 0))
            raw = log.read(max(min(limit, LOG_CHUNK), 4))
    except FileNotFoundError:
        return LogChunk("", offset)
    whole = raw[: len(raw) - _cut(raw)]
    return LogChunk(whole.decode(errors="replace"), max(offset, 0) + len(whole))


def _cut(raw: bytes) -> int:
    """How many last bytes are the beginning of a UTF-8 character whose rest is missing."""
    for back in range(1, min(3, len(raw) - 1) + 1):
        byte = raw[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
        if byte < 0x80:
            return 0
    return 0


def _write(path: Path, entry: dict[str, Any]) -> None:
    new = path.with_suffix(".tmp")
    new.write_text(json.dumps(entry))
    new.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}  # cut short by a crash: nothing can be concluded from it
    return entry if isinstance(entry, dict) else {}


def _identity(entry: Any) -> Identity | None:
    try:
        return Identity(pid=int(entry["pid"]), start=int(entry["start"]), boot=str(entry["boot"]))
    except (KeyError, TypeError, ValueError):
        return None
