"""The public test kit: a receiver, a clock that stands still, a drained outbox, contract suites.

Nothing here is a mock: `Receiver` is an HTTP server on a port the system picks, `drain` runs the relay.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Engine

from clarion.addresses import parse_url
from clarion.egress import Egress, EgressPolicy
from clarion.errors import Reason
from clarion.formats import Addressee, Format
from clarion.messages import Answer, Failure, Message, Response
from clarion.outcomes import Dead, Delivered, Retry
from clarion.relay import NORMAL, Limits, Relay
from clarion.subscriptions import Deliveree

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


class DelivereeContract:
    """What every deliveree promises. Subclass it in your tests, and say in ``make`` which is meant:

    class TestPigeon(DelivereeContract):
        def make(self):
            return PigeonDeliveree(loft="https://loft.example")
    """

    NOW = datetime(2026, 1, 1, tzinfo=UTC)

    def make(self) -> Deliveree:
        raise NotImplementedError("return the deliveree that is held to the contract")

    def lasting(self, body: bytes) -> Any:
        """What of a body is the same over attempts: all of it, unless its format says when it is sent."""
        return body

    def messages(self, count: int, attempt: int = 1) -> list[Message]:
        """So many messages as the outbox hands them over."""
        return [
            Message(
                uuid=UUID(int=number + 1),
                type="contract:tried",
                occurred_at=self.NOW,
                sequence=number + 1,
                attempt=attempt,
                notification='{"type": "contract:tried", "project": {"uuid": "p", "name": "Zo\u00eb"}}',
                telemetry='{"event_properties": {"type": "contract:tried"}, "derived_properties": {}}',
            )
            for number in range(count)
        ]

    def test_it_is_a_frozen_plain_value(self) -> None:
        deliveree: Any = self.make()
        assert deliveree.batch >= 1
        assert is_dataclass(type(deliveree))
        assert hash(deliveree) == hash(replace(deliveree))

    def test_the_body_and_the_address_are_the_same_over_attempts(self) -> None:
        deliveree = self.make()
        first = deliveree.request(self.messages(deliveree.batch), self.NOW)
        later = deliveree.request(self.messages(deliveree.batch, 4), self.NOW + timedelta(hours=5))
        assert self.lasting(later.body) == self.lasting(first.body)
        assert (later.url, later.method) == (first.url, first.method)
        assert first == deliveree.request(self.messages(deliveree.batch), self.NOW)

    def test_the_request_can_be_sent(self) -> None:
        request = self.make().request(self.messages(1), self.NOW)
        parse_url(request.url)
        assert request.timeout > 0
        lowered = {name.lower() for name in request.headers}
        assert not {"host", "content-length", "transfer-encoding", "connection"} & lowered
        for name, value in request.headers.items():
            assert name.isascii()
            assert value.isprintable()

    def test_each_message_gets_one_outcome_whatever_is_answered(self) -> None:
        deliveree = self.make()
        told = self.messages(min(deliveree.batch, 3))
        answers: list[Answer] = [Failure(reason, "it failed", 0.1) for reason in Reason]
        answers += [Response(status, {}, b"\xff", 0.1) for status in range(100, 600)]
        for answer in answers:
            outcomes = deliveree.judge(told, answer, self.NOW)
            assert len(outcomes) == len(told)
            assert all(isinstance(outcome, Delivered | Retry | Dead) for outcome in outcomes)
            if isinstance(answer, Failure) or not 200 <= answer.status < 300:
                assert not any(isinstance(outcome, Delivered) for outcome in outcomes)


class FormatContract:
    """What every webhook format promises. Subclass it; ``make`` and ``verifies`` say which is meant."""

    NOW = datetime(2026, 1, 1, tzinfo=UTC)
    SECRET = "whsec_" + "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"

    def make(self) -> Format:
        raise NotImplementedError("return the format that is held to the contract")

    def verifies(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        """Raise an error unless ``body`` is signed with `SECRET` as the format says."""
        raise NotImplementedError("verify a signature")

    def message(self, attempt: int = 1) -> Message:
        return Message(UUID(int=1), "project:created", self.NOW, 7, attempt, '{"project": {"uuid": "p"}}')

    def addressee(self, content_type: str) -> Addressee:
        return Addressee(UUID(int=5), "Ops", (self.SECRET,), content_type, True)

    def test_the_body_is_the_same_bytes_over_attempts(self) -> None:
        format = self.make()
        for content_type in format.content_types:
            bodies = {format.body(self.message(n), self.addressee(content_type)) for n in (1, 2, 10)}
            assert len(bodies) == 1

    def test_every_attempt_is_signed_so_that_it_verifies(self) -> None:
        format = self.make()
        for content_type in format.content_types:
            addressee = self.addressee(content_type)
            for attempt in (1, 4):
                now = self.NOW + timedelta(hours=attempt)
                body = format.body(self.message(attempt), addressee)
                self.verifies(format.headers(self.message(attempt), addressee, body, now), body, now)

    def test_the_message_keeps_its_identity_over_attempts(self) -> None:
        format = self.make()
        for content_type in format.content_types:
            addressee = self.addressee(content_type)
            then = self.NOW + timedelta(hours=4)
            first = format.headers(self.message(), addressee, b"{}", self.NOW)
            later = format.headers(self.message(5), addressee, b"{}", then)
            constant = {value for name, value in first.items() if later[name] == value}
            assert {self.message().id, str(self.message().uuid)} & constant


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
