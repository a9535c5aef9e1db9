"""What tests need of npm: its commands, and packages installed once however many test workers want them."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TRIES = 3
"""How often an installation is tried: registries have bad moments."""


def run(*command: str, cwd: Path) -> str:
    """The command's standard output; fails with all it printed if it did not succeed."""
    done = execute(*command, cwd=cwd)
    if done.returncode:
        said = f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        pytest.fail(said, pytrace=False)
    return done.stdout


def execute(*command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    quiet = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=cwd, env=quiet, capture_output=True, text=True, timeout=240, check=False
    )


@contextmanager
def installed(folder: Path) -> Iterator[Path]:
    """``folder``'s ``node_modules`` as its lock file says; other workers wait until the block is left."""
    lock = folder / "package-lock.json"
    modules = folder / "node_modules"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        mark = modules / ".package-lock.json"
        if not mark.exists() or mark.stat().st_mtime < lock.stat().st_mtime:
            command = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
            if not any(execute(*command, cwd=folder).returncode == 0 for _ in range(TRIES - 1)):
                run(*command, cwd=folder)
        yield modules
