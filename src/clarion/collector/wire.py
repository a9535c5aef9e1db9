"""Three wire formats, one result: PostHog v0 and v1, and Segment (RudderStack is the same).

Reading is a pure function of the decoded body and the few headers that mean something. What a format says
about people (``context``, ``traits``, ``$set``, addresses) is not read at all.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from clarion.collector.decode import Undecodable
from clarion.collector.transport import CONTEXT, library_of, version_of

MAX_EVENTS: Final = 20_000
"""Most events one request may carry."""

_FUTURE: Final = timedelta(hours=23)
_OLDEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_REFUSED_IDS: Final = frozenset(
    {"0", "anonymous", "guest", "null", "undefined", "none", "true", "false", "nil", "nan", "distinct_id"}
    | {"distinctid", "id", "email", "not_authenticated", "[object object]"}
    | {"00000000-0000-0000-0000-000000000000"}
)
_SEGMENT_EVENTS: Final = frozenset({"identify", "page", "screen", "group", "alias"})


class Unauthorized(Exception):
    """No usable write key in the request, or several that differ."""


@dataclass(slots=True)
class Arrival:
    """One event as it arrived, its transport taken off. ``problem`` says why it cannot even be judged."""

    event: str
    id: str
    distinct_id: str
    occurred_at: datetime
    library: str
    library_version: str
    properties: dict[str, Any]
    dropped: tuple[str, ...] = ()
    problem: str = ""


@dataclass(slots=True)
class Envelope:
    """A whole request: the write key it claims and its events."""

    token: str
    arrivals: list[Arrival] = field(default_factory=list)
    skew: timedelta | None = None
    """How far the sender's clock was behind ours; None: it did not say when it sent."""


def posthog_v0(body: Any, query: Mapping[str, str], now: datetime) -> Envelope:
    """``{api_key, batch, sent_at}``, a list of events, or one event. Raises Undecodable, Unauthorized."""
    if isinstance(body, list):
        outer: dict[str, Any] = {}
        events: Any = body
    elif isinstance(body, dict):
        outer = body
        events = body.get("batch", [body])
    else:
        raise Undecodable(400, "the body must be an event, a list of events or a batch")
    _check_batch(events)
    tokens = {_token(outer)} | {_token(event) for event in events if isinstance(event, dict)}
    tokens.discard("")
    if not tokens:
        tokens = {query.get("api_key", "") or query.get("token", "")} - {""}
    sent = _time(outer.get("sent_at")) or _time(query.get("sent_at")) or _millis(query.get("_"))
    skew = now - sent if sent else None
    arrivals = [_posthog(event, now, skew) for event in events]
    if len(arrivals) == 1 and "batch" not in outer and arrivals[0].problem:
        raise Undecodable(400, arrivals[0].problem)
    return Envelope(_one(tokens), arrivals, skew)


