"""The public test kit: a receiver, a clock that stands still, a drained outbox, contract suites.

Nothing here is a mock: `Receiver` is an HTTP server on a port the system picks, `drain` runs the relay.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from sqlalchemy import Engine

from clarion.egress import Egress, EgressPolicy
from clarion.relay import NORMAL, Limits, Relay

LOOPBACK = ("127.0.0.0/8", "::1/128")
"""What a test's egress must be allowed to reach."""


class FrozenClock:
    """A clock for tests: it shows ``now`` until it is moved. Call it to read it."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> datetime:
        """Move it on, by the keywords of ``timedelta``; returns the new time."""
        self.now += timedelta(**duration)
        return self.now


@dataclass(frozen=True, slots=True)
class Received:
    """One request a `Receiver` got. Header names are lower-case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What a `Receiver` answers."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Receiver:
    """A real HTTP server on loopback that keeps what it is sent. Use it as a context manager.

    ``reply`` is called with each request, in the server's thread, and says what to answer.
    """

    def __init__(self, reply: Callable[[Received], Reply] = lambda _: Reply()) -> None:
        self.reply = reply
        self.received: list[Received] = []
        self._arrived = threading.Condition()
        self._server = Server(("127.0.0.1", 0), handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens; any path below is taken."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def take(self, request: Received) -> Reply:
        reply = self.reply(request)
        with self._arrived:
            self.received.append(request)
            self._arrived.notify_all()
        return reply

    def wait_for(self, count: int, timeout: float = 10.0) -> list[Received]:
        """The requests so far, once there are at least ``count``.

        Raises:
            TimeoutError: they did not come within ``timeout`` seconds.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.received) >= count, timeout):
                raise TimeoutError(f"{len(self.received)} of {count} requests came within {timeout} s")
            return list(self.received)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that was killed is no fault of the receiver's; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = receiver.take(Received(self.path, headers, body))
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *arguments: object) -> None:
            """A test's output is the test's."""

    return Handler


def drain(
    engine: Engine,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    allow: tuple[str, ...] = LOOPBACK,
    limits: Limits = NORMAL,
) -> int:
    """Attempt everything that is due as of ``clock``, as a relay would; returns how many attempts."""

    async def run() -> int:
        async with Egress(EgressPolicy.of(allow)) as egress:
            return await Relay(engine, egress, clock=clock, limits=limits, random=lambda: 0.5).drain()

    return asyncio.run(run())
