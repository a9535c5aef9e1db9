"""Who calls, told by an ordinary user while a step runs. Prints it as JSON, by who it is."""

import ctypes
import json
import os
import socket

from orchest.api.callers import Callers
from orchest.api.connections import Connection
from orchest.executor.launch import lower_limit
from tests.orchest.api.test_callers import accepted

PR_SET_DUMPABLE = 4
NOBODY = 65534


def hide(hidden: bool) -> None:
    """Whether other processes of the same user may look into this one."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, int(not hidden), 0, 0, 0)


def call(server: socket.socket, users_code: bool, hidden: bool) -> int:
    """A process that calls and waits for an answer; its pid."""
    if pid := os.fork():
        return pid
    try:
        if users_code:
            lower_limit()
        hide(hidden)
        with socket.socket() as connection:
            connection.connect(server.getsockname())
            connection.recv(1)
    finally:
        os._exit(0)


def become_ordinary() -> None:
    """Nobody in particular, instead of root."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    hide(False)


def main() -> None:
    pids: list[int] = []
    sockets: list[socket.socket] = []
    told: dict[str, str] = {}

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def start(users_code: bool, hidden: bool) -> Connection:
            pids.append(call(server, users_code, hidden))
            taken, connection = accepted(server)
            sockets.append(taken)
            return connection

        def tell(who: str, connection: Connection) -> None:
            told[who] = Callers().judge(connection).name

        try:
            if os.geteuid() == 0:
                another = start(users_code=False, hidden=False)
                become_ordinary()
                tell("another user", another)
            tell("a step", start(users_code=True, hidden=False))
            tell("a tunnel of ssh", start(users_code=False, hidden=True))
            tell("a hidden step", start(users_code=True, hidden=True))
        finally:
            for taken in sockets:
                taken.shutdown(socket.SHUT_RDWR)  # more than closing: a fork has a copy of it
    for pid in pids:
        os.waitpid(pid, 0)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
