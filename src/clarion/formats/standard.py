"""Standard Webhooks: the body ``{type, timestamp, [sequence,] data}``, signed ``v1``.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted

from clarion.formats.format import JSON, USER_AGENT, Addressee, notification_of
from clarion.messages import Message
from clarion.signing import decode_secret, sign


class Standard:
    """Any Standard Webhooks library verifies it; each of several secrets adds a signature."""

    name = "standard"
    content_types = (JSON,)

    def check_secret(self, secret: str) -> None:
        decode_secret(secret)

    def body(self, message: Message, addressee: Addressee) -> bytes:
        # The frozen text is spliced in, not parsed: the same bytes on every attempt, and cheap.
        when = message.occurred_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        sequence = "" if message.sequence is None else f'"sequence":{message.sequence:d},'
        return (
            f'{{"type":{quoted(message.type)},"timestamp":"{when}",{sequence}"data":{notification_of(message)}}}'
        ).encode()

    def headers(self, message: Message, addressee: Addressee, body: bytes, now: datetime) -> dict[str, str]:
        id = message.id
        timestamp, signature = sign(addressee.secrets, id, now, body)
        return {
            "content-type": "application/json; charset=utf-8",
            "user-agent": USER_AGENT,
            "webhook-id": id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature,
            "webhook-attempt": str(message.attempt),
        }
