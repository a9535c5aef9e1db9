"""Who calls is told by the process that holds the other end of the connection, whatever it does to hide."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from orchest.api.callers import Caller, Callers, can_tell
from orchest.api.connections import Connection, caller_of, is_lost
from orchest.children import Child
from orchest.executor.commands import HERE
from orchest.executor.processes import holds_socket, running_pids
from tests.orchest.building import eventually

IMPORTS = "import os, resource, signal, socket, sys\n"
CONNECT = IMPORTS + "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
DAEMON = "os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0)\n"
WAIT = "s.recv(1)\n"
CALLS = {
    "itself": WAIT,
    "a child": "os.fork() or s.recv(1); os.wait()",
    "a daemon": DAEMON + WAIT,
    "a daemon without environment": DAEMON
    + "s.set_inheritable(True)\n"
    + "code = 'import socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(1)'\n"
    + "os.execve(sys.executable, ['python', '-c', code, str(s.fileno())], {})",
    "with a limit of its own": "resource.setrlimit(10, (7, 7))\n" + WAIT,
}
"""How users' code calls, and then waits for an answer."""
HIDES = {
    "closes": "s.close()",
    "resets": "s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0])); s.close()",
    "ends": "os._exit(0)",
}
"""How it writes without waiting for an answer."""


def accepted(server: socket.socket) -> tuple[socket.socket, Connection]:
    taken, peer = server.accept()
    connection = caller_of({"client": peer[:2], "server": taken.getsockname()[:2]})
    assert connection is not None
    return taken, connection


@contextmanager
def users_code(root: Path, code: str, server: socket.socket, host: str = "") -> Iterator[None]:
    """Python that the platform runs for a user, given where the server is."""
    at, port = server.getsockname()[:2]
    child = Child(
        [sys.executable, "-c", code, host or at, str(port)],
        cwd=root,
        variables={},
        log=root / "log.txt",
        record=root / "process.json",
        exited=lambda: None,
    )
    try:
        yield
    finally:
        child.end(0)


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as server:
        server.settimeout(20)
        yield server


def test_it_can_be_told_here() -> None:
    assert can_tell() is (sys.platform == "linux")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_users_code_is_told(server: socket.socket, tmp_path: Path, call: str) -> None:
    with users_code(tmp_path, CONNECT + call, server):
        taken, connection = accepted(server)
        with taken:
            callers = Callers()
            assert callers.judge(connection) is not Caller.OUTSIDE  # it may just be about to leave
            eventually(lambda: callers.judge(connection) is Caller.USERS_CODE, "it is told")
            assert not callers.known(connection)


