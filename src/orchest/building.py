"""Carries out one build: makes the virtual environment and runs the set-up script in it.

The directory of a build (`orchest.builds.directory_of`):

log.txt           what its commands print: readable while they do
setup_script.sh   the script
process.json      the command that runs now, until it has ended (`orchest.children`)
venv/             what is built; removed unless the build succeeds, and when it is no longer used
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchest.bases import NoSuchBase, share_packages, venv_command
from orchest.builds import Assignment
from orchest.children import GRACE, Child, describe_exit, in_virtual_environment, inherited_variables, reap

TIME_LIMIT = 3600.0
"""Seconds a build may take."""
MOST_LOG = 64 * 1024 * 1024
"""Bytes a build may print."""
POLL = 1.0
"""Seconds between two looks at whether the build was cancelled, when nothing wakes it before."""


class BuildFailed(Exception):
    """The build failed; says why in a user's words."""


class BuildLost(Exception):
    """It was cancelled, or is no longer this builder's."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one build may take. Times are in seconds."""

    time_limit: float = TIME_LIMIT
    most_log: int = MOST_LOG
    poll: float = POLL
    grace: float = GRACE


class Building:
    """One build. `run` blocks in the caller's thread, which must live until it returns."""

    def __init__(
        self, taken: Assignment, still_ours: Callable[[], bool], bounds: Bounds | None = None
    ) -> None:
        self.taken = taken
        self.woken = threading.Event()
        """Set it to make the build look at once whether it is still ours."""
        self.log = taken.directory / "log.txt"
        self.image = taken.directory / "venv"
        self._still_ours = still_ours
        self._bounds = bounds or Bounds()
        self._ends_by = 0.0

    def run(self) -> Path:
        """Build; answers with the virtual environment. Whatever happens, no process of it is left.

        Raises:
            BuildFailed: it failed, and what was built is removed.
            BuildLost: it was cancelled, and what was built is removed.
        """
        self._ends_by = time.monotonic() + self._bounds.time_limit
        try:
            self._build()
        except (NoSuchBase, OSError) as error:
            remove_image(self.taken.directory)
            raise BuildFailed(f"could not be built: {error}") from error
        except BaseException:
            remove_image(self.taken.directory)
            raise
        return self.image

    def _build(self) -> None:
        taken = self.taken
        taken.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_image(taken.directory)  # a build that died under the same tag
        self.log.write_bytes(b"")
        scratch = taken.directory / "tmp"  # what a cancelled pip leaves behind goes with the build
        scratch.mkdir(mode=0o700)
        own = inherited_variables(os.environ, network=True) | {"TMPDIR": str(scratch)}
        self._say(f"Creating the virtual environment ({taken.base})")
        self._command("creating the virtual environment", venv_command(taken.base, self.image), own)
        share_packages(taken.base, self.image)
        if taken.setup_script.strip():
            script = taken.directory / "setup_script.sh"
            script.write_text(taken.setup_script, encoding="utf-8")
            shell = shutil.which("bash", path=own.get("PATH")) or "/bin/sh"
            self._say("Running the set-up script")
            self._command("the set-up script", [shell, "-e", str(script)], self._variables(own))
        shutil.rmtree(scratch, ignore_errors=True)
        self._say("Done")

    def _variables(self, own: dict[str, str]) -> dict[str, str]:
        variables = in_virtual_environment(own, self.image / "bin" / "python")
        return variables | {
            "PYTHONUNBUFFERED": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "ORCHEST_GPU_SUPPORT": "true" if self.taken.gpu_support else "false",
            "ORCHEST_LANGUAGE": self.taken.language.value,
        }

    def _say(self, what: str) -> None:
        with self.log.open("ab") as log:
            log.write(f"=== {what}\n".encode())

    def _command(self, what: str, command: Sequence[str], variables: dict[str, str]) -> None:
        cwd = self.taken.cwd or self.taken.directory
        if not cwd.is_dir():
            raise BuildFailed(f"the project's directory {cwd} does not exist")
        self._check()  # cancelled before it began
        record = self.taken.directory / "process.json"
        child = Child(
            command, cwd=cwd, variables=variables, log=self.log, record=record, exited=self.woken.set
        )
        try:
            while child.running:
                self.woken.wait(min(self._bounds.poll, max(self._ends_by - time.monotonic(), 0.01)))
                self.woken.clear()
                if child.running:
                    self._check()
        finally:
            code = child.end(self._bounds.grace)
        if code != 0:
            raise BuildFailed(f"{what} {describe_exit(code)}")

    def _check(self) -> None:
        if not self._still_ours():
            raise BuildLost
        if time.monotonic() >= self._ends_by:
            raise BuildFailed(f"it took longer than {self._bounds.time_limit:g} s")
        if self.log.stat().st_size > self._bounds.most_log:
            raise BuildFailed(f"it printed more than {self._bounds.most_log} bytes")


def remove_image(directory: Path) -> None:
    """Remove what was built in a build's directory, and what it left; its log stays."""
    for name in ("venv", "tmp"):
        shutil.rmtree(directory / name, ignore_errors=True)


def clear_after(directory: Path) -> list[int]:
    """End what a dead builder left running in a build's directory, and remove what it built; the pids."""
    pids = reap(directory / "process.json")
    remove_image(directory)
    return pids
