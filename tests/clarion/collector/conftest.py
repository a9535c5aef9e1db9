"""A real collector, in a process of its own, on a port the system picks."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clarion.collector.sample import PROJECT, TOKEN, batch

ROOT = Path(__file__).resolve().parents[3]
CHROMIUM = Path("/usr/bin/chromium")


class Service:
    """A running collector process and the ways to talk to it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._process: subprocess.Popen[str] | None = None
        self.errors = data.parent / "stderr.txt"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.clarion.collector.serving", str(self.data)]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        with self.errors.open("a") as errors:
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": paths},
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.errors.read_text()
        self.url = f"http://127.0.0.1:{int(line)}"
        self.http = httpx.Client(base_url=self.url, timeout=20)

    def send(self, *events: dict[str, Any], **more: Any) -> httpx.Response:
        return self.http.post("/batch/", json=batch(*events), **more)

    def ask(self, path: str, **parameters: Any) -> Any:
        """A question over everything, put once what was answered so far is loaded."""
        self.settle()
        span = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
        answer = self.http.get(
            f"/api/{path}", params={"project": PROJECT, **span, **parameters}, headers=self.bearer
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}

    def export(self, installation: str) -> list[dict[str, Any]]:
        """Every stored event of an installation, its properties decoded."""
        answer = self.http.post(
            "/api/installations/export",
            json={"project": PROJECT, "installation": installation},
            headers=self.bearer,
        )
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["events"]
        return [{**one, "properties": json.loads(one["properties"])} for one in found]

    def settle(self) -> None:
        """Have the journal loaded: an export of nobody flushes first."""
        self.export("nobody")

    def quarantined(self) -> int:
        return sum(one["count"] for one in self.ask("quarantine")["shapes"])

    def stripped(self) -> set[str]:
        return {one["label"] for one in self.ask("counters")["counters"] if one["name"] == "stripped"}

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        self.http.close()
        process.send_signal(how)
        status = process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
        return status


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "data")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One collector for all tests of a module that do not need an empty one."""
    made = Service(tmp_path_factory.mktemp("shared") / "data")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for one module: Playwright keeps an event loop running, which async tests cannot bear."""
    if not CHROMIUM.exists():
        pytest.skip("needs Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright drives Chromium")
    flags = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync"
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags.split())
        yield made
        made.close()


def until(condition: Any, seconds: float = 20.0) -> Any:
    """The first true value of ``condition()``. Fails after ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if value := condition():
                return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")
