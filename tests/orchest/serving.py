"""The platform as a process: ``python -m orchest run``, and calls to it."""

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit


class Running:
    """A platform in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.said: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            self.said.append(line.strip())
            if found := re.fullmatch(r"Orchest is running: (http://.+:(\d+))", line.strip()):
                self.url, self.port = found[1], int(found[2])
                return
        raise AssertionError(
            f"it ended without running: {self.said}, {process.stderr and process.stderr.read()}"
        )

    def call(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
        """A request, byte for byte as given; underscores in header names are hyphens."""
        host = urlsplit(self.url).hostname
        connection = http.client.HTTPConnection(host or "", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"content-type": "application/json", **named})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text


@contextmanager
def running(directory: Path, *arguments: str, **environment: str) -> Iterator[Running]:
    """``python -m orchest run`` in ``directory``, ended by SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "orchest", "run", "--port", "0", *arguments],
        cwd=directory,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Running(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=40)
        finally:
            process.kill()
            process.wait()
