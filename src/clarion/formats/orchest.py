"""The original platform's webhooks, so that receivers written for it go on working.

The body is ``{"delivered_for": {...}, "event": ...}`` as JSON, or the same two fields as JSON texts in a
form. ``X-Hub-Signature`` is the hex HMAC-SHA256 of the raw body, under the secret's own text.
"""

import json
from datetime import datetime
from urllib.parse import urlencode

from clarion.errors import InvalidSecret
from clarion.formats.format import FORM, JSON, USER_AGENT, Addressee, notification_of
from clarion.messages import Message
from clarion.signing import sign_hex


class Orchest:
    """One signature only, so of several secrets the newest signs."""

    name = "orchest"
    content_types = (JSON, FORM)

    def check_secret(self, secret: str) -> None:
        if not secret.strip():
            raise InvalidSecret("A signing secret is not empty.")

    def body(self, message: Message, addressee: Addressee) -> bytes:
        event = notification_of(message)
        delivered_for = json.dumps(
            {
                "uuid": str(addressee.uuid),
                "type": "webhook",
                "name": addressee.name,
                "verify_ssl": addressee.verify_ssl,
                "content_type": addressee.content_type,
            }
        )
        if addressee.content_type == FORM:
            return urlencode({"delivered_for": delivered_for, "event": event}).encode("ascii")
        return f'{{"delivered_for": {delivered_for}, "event": {event}}}'.encode()

    def headers(self, message: Message, addressee: Addressee, body: bytes, now: datetime) -> dict[str, str]:
        return {
            "content-type": addressee.content_type,
            "user-agent": USER_AGENT,
            "X-Orchest-Event": message.type,
            "X-Orchest-Delivery": str(message.uuid),
            "X-Hub-Signature": sign_hex(addressee.secrets[0], body),
        }
