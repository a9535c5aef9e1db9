"""A PostgreSQL server of a test's own that may be killed: real files, real fsync, a port the system picks."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

STARTS_WITHIN = 60.0
"""Seconds; after a kill the server first recovers."""


def binaries() -> Path | None:
    """Where the newest PostgreSQL installed here keeps its programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(on_path).parent if on_path else None


def owner() -> dict[str, Any]:
    """As whom to run it: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class PostgresInstance:
    """``start``, ``kill`` (every process of it, with SIGKILL), ``start`` again."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.programs = programs
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def initialise(self) -> None:
        subprocess.run(
            [self.programs / "initdb", "-D", self.directory / "data", "-U", "postgres", "-A", "trust"],
            check=True,
            capture_output=True,
            cwd="/",
            **owner(),
        )

    def start(self) -> None:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.directory,
            "fsync": "on",
            "max_connections": 60,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.directory / "data", *options],
                stdout=log,
                stderr=log,
                cwd="/",
                **owner(),
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"PostgreSQL ended: {(self.directory / 'log').read_text()[-2000:]}")
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url.replace("+psycopg", ""), connect_timeout=2).close()
                return
            time.sleep(0.02)
        raise TimeoutError(f"PostgreSQL did not start within {STARTS_WITHIN} s")

    def kill(self) -> None:
        """SIGKILL to the postmaster and to every process it started, as when the machine loses power."""
        assert self.process is not None
        mine = [self.process.pid, *children(self.process.pid)]
        for pid in mine:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        deadline = time.monotonic() + 10
        while any(alive(pid) for pid in mine) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.process = None

    def stop(self) -> None:
        """A fast shutdown: connections are ended, nothing is waited for."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None


def children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(status.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def postgres_instance() -> Iterator[PostgresInstance]:
    """A server, started; gone afterwards. Raises FileNotFoundError where PostgreSQL is not installed."""
    programs = binaries()
    if programs is None:
        raise FileNotFoundError("PostgreSQL's server programs (initdb) are not installed")
    directory = Path(tempfile.mkdtemp(prefix="clarion-postgresql-"))
    who = owner()
    if who:
        os.chown(directory, who["user"], who["group"])
    instance = PostgresInstance(programs, directory)
    try:
        instance.initialise()
        instance.start()
        yield instance
    finally:
        instance.stop()
        shutil.rmtree(directory, ignore_errors=True)
