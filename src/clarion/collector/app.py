"""The collector as an ASGI application, and the server that runs it.

Ingest is raw ASGI: a route table, no framework, nothing between the socket edge and the judge. The query API
(:mod:`.queries`) is mounted under ``/api``, the pages (:mod:`.pages`) under ``/ui``.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from clarion.collector import backup, edge, wire
from clarion.collector.access import Sessions
from clarion.collector.decode import Undecodable, decode
from clarion.collector.edge import Receive, Scope, Send
from clarion.collector.ingest import Judged, Ruling
from clarion.collector.journal import StorageFailed
from clarion.collector.service import Collector, Settings
from clarion.collector.sidecar import SIDE_ROUTES, metrics, side_answer
from clarion.collector.store import Store
from clarion.collector.timing import CLOCK, skew_of

JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"

V0: Final = frozenset(
    {"/batch", "/capture", "/e", "/i/v0/e", "/track", "/engage", "/i/v0/ai/batch", "/i/v0/ai", "/s"}
)
V1: Final = "/i/v1/analytics/events"
SEGMENT: Final[Mapping[str, str]] = {
    "/v1/batch": "batch",
    "/v1/import": "batch",
    "/v1/b": "batch",
    **{f"/v1/{kind}": kind for kind in ("track", "identify", "page", "screen", "group", "alias")},
    "/v1/t": "track",
    "/v1/i": "identify",
    "/v1/p": "page",
    "/v1/s": "screen",
    "/v1/g": "group",
    "/v1/a": "alias",
}
_IGNORED: Final = frozenset({"/engage", "/s"})
_BIG: Final = 256 * 1024
_IN_FLIGHT_BYTES: Final = 256 * 1024 * 1024


class RateLimited(Exception):
    """Too many events for this key; ``seconds`` until they would be taken."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class App:
    """The ASGI application over one :class:`Collector`; its lifespan starts and stops it."""

    def __init__(self, collector: Collector) -> None:
        from clarion.collector.pages.site import CATALOGUE, create_pages
        from clarion.collector.queries import create_api

        self.collector = collector
        backup.clear(collector.settings.data)
        sessions = Sessions(collector.settings.access, time.monotonic)
        self._api = create_api(collector, sessions)
        self._pages = create_pages(collector, sessions)
        self._catalogue = CATALOGUE
        self._decoders = asyncio.Semaphore(2)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] != "http":
            raise RuntimeError(f"the collector does not speak {scope['type']}")
        path = scope["path"]
        for prefix, looking in (("/api", self._api), ("/ui", self._pages)):
            if path == prefix or path.startswith(f"{prefix}/"):
                return await looking(edge.narrowed(scope, edge.PAGE_HEADERS), receive, send)
        scope = edge.narrowed(scope)
        if path == self._catalogue and scope["method"] in ("GET", "HEAD"):
            return await self._pages(scope, receive, send)
        route = path.rstrip("/")
        if scope["method"] == "OPTIONS":
            return await edge.answer(send, 200, b"{}", JSON, edge.cors(edge.headers_of(scope)))
        if route in V0:
            return await self._answer(scope, receive, send, "v0", route)
        if route == V1:
            return await self._answer(scope, receive, send, "v1", route)
        if route in SEGMENT:
            return await self._answer(scope, receive, send, "segment", route)
        return await self._side(scope, receive, send, route)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, form: str, route: str) -> None:
        started = time.perf_counter()
        headers = edge.headers_of(scope)
        more: list[tuple[bytes, bytes]] = edge.cors(headers)
        try:
            status, body = 200, await self._ingest(scope, receive, headers, form, route)
        except Undecodable as error:
            status, body = error.status, _refusal(form, error.status, error.message)
        except wire.Unauthorized:
            status, body = 401, _refusal(form, 401, "the write key is missing, unknown or revoked")
        except RateLimited as error:
            status, body = 429, _refusal(form, 429, "too many events for this write key")
            more.append((b"retry-after", str(max(1, round(error.seconds + 0.5))).encode()))
        except StorageFailed:
            status, body = 503, _refusal(form, 503, "the events could not be stored; send them again")
            more.append((b"retry-after", b"2"))
        self.collector.answers[form, status] += 1
        self.collector.took.add(time.perf_counter() - started)
        await edge.answer(send, status, body, TEXT if form == "v0" and status != 200 else JSON, more)

    async def _ingest(
        self, scope: Scope, receive: Receive, headers: Mapping[str, str], form: str, route: str
    ) -> bytes:
        value = await self._body(scope, receive, headers)
        now = self.collector.clock()
        authorization = headers.get("authorization", "")
        ids: list[str | None] = []
        if form == "v1":
            sdk, sent = headers.get("posthog-sdk-info", ""), headers.get("posthog-request-timestamp", "")
            envelope, ids = wire.posthog_v1(value, authorization, sdk, sent, now)
        elif form == "v0":
            envelope = wire.posthog_v0(value, edge.query_of(scope), now)
        else:
            envelope = wire.segment(value, SEGMENT[route], _basic_user(authorization), now)
        project = self.collector.keys.project_of(envelope.token)
        if project is None:
            raise wire.Unauthorized
        if wait := self.collector.limit.wait(project, len(envelope.arrivals)):
            raise RateLimited(wait)
        counts = self.collector.judge.counts
        if envelope.skew is not None:
            counts[project, CLOCK, skew_of(envelope.skew.total_seconds())] += 1
        if _is_retry(headers, edge.query_of(scope)):
            counts[project, "retried", form] += 1
        if route in _IGNORED:
            return _verdicts(form, (), ids)
        return _verdicts(form, await self.collector.keep(project, envelope.arrivals), ids)

    async def _body(self, scope: Scope, receive: Receive, headers: Mapping[str, str]) -> Any:
        query = edge.query_of(scope)
        limit = self.collector.settings.body_bytes
        announced = headers.get("content-length", "")
        size = int(announced) if announced.isascii() and announced.isdigit() else 0
        if size > limit:
            raise Undecodable(413, f"a body may be at most {limit} bytes")
        if self._in_flight + size > _IN_FLIGHT_BYTES:
            raise StorageFailed("too much is being received")
        self._in_flight += size
        try:
            raw = await edge.body_of(receive, limit)
            if scope["method"] == "GET" and not raw:
                raw = unquote_to_bytes(query.get("data", ""))
            encoding = headers.get("content-encoding", "").lower()
            kind = headers.get("content-type", "").lower()
            if len(raw) < _BIG:
                return decode(raw, encoding, kind, query)
            async with self._decoders:
                return await asyncio.to_thread(decode, raw, encoding, kind, query)
        finally:
            self._in_flight -= size

    async def _side(self, scope: Scope, receive: Receive, send: Send, route: str) -> None:
        headers = edge.headers_of(scope)
        if route == "/healthz":
            return await edge.answer(send, 200, b'{"status":"ok"}', JSON)
        if route == "/readyz":
            ready = self.collector.ready
            body = b'{"status":"ready"}' if ready else b'{"status":"not ready"}'
            return await edge.answer(send, 200 if ready else 503, body, JSON)
        if route == "/metrics":
            return await edge.answer(send, 200, metrics(self.collector), b"text/plain; version=0.0.4")
        if route == "" and scope["method"] in ("GET", "HEAD"):
            return await edge.answer(send, 303, b"", TEXT, [(b"location", b"/ui")])
        found = side_answer(route)
        if found is None:
            known = sorted(
                {
                    *V0,
                    V1,
                    *SEGMENT,
                    *SIDE_ROUTES,
                    "/api",
                    "/ui",
                    self._catalogue,
                    "/healthz",
                    "/readyz",
                    "/metrics",
                }
            )
            body = msgspec.json.encode({"title": "Not Found", "status": 404, "detail": f"try one of {known}"})
            return await edge.answer(send, 404, body, b"application/problem+json")
        return await edge.answer(send, 200, found[0], found[1], edge.cors(headers))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await asyncio.to_thread(self.collector.start)
                except Exception as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
                await send({"type": "lifespan.startup.complete"})
            else:
                await asyncio.to_thread(self.collector.stop)
                await send({"type": "lifespan.shutdown.complete"})
                return


