"""Processes of steps: who they are, who belongs to them, and how they end. Linux (/proc).

A pid alone names nobody: it is used again. A process here is a pid with its start time and the boot it was
started in; what a step started is known by a random mark in its environment, which children inherit even
when they leave the process group (setsid, daemons, Jupyter kernels).

A mark can be taken off by who carries it, and is there to clean up. What must not be taken off is a limit:
`launch.py` lowers the hard limit of file locks, which the kernel has not looked at since Linux 2.4 but
hands on to every child, and which nobody raises again without privileges (getrlimit(2)).
"""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "ORCHEST_STEP_MARK"
_PROC = Path("/proc")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_ROUNDS = 50
_LOOKS = 50
_FILE_LOCKS = 10
"""RLIMIT_LOCKS (asm-generic/resource.h), the same on every architecture; `launch.py` sets it."""


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


def running_pids() -> list[int]:
    """The pids of this machine, as far as we see them; none where there is no /proc."""
    try:
        return [int(name) for name in os.listdir(_PROC) if name.isdigit()]  # noqa: PTH208 - ten times as fast
    except OSError:
        return []


def _group(leader: int) -> Iterator[int]:
    for pid in running_pids():
        try:
            if os.getpgid(pid) == leader:
                yield pid
        except ProcessLookupError:
            continue


def marked(mark: str) -> Iterator[int]:
    """Pids of every running process whose environment carries ``mark``."""
    needle = f"{MARK}={mark}".encode()
    for pid in running_pids():
        if pid == os.getpid():
            continue
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile, or another user's: not ours then
            continue
        if needle in environment and _running(pid) is not None:
            yield pid


def can_tell_users_code() -> bool:
    """Whether `is_users_code` can tell here: on Linux, unless somebody has set our own limit to 0."""
    return hasattr(resource, "prlimit") and resource.getrlimit(_FILE_LOCKS)[1] != 0


def is_users_code(pid: int) -> bool | None:
    """Whether ``pid`` was started by `launch.py`, or by what that had started, however indirectly.

    None: it is another user's, which as anybody but root we cannot have started.

    Raises:
        ProcessLookupError: it has ended.
    """
    try:
        limit = resource.prlimit(pid, _FILE_LOCKS)[1]
    except PermissionError:
        if os.geteuid() != 0:
            return None
        limit = _limit_of_anybody(pid)
    # ours may be set too; a Celery worker's may differ from ours, and so may that of what it starts
    return limit not in (resource.RLIM_INFINITY, resource.getrlimit(_FILE_LOCKS)[1])


def _limit_of_anybody(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "limits").read_text().splitlines()
    except FileNotFoundError:
        raise ProcessLookupError from None
    found = next(line for line in lines if line.startswith("Max file locks"))
    hard = found.split()[-2]  # then comes the unit
    return resource.RLIM_INFINITY if hard == "unlimited" else int(hard)


def users_code() -> frozenset[int] | None:
    """The pids of all users' code; None when more is started on this machine than we can keep up with.

    While we look, one that we have not come to could start another that we are past, and end. So it counts
    only if nothing was started meanwhile.
    """
    for _ in range(_LOOKS):
        newest = _newest_pid()
        found = set()
        for pid in running_pids():
            with contextlib.suppress(ProcessLookupError):
                if is_users_code(pid):
                    found.add(pid)
        if _newest_pid() == newest:
            return frozenset(found)
    return None


def _newest_pid() -> bytes:
    return (_PROC / "loadavg").read_bytes().rsplit(maxsplit=1)[-1]


def holds_socket(pid: int, inode: int) -> bool | None:
    """Whether ``pid`` has this socket open; None when that cannot be seen.

    Raises:
        ProcessLookupError: it has ended.
    """
    wanted = f"socket:[{inode}]"
    files = f"{_PROC}/{pid}/fd"
    try:
        for descriptor in os.listdir(files):  # noqa: PTH208
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"{files}/{descriptor}") == wanted:  # noqa: PTH115
                    return True
    except FileNotFoundError:
        raise ProcessLookupError from None
    except PermissionError:
        # a zombie shows nothing, and has nothing
        return False if _running(pid) is None else None
    return False


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
