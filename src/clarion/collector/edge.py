"""The socket edge: what a request is reduced to before anything of ours can see it (D13).

The peer address, cookies, user agent, referrer and forwarding headers are dropped here, by keeping only the
headers on a list. Nothing behind this module can store or log what it never got.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl

from clarion.collector.decode import Undecodable

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HEADERS: Final = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"authorization",
        b"origin",
        b"accept",
        b"last-event-id",
        b"access-control-request-headers",
        b"access-control-request-method",
        b"posthog-sdk-info",
        b"posthog-request-timestamp",
        b"posthog-attempt",
        b"x-retry-count",
    }
)
"""The only request headers that get in."""

PAGE_HEADERS: Final = HEADERS | {b"cookie", b"sec-fetch-site"}
"""What the pages and the query API may see as well: the session of who looks. Never of who sends."""

BODY_SECONDS: Final = 20.0
"""Longest a client may take to send its body."""


def narrowed(scope: Scope, headers: frozenset[bytes] = HEADERS) -> Scope:
    """The scope without the peer and without any header that could tell who it is."""
    return {
        **{key: value for key, value in scope.items() if key not in ("client", "headers")},
        "client": None,
        "headers": [(name, value) for name, value in scope["headers"] if name in headers],
    }


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers as text; the last of a name wins."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def query_of(scope: Scope) -> dict[str, str]:
    """The URL parameters; the first of a name wins. Raises Undecodable 400 when there are too many."""
    if not scope["query_string"]:
        return {}
    text = scope["query_string"].decode("latin-1")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=50)
    except ValueError as error:
        raise Undecodable(400, "too many URL parameters") from error
    return dict(reversed(pairs))


async def body_of(receive: Receive, limit: int, seconds: float = BODY_SECONDS) -> bytes:
    """The whole body. Raises Undecodable 408 (too slow) or 413 (more than ``limit`` bytes)."""
    message = await _next(receive, seconds)
    body = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > limit:
            raise Undecodable(413, f"a body may be at most {limit} bytes")
        return bytes(body)
    chunks, size = [body], len(body)
    try:
        async with asyncio.timeout(seconds):
            while message.get("more_body"):
                message = await _next(receive, seconds)
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > limit:
                    raise Undecodable(413, f"a body may be at most {limit} bytes")
    except TimeoutError as error:
        raise Undecodable(408, "the body took too long to arrive") from error
    return b"".join(chunks)


async def _next(receive: Receive, seconds: float) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError as error:
        raise Undecodable(408, "the body took too long to arrive") from error
    if message["type"] == "http.disconnect":
        raise Undecodable(400, "the client went away")
    return message


async def answer(
    send: Send, status: int, body: bytes, content_type: bytes, more: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send a complete response."""
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def cors(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """PostHog's own answer to browsers: the caller's origin and the headers it asked for."""
    origin = headers.get("origin")
    if not origin:
        return []
    asked = headers.get("access-control-request-headers", "")
    allowed = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-max-age", b"86400"),
        (b"vary", b"origin"),
    ]
    return [*allowed, (b"access-control-allow-headers", asked.encode("latin-1"))] if asked else allowed
