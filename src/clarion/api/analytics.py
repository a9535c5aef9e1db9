"""The browser's way to analytics: ``POST /analytics``, and ``GET /api/telemetry/preview``.

A router of its own, for any FastAPI or Starlette application. Nothing goes upstream inside a request: an
event that is taken is a row when the answer leaves. Refusals are problem documents (RFC 9457).

======  ==============================================================================
200     taken; ``{"accepted": n, "refused": n}``; also while telemetry is off: no effect
400     not JSON, or not an event or a batch of events
403     from a page of another origin, or an event that no browser sends
413     more than 64 KiB, or more than 100 events
415     neither JSON nor text, or compressed
422     properties that are not declared for the event, or none of them usable
429     too many requests from one client; ``Retry-After`` says when
503     the event could not be stored; send it again
======  ==============================================================================
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from clarion.analytics import Accepted, Disabled, Rejected, TelemetryData
from clarion.analytics.capturing import UNSTORED, Analytics
from clarion.analytics.payload import WrongShape
from clarion.analytics.previewing import preview
from clarion.consent import Why
from clarion.errors import NotFound
from clarion.losses import Loss
from clarion.observe import counters

MAX_BODY = 64 * 1024
"""Bytes; also what browsers let a beacon carry."""

MAX_EVENTS = 100
MOST_DROPPED = 1000
"""Events a client may say it lost, in one request."""

MAX_AGE = timedelta(days=1)
"""How long ago a browser may say something happened; beyond it the clock of one of us is wrong."""

MEDIA_TYPES = ("application/json", "text/plain")
PATHS = ("/analytics", "/moments")
"""Where the relay listens; the second name is for clients behind lists that block the first."""

EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "description": "The event's type; one that browsers send."},
        "properties": {"type": "object", "description": "Exactly what is declared for the type."},
        "id": {"type": "string", "format": "uuid", "description": "The same over repeats of one event."},
        "occurred_at": {"type": "string", "format": "date-time"},
    },
    "required": ["event"],
}
BATCH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "events": {"type": "array", "minItems": 1, "maxItems": MAX_EVENTS, "items": EVENT},
        "sent_at": {"type": "string", "format": "date-time", "description": "By the client's clock."},
        "dropped": {"type": "integer", "minimum": 0, "description": "Events the client lost since the last."},
    },
    "required": ["events"],
}
TAKEN = {
    "type": "object",
    "properties": {"accepted": {"type": "integer"}, "refused": {"type": "integer"}},
    "required": ["accepted", "refused"],
}
PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["title", "status", "detail"],
}
PROBLEM_CONTENT = {"application/problem+json": {"schema": PROBLEM}}
REFUSALS = {
    400: "Not JSON, or neither an event nor a batch of events.",
    403: "From a page of another origin, or an event that no browser sends.",
    413: f"More than {MAX_BODY} bytes, or more than {MAX_EVENTS} events.",
    415: "Neither JSON nor text, or compressed.",
    422: "Properties that are not declared for the event, or no such event.",
    429: "Too many requests from one client; `Retry-After` says when.",
    503: "It could not be stored; send it again.",
}


OPERATION: dict[str, Any] = {
    "summary": "Take what a browser saw happen",
    "description": "Stored, and sent later; while telemetry is off, taken without effect. "
    "Beacons send the same as `text/plain`.",
    "operationId": "relay_telemetry",
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"anyOf": [EVENT, BATCH]}}}},
    "responses": {
        "200": {"description": "Taken, or off.", "content": {"application/json": {"schema": TAKEN}}},
        **{
            str(status): {"description": said, "content": PROBLEM_CONTENT}
            for status, said in REFUSALS.items()
        },
    },
}
"""What the relay is, for an OpenAPI document: ``document["paths"]["/analytics"] = {"post": OPERATION}``. The
route itself is a plain one, so that a Starlette application can have it too."""


class Refusal(Exception):
    """What was asked cannot be done; becomes a problem document. Never holds what was sent.

    ``shape`` says of an event in a few fixed words what was wrong with it, for the counters.
    """

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, *, shape: str = ""
    ) -> None:
        super().__init__(detail)
        self.shape = shape
        self.status = status
        self.detail = detail
        self.headers = headers

    def response(self) -> Response:
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        return JSONResponse(body, self.status, self.headers, "application/problem+json")


@dataclass(frozen=True, slots=True)
class Sent:
    """One event as a browser sent it."""

    event: Any
    properties: Any
    id: UUID | None = None
    occurred_at: datetime | None = None


class TokenBuckets:
    """How often each client may call: ``rate`` a second in the long run, ``burst`` at once.

    Keeps the ``clients`` that called last; nothing of them is stored anywhere else.
    """

    def __init__(self, rate: float = 10.0, burst: float = 100.0, clients: int = 10_000) -> None:
        self.rate = rate
        self.burst = burst
        self.clients = clients
        self._buckets: OrderedDict[str, tuple[float, datetime]] = OrderedDict()

    def wait(self, client: str, now: datetime) -> float:
        """Take a token; 0, or the seconds until there is one."""
        tokens, at = self._buckets.pop(client, (self.burst, now))
        tokens = min(self.burst, tokens + max((now - at).total_seconds(), 0.0) * self.rate)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, now)
        while len(self._buckets) > self.clients:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self.rate


def by_address(request: Request) -> str:
    """Tell clients apart by where they call from; only ever held in memory."""
    return request.client.host if request.client is not None else ""


def analytics_router(
    analytics: Analytics,
    *,
    origins: Sequence[str] = (),
    session_of: Callable[[Request], str] = by_address,
    buckets: TokenBuckets | None = None,
    paths: Sequence[str] = PATHS,
) -> APIRouter:
    """The relay for ``analytics``. ``origins`` are allowed besides the one the request was made to.

    ``session_of`` tells clients apart for the rate limit. The clock is that of ``analytics``.
    """
    relay = BrowserRelay(analytics, frozenset(origins), session_of, buckets or TokenBuckets())
    router = APIRouter()
    for path in paths:
        router.add_route(path, relay.answer, methods=["POST"], include_in_schema=False)
    return router


def preview_router(analytics: Analytics) -> APIRouter:
    """``GET /api/telemetry/preview?type=``: the exact bytes of the next request if sent now, or for one type.

    Who may ask is for the application to say.
    """
    router = APIRouter()
    missing = {"description": "Nothing waits, or there is no such type.", "content": PROBLEM_CONTENT}
    names = {"enum": [one.name for one in analytics.types]}
    bytes_ = {"description": "The body of the request.", "content": {"application/json": {"schema": {}}}}

    @router.get(
        "/api/telemetry/preview",
        summary="The exact bytes telemetry would send",
        responses={200: bytes_, 404: missing},
    )
    def telemetry_preview(type: Annotated[str | None, Query(json_schema_extra=names)] = None) -> Response:
        """The next request as if it were sent now, or an example of a type, which needs no backend."""
        try:
            return Response(preview(analytics, type), media_type="application/json")
        except NotFound as error:
            return Refusal(404, error.message).response()

    return router


@dataclass(frozen=True, slots=True)
class BrowserRelay:
    """Takes what browsers send: checks where it comes from, what it is, and stores it."""

    analytics: Analytics
    origins: frozenset[str]
    session_of: Callable[[Request], str]
    buckets: TokenBuckets

    async def answer(self, request: Request) -> Response:
        try:
            return await self.relayed(request)
        except Refusal as refusal:
            counters.add("telemetry_relay", str(refusal.status))
            return refusal.response()
        except ClientDisconnect:
            return Response(status_code=400)

    async def relayed(self, request: Request) -> Response:
        check_origin(request, self.origins)
        now = self.analytics.clock()
        if (seconds := self.buckets.wait(self.session_of(request), now)) > 0:
            wait = str(max(1, round(seconds + 0.5)))
            raise Refusal(429, "too many requests from this client", {"retry-after": wait})
        check_media_type(request)
        body = await limited_body(request)
        events, dropped = read(body, now)
        if objects(request.headers):
            return without_effect()
        return await run_in_threadpool(self.take, events, dropped)

    def take(self, events: Sequence[Sent], dropped: int) -> Response:
        """Store what can be; refuse the request only if nothing of it could. ``dropped`` were lost before."""
        decision = self.analytics.telemetry.decision()
        if not (decision or decision.why is Why.DEBUG):
            return without_effect()
        taken, refusals = 0, []
        for sent in events:
            try:
                taken += self.take_one(sent)
            except Refusal as refusal:
                counters.add("telemetry_relay", f"event {refusal.status} {refusal.shape}")
                refusals.append(refusal)
        again = next((r for r in refusals if r.status == 503), None)
        if again is not None:  # the whole batch comes again; what was stored keeps its id and is one message
            raise again
        if refusals and len(refusals) == len(events):
            raise refusals[0]
        if dropped:
            self.analytics.note_lost(Loss.BROWSER_DROPPED, dropped)
        return JSONResponse({"accepted": taken, "refused": len(refusals)})

    def take_one(self, sent: Sent) -> int:
        types = self.analytics.types
        if not isinstance(sent.event, str) or sent.event not in types:
            self.analytics.note_lost(Loss.SCHEMA_REJECT)
            raise Refusal(422, "there is no such event type", shape="unknown event")
        if types[sent.event].source != "browser":
            raise Refusal(403, "browsers do not send events of this type", shape="event of a server")
        if not isinstance(sent.properties, Mapping):
            raise Refusal(422, "properties must be an object", shape="no properties")
        try:
            result = self.analytics.send(
                sent.event, TelemetryData(sent.properties), id=sent.id, occurred_at=sent.occurred_at
            )
        except WrongShape as error:
            shape = "unknown property" if error.undeclared else "missing property"
            raise Refusal(422, str(error), shape=shape) from None
        except ValueError as error:
            raise Refusal(422, str(error), shape="wrong value") from None
        match result:
            case Accepted():
                return 1
            case Disabled():
                return 0
            case Rejected(reason=reason) if reason == UNSTORED:
                again = {"retry-after": "1"}
                raise Refusal(503, "the event could not be stored; send it again", again, shape="not stored")
            case Rejected(reason=reason):
                raise Refusal(422, reason, shape="wrong value")


def without_effect() -> Response:
    counters.add("telemetry_relay", "no effect")
    return JSONResponse({"accepted": 0, "refused": 0})


def check_origin(request: Request, origins: frozenset[str]) -> None:
    """Only pages of this origin may send. What is no browser sends no such header and is not kept out."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if origin is not None and origin in origins:
        return
    if site is not None and site not in ("same-origin", "none"):
        raise Refusal(403, "only pages of this origin may send events")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Refusal(403, "only pages of this origin may send events")


