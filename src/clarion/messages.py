"""The plain values that travel between the outbox, the deliverees and egress. No I/O, no database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from clarion.errors import Reason

MAX_BODY_KEPT = 16 * 1024
"""Bytes of an answer's body that are read and kept, unless a request wants more; the rest is never read."""


# Message, Request and Response are not frozen: that takes three times as long to make, and each delivery
# makes all three. Nobody changes one.
@dataclass(slots=True)
class Message:
    """What one subscriber must be told: an event in its two frozen renderings.

    ``notification`` and ``telemetry`` are JSON texts exactly as they were frozen when the event was
    recorded; everything built from them is byte-identical over attempts. ``attempt`` counts from 1.
    """

    uuid: UUID
    type: str
    occurred_at: datetime
    sequence: int | None
    attempt: int
    notification: str | None
    telemetry: str | None = None

    @property
    def id(self) -> str:
        """The message id, constant over attempts and free of ``.`` (Standard Webhooks: ``webhook-id``)."""
        return f"msg_{self.uuid.hex}"


@dataclass(slots=True)
class Request:
    """One HTTP request to send. ``timeout`` is in seconds and covers DNS, connect, TLS, headers and body.

    ``keep`` is how many bytes of the answer's body are read.
    """

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    timeout: float = 15.0
    verify_tls: bool = True
    keep: int = MAX_BODY_KEPT


@dataclass(slots=True)
class Response:
    """An HTTP answer, whatever its status. ``headers`` have lower-case names; ``elapsed`` is in seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed: float
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """No HTTP answer came; ``message`` says what happened and, where there is one, what to change."""

    reason: Reason
    message: str
    elapsed: float


Answer = Response | Failure
