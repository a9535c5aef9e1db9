"""The wire formats telemetry is sent in: PostHog's batch (our collector's own), PostHog v1, Segment.

Each is a small pure value that writes the same properties in its own frame. Formats and limits are those of
the official clients and servers (PostHog ``rust/capture``, Segment HTTP tracking API).
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import NAMESPACE_URL, uuid5

from clarion import __version__
from clarion.anonymous import iso
from clarion.envelope import SCHEMA_VERSION, SWITCHES
from clarion.errors import ConfigurationError
from clarion.messages import Response

BATCH = 100
"""Most events in one request."""

JSON = "application/json"
USER_AGENT = f"Clarion/{__version__}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What goes along with every event: the installation's random id, and two closed sets as JSON texts."""

    installation: str
    app: str
    system: str


@dataclass(frozen=True, slots=True)
class Sent:
    """One event as it is sent, before its backend's frame."""

    type: str
    uuid: str
    occurred_at: datetime
    telemetry: Mapping[str, Any]
    envelope: Envelope

    @property
    def properties(self) -> dict[str, Any]:
        """What every backend is told, and all that it is told."""
        return {
            "event_properties": self.telemetry["event_properties"],
            "derived_properties": self.telemetry["derived_properties"],
            "app_properties": json.loads(self.envelope.app),
            "system_properties": json.loads(self.envelope.system),
            "schema_version": SCHEMA_VERSION,
            **SWITCHES,
        }

    @property
    def timestamp(self) -> str:
        return iso(self.occurred_at)


class Backend(Protocol):
    """A wire format. Pure: the same events make the same bytes, but for when they are sent."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str:
        """Behind the backend's URL."""
        ...

    def body(self, write_key: str, events: Sequence[Sent], now: datetime) -> bytes:
        """``now`` is when it is sent, if the body says that: nothing else differs over attempts."""
        ...

    def headers(
        self, write_key: str, events: Sequence[Sent], attempt: int, now: datetime
    ) -> Mapping[str, str]: ...
    def verdicts(self, answer: Response) -> Mapping[str, tuple[str, str]]:
        """What a 200 says of single events, by uuid: ``ok``, ``warning``, ``drop`` or ``retry``, and why."""
        ...


@dataclass(frozen=True, slots=True)
class PostHog:
    """``POST /batch/``: what PostHog and our collector take."""

    name: str = "posthog"
    path: str = "/batch/"

    def body(self, write_key: str, events: Sequence[Sent], now: datetime) -> bytes:
        batch = [
            {
                "event": e.type,
                "uuid": e.uuid,
                "distinct_id": e.envelope.installation,
                "timestamp": e.timestamp,
                "properties": e.properties,
            }
            for e in events
        ]
        return dump({"api_key": write_key, "batch": batch, "sent_at": iso(now)})

    def headers(
        self, write_key: str, events: Sequence[Sent], attempt: int, now: datetime
    ) -> Mapping[str, str]:
        return {"content-type": JSON, "user-agent": USER_AGENT}

    def verdicts(self, answer: Response) -> Mapping[str, tuple[str, str]]:
        return {}


@dataclass(frozen=True, slots=True)
class PostHogV1:
    """``POST /i/v1/analytics/events``: a bearer key, and a verdict for each event."""

    name: str = "posthog-v1"
    path: str = "/i/v1/analytics/events"

    def body(self, write_key: str, events: Sequence[Sent], now: datetime) -> bytes:
        batch = [
            {
                "event": e.type,
                "uuid": e.uuid,
                "distinct_id": e.envelope.installation,
                "timestamp": e.timestamp,
                "options": {"process_person_profile": False},
                "properties": e.properties,
            }
            for e in events
        ]
        # the batch's own time: its newest event's, so that the bytes are the same over attempts
        return dump({"created_at": max(e.timestamp for e in events), "batch": batch})

    def headers(
        self, write_key: str, events: Sequence[Sent], attempt: int, now: datetime
    ) -> Mapping[str, str]:
        request = uuid5(NAMESPACE_URL, ",".join(e.uuid for e in events))
        return {
            "content-type": JSON,
            "user-agent": USER_AGENT,
            "authorization": f"Bearer {write_key}",
            "posthog-sdk-info": f"clarion/{__version__}",
            "posthog-attempt": str(attempt),
            "posthog-request-id": str(request),
            "posthog-request-timestamp": iso(now),
        }

    def verdicts(self, answer: Response) -> Mapping[str, tuple[str, str]]:
        try:
            results = json.loads(answer.body)["results"]
            return {
                uuid: (str(said.get("result", "ok")), str(said.get("details") or ""))
                for uuid, said in results.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}  # 200 all the same: it was taken


@dataclass(frozen=True, slots=True)
class Segment:
    """``POST /v1/batch``: Segment, RudderStack and what speaks their protocol. No ``context`` is sent."""

    name: str = "segment"
    path: str = "/v1/batch"

    def body(self, write_key: str, events: Sequence[Sent], now: datetime) -> bytes:
        batch = [
            {
                "type": "track",
                "event": e.type,
                "anonymousId": e.envelope.installation,
                "messageId": e.uuid,
                "timestamp": e.timestamp,
                "properties": e.properties,
            }
            for e in events
        ]
        return dump({"batch": batch, "writeKey": write_key, "sentAt": iso(now)})

    def headers(
        self, write_key: str, events: Sequence[Sent], attempt: int, now: datetime
    ) -> Mapping[str, str]:
        basic = base64.b64encode(f"{write_key}:".encode()).decode()
        return {"content-type": JSON, "user-agent": USER_AGENT, "authorization": f"Basic {basic}"}

    def verdicts(self, answer: Response) -> Mapping[str, tuple[str, str]]:
        return {}


BACKENDS: Mapping[str, Backend] = {b.name: b for b in (PostHog(), PostHogV1(), Segment())}


def backend_named(name: str) -> Backend:
    """The backend of this name. Raises ConfigurationError, which lists those there are."""
    if name not in BACKENDS:
        raise ConfigurationError(f"there is no analytics backend {name!r}; there are: {', '.join(BACKENDS)}")
    return BACKENDS[name]


def dump(value: Any) -> bytes:
    """Compact JSON; NaN and the infinities are refused, because no declared type can hold them."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
