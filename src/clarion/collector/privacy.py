"""How the collector stays unable to tell who sent what.

Identities are stored as keyed hashes under the collector's own secret; names nobody declared are shown only
when several installations use them; small groups are folded; stored text is scanned for what should not be
there. Designs D10, D11, D13 and requirement T39 of the telemetry facts.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from clarion.collector.transport import LISTED

K_DEFAULT: Final = 5
"""A group of fewer installations than this is never shown by itself (T39)."""

SCANNERS: Final[Mapping[str, str]] = {
    "email": r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z]{2,}",
    "ip": r"\b(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}\b",
    "path": r"(?:/(?:home|Users|root|mnt|var|tmp|etc|opt|srv|usr)/)|(?:[A-Za-z]:\\\\)",
    "mac_uuid": r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-1[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}\b",
    "secret": (
        r"\b(?:sk_live_|ghp_|gho_|github_pat_|xox[abp]-|AKIA[0-9A-Z]{16}|eyJ[A-Za-z0-9_-]{8,}\.)"
        r"|BEGIN [A-Z ]*PRIVATE KEY"
    ),
    "long_token": (
        r"[A-Za-z0-9+/_=-]{65,}"  # whatever it is
        r"|[0-9A-Fa-f]{40,}"  # a SHA-1, a SHA-256, a number; a pseudonym has 32 digits, a UUID hyphens
        # 32 characters of base64 have a capital beside a digit (97 of 100 do), and 15 on one of its sides
        r"|[A-Za-z0-9+/_=-]{15}(?:[A-Z][0-9]|[0-9][A-Z])|(?:[A-Z][0-9]|[0-9][A-Z])[A-Za-z0-9+/_=-]{15}"
    ),
    "url": r"[a-z][a-z0-9+.-]{1,9}://",
}
"""What a stored event must not contain: patterns in RE2 syntax, run by the store over every row it loads."""

KNOWN_NAMES: Final = frozenset(
    """
    $ai_generation $autocapture $create_alias $dead_click $exception $feature_flag_called
    $groupidentify $heatmap $identify $merge_dangerously $opt_in $pageleave $pageview
    $rageclick $screen $set $snapshot $web_vitals alias group identify page screen
    """.split()  # noqa: SIM905 -- a word list reads better as words
)
"""Event names of the official clients themselves: constants of theirs, so not data."""

REDACTED: Final = "‹redacted key›"

_IDENTIFIER: Final = re.compile(r"[$A-Za-z_][A-Za-z0-9_.:$-]{0,63}\Z")
_MOST_NAMES: Final = 10_000


class Pseudonyms:
    """Keyed hashes of the ids that clients send. ``secret`` never leaves the data directory."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 32:
            raise ValueError("the collector's secret must be at least 32 bytes")
        self._secret = secret[:64]
        self.installation = lru_cache(maxsize=65536)(self._installation)

    @classmethod
    def keep(cls, path: Path) -> "Pseudonyms":
        """Read the secret at ``path``, made (mode 600) when it is not there."""
        if not path.exists():
            path.touch(0o600)
            path.write_text(secrets.token_hex(32), "ascii")
        return cls(bytes.fromhex(path.read_text("ascii").strip()))

    def _installation(self, project: str, distinct_id: str) -> str:
        return _uuid(self._hash("installation", project, distinct_id))

    def event(self, project: str, event_id: str) -> str:
        """The key an event is stored under once: the same for every retry of the same id."""
        return _uuid(self._hash("event", project, event_id))

    def name(self, project: str, name: str) -> str:
        """A short keyed hash of a name that is not shown."""
        return self._hash("name", project, name).hex()[:16]

    def _hash(self, kind: str, project: str, text: str) -> bytes:
        message = f"{kind}\0{project}\0{text}".encode("utf-8", "replace")
        return hashlib.blake2b(message, digest_size=16, key=self._secret).digest()


class UnknownNames:
    """Names that no schema declares: kept as hashes until ``k`` installations have sent the same one.

    Until then the name itself is never written anywhere, only held by the request that carries it.
    """

    def __init__(
        self, pseudonyms: Pseudonyms, k: int = K_DEFAULT, seen: Iterable[tuple[str, str]] = ()
    ) -> None:
        self._pseudonyms = pseudonyms
        self._k = k
        self._seen: dict[str, set[str]] = {}
        for label, installation in seen:
            self._note(label, installation)

    def label(self, project: str, name: str, installation: str) -> str:
        """What may be written for ``name``: the name itself, or the redaction mark with its hash."""
        if name in KNOWN_NAMES or name in LISTED:
            return name
        hashed = f"{REDACTED} {self._pseudonyms.name(project, name)}"
        shape_ok = _IDENTIFIER.match(name) is not None
        return name if self._note(hashed, installation) >= self._k and shape_ok else hashed

    def _note(self, hashed: str, installation: str) -> int:
        known = self._seen.get(hashed)
        if known is None:
            if len(self._seen) >= _MOST_NAMES:
                return 0
            known = self._seen[hashed] = set()
        if len(known) < self._k:
            known.add(installation)
        return len(known)


def _uuid(digest: bytes) -> str:
    """A digest in the form of a version 8 UUID (RFC 9562: contents of our own choosing)."""
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-a{text[17:20]}-{text[20:]}"


def same(left: str, right: str) -> bool:
    """Whether two secrets are equal, in constant time."""
    return hmac.compare_digest(left.encode("utf-8", "replace"), right.encode("utf-8", "replace"))
