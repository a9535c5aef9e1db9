"""``clarion listen``: a receiver that verifies what it is sent and prints it."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated

import typer

from clarion.cli.installation import now
from clarion.cli.printing import printable, say
from clarion.errors import ConfigurationError, InvalidSecret, VerificationError

LARGEST = 1024 * 1024
"""Bytes of a body that are taken."""

PATIENCE = 10.0
"""Seconds a sender may take to send."""

REMEMBERED = 10_000
"""Message ids that are remembered to tell what came twice."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is to be said of one request, and answered to it."""

    line: str
    status: int
    id: str = ""


def judge(headers: Mapping[str, str], body: bytes, secret: str | None, at: datetime) -> Judged:
    """Whether a request is authentic, in a line. ``headers`` have lower-case names."""
    from clarion.signing import verify, verify_hex

    hub = headers.get("x-hub-signature")
    id = headers.get("webhook-id") or headers.get("x-orchest-delivery") or ""
    what = f"{at:%H:%M:%S} {kind_of(headers, body):<40} {id}"
    if secret is None:
        return Judged(f"{what} not verified: no --secret", 204, id)
    try:
        if hub is not None and "webhook-signature" not in headers:
            verify_hex(secret, hub, body)
        else:
            verify([secret], headers, body, at)
    except VerificationError as error:
        return Judged(f"{what} REFUSED: {error.message}", 401)
    return Judged(f"{what} verified", 204, id)


def kind_of(headers: Mapping[str, str], body: bytes) -> str:
    """The event type a request says it is of."""
    if named := headers.get("x-orchest-event"):
        return named
    try:
        found = json.loads(body)["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "?"
    return found if isinstance(found, str) else "?"


class Listener(ThreadingHTTPServer):
    """Listens, verifies, prints. ``count`` ends it after that many requests."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        secret: str | None,
        *,
        status: int | None = None,
        show_body: bool = False,
        count: int | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        super().__init__(address, Handler)
        self.secret, self.status, self.show_body, self.left, self.clock = (
            secret,
            status,
            show_body,
            count,
            clock,
        )
        self.seen: dict[str, None] = {}
        self.refused = 0
        self.lock = threading.Lock()

    def take(self, headers: Mapping[str, str], body: bytes) -> int:
        """Judge and print one request; what to answer."""
        judged = judge(headers, body, self.secret, self.clock())
        with self.lock:
            again = " (again)" if judged.id and judged.id in self.seen else ""
            if judged.id:
                self.seen[judged.id] = None
                while len(self.seen) > REMEMBERED:
                    del self.seen[next(iter(self.seen))]
            self.refused += judged.status == 401
            say(printable(judged.line) + again)
            if self.show_body:
                say(readable(body))
        return self.status if self.status is not None and judged.status < 300 else judged.status

    def taken(self) -> None:
        """A request was answered."""
        with self.lock:
            if self.left is None:
                return
            self.left -= 1
            if self.left == 0:
                threading.Thread(target=self.shutdown, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server: Listener

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("content-length") or 0)
        except ValueError:
            length = -1
        if not 0 <= length <= LARGEST:
            self.close_connection = True
            self.answer(413 if length > 0 else 400)
            return
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.answer(self.server.take(headers, body))
        self.server.taken()

    def answer(self, status: int) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()
        self.wfile.flush()

    def log_message(self, format: str, *arguments: object) -> None:
        """The listener prints its own line."""


def readable(body: bytes) -> str:
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace")
    return printable(text)


def listen(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8471,
    secret: Annotated[
        str | None,
        typer.Option(envvar="CLARION_LISTEN_SECRET", help="The webhook's secret, to verify signatures with."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to bind; other machines reach only another one.")] = (
        "127.0.0.1"
    ),
    status: Annotated[
        int | None, typer.Option(min=200, max=599, help="Answer this instead of 204, to see retries.")
    ] = None,
    body: Annotated[bool, typer.Option("--body", help="Print bodies, too.")] = False,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many requests; fails if one was refused.")
    ] = None,
) -> None:
    """Receive webhooks here, verify their signatures (Standard Webhooks, or orchest's) and print them.

    Webhooks to this machine must be allowed where they are sent from:
    CLARION_EGRESS_ALLOWED_NETWORKS=127.0.0.0/8.
    """
    from clarion.signing import decode_secret

    if secret is not None and secret.startswith("whsec_"):
        decode_secret(secret)
    if secret is not None and not secret.strip():
        raise InvalidSecret("--secret is empty; leave it out to verify nothing")
    try:
        listener = Listener((host, port), secret, status=status, show_body=body, count=count)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    with listener:
        say(f"listening on http://{host}:{listener.server_port}/ (end with Ctrl-C)")
        try:
            listener.serve_forever(0.1)
        except KeyboardInterrupt:
            return
    if listener.refused:
        raise typer.Exit(1)
