"""A head that does not come in time is refused; whatever else takes long is left alone."""

import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from clarion.collector import server as collector
from clarion.collector.service import Settings
from clarion.heads import PromptHeads
from orchest import server as platform
from tests.clarion.collector.sample import SCHEMA

HEAD = b"POST /batch/ HTTP/1.1\r\nhost: x\r\n"
WHOLE = HEAD + b"content-length: 2\r\n\r\n"


class Loop:
    """An event loop that does nothing by itself, and keeps what was to be called later."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    @property
    def waiting(self) -> list["Timer"]:
        return [timer for timer in self.timers if not timer.cancelled]

    def call_later(self, seconds: float, callback: Callable[[], None]) -> "Timer":
        self.timers.append(Timer(seconds, callback))
        return self.timers[-1]

    def create_task(self, coroutine: Coroutine[Any, Any, None], **_: Any) -> Mock:
        coroutine.close()
        return Mock()


class Timer:
    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        self.seconds, self.callback, self.cancelled = seconds, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Transport:
    """A connection; ``written`` is what the server said."""

    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def get_extra_info(self, _name: str) -> None: ...
    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def write(self, data: bytes) -> None:
        self.written += data


@pytest.fixture
def connected() -> tuple[PromptHeads, Loop, Transport]:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None: ...

    loop, transport = Loop(), Transport()
    config = uvicorn.Config(app, http=PromptHeads, log_config=None)
    protocol = PromptHeads(config, ServerState(), {}, loop)  # type: ignore[arg-type]
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol, loop, transport


Connected = tuple[PromptHeads, Loop, Transport]


def answered(protocol: PromptHeads) -> None:
    protocol.cycle.response_complete = True
    protocol.cycle.on_response()


@pytest.mark.parametrize("sent", [(), (b"P",), (b"\r\n", b"\r\n"), (HEAD, b"x-1: a\r\n", b"x-2: a\r\n")])
def test_a_connection_has_ten_seconds_for_its_head(connected: Connected, sent: tuple[bytes, ...]) -> None:
    protocol, loop, transport = connected
    for data in sent:
        protocol.data_received(data)
    [timer] = loop.timers  # none of what came gave it more time
    assert (timer.seconds, timer.cancelled) == (10, False)
    timer.callback()
    assert transport.written.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert transport.closed


@pytest.mark.parametrize("sent", [(WHOLE + b"ab",), (WHOLE,), (WHOLE, b"a"), (HEAD, b"\r\n"), (WHOLE, b"ab")])
def test_a_whole_head_is_waited_for_no_longer(connected: Connected, sent: tuple[bytes, ...]) -> None:
    protocol, loop, _ = connected
    for data in sent:
        protocol.data_received(data)
    assert loop.waiting == []


def test_a_body_that_goes_on_after_its_answer_is_no_head(connected: Connected) -> None:
    protocol, loop, _ = connected
    protocol.data_received(WHOLE)
    answered(protocol)
    for timer in loop.waiting:
        timer.cancel()  # uvicorn's, for a connection that is kept alive
    protocol.data_received(b"a")
    assert loop.waiting == []


@pytest.mark.parametrize("more", [b"\r\n", b"G", HEAD])
def test_the_next_head_has_its_own_ten_seconds(connected: Connected, more: bytes) -> None:
    protocol, loop, transport = connected
    protocol.data_received(WHOLE + b"ab")
    answered(protocol)
    protocol.data_received(more)
    [timer] = loop.waiting
    assert timer.seconds == 10
    timer.callback()
    assert transport.closed


def test_a_connection_that_ended_is_forgotten(connected: Connected) -> None:
    protocol, loop, transport = connected
    protocol.data_received(HEAD)
    transport.close()
    protocol.connection_lost(None)
    assert loop.waiting == []


@contextmanager
def served(http: type[PromptHeads]) -> Iterator[int]:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http=http, lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


def test_who_sends_a_header_now_and_then_is_cut_off() -> None:
    class Quick(PromptHeads):
        seconds = 0.2

    with served(Quick) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
        slow.sendall(HEAD)
        slow.settimeout(0.02)
        said = b""
        for number in range(500):
            try:
                said = slow.recv(200)
                break
            except TimeoutError:
                slow.sendall(b"x-%d: a\r\n" % number)
        assert said.startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as prompt:
            prompt.sendall(HEAD + b"\r\n")
            assert prompt.recv(200).startswith(b"HTTP/1.1 204 ")


class Enough(Exception):
    """What was asked for is known."""


def test_both_servers_speak_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = []

    def configured(*_: Any, **options: Any) -> Any:
        spoken.append(options["http"])
        raise Enough

    monkeypatch.setattr(uvicorn, "Config", configured)
    with pytest.raises(Enough):
        collector.serve(Settings(tmp_path, SCHEMA), port=0)
    monkeypatch.setattr(platform, "prepare", Mock())
    monkeypatch.setattr(platform, "access_of", Mock(return_value=(None, None)))
    for name in ("create_app", "telemetry"):
        monkeypatch.setattr(platform, name, Mock())
    with pytest.raises(Enough):
        platform.serve("127.0.0.1", 0, Mock())
    assert spoken == [PromptHeads, PromptHeads]
