"""The one door to the network: every request Clarion sends goes through ``Egress.send``.

What may be called is decided in ``addresses``. It is enforced here on the very address a socket is
about to connect to, so that a name cannot be checked as one address and called as another.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

from clarion.addresses import EgressPolicy, Target, check_url, parse_url
from clarion.errors import InvalidAddress, Reason
from clarion.exchange import Authorities, Blocked, Exchange, ExchangeFailed, SocketFor, import_pycurl
from clarion.messages import Answer, Failure, Request, Response
from clarion.transfers import Transfers

__all__ = ["Egress", "EgressPolicy", "Resolve", "Target", "check_url", "parse_url"]

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Looks a name up: all its addresses, as texts. Raises OSError if it has none."""

MAX_ADDRESSES = 8
"""Addresses of one name that are tried."""
MAX_NAMES = 4096
"""Names whose addresses, and URLs whose reading, are remembered."""
MAX_LOOKUPS = 512
"""Names looked up at once, a thread each: as many as may hang before another has to wait."""
NO_ADDRESSES: list[str] = []


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL that was understood, by us and, as ``url``, by libcurl."""

    target: Target
    url: Any
    socket_for: SocketFor
    named: bool
    """Whether the host is a name, which is looked up, and not an address."""


class Egress:
    """A pool of connections that only goes where its policy allows. Use it as an async context manager.

    ``connections`` and ``connections_per_host`` bound the pool (0: not by itself); a request that finds
    none free waits, not longer than for a connection (5 s). ``ca_file`` adds certificate authorities
    (PEM) to the system's own.
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
        self._pycurl = import_pycurl()
        self._connections = connections
        self._connections_per_host = connections_per_host
        self._ca_file = ca_file
        self._resolve = resolve
        self._dns_cache = dns_cache
        self._transfers: Transfers | None = None
        self._idle: list[Exchange] = []
        self._names: dict[str, tuple[float, list[str]]] = {}
        self._lookups: dict[str, asyncio.Task[list[str]]] = {}
        self._destination = lru_cache(maxsize=MAX_NAMES)(self._check)

    async def __aenter__(self) -> Self:
        if self._transfers is not None:
            raise RuntimeError("This Egress is open already.")
        pycurl = self._pycurl
        self._authorities = Authorities(self._ca_file)
        self._threads = asyncio.Semaphore(MAX_LOOKUPS)
        self._transfers = Transfers(pycurl)
        multi = self._transfers.multi
        multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, self._connections)
        multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, self._connections_per_host)
        if self._connections:
            multi.setopt(pycurl.M_MAXCONNECTS, self._connections)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        transfers, self._transfers = self._transfers, None
        if transfers is None:
            return
        for task in self._lookups.values():
            task.cancel()
        self._lookups.clear()
        transfers.close()
        for exchange in self._idle:
            exchange.close()
        self._idle.clear()
        self._names.clear()
        self._authorities.close()

    async def send(self, request: Request) -> Answer:
        """Send one request and say what came of it. Never raises, except CancelledError.

        Redirects are answers, not followed. At most 16 KiB of the body are read, as they were sent.
        """
        transfers = self._transfers
        if transfers is None:
            return Failure(Reason.INTERNAL, "Egress is not open: use it as an async context manager.", 0.0)
        started = time.perf_counter()
        try:
            destination = self._destination(request.url)
            addresses = NO_ADDRESSES
            if destination.named:
                addresses = [await self._addresses(destination.target, request.timeout)]
            return await self._exchange(transfers, request, destination, addresses, started)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._transfers is transfers or task is None or task.cancelling():
                raise
            return Failure(
                Reason.INTERNAL, "Egress was closed before an answer came.", time.perf_counter() - started
            )
        except Exception as error:
            reason, message = _explain(error, request)
            return Failure(reason, message, time.perf_counter() - started)

    async def _exchange(
        self,
        transfers: Transfers,
        request: Request,
        destination: Destination,
        addresses: list[str],
        started: float,
    ) -> Response:
        target, reusable = destination.target, request.method == "POST"
        if self._idle:
            exchange = self._idle.pop()
        else:
            exchange = Exchange(self._pycurl, self._authorities, transfers.forget)
        try:
            while True:
                spent = time.perf_counter() - started
                exchange.prepare(request, destination.url, addresses, destination.socket_for, spent)
                try:
                    await transfers.perform(exchange.curl)
                except self._pycurl.error as error:
                    code, said = error.args
                    if exchange.start_anew(code):
                        reusable = False
                        continue
                    failure = exchange.failure(code, said, request, target.host, target.port)
                    if failure is not None:
                        raise failure from None
                break
            response = exchange.response(time.perf_counter() - started)
        except BaseException:
            transfers.remove(exchange.curl)
            exchange.close()
            raise
        if reusable:
            self._idle.append(exchange)
        else:
            exchange.close()
        return response

    def _check(self, url: str) -> Destination:
        """Where a URL leads. Raises InvalidAddress; what it returns is remembered."""
        target = self.policy.check_url(url)
        read = self._pycurl.CurlUrl(target.url, self._pycurl.U_PATH_AS_IS)
        named = target.address is None
        host = str(read.host).strip("[]")
        if host != target.host if named else ip_address(host) != target.address:
            raise InvalidAddress("The URL's host is read differently by the HTTP client.")
        return Destination(target, read, partial(self._socket, target.host), named)

    def _socket(self, host: str, family: int, kind: int, protocol: int, address: Any) -> socket.socket:
        """A socket for exactly this address, or Blocked. Called by libcurl for each connection."""
        why = self.policy.refusal(ip_address(address[0]), host)
        if why is not None:
            raise Blocked(why)
        return socket.socket(family, kind, protocol)

    async def _addresses(self, target: Target, timeout: float) -> str:
        """The addresses of a name as libcurl takes them instead of a lookup: ``+host:port:address,...``."""
        known = self._names.get(target.host)
        if known is None or known[0] <= time.monotonic():
            async with asyncio.timeout(timeout):
                found = await self._look_up(target.host)
        else:
            found = known[1]
        return f"+{target.host}:{target.port}:{','.join(found)}"

    async def _look_up(self, host: str) -> list[str]:
        """One lookup of a name at a time, whoever waits for it."""
        task = self._lookups.get(host)
        if task is None:
            task = self._lookups[host] = asyncio.create_task(self._allowed_addresses(host))
            task.add_done_callback(partial(self._looked_up, host))
        return await asyncio.shield(task)

    def _looked_up(self, host: str, task: "asyncio.Task[list[str]]") -> None:
        self._lookups.pop(host, None)
        if task.cancelled() or task.exception() is not None:
            return
        if len(self._names) >= MAX_NAMES:
            self._names.clear()
        self._names[host] = time.monotonic() + self._dns_cache, task.result()

    async def _allowed_addresses(self, host: str) -> list[str]:
        """Leaves out refused addresses, so that a mixed answer is called where it may be.

        Not the check itself (literal addresses and remembered answers do not pass here): that is ``_socket``.
        """
        try:
            texts = await (self._resolve or self._system_resolve)(host)
        except OSError as error:
            raise ExchangeFailed(
                Reason.DNS, f"The host {host} could not be looked up: {error.strerror or error}."
            ) from None
        found = [ip_address(text.partition("%")[0]) for text in texts]
        if not found:
            raise ExchangeFailed(Reason.DNS, f"The host {host} could not be looked up: it has no address.")
        allowed = [str(address) for address in found if self.policy.refusal(address, host) is None]
        if not allowed:
            raise ExchangeFailed(Reason.BLOCKED, f"Not called: {self.policy.refusal(found[0], host)}")
        return [f"[{text}]" if ":" in text else text for text in allowed[:MAX_ADDRESSES]]

    async def _system_resolve(self, host: str) -> list[str]:
        # A thread of its own, for which nobody waits at exit: a lookup may hang for half a minute.
        async with self._threads:
            found: Future[list[str]] = Future()
            threading.Thread(target=_look_up, args=(host, found), name="clarion-dns", daemon=True).start()
            return await asyncio.wrap_future(found)


def _look_up(host: str, found: "Future[list[str]]") -> None:
    found.set_running_or_notify_cancel()
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found.set_result(list(dict.fromkeys(str(info[4][0]) for info in infos)))
    except Exception as error:
        found.set_exception(error)


def _explain(error: Exception, request: Request) -> tuple[Reason, str]:
    """The reason and a sentence for whatever went wrong."""
    match error:
        case ExchangeFailed():
            return error.reason, error.message
        case InvalidAddress():
            return Reason.BLOCKED, error.message
        case TimeoutError():
            return Reason.TIMEOUT, f"The receiver's host was not looked up within {request.timeout:g} s."
        case _:
            return Reason.INTERNAL, f"The request could not be sent: {type(error).__name__}: {error}."
