"""Who may call: not a foreign page through the user's browser, and from elsewhere nobody without a token.

The platform runs people's code, so whoever can call it can run code here. Four checks, before anything
else sees a request:

- **Host**: a page of ``evil.example`` whose name was rebound to 127.0.0.1 calls us with its own name in
  ``Host``. Only names of ours are answered.
- **Origin**: a foreign page can make a browser write to us without reading the answer. What changes
  something and comes from a browser must come from a page of ours (``Sec-Fetch-Site``, ``Origin``).
- **Token**: an address other than loopback can be reached by others. Then every request needs the access
  token, as ``Authorization: Bearer`` or as the cookie that the login page sets.
- **Caller**: on loopback nobody needs a token but the users' code that the platform itself has started: a
  step of one project could read and change another (`orchest.api.callers`).
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clarion.api.analytics import by_address
from clarion.observe import log
from orchest.api.callers import Caller, Callers, can_tell
from orchest.api.connections import caller_of, is_lost
from orchest.api.problems import problem

HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{0,5})?")
"""A ``Host`` header (RFC 9110, 7.2): a name or an address, and perhaps a port."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost"})
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/login", "/static/site.css"})
"""Answered without a token: they tell nothing but that the platform runs."""
MAX_BODY = 8 * 1024 * 1024
"""Bytes a request's body may have; a pipeline definition has at most half of it."""
TOO_LARGE = f"A request's body has at most {MAX_BODY} bytes."
COOKIE = "orchest_access"
SESSION = "orchest_session"
"""The cookie that tells one login from another: the access token is the same for all."""
BEARER = "Authorization: Bearer <token>"
NO_CALLERS = {
    Caller.USERS_CODE: "Steps, notebooks, services and builds may not call the platform that runs them: "
    "they could read and change other projects.",
    Caller.UNTOLD: "It cannot be told which program calls, and a step of a pipeline may not. Wait for the "
    "answer before closing the connection.",
}
HOW_TO_LET_IN = (
    f"To let it in, make an access token with `python -m orchest token`, start the platform anew, and have "
    f"the program send {BEARER}. It opens every project."
)

RESPONSE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def new_token() -> str:
    """An access token: 256 random bits."""
    return secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What is stored of a token. It is random and long, so a plain hash cannot be searched."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class Access:
    """Who is answered. ``hosts`` are further names of ours; ``token_hash`` is of the token, if there is one.

    ``public``: others reach us too. Then everyone needs the token. Every IP address is answered to as host,
    for a page can only be rebound by name.
    """

    hosts: frozenset[str] = frozenset()
    token_hash: str | None = None
    public: bool = False

    def host_allowed(self, host: str) -> bool:
        """Whether a ``Host`` header is ours; the port does not matter."""
        name = hostname(host)
        if name is None:
            return False
        if name in LOOPBACK_NAMES or name in self.hosts:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return self.public or address.is_loopback

    def token_allowed(self, token: str) -> bool:
        """Whether this is the token."""
        return self.token_hash is not None and hmac.compare_digest(hash_of(token), self.token_hash)

    def new_session(self) -> str:
        """What tells a login from every other: a random number, and that it is from us. Stored nowhere."""
        number = secrets.token_urlsafe(16)
        return f"{number}.{self._mark(number)}"

    def session(self, cookie: str) -> str | None:
        """The number of a login; None if we did not make it, or the token has changed since."""
        number, _, mark = cookie.partition(".")
        ours = self.token_hash is not None and hmac.compare_digest(mark.encode(), self._mark(number).encode())
        return number if ours else None

    def _mark(self, number: str) -> str:
        return hmac.new((self.token_hash or "").encode(), number.encode(), hashlib.sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server bound to ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK_NAMES


def hostname(host: str) -> str | None:
    """The name in a ``Host`` header, lower-case, without port and brackets; None when it is none."""
    found = HOST.fullmatch(host)
    return None if found is None else found[1].strip("[]").rstrip(".").lower()


def same_origin(headers: Headers) -> bool:
    """Whether a write comes from a page of ours, or from no browser at all."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        theirs = urlsplit(origin)
        return theirs.scheme in ("http", "https") and theirs.netloc.lower() == headers.get("host", "").lower()
    except ValueError:
        return False


class Guard:
    """The ASGI middleware that makes the four checks, outermost of all."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access
        self.callers: Callers | None = None
        if not access.public:
            if can_tell():
                self.callers = Callers()
            else:
                log.warning("on this system it cannot be told who calls: steps may call the platform")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope) or await self.refusal_of_caller(scope)
        if refusal is not None:
            await refusal(scope, receive, hardened(send))
            return
        await self.app(scope, limited(receive), hardened(send))

    def refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is not let in; None when it is."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.access.host_allowed(hosts[0]):
            return problem(
                403,
                f"Not answered for the host {hosts[0] if hosts else '(none)'!r}. If that name is yours, "
                "add it to ORCHEST_ALLOWED_HOSTS.",
            )
        length = headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,18}", length) or int(length) > MAX_BODY:
            return problem(413, TOO_LARGE)
        method = scope.get("method", "GET")
        if (method not in SAFE or scope["type"] == "websocket") and not same_origin(headers):
            return problem(403, "A page of another origin may not change anything here.")
        if not self.access.public or self.let_in(scope):
            return None
        if method == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return problem(
            401,
            f"Give the access token: {BEARER}. It was printed at the first start.",
            headers={"www-authenticate": 'Bearer realm="orchest"'},
        )

    async def refusal_of_caller(self, scope: Scope) -> Response | None:
        """The answer to users' code that the platform has started and that has no token."""
        if self.callers is None or self.let_in(scope):
            return None
        connection = caller_of(scope)
        if connection is None:
            caller = Caller.UNTOLD if is_lost(scope) else Caller.OUTSIDE
        elif self.callers.known(connection):
            return None
        else:
            caller = await run_in_threadpool(self.callers.judge, connection)
        if caller is Caller.OUTSIDE:
            return None
        return problem(403, f"{NO_CALLERS[caller]} {HOW_TO_LET_IN}")

    def let_in(self, scope: Scope) -> bool:
        """Whether a request needs no token, or has it."""
        return scope["path"] in OPEN_PATHS or self.access.token_allowed(presented(Headers(scope=scope)))


def presented(headers: Headers) -> str:
    """The token a request brings, or nothing."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def session_of(access: Access) -> Callable[[Request], str]:
    """What tells callers apart: the login, as its hash; where there is none, the address."""

    def told_apart(request: Request) -> str:
        number = access.session(request.cookies.get(SESSION, ""))
        return by_address(request) if number is None else hash_of(number)

    return told_apart


def limited(receive: Receive) -> Receive:
    """``receive`` that stops when a body of unknown length becomes too large."""
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise HTTPException(413, TOO_LARGE)
        return message

    return receive_limited


def hardened(send: Send) -> Send:
    """``send`` that adds the headers every answer has."""

    async def send_hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *RESPONSE_HEADERS]}
        await send(message)

    return send_hardened