def test_users_code_that_ends_while_it_is_looked_at_is_not_let_in(
    server: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was seen to hold the connection, and when it is asked for its limit it is gone."""
    ended: list[int] = []

    def then_it_ends(pid: int, inode: int) -> bool | None:
        held = holds_socket(pid, inode)
        if held and not ended:
            ended.append(pid)
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")
        return held

    monkeypatch.setattr("orchest.api.callers.holds_socket", then_it_ends)
    two = "signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.fork()\n"
    with users_code(tmp_path, CONNECT + two + "os.write(1, b'.'); " + WAIT, server):
        taken, connection = accepted(server)
        with taken:
            eventually(lambda: (tmp_path / "log.txt").read_text() == "..", "there are two")
            assert Callers().judge(connection) is Caller.USERS_CODE
    assert ended


def test_users_code_that_goes_to_a_new_process_while_they_are_listed_is_not_let_in(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was listed is gone when it is looked at, and its heir was not listed yet."""
    code = CONNECT + DAEMON + "s.sendall(b'%d ' % os.getpid()); s.recv(1); os.fork() and os._exit(0)\n" + WAIT
    launch = [sys.executable, str(HERE / "launch.py"), str(os.getpid()), sys.executable, "-c", code]
    with subprocess.Popen([*launch, *map(str, server.getsockname()[:2])]) as process:
        taken, connection = accepted(server)
    assert process.returncode == 0  # the daemon it has become is nobody's child
    with taken:
        daemon = int(taken.recv(10))
        lists: list[list[int]] = []

        def then_it_goes() -> list[int]:
            lists.append(running_pids())
            if len(lists) == 1:
                taken.sendall(b".")
                eventually(lambda: not Path(f"/proc/{daemon}").exists(), "it has gone")
            return lists[-1]

        monkeypatch.setattr("orchest.executor.processes.running_pids", then_it_goes)
        assert Callers().judge(connection) is Caller.USERS_CODE
        assert daemon in lists[0]


@pytest.mark.parametrize("hide", HIDES.values(), ids=HIDES)
def test_who_does_not_wait_for_the_answer_is_not_told(
    server: socket.socket, tmp_path: Path, hide: str
) -> None:
    """Users' code could write and be gone, so nobody is let in who is gone."""
    callers = Callers()
    with users_code(tmp_path, f"{CONNECT}{hide}\nsignal.pause()", server):
        taken, connection = accepted(server)
        with taken:
            with suppress(ConnectionResetError):
                assert taken.recv(1) == b""
            assert callers.judge(connection) is Caller.UNTOLD
    assert callers.judge(connection) is Caller.UNTOLD  # also when nothing of it runs any more
    assert not callers.known(connection)


def test_others_are_told(server: socket.socket, tmp_path: Path) -> None:
    """This process, and one that it starts, while users' code runs and while none does."""
    callers, address = Callers(), server.getsockname()[:2]
    with socket.create_connection(address):
        taken, mine = accepted(server)
        with taken:
            assert not callers.known(mine)
            assert callers.judge(mine) is Caller.OUTSIDE
            assert callers.known(mine)
            with users_code(tmp_path, CONNECT + WAIT, server), accepted(server)[0]:
                assert callers.known(mine)
                assert Callers().judge(mine) is Caller.OUTSIDE
                command = [sys.executable, "-c", CONNECT + WAIT, *map(str, address)]
                with subprocess.Popen(command):
                    other, theirs = accepted(server)
                    with other:
                        assert callers.judge(theirs) is Caller.OUTSIDE


def test_who_has_said_all_but_still_listens_is_told(server: socket.socket) -> None:
    with socket.create_connection(server.getsockname()[:2]) as client:
        taken, connection = accepted(server)
        with taken:
            client.shutdown(socket.SHUT_WR)
            assert Callers().judge(connection) is Caller.OUTSIDE


def test_not_more_is_remembered_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchest.api.callers.REMEMBERED", 2)
    callers = Callers()
    with ExitStack() as held, socket.create_server(("127.0.0.1", 0)) as server:
        connections = []
        for _ in range(3):
            held.enter_context(socket.create_connection(server.getsockname()))
            taken, connection = accepted(server)
            held.enter_context(taken)
            assert callers.judge(connection) is Caller.OUTSIDE
            connections.append(connection)
        assert [callers.known(connection) for connection in connections] == [False, True, True]
        assert callers.judge(connections[0]) is Caller.OUTSIDE


@pytest.mark.parametrize(
    ("client", "server"),
    [(None, ("/run/orchest.sock", None)), (("testclient", 50000), ("testserver", 80)), (None, None)],
)
def test_what_is_no_connection_has_no_ends(client: object, server: object) -> None:
    assert caller_of({"client": client, "server": server}) is None


@pytest.mark.parametrize(
    ("scope", "lost"),
    [
        ({"client": None, "server": ("127.0.0.1", 80)}, True),
        ({"client": None, "server": None}, True),
        ({"client": None, "server": ("/run/socket", None)}, False),
        ({"client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 80)}, False),
        ({}, False),
    ],
)
def test_a_connection_that_was_reset_before_it_was_looked_at_is_lost(
    scope: dict[str, object], lost: bool
) -> None:
    assert is_lost(scope) is lost


def test_a_port_that_is_used_again_is_another_connection(tmp_path: Path) -> None:
    """One that is known says nothing about the next one from the same port, which users' code may have."""
    callers = Callers()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as first:
            port = first.getsockname()[1]
            taken, before = accepted(server)
            assert callers.judge(before) is Caller.OUTSIDE
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT
        taken.close()
        again = f"s = socket.socket(); s.bind(('', {port})); s.connect((sys.argv[1], int(sys.argv[2])))\n"
        with users_code(tmp_path, IMPORTS + again + WAIT, server):
            taken, after = accepted(server)
            with taken:
                assert after == before
                assert not callers.known(after)
                assert callers.judge(after) is Caller.USERS_CODE


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_a_server_of_both_kinds_of_addresses(host: str, tmp_path: Path) -> None:
    """It sees a caller over IPv4 as an IPv6 address; and the caller's own socket may be of IPv6."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        with socket.create_connection((host, port)) as client:
            taken, connection = accepted(server)
            with taken:
                assert str(connection.address) == "127.0.0.1"
                end = connection.end()
                assert end is not None
                assert end.inode == os.fstat(client.fileno()).st_ino
        with users_code(tmp_path, CONNECT + WAIT, server, host=host):
            taken, connection = accepted(server)
            with taken:
                assert Callers().judge(connection) is Caller.USERS_CODE


def test_an_ordinary_user_tells_too() -> None:
    """And is not led astray by what it may not look into."""
    program = [sys.executable, "-m", "tests.orchest.api.judging"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.pop("another user", "OUTSIDE") == "OUTSIDE"  # a test that is not root's has no other
    assert told == {"a step": "USERS_CODE", "a hidden step": "UNTOLD", "a tunnel of ssh": "OUTSIDE"}
