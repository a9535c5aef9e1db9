"""Calling the command line in tests, in this process or as its users do."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

SHOP = "tests.clarion.sample,tests.clarion.plain"


@dataclass(frozen=True)
class Ran:
    """What came of a command. No output ever holds a traceback."""

    status: int
    out: str
    err: str

    @property
    def all(self) -> str:
        """Everything, in one line and without the boxes around it."""
        return re.sub(r"[\s\u2500-\u257f]+", " ", self.out + self.err)


def call(*arguments: str, answer: str | None = None) -> Ran:
    """Run ``clarion`` with these arguments in this process."""
    from clarion.cli.commands import app

    result = CliRunner().invoke(app, list(arguments), input=answer, catch_exceptions=False)
    return Ran(result.exit_code, result.stdout, result.stderr)


def clarion(*arguments: str, cwd: Path, **variables: str) -> Ran:
    """Run the real console script in a process of its own, with only these ``CLARION_`` variables."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CLARION_")}
    done = subprocess.run(
        [Path(sys.executable).parent / "clarion", *arguments],
        cwd=cwd,
        env={**environ, **{f"CLARION_{name.upper()}": value for name, value in variables.items()}},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)
