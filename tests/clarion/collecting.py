"""A collector as its users run one: ``clarion collector serve`` in a process of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PROJECT = "shop"
SPAN = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}


@dataclass
class Running:
    """A collector that answers, and what it printed until then. ``token`` may be set to what opens it."""

    url: str
    printed: str
    token: str
    process: "subprocess.Popen[str]"

    def get(self, path: str, token: str | None = None, project: str = PROJECT) -> httpx.Response:
        return httpx.get(
            f"{self.url}/api/{path}",
            params={"project": project, **SPAN},
            headers={"authorization": f"Bearer {token or self.token}"},
            timeout=20,
        )

    def ask(self, path: str, project: str = PROJECT) -> Any:
        """The answer to a question, with everything that was acknowledged before."""
        self.export("nobody", project)  # loads what waits, first
        answer = self.get(path, project=project)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def export(self, installation: str, project: str = PROJECT) -> list[dict[str, Any]]:
        answer = httpx.post(
            f"{self.url}/api/installations/export",
            json={"project": project, "installation": installation},
            headers={"authorization": f"Bearer {self.token}"},
            timeout=20,
        )
        assert answer.status_code == 200, answer.text
        events: list[dict[str, Any]] = answer.json()["events"]
        return events

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """The exit status."""
        self.process.send_signal(how)
        return self.process.wait(20)


@contextmanager
def a_collector(directory: Path, *arguments: str, **variables: str) -> Iterator[Running]:
    """Run it on a free port, with its data below ``directory`` and only these ``CLARION_`` variables."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CLARION_")}
    errors = directory / "collector.err"
    with errors.open("a") as stderr:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "clarion", "collector", "serve", "--port", "0", *arguments],
            cwd=directory,
            env={**environ, **{f"CLARION_{name.upper()}": value for name, value in variables.items()}},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout:
        try:
            printed = ""
            while (found := re.search(r"runs: (\S+)", printed)) is None:
                line = process.stdout.readline()
                assert line, f"it ended: {printed}{errors.read_text()}"
                printed += line
            token = re.search(r"Access token.*: (\S+)", printed)
            made = "" if token is None else token[1]
            yield Running(found[1], printed, made, process)
        finally:
            process.terminate()
            process.wait(20)
    assert "Traceback" not in errors.read_text(), errors.read_text()
