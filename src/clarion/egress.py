"""The one door to the network: every request Clarion sends goes through ``Egress.send``.

What may be called is decided in ``addresses``. It is enforced here on the very address a socket is
about to connect to, so that a name cannot be checked as one address and called as another.
"""

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from clarion import __version__
from clarion.addresses import EgressPolicy, Target, check_url, parse_url
from clarion.errors import ConfigurationError, InvalidAddress, Reason
from clarion.messages import MAX_BODY_KEPT, Answer, Failure, Request, Response

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver

__all__ = ["Egress", "EgressPolicy", "Resolve", "Target", "check_url", "parse_url"]

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Looks a name up: all its addresses, as texts. Raises OSError if it has none."""

MAX_HEADERS_KEPT = 32
MAX_HEADER_BYTES_KEPT = 8 * 1024
CONNECT_TIMEOUT = 5.0
"""Seconds for TCP and TLS together, within the request's own timeout."""
KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: below the 5 s after which uvicorn and Node close theirs, so that
a request rarely meets a connection that is just being closed."""
MAX_ADDRESSES = 8
"""Addresses of one name that are tried."""

_allowed_host: ContextVar[str] = ContextVar("clarion_egress_allowed_host", default="")


class _Blocked(OSError):
    """The policy refuses this address; an OSError so that the next address is tried."""


def _import_aiohttp() -> Any:
    try:
        import aiohttp
    except ImportError:
        raise ConfigurationError(
            "Sending needs aiohttp, which is not installed: pip install 'clarion[relay]'."
        ) from None
    return aiohttp


class Egress:
    """A pool of connections that only goes where its policy allows. Use it as an async context manager.

    ``connections`` and ``connections_per_host`` bound the pool (0: not by itself); a request that finds
    none free waits, within its own timeout. ``ca_file`` adds certificate authorities (PEM) to the
    system's own.
    ``resolve`` replaces the system's name lookup; answers are kept ``dns_cache`` seconds.
    Raises ConfigurationError without the extra ``clarion[relay]``.
    """

    def __init__(
        self,
        policy: EgressPolicy | None = None,
        *,
        connections: int = 1000,
        connections_per_host: int = 0,
        ca_file: str | None = None,
        resolve: Resolve | None = None,
        dns_cache: float = 10.0,
    ) -> None:
        self.policy = policy or EgressPolicy()
        self._aiohttp = _import_aiohttp()
        self._connections = connections
        self._connections_per_host = connections_per_host
        self._ca_file = ca_file
        self._resolve = resolve
        self._dns_cache = dns_cache
        self._threads: ThreadPoolExecutor | None = None
        self._session: aiohttp.ClientSession | None = None
        self._target = lru_cache(maxsize=4096)(self._check)

    async def __aenter__(self) -> Self:
        aiohttp = self._aiohttp
        if self._session is not None:
            raise RuntimeError("This Egress is open already.")
        self._verified = _tls(verify=True, ca_file=self._ca_file)
        self._unverified = _tls(verify=False, ca_file=None)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                limit_per_host=self._connections_per_host,
                keepalive_timeout=KEEP_ALIVE,
                resolver=self._resolver(),
                use_dns_cache=self._dns_cache > 0,
                ttl_dns_cache=self._dns_cache if self._dns_cache > 0 else None,
                socket_factory=self._socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={
                "accept": "*/*",
                "accept-encoding": "identity",
                "user-agent": f"Clarion/{__version__}",
            },
            read_bufsize=MAX_BODY_KEPT,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def send(self, request: Request) -> Answer:
        """Send one request and say what came of it. Never raises, except CancelledError.

        Redirects are answers, not followed. At most 16 KiB of the body are read, as they were sent.
        """
        if self._session is None:
            return Failure(Reason.INTERNAL, "Egress is not open: use it as an async context manager.", 0.0)
        started = time.perf_counter()
        try:
            url, host = self._target(request.url)
            if host in self.policy.allowed_hosts:
                token = _allowed_host.set(host)
                try:
                    return await self._exchange(self._session, url, request, started)
                finally:
                    _allowed_host.reset(token)
            return await self._exchange(self._session, url, request, started)
        except Exception as error:
            reason, message = _explain(self._aiohttp, error, request)
            return Failure(reason, message, time.perf_counter() - started)

    async def _exchange(
        self, session: "aiohttp.ClientSession", url: Any, request: Request, started: float
    ) -> Response:
        async with session.request(
            request.method,
            url,
            data=request.body,
            headers=request.headers,
            allow_redirects=False,
            timeout=_timeout(request.timeout),
            ssl=self._verified if request.verify_tls else self._unverified,
        ) as answer:
            content = answer.content
            body = await content.read(MAX_BODY_KEPT + 1)
            while len(body) <= MAX_BODY_KEPT and not content.at_eof():
                body += await content.read(MAX_BODY_KEPT + 1 - len(body))
            truncated = len(body) > MAX_BODY_KEPT
            if truncated:
                answer.close()
                body = body[:MAX_BODY_KEPT]
            elapsed = time.perf_counter() - started
            return Response(answer.status, _kept(answer.headers), body, elapsed, truncated)

    def _check(self, url: str) -> tuple[Any, str]:
        """The parsed URL and its host. Raises InvalidAddress; what it returns is cached."""
        import yarl

        target = self.policy.check_url(url)
        parsed = yarl.URL(target.url, encoded=True)
        if parsed.raw_host != target.host:
            raise InvalidAddress("The URL's host is read differently by the HTTP client.")
        return parsed, target.host

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for exactly this address, or _Blocked. Called by aiohttp for each connection."""
        family, kind, protocol, _, address = info
        why = self.policy.refusal(ip_address(address[0]), _allowed_host.get())
        if why is not None:
            raise _Blocked(why)
        return socket.socket(family=family, type=kind, proto=protocol)

    def _resolver(self) -> "AbstractResolver":
        resolve = self._resolve
        if resolve is None:
            # Threads of its own: lookups that hang must not hold up whoever shares the loop's executor.
            self._threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="clarion-dns")
            resolve = _system_resolve(self._threads)
        return _guarded_resolver(resolve, self.policy)


