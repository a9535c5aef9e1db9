"""Who may look: access tokens, each with the name that the audit log writes down, and browsers' sessions.

Only SHA-256 digests of tokens are kept, a line each as ``sha256sum`` writes them: digest, two spaces, name. A
token is 192 random bits, so a plain digest cannot be searched.
"""

import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clarion.collector.files import changing, replace
from clarion.collector.keys import digest_of
from clarion.collector.privacy import same
from clarion.errors import ConfigurationError, InvalidInput, NotFound

COOKIE: Final = "clarion_reader"
SESSION_SECONDS: Final = 12 * 3600.0
"""How long a browser stays logged in."""

_MOST_SESSIONS: Final = 1000
DEFAULT_NAME: Final = "default"
"""The name of a token nobody named."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")
_LINE: Final = re.compile(r"([0-9a-f]{64})  ([a-z0-9][a-z0-9-]{0,39})\Z")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """The right to look at everything a collector keeps. ``name`` says whose it is, or what for."""

    name: str
    digest: str

    @classmethod
    def of(cls, token: str, name: str = DEFAULT_NAME) -> "AccessToken":
        """The entry for a token given in the clear. Raises InvalidInput."""
        return cls(_named(name), digest_of(token))


def reader_of(token: str, tokens: Iterable[AccessToken]) -> str | None:
    """The name of the reader a token belongs to; None when it opens nothing.

    It is compared with every one, so that the time says nothing about which is near.
    """
    digest, found = digest_of(token), None
    for one in tokens:
        if same(one.digest, digest):
            found = one.name
    return found


class Sessions:
    """The browsers that are logged in, in memory: they end with the collector. ``clock`` is monotonic."""

    def __init__(self, tokens: tuple[AccessToken, ...], clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._clock = clock
        self._open: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def login(self, token: str) -> str | None:
        """A new session for whoever the token belongs to; None when it opens nothing."""
        name = reader_of(token.strip(), self._tokens)
        if name is None:
            return None
        session, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._open = {key: one for key, one in self._open.items() if one[1] > now}
            while len(self._open) >= _MOST_SESSIONS:
                del self._open[next(iter(self._open))]
            self._open[session] = (name, now + SESSION_SECONDS)
        return session

    def reader(self, session: str) -> str | None:
        """The name of the reader whose session this is; None when it ended or never was."""
        name, until = self._open.get(session, ("", 0.0))
        return name if name and self._clock() < until else None

    def logout(self, session: str) -> None:
        """End a session."""
        with self._lock:
            self._open.pop(session, None)


def from_our_page(headers: Mapping[str, str]) -> bool:
    """Whether a browser's request, which brings the cookie by itself, comes from a page of ours."""
    return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def read_tokens(data: Path) -> tuple[AccessToken, ...]:
    """The tokens of a data directory; none at first. Raises ConfigurationError."""
    path = _file(data)
    try:
        lines = path.read_text("ascii").splitlines()
    except FileNotFoundError:
        return ()
    except UnicodeDecodeError:
        lines = [""]
    found = [_LINE.match(line) for line in lines]
    if not all(found):
        raise ConfigurationError(f"{path} must hold lines of a SHA-256 digest in hex, two spaces and a name")
    return tuple(AccessToken(one[2], one[1]) for one in found if one is not None)


def make_token(data: Path, name: str = DEFAULT_NAME) -> str:
    """Make an access token, store its digest in place of that name's before, and return it: not shown again.

    Raises InvalidInput when the name cannot be used, ConfigurationError when the file holds something else.
    """
    token = f"ct_{secrets.token_urlsafe(24)}"
    made = AccessToken.of(token, name)
    with changing(_file(data)):
        _write(data, [*(one for one in read_tokens(data) if one.name != name), made])
    return token


def revoke_token(data: Path, name: str) -> None:
    """Delete the token of a name. Raises NotFound, ConfigurationError."""
    with changing(_file(data)):
        tokens = read_tokens(data)
        left = [one for one in tokens if one.name != name]
        if len(left) == len(tokens):
            names = ", ".join(one.name for one in tokens) or "none"
            raise NotFound(f"no access token has the name {name}; there are: {names}")
        _write(data, left)


def _named(name: str) -> str:
    if not _NAME.match(name):
        raise InvalidInput("a token's name is 1 to 40 of a-z, 0-9 and '-', starting with a letter or digit")
    return name


def _write(data: Path, tokens: Iterable[AccessToken]) -> None:
    replace(_file(data), "".join(f"{one.digest}  {one.name}\n" for one in tokens))


def _file(data: Path) -> Path:
    return data / "access-tokens.sha256"