def create_app(
    settings: Settings, store: Store | None = None, clock: Callable[[], datetime] | None = None
) -> App:
    """The ASGI application. Raises ConfigurationError when the data directory or schema cannot be used."""
    return App(Collector(settings, store, clock))


def _verdicts(form: str, judged: Sequence[Judged], ids: Sequence[str | None]) -> bytes:
    if form == "v1":
        results: dict[str, dict[str, str]] = {}
        for name, one in zip(ids, judged, strict=False):
            if name is not None:
                kept = one.ruling is Ruling.KEPT
                results[name] = {"result": "ok"} if kept else {"result": "drop", "details": one.detail}
        return msgspec.json.encode({"results": results})
    refused = sum(one.ruling is not Ruling.KEPT for one in judged)
    answer: dict[str, object] = {"success": True} if form == "segment" else {"status": "Ok"}
    if refused:
        answer["quarantined"] = refused
        answer["reasons"] = sorted({one.detail for one in judged if one.detail})
    return msgspec.json.encode(answer)


def _is_retry(headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
    """Whether a client says that it sends this again: PostHog counts from 1, or like Segment from 0."""
    attempt = headers.get("posthog-attempt", "")
    again = headers.get("x-retry-count") or query.get("retry_count", "")
    return (attempt.isdecimal() and int(attempt[:9]) > 1) or (again.isdecimal() and int(again[:9]) > 0)


def _refusal(form: str, status: int, message: str) -> bytes:
    if form == "v0":
        return message.encode()
    if form == "segment":
        return msgspec.json.encode({"success": False, "message": message})
    word = {401: "invalid_token", 413: "too_large", 415: "unsupported_encoding", 429: "rate_limited"}
    error = word.get(status, "unavailable" if status >= 500 else "invalid_request")
    return msgspec.json.encode({"error": error, "error_description": message, "error_uri": "about:blank"})


def _basic_user(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode("ascii").partition(":")[0]
    except ValueError as error:  # not base64, or not ASCII
        raise wire.Unauthorized from error
