"""Who calls: code of a project, which the platform itself has started, or somebody else of this machine.

On loopback the platform asks for no token, and what it runs for its users, steps above all, runs on the same
machine as the same user. So each connection is followed to the process that holds its other end, and that
process tells by its limit of file locks whether it is users' code (`orchest.executor.processes`). Linux.
"""

import os
import socket
import threading
from collections import deque
from contextlib import suppress
from enum import Enum, auto

from orchest.api.connections import ESTABLISHED, Connection, End, caller_of
from orchest.executor.processes import (
    can_tell_users_code,
    holds_socket,
    is_users_code,
    running_pids,
    users_code,
)

REMEMBERED = 1024
"""Connections that are known to be somebody else's."""
RECENT = 8
"""Processes that are looked at first, because they called before."""
TRIES = 3
"""How often it is looked for who holds a connection: it may just go from a process to its child."""
NOTHING: frozenset[int] = frozenset()


class Caller(Enum):
    """What is known of who calls."""

    OUTSIDE = auto()
    """Not users' code that the platform has started."""
    USERS_CODE = auto()
    UNTOLD = auto()
    """Perhaps users' code: nobody holds the connection's other end any more, or whoever does is hidden."""


class Callers:
    """Tells who calls. A connection found to be `Caller.OUTSIDE`'s stays so: its socket is known for ever.

    May be asked from several threads.
    """

    def __init__(self) -> None:
        self._outside: dict[bytes, None] = {}
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._lock = threading.Lock()

    def known(self, connection: Connection) -> bool:
        """Whether this is a connection of somebody else's, already known. Some 20 µs."""
        end = connection.end()
        return end is not None and end.cookie in self._outside

    def judge(self, connection: Connection) -> Caller:
        """Who calls. ``connection`` is seen from the caller. Some milliseconds while users' code runs.

        Raises:
            OSError: the kernel does not answer.
        """
        for _ in range(TRIES):
            # in this order: users' code that ends meanwhile was seen, or its socket is closed already
            running = users_code()
            end = connection.end()
            if end is None and running == NOTHING:
                # the other end is no socket of this machine: a virtual machine's host may forward so
                ours = connection.reversed.end()
                return Caller.OUTSIDE if ours is not None and ours.state == ESTABLISHED else Caller.UNTOLD
            if end is None or end.inode == 0:
                return Caller.UNTOLD
            caller = Caller.OUTSIDE if running == NOTHING else self._holder(end, running)
            if caller is Caller.OUTSIDE:
                self._remember(end)
            if caller is not Caller.UNTOLD:
                return caller
        return Caller.UNTOLD

    def _holder(self, end: End, running: frozenset[int] | None) -> Caller:
        if os.geteuid() not in (0, end.uid):
            return Caller.OUTSIDE  # another user's
        recent, hidden = set(self._recent), set[bool | None]()
        for pid in sorted(running_pids(), key=lambda pid: (pid not in recent, -pid)):  # the newest first
            with suppress(ProcessLookupError):  # its heir may hold it
                held = holds_socket(pid, end.inode)
                if held is False:
                    continue
                ours = is_users_code(pid)
                if held is None:
                    hidden.add(ours)
                    continue
                if ours:
                    return Caller.USERS_CODE
                if pid not in recent:
                    self._recent.append(pid)
                return Caller.OUTSIDE
        # what ssh holds for a tunnel cannot be seen, but it can be seen that ssh is not users' code
        if hidden - {None} == {False} and running is not None and running == users_code():
            return Caller.OUTSIDE
        return Caller.UNTOLD

    def _remember(self, end: End) -> None:
        with self._lock:
            self._outside[end.cookie] = None
            if len(self._outside) > REMEMBERED:
                del self._outside[next(iter(self._outside))]


def can_tell() -> bool:
    """Whether this machine's kernel lets us tell who calls: tried on a connection of our own."""
    if not can_tell_users_code():
        return False
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
        ):
            connection = caller_of({"client": client.getsockname(), "server": server.getsockname()})
            end = connection.end() if connection is not None else None
            return end is not None and end.inode == os.fstat(client.fileno()).st_ino
    except (OSError, AttributeError):  # no sockets of this kind
        return False