def posthog_v1(
    body: Any, authorization: str, sdk: str, sent_at: str, now: datetime
) -> tuple[Envelope, list[str | None]]:
    """``{created_at, batch}`` with a bearer key; also the uuid each verdict is answered under."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized
    events = body.get("batch") if isinstance(body, dict) else None
    _check_batch(events)
    assert isinstance(events, list)
    sent = _time(sent_at)
    skew = now - sent if sent else None
    library, _, version = sdk.partition("/")
    arrivals, ids = [], []
    for event in events:
        options = event.get("options") if isinstance(event, dict) else None
        still = isinstance(options, dict) and options.get("disable_skew_correction") is True
        arrival = _posthog(event, now, None if still else skew, library, version)
        if not arrival.problem and not _is_uuid(event.get("uuid")):
            arrival.problem = "missing uuid"
        if not arrival.problem and not _time(event.get("timestamp")):
            arrival.problem = "missing timestamp"
        if not arrival.problem and arrival.distinct_id.lower() in _REFUSED_IDS:
            arrival.problem = "distinct_id names nobody"
        if arrival.occurred_at > now + _FUTURE:
            arrival.occurred_at = now
        arrivals.append(arrival)
        name = event.get("uuid") if isinstance(event, dict) else None
        ids.append(name if isinstance(name, str) else None)
    return Envelope(token.strip(), arrivals, skew), ids


def segment(body: Any, kind: str, authorization_user: str, now: datetime) -> Envelope:
    """``{batch, sentAt, writeKey}`` or one message of ``kind``. Raises Undecodable, Unauthorized.

    A batch may be larger than Segment's own 500 KB: RudderStack's clients send up to 4 MB to the same path.
    """
    if not isinstance(body, dict):
        raise Undecodable(400, "the body must be a message or a batch")
    batch = body.get("batch") if kind == "batch" else [{**body, "type": kind}]
    _check_batch(batch)
    assert isinstance(batch, list)
    tokens = {
        authorization_user,
        *(str(m.get("writeKey") or "") for m in (body, *batch) if isinstance(m, dict)),
    }
    sent = _time(body.get("sentAt"))
    skew = now - sent if sent else None
    return Envelope(_one(tokens - {""}), [_segment(message, now, skew) for message in batch], skew)


def _posthog(
    event: Any, now: datetime, skew: timedelta | None, library: str = "", version: str = ""
) -> Arrival:
    if not isinstance(event, dict):
        return _broken(now, "an event must be an object")
    properties = event.get("properties")
    properties = dict(properties) if isinstance(properties, dict) else {}
    known = library_of(library or properties.get("$lib"))
    shown = version_of(version or properties.get("$lib_version"))
    distinct = event.get("distinct_id", event.get("$distinct_id", properties.get("distinct_id")))
    distinct = "" if distinct is None else str(distinct).strip()[:200]
    name = event.get("event")
    problem = ""
    if not isinstance(name, str) or not name.strip():
        problem, name = "missing event", ""
    elif not distinct:
        problem = "missing distinct_id"
    identifier = event.get("uuid") or properties.get("$insert_id")
    dropped = tuple(f"event.{key}" for key in ("$set", "$set_once", "ip", "site_url") if event.get(key))
    return Arrival(
        event=name.strip()[:200],
        id=identifier[:200] if isinstance(identifier, str) and identifier else str(uuid.uuid4()),
        distinct_id=distinct,
        occurred_at=_occurred(event, now, skew),
        library=known,
        library_version=shown,
        properties=properties,
        dropped=dropped,
        problem=problem,
    )


def _segment(message: Any, now: datetime, skew: timedelta | None) -> Arrival:
    if not isinstance(message, dict):
        return _broken(now, "a message must be an object")
    kind = message.get("type")
    kind = kind if isinstance(kind, str) else ""
    context = message.get("context")
    context = context if isinstance(context, dict) else {}
    named = context.get("library")
    named = named if isinstance(named, dict) else {}
    name = message.get("event") if kind == "track" else (kind if kind in _SEGMENT_EVENTS else None)
    distinct = message.get("anonymousId") or message.get("userId")
    problem = "" if isinstance(name, str) and name.strip() else "missing event"
    if not problem and not distinct:
        problem = "missing userId"
    properties = message.get("properties") if kind == "track" else {}
    identifier = message.get("messageId")
    dropped = tuple(f"context.{key if key in CONTEXT else '*'}" for key in context)
    return Arrival(
        event=name.strip()[:200] if isinstance(name, str) else "",
        id=identifier[:200] if isinstance(identifier, str) and identifier else str(uuid.uuid4()),
        distinct_id=str(distinct or "").strip()[:200],
        occurred_at=_occurred(message, now, skew),
        library=library_of(named.get("name") or "other"),
        library_version=version_of(named.get("version")),
        properties=dict(properties) if isinstance(properties, dict) else {},
        dropped=dropped,
        problem=problem,
    )


def _occurred(event: Mapping[str, Any], now: datetime, skew: timedelta | None) -> datetime:
    stamp = _time(event.get("timestamp"))
    if stamp is not None:
        return max(_OLDEST, min(_shift(stamp, skew), now + _FUTURE))
    offset = event.get("offset")
    if isinstance(offset, int) and not isinstance(offset, bool) and 0 <= offset < 10**12:
        return now - timedelta(milliseconds=offset)
    return now


def _shift(stamp: datetime, skew: timedelta | None) -> datetime:
    try:
        return stamp + (skew or timedelta(0))
    except OverflowError:
        return stamp


def _broken(now: datetime, problem: str) -> Arrival:
    return Arrival("", str(uuid.uuid4()), "", now, "other", "", {}, (), problem)


def _check_batch(events: Any) -> None:
    if not isinstance(events, list) or not events:
        raise Undecodable(400, "the batch must be a list of at least one event")
    if len(events) > MAX_EVENTS:
        raise Undecodable(413, f"a batch may carry at most {MAX_EVENTS} events")


def _token(holder: Mapping[str, Any]) -> str:
    properties = holder.get("properties")
    inner = properties.get("token") if isinstance(properties, dict) else None
    for value in (holder.get("api_key"), holder.get("token"), holder.get("$token"), inner):
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _one(tokens: Sequence[str] | set[str]) -> str:
    if len(tokens) != 1:
        raise Unauthorized
    token = next(iter(tokens))
    if not token.isascii() or "\0" in token or len(token) > 64:
        raise Unauthorized
    return token


def _time(value: object) -> datetime | None:
    if not isinstance(value, str) or not 10 <= len(value) <= 40:
        return None
    try:
        stamp = datetime.fromisoformat(value)
        return stamp.astimezone(UTC) if stamp.tzinfo else stamp.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _millis(value: object) -> datetime | None:
    if not isinstance(value, str) or not (value.isascii() and value.isdigit()) or len(value) != 13:
        return None
    return datetime.fromtimestamp(int(value) / 1000, UTC)


def _is_uuid(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        uuid.UUID(value)
    except ValueError:
        return False
    return True