def check_media_type(request: Request) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in MEDIA_TYPES:
        raise Refusal(415, f"send {' or '.join(MEDIA_TYPES)}")
    if request.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise Refusal(415, "send it uncompressed")


async def limited_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Refusal(413, f"a request may carry at most {MAX_BODY} bytes")
    return bytes(body)


def objects(headers: Mapping[str, str]) -> bool:
    """Whether the browser says that its user does not want to be counted."""
    return headers.get("sec-gpc") == "1" or headers.get("dnt") == "1"


def read(body: bytes, now: datetime) -> tuple[list[Sent], int]:
    """The events of ``{event, properties}`` or ``{events: [{id, event, properties, occurred_at}], sent_at}``.

    And how many the client says it lost, as ``dropped`` of a batch; what is no such number counts as 0.

    Raises:
        Refusal: 400, the body is neither; 413, too many events.
    """
    try:
        document = json.loads(body.decode("utf-8-sig"), parse_constant=no_constant)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON in UTF-8") from None
    if isinstance(document, dict) and "event" in document and "events" not in document:
        return [one(document, timedelta(0), now)], 0
    events = document.get("events") if isinstance(document, dict) else None
    if not isinstance(events, list) or not events or not all(isinstance(e, dict) for e in events):
        raise Refusal(400, "send {event, properties} or {events: [{event, properties}], sent_at}")
    if len(events) > MAX_EVENTS:
        raise Refusal(413, f"a request may carry at most {MAX_EVENTS} events")
    sent_at = moment(document.get("sent_at"))
    skew = timedelta(0) if sent_at is None else now - sent_at
    return [one(event, skew, now) for event in events], lost_before(document.get("dropped"))


def lost_before(count: Any) -> int:
    """How many events a client says it lost, at most `MOST_DROPPED`: it can say anything."""
    if not isinstance(count, int) or isinstance(count, bool):
        return 0
    return max(0, min(count, MOST_DROPPED))


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def one(event: Mapping[str, Any], skew: timedelta, now: datetime) -> Sent:
    return Sent(
        event.get("event"),
        event.get("properties", {}),
        identifier(event.get("id")),
        happened(moment(event.get("occurred_at")), skew, now),
    )


def identifier(text: Any) -> UUID | None:
    try:
        return UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None


def happened(at: datetime | None, skew: timedelta, now: datetime) -> datetime | None:
    """When it happened by our clock: the client's corrected by its skew, within a day before now."""
    if at is None:
        return None
    try:
        return min(max(at + skew, now - MAX_AGE), now)
    except OverflowError:
        return now


def moment(text: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) and len(text) <= 40 else None
    except ValueError:
        return None
    return None if at is None or at.tzinfo is None else at
