"""Processes of steps: who they are, who belongs to them, and how they end. Linux (/proc).

A pid alone names nobody: it is used again. A process here is a pid with its start time and the boot it was
started in; what a step started is known by a random mark in its environment, which children inherit even
when they leave the process group (setsid, daemons, Jupyter kernels).
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "ORCHEST_STEP_MARK"
_PROC = Path("/proc")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Identity:
    """One process for ever: ``start`` is in clock ticks since boot (field 22 of /proc/pid/stat, proc(5))."""

    pid: int
    start: int
    boot: str

    def alive(self) -> bool:
        """Whether exactly this process runs; a zombie does not."""
        return self.boot == boot() and _running(self.pid) == self.start


def boot() -> str:
    """The id of this boot of the machine, empty where there is none."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def identify(pid: int) -> Identity | None:
    """Who runs under ``pid`` now; None when nobody does."""
    start = _running(pid)
    return None if start is None else Identity(pid, start, boot())


def _running(pid: int) -> int | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # the name, in parentheses, may itself hold blanks and parentheses
    state, *rest = stat[stat.rindex(b")") + 2 :].split()
    return None if state in (b"Z", b"X") else int(rest[18])


def _group(leader: int) -> Iterator[int]:
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getpgid(int(entry.name)) == leader:
                yield int(entry.name)
        except ProcessLookupError:
            continue


def marked(mark: str) -> Iterator[int]:
    """Pids of every running process whose environment carries ``mark``."""
    needle = f"{MARK}={mark}".encode()
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile, or another user's: not ours then
            continue
        if needle in environment and _running(int(entry.name)) is not None:
            yield int(entry.name)


def signal_all(mark: str, number: signal.Signals, leader: Identity | None = None) -> list[int]:
    """Send a signal to everything a step started; answers with the pids it was sent to."""
    pids = set(marked(mark))
    if leader is not None and leader.alive():
        # its group too: a program that rewrites its own environment block carries no mark any more
        pids.update(_group(leader.pid))
    reached = []
    for pid in sorted(pids):
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue
        reached.append(pid)
    return reached


def kill_all(mark: str, leader: Identity | None = None) -> list[int]:
    """SIGKILL until nothing of the step is left (a fork may outrun one round); the pids killed."""
    killed: set[int] = set()
    empty = 0
    for _ in range(_ROUNDS):
        reached = signal_all(mark, signal.SIGKILL, leader)
        killed.update(reached)
        empty = 0 if reached else empty + 1
        if empty == 2:  # once is not enough: in the middle of execve a process shows no environment
            break
        time.sleep(0.005)  # the kernel needs a moment to take them off /proc
    return sorted(killed)


def kill_group(leader: int) -> None:
    """SIGKILL a process group. Only while its leader is not reaped: later the id may be a stranger's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
