"""Processes the platform answers for: the commands of builds, and services.

Each carries a random mark that all it starts inherit; the mark is on disk before the process is, so that
whoever comes after a killed platform finds and ends what is left (see `orchest.executor.processes`).
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchest.executor.commands import HERE, INHERITED
from orchest.executor.processes import MARK, Identity, identify, kill_all, kill_group, signal_all

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
UNKILLABLE = 10.0
"""Seconds after SIGKILL until a process counts as ended though the kernel still holds it (a hung disk)."""
NETWORK = frozenset(
    {
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "PIP_INDEX_URL",
        "PIP_CERT",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
    }
)
"""What a build needs besides, on a network with a proxy or a mirror; a service does not get it."""


class Child:
    """A process and everything it starts. The thread that makes it must outlive it: the kernel ends it then.

    ``exited`` is called once, in a thread of its own, when the process has ended by itself or was ended.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        variables: Mapping[str, str],
        log: Path,
        record: Path,
        exited: Callable[[], None],
    ) -> None:
        self.mark = secrets.token_hex(16)
        self.record = record
        write_record(record, self.mark, None)
        launcher = [sys.executable, "-I", "-S", str(HERE / "launch.py"), str(os.getpid())]
        try:
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    [*launcher, *command],
                    cwd=cwd,
                    env={**variables, MARK: self.mark},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except BaseException:
            record.unlink(missing_ok=True)
            raise
        try:
            self.identity = identify(self.process.pid)
            write_record(record, self.mark, self.identity)
        except BaseException:  # its directory was deleted meanwhile: nobody would find it any more
            kill_group(self.process.pid)
            self.process.wait()
            record.unlink(missing_ok=True)
            raise
        self._exited = threading.Event()
        threading.Thread(target=self._await_exit, args=(exited,), daemon=True).start()

    def _await_exit(self, exited: Callable[[], None]) -> None:
        with contextlib.suppress(ChildProcessError):  # the host program reaped it: it has ended all the same
            # not reaped yet: as a zombie it keeps its pid, and so its group is surely still its own
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        self._exited.set()
        exited()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return not self._exited.is_set()

    def ask_to_end(self) -> None:
        """SIGTERM to it and to all it started."""
        signal_all(self.mark, signal.SIGTERM, self.identity)

    def end(self, grace: float = GRACE) -> int | None:
        """End it and all it started; answers with its exit code, or None when the kernel keeps hold of it.

        A process that runs gets SIGTERM and ``grace`` seconds; what is left, and what an ended one left
        behind, gets SIGKILL.
        """
        if self.running:
            self.ask_to_end()
            self._exited.wait(grace)
        kill_group(self.process.pid)
        kill_all(self.mark, self.identity)
        self._exited.wait(UNKILLABLE)
        code = self.process.poll()
        self.record.unlink(missing_ok=True)
        return code


def reap(record: Path) -> list[int]:
    """Kill what the process of ``record`` left running after the platform died; the pids.

    Nothing is done for a record of another machine. Safe to call again.
    """
    try:
        entry = json.loads(record.read_text())
    except FileNotFoundError:
        return []
    except ValueError:
        entry = {}  # cut short by a crash, before anything was started
    if entry.get("host") not in (None, socket.gethostname()):
        return []
    pids = kill_all(entry["mark"], identity_in(entry)) if isinstance(entry.get("mark"), str) else []
    record.unlink(missing_ok=True)
    return pids


def write_record(record: Path, mark: str, identity: Identity | None) -> None:
    entry = {"host": socket.gethostname(), "mark": mark, "process": asdict(identity) if identity else None}
    new = record.with_suffix(".tmp")
    new.write_text(json.dumps(entry))
    new.replace(record)


def identity_in(entry: Mapping[str, Any]) -> Identity | None:
    try:
        process = entry["process"]
        return Identity(int(process["pid"]), int(process["start"]), str(process["boot"]))
    except (KeyError, TypeError, ValueError):
        return None


def inherited_variables(own: Mapping[str, str], *, network: bool = False) -> dict[str, str]:
    """What a child sees of the platform's own environment: an allow-list, so that secrets stay here."""
    return {
        name: value
        for name, value in own.items()
        if name in INHERITED or name.startswith("LC_") or (network and name.upper() in NETWORK)
    }


def in_virtual_environment(variables: Mapping[str, str], python: Path) -> dict[str, str]:
    """``variables`` as in the virtual environment of the interpreter ``python``."""
    path = os.pathsep.join([str(python.parent), variables.get("PATH") or os.defpath])
    return {**variables, "PATH": path, "VIRTUAL_ENV": str(python.parent.parent)}


def describe_exit(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "could not be killed"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
