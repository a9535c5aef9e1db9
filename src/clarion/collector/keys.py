"""Who may send: write keys per application, revocable while the collector runs, and a rate limit for each.

Only SHA-256 digests of keys are kept, in a JSON file ``{"keys": [{"project", "digest", "revoked"}]}`` that is
read again when it changes. A key is 192 random bits, so a plain digest cannot be searched. Who may look is in
:mod:`.access`.
"""

import hashlib
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clarion.collector.files import changing, replace
from clarion.collector.privacy import same
from clarion.errors import ConfigurationError, InvalidInput, NotFound

_PROJECT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")
_RECHECK: Final = 1.0


@dataclass(frozen=True, slots=True)
class WriteKey:
    """The right to send events for one project."""

    project: str
    digest: str
    revoked: bool = False

    @classmethod
    def of(cls, project: str, key: str) -> "WriteKey":
        """The entry for a key given in the clear. Raises InvalidInput."""
        if not _PROJECT.match(project):
            raise InvalidInput("a project is 1 to 40 of a-z, 0-9 and '-', starting with a letter or digit")
        if not key.isascii() or not 8 <= len(key) <= 64 or key.strip() != key:
            raise InvalidInput("a write key is 8 to 64 ASCII characters without surrounding space")
        return cls(project, digest_of(key))


class WriteKeys:
    """The keys in force. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        keys: Iterable[WriteKey] = (),
        path: Path | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._given = tuple(keys)
        self._path = path
        self._clock = clock or (lambda: 0.0)
        self._stamp: tuple[int, int] | None = None
        self._next_check = float("-inf")
        self._keys: dict[str, WriteKey] = {key.digest: key for key in self._given}
        self._refresh()

    def project_of(self, token: str) -> str | None:
        """The project a key may send for; None when unknown or revoked. Constant time in the key's bytes."""
        if self._path is not None and self._clock() >= self._next_check:
            self._refresh()
        digest = digest_of(token)
        key = self._keys.get(digest)
        if key is None:  # perhaps it was issued a moment ago
            self._refresh()
            key = self._keys.get(digest)
        if key is None or not same(key.digest, digest) or key.revoked:
            return None
        return key.project

    def projects(self) -> tuple[str, ...]:
        """The projects that have a key, in order of name."""
        self._refresh()  # asked seldom: a key issued a moment ago counts
        return tuple(sorted({key.project for key in self._keys.values()}))

    def _refresh(self) -> None:
        if self._path is None:
            return
        self._next_check = self._clock() + _RECHECK
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            self._stamp = stamp
            self._keys = {key.digest: key for key in (*self._given, *read_keys(self._path))}


def keys_file(data: Path) -> Path:
    """Where a collector's write keys lie: next to the events."""
    return data / "keys.json"


def read_keys(path: Path) -> tuple[WriteKey, ...]:
    """The entries of a key file; none when there is no file. Raises ConfigurationError."""
    try:
        entries = json.loads(path.read_text("utf-8"))["keys"]
        return tuple(
            WriteKey(str(entry["project"]), str(entry["digest"]), bool(entry.get("revoked", False)))
            for entry in entries
        )
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f'{path} must be {{"keys": [{{"project", "digest", "revoked"}}]}}'
        ) from error


def issue(path: Path, project: str) -> str:
    """Make a write key for ``project``, store its digest in ``path`` and return it: it is not shown again."""
    key = f"ck_{secrets.token_urlsafe(24)}"
    issued = WriteKey.of(project, key)
    with changing(path):
        _write(path, (*read_keys(path), issued))
    return key


def revoke(path: Path, key_or_digest: str) -> None:
    """Refuse a key from now on (within a second on a running collector). Raises NotFound."""
    wanted = {key_or_digest, digest_of(key_or_digest)}
    with changing(path):
        keys = read_keys(path)
        if not any(key.digest in wanted for key in keys):
            raise NotFound(f"no such write key in {path}")
        _write(path, [WriteKey(k.project, k.digest, k.revoked or k.digest in wanted) for k in keys])


def _write(path: Path, keys: Iterable[WriteKey]) -> None:
    entries = [{"project": k.project, "digest": k.digest, "revoked": k.revoked} for k in keys]
    replace(path, json.dumps({"keys": entries}, indent=1))


def digest_of(key: str) -> str:
    """SHA-256 of a key or token, in hex."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


class RateLimit:
    """A token bucket for each project: ``rate`` events a second, ``burst`` at once."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait(self, project: str, events: int) -> float:
        """Take ``events`` tokens: 0 when allowed, else the seconds until they would be there.

        A batch larger than the burst is allowed on a full bucket and leaves it in debt, so that it can pass.
        """
        now = self._clock()
        with self._lock:
            level, then = self._buckets.get(project, (self._burst, now))
            level = min(self._burst, level + (now - then) * self._rate)
            if level >= min(events, self._burst):
                self._buckets[project] = (level - events, now)
                return 0.0
            self._buckets[project] = (level, now)
            return (min(events, self._burst) - level) / self._rate
