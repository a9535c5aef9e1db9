"""Signing what is sent and verifying what is received: Standard Webhooks ``v1``, and plain hex HMAC.

Everything works on raw bytes and takes the time as an argument. The specification:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hmac
import re
import secrets as random_source
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from clarion.errors import InvalidSecret, VerificationError

SECRET_PREFIX = "whsec_"  # noqa: S105  (what a secret starts with, not one)
KEY_BYTES = range(24, 65)
"""Lengths a decoded key may have, in bytes (Standard Webhooks: 24 to 64)."""
TOLERANCE = 300
"""Seconds a timestamp may be away from the receiver's clock, in both directions."""
MAX_SIGNATURES = 32
"""Signatures looked at in one header; more is not a rotation but an attack."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


def new_secret() -> str:
    """A fresh ``whsec_`` secret of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(random_source.token_bytes(32)).decode("ascii")


@lru_cache(maxsize=4096)
def decode_secret(secret: str) -> bytes:
    """The key inside a ``whsec_`` secret. Raises InvalidSecret; the message never repeats the secret."""
    if not secret.startswith(SECRET_PREFIX):
        raise InvalidSecret(f"A signing secret starts with '{SECRET_PREFIX}', followed by base64.")
    text = secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSecret(f"What follows '{SECRET_PREFIX}' in the secret is not base64.") from None
    if len(key) not in KEY_BYTES:
        raise InvalidSecret(
            f"A signing key has {KEY_BYTES[0]} to {KEY_BYTES[-1]} bytes; this secret holds {len(key)}."
        )
    return key


def sign(secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> tuple[str, str]:
    """The headers ``(webhook-timestamp, webhook-signature)`` of one message.

    ``secrets`` has the newest first; each adds one signature, so that a receiver that still knows an
    old secret verifies too. ``at`` is an aware datetime of any zone. Raises InvalidSecret.
    """
    if at.tzinfo is None:
        raise ValueError("The time of a signature must be aware: a naive one would sign another moment.")
    timestamp = str(int(at.timestamp()))
    signed = b"%b.%b.%b" % (message_id.encode(), timestamp.encode(), body)
    return timestamp, " ".join(
        ["v1," + _v1(decode_secret(secret), signed).decode("ascii") for secret in secrets]
    )


def _v1(key: bytes, signed: bytes) -> bytes:
    # not hmac.digest: it gives up the interpreter lock, and a busy relay waits to have it back for longer
    # than the hash takes
    return binascii.b2a_base64(hmac.new(key, signed, "sha256").digest(), newline=False)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verified webhook said about itself. ``id`` is what a receiver deduplicates by."""

    id: str
    sent_at: datetime


def verify(
    secrets: Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    tolerance: float = TOLERANCE,
) -> Verified:
    """Check that someone who knows one of ``secrets`` sent ``body`` within ``tolerance`` seconds of ``now``.

    Header names are matched in any case. Raises VerificationError for whatever is wrong with what was
    received, and InvalidSecret for a secret of ours that cannot be used.
    """
    keys = [decode_secret(secret) for secret in secrets]
    lowered = {str(name).lower(): value for name, value in headers.items()}
    message_id = _header(lowered, "webhook-id")
    timestamp = _header(lowered, "webhook-timestamp")
    signatures = _header(lowered, "webhook-signature")
    sent_at = _sent_at(timestamp, now, tolerance)
    signed = b"%b.%b.%b" % (message_id, timestamp, body)
    given = [entry[3:] for entry in signatures.split(b" ")[:MAX_SIGNATURES] if entry.startswith(b"v1,")]
    # Every pair is compared, whatever the first ones gave: how long it takes tells nothing.
    matches = [hmac.compare_digest(_v1(key, signed), signature) for key in keys for signature in given]
    if not any(matches):
        raise VerificationError("No signature in 'webhook-signature' was made with a secret known here.")
    return Verified(id=message_id.decode(), sent_at=sent_at)


def _header(headers: Mapping[str, str], name: str) -> bytes:
    value = headers.get(name)
    if not isinstance(value, str) or not value:
        raise VerificationError(f"The header '{name}' is missing.")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise VerificationError(f"The header '{name}' is not text.") from None


def _sent_at(timestamp: bytes, now: datetime, tolerance: float) -> datetime:
    text = timestamp.decode()
    if not _TIMESTAMP.fullmatch(text):
        raise VerificationError("The header 'webhook-timestamp' is not a whole number of seconds.")
    # Compared as numbers: twelve digits reach beyond the last datetime.
    age = now.timestamp() - int(text)
    if abs(age) > tolerance:
        when = "old" if age > 0 else "far in the future"
        raise VerificationError(
            f"The message is too {when}: {abs(age):.0f} s from this clock, {tolerance:.0f} s are allowed."
        )
    return datetime.fromtimestamp(int(text), UTC)


def sign_hex(secret: str, body: bytes) -> str:
    """Hex HMAC-SHA256 of the raw body under the secret's own text (``X-Hub-Signature`` of format orchest)."""
    return hmac.digest(secret.encode(), body, "sha256").hex()


def verify_hex(secret: str, signature: str, body: bytes) -> None:
    """Check a signature made by ``sign_hex``. Raises VerificationError."""
    given = signature.encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(sign_hex(secret, body).encode(), given):
        raise VerificationError("The signature was not made with the secret known here.")
