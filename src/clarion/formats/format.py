"""What a webhook format is, and what it is told about the webhook it writes for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from clarion import __version__
from clarion.errors import InvalidEvent
from clarion.messages import Message

USER_AGENT = f"Clarion-Webhooks/{__version__}"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Addressee:
    """The webhook a message is written for. ``secrets`` has the newest first and is never shown."""

    uuid: UUID
    name: str
    secrets: tuple[str, ...] = field(repr=False)
    content_type: str = JSON
    verify_ssl: bool = True


class Format(Protocol):
    """How a webhook's body and headers are written: pure functions of what was frozen.

    The body depends on the message's frozen rendering and the addressee alone, never on the attempt
    or the time, so that it is the same bytes over all attempts. Only headers carry those.
    """

    @property
    def name(self) -> str:
        """What it is called in the database and the interfaces."""
        ...

    @property
    def content_types(self) -> Sequence[str]:
        """The content types it can write; the first is the default."""
        ...

    def check_secret(self, secret: str) -> None:
        """Raises InvalidSecret if it could not sign with this."""
        ...

    def body(self, message: Message, addressee: Addressee) -> bytes:
        """Raises InvalidEvent if the message has no rendering it can write."""
        ...

    def headers(self, message: Message, addressee: Addressee, body: bytes, now: datetime) -> dict[str, str]:
        """The headers of one attempt, signed as of ``now``; names in lower case, or as receivers expect."""
        ...


def notification_of(message: Message) -> str:
    """The frozen notification. Raises InvalidEvent if there is none: it was never meant for webhooks."""
    if message.notification is None:
        raise InvalidEvent(f"The event {message.uuid} has no notification to send to a webhook.")
    return message.notification