def _guarded_resolver(resolve: Resolve, policy: EgressPolicy) -> "AbstractResolver":
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Guarded(AbstractResolver):
        """Leaves out refused addresses, so that a mixed answer is called where it may be.

        Not the check itself (literal addresses and cached answers do not pass here): that is ``_socket``.
        """

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            found = [ip_address(text.partition("%")[0]) for text in await resolve(host)]
            if not found:
                raise OSError("the name has no address")
            allowed = [address for address in found if policy.refusal(address, host) is None]
            if not allowed:
                raise _Blocked(policy.refusal(found[0], host))
            return [
                ResolveResult(
                    hostname=host,
                    host=str(address),
                    port=port,
                    family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                    proto=0,
                    flags=socket.AI_NUMERICHOST,
                )
                for address in allowed[:MAX_ADDRESSES]
            ]

        async def close(self) -> None:
            """Nothing is held."""

    return Guarded()


def _system_resolve(threads: ThreadPoolExecutor) -> Resolve:
    async def resolve(host: str) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(threads, _getaddrinfo, host)
        return list(dict.fromkeys(str(info[4][0]) for info in found))

    return resolve


def _getaddrinfo(host: str) -> list[tuple[Any, ...]]:
    return list(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))


def _tls(*, verify: bool, ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            raise ConfigurationError(
                f"The certificate authorities in {ca_file} cannot be read: {error}."
            ) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@lru_cache(maxsize=256)
def _timeout(total: float) -> "aiohttp.ClientTimeout":
    if not total > 0:  # aiohttp would take 0 for no deadline at all
        raise ValueError(f"a timeout is more than 0 seconds, not {total}")
    # The threshold keeps aiohttp from rounding deadlines up to whole seconds.
    return _import_aiohttp().ClientTimeout(  # type: ignore[no-any-return]
        total=total, sock_connect=min(CONNECT_TIMEOUT, total), ceil_threshold=3600
    )


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """What is kept of an answer's headers: 32 at most, 8 KiB at most, names in lower case, no cookies.

    Bytes that are no UTF-8 are replaced: as aiohttp gives them they could neither be stored nor shown.
    """
    kept: dict[str, str] = {}
    room = MAX_HEADER_BYTES_KEPT
    for name, value in headers.items():
        name = name.lower()
        if name == "set-cookie" or (name not in kept and len(kept) == MAX_HEADERS_KEPT):
            continue
        room -= len(name) + len(value)
        if room < 0:
            break
        if not value.isascii():
            value = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept


def _explain(aiohttp: Any, error: Exception, request: Request) -> tuple[Reason, str]:
    """The reason and a sentence for whatever went wrong. Order matters: aiohttp's errors inherit widely."""
    match error:
        case InvalidAddress():
            return Reason.BLOCKED, error.message
        case aiohttp.ClientConnectorError(os_error=_Blocked() as blocked):
            return Reason.BLOCKED, f"Not called: {blocked}"
        case OSError(errno=errno.EMFILE | errno.ENFILE | errno.ENOMEM):
            return Reason.INTERNAL, f"This machine has no room for another connection: {error}."
        case aiohttp.ClientConnectorDNSError():
            return Reason.DNS, f"The host {error.host} could not be looked up: {error.os_error}."
        case aiohttp.ClientConnectorCertificateError():
            return Reason.TLS, f"The certificate of {error.host} is not trusted: {error.certificate_error}."
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Reason.TLS, f"TLS with the receiver failed: {error}."
        case aiohttp.ConnectionTimeoutError():
            seconds = min(CONNECT_TIMEOUT, request.timeout)
            return Reason.TIMEOUT, f"No connection to the receiver within {seconds:g} s."
        case TimeoutError():
            return Reason.TIMEOUT, f"The receiver did not answer completely within {request.timeout:g} s."
        case aiohttp.ClientConnectorError():
            return Reason.CONNECT, f"{error.host}:{error.port} could not be connected to: {error.os_error}."
        case aiohttp.ServerDisconnectedError():
            return Reason.PROTOCOL, "The receiver closed the connection without answering."
        case aiohttp.ClientPayloadError():
            return Reason.PROTOCOL, f"The receiver's answer broke off: {error}."
        case aiohttp.ClientResponseError():
            return Reason.PROTOCOL, f"The receiver's answer is not HTTP: {error.message}."
        case OSError() | aiohttp.ClientConnectionError():
            return Reason.CONNECT, f"The connection to the receiver was lost: {error}."
        case _:
            return Reason.INTERNAL, f"The request could not be sent: {type(error).__name__}: {error}."
