"""One HTTP exchange by libcurl (https://curl.se/libcurl): a handle that is used again and again.

Nothing here decides where a request may go: it comes with a ``socket_for``, which is asked for each socket
with the very address that is about to be connected to.
"""

import errno
import math
import os
import re
import socket
import ssl
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from clarion import __version__
from clarion.errors import ConfigurationError, Reason
from clarion.messages import MAX_BODY_KEPT, Request, Response

MAX_HEAD = 16 * 1024
"""Bytes an answer's status line and headers may have together."""
MAX_HEADERS_KEPT = 32
MAX_HEADER_BYTES_KEPT = 8 * 1024
CONNECT_TIMEOUT = 5.0
"""Seconds for TCP and TLS together, within the request's own timeout."""
KEEP_ALIVE = 4
"""Seconds an idle connection is kept: below the 5 s after which uvicorn and Node close theirs, so that
a request rarely meets a connection that is just being closed."""
OWN_HEADERS = [b"accept-encoding: identity", b"expect:", b"content-type:"]
"""Sent besides the request's; an empty one keeps libcurl from adding its own."""
FRAMING = frozenset(
    {"host", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"}
    | {"content-length", "transfer-encoding", "expect"}
)
"""Headers that say where a request goes and where it ends (RFC 9110, 7; RFC 9112, 6): libcurl's alone."""
TOO_LARGE = 100
"""libcurl's CURLE_TOO_LARGE, for which pycurl has no name."""
LONGEST_USE = 60
"""Seconds libcurl keeps addresses it was given. More than any request waits for its connection: with none
kept it would look the name up itself. Not for ever: it goes through all it keeps with each request."""

SocketFor = Callable[[int, int, int, tuple[Any, ...]], socket.socket]
"""A socket of this family, type and protocol for exactly this address. Raises OSError to refuse it."""


class ExchangeFailed(Exception):
    """No answer came. ``reason`` and ``message`` are what a `Failure` says."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Blocked(OSError):
    """Raised by a ``socket_for`` whose policy refuses the address; says why."""


def import_pycurl() -> Any:
    """Raises ConfigurationError without the extra ``clarion[relay]``."""
    try:
        import pycurl
    except ImportError:
        raise ConfigurationError(
            "Sending needs pycurl, which is not installed: pip install 'clarion[relay]'."
        ) from None
    return pycurl


class Authorities:
    """The certificate authorities to trust, as files for libcurl: the system's own, and ``extra`` (PEM).

    Raises:
        ConfigurationError: ``extra`` cannot be read or has no certificate.
    """

    def __init__(self, extra: str | None) -> None:
        system = ssl.get_default_verify_paths()
        self.file: str | None = system.cafile
        self.folder: str | None = None if system.cafile else system.capath
        self._made: Path | None = None
        if extra is None:
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=extra)
            texts = [Path(file).read_bytes() for file in (system.cafile, extra) if file]
        except OSError as error:
            raise ConfigurationError(
                f"The certificate authorities in {extra} cannot be read: {error}."
            ) from None
        with tempfile.NamedTemporaryFile("wb", prefix="clarion-", suffix=".pem", delete=False) as file:
            file.write(b"\n".join(texts))
        self.file, self._made = file.name, Path(file.name)

    def close(self) -> None:
        if self._made is not None:
            self._made.unlink(missing_ok=True)


class Exchange:
    """A libcurl handle with the options that every request has. `prepare` it, let it be performed, then take
    its `response`, or what `failure` says. One request at a time. ``opened`` is told of new descriptors."""

    def __init__(self, pycurl: Any, authorities: Authorities, opened: Callable[[int], None]) -> None:
        self._pycurl = pycurl
        self._opened_as = opened
        self._socket_for: SocketFor
        self._lines: list[bytes] = []
        self._body = bytearray()
        self._keep = MAX_BODY_KEPT
        self._room = MAX_HEAD
        self._sockets: list[socket.socket] = []
        self._refused: OSError | None = None
        self._opened = 0
        self._sent = 0
        self._verified = True
        self.curl = curl = pycurl.Curl()
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.PROXY, ""),
            (pycurl.MAXAGE_CONN, KEEP_ALIVE),
            (pycurl.DNS_CACHE_TIMEOUT, LONGEST_USE),
            (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
            (pycurl.USERAGENT, f"Clarion/{__version__}"),
            (pycurl.OPENSOCKETFUNCTION, self._open),
            (pycurl.SOCKOPTFUNCTION, self._copied),
            (pycurl.PREREQFUNCTION, self._before_sending),
            (pycurl.HEADERFUNCTION, self._head_line),
            (pycurl.WRITEFUNCTION, self._body_part),
        ):
            curl.setopt(option, value)
        if authorities.file is not None:
            curl.setopt(pycurl.CAINFO, authorities.file)
        if authorities.folder is not None:
            curl.setopt(pycurl.CAPATH, authorities.folder)

    def prepare(
        self, request: Request, url: Any, addresses: list[str], socket_for: SocketFor, spent: float
    ) -> None:
        """Take the next request, to ``url`` (a CurlUrl). ``addresses`` are ``+host:port:address,...`` to use
        instead of a lookup; ``spent`` seconds of the request's timeout are gone.

        Raises:
            ValueError: the request has a method, header or timeout that cannot be sent.
        """
        pycurl, setopt = self._pycurl, self.curl.setopt
        self._socket_for, self._keep = socket_for, request.keep
        self._opened = self._sent = 0
        lines = OWN_HEADERS.copy()
        for name, value in request.headers.items():
            check_name(name)
            line = f"{name}: {value}" if value else f"{name};"  # how libcurl is told of an empty one
            if not line.isprintable():
                raise ValueError(f"the header {name!r} has a control character")
            lines.append(line.encode())
        if not 0 < request.timeout < math.inf:
            raise ValueError(f"a timeout is more than 0 seconds, not {request.timeout}")
        left = max(int((request.timeout - spent) * 1000), 1)
        setopt(pycurl.CURLU, url)
        setopt(pycurl.RESOLVE, addresses)
        setopt(pycurl.HTTPHEADER, lines)
        setopt(pycurl.POSTFIELDS, request.body)
        setopt(pycurl.TIMEOUT_MS, left)
        setopt(pycurl.CONNECTTIMEOUT_MS, min(left, int(CONNECT_TIMEOUT * 1000)))
        if request.method != "POST":
            if not (request.method.isascii() and request.method.isalpha()):
                raise ValueError(f"{request.method!r} is no HTTP method")
            setopt(pycurl.CUSTOMREQUEST, request.method)
        if request.verify_tls is not self._verified:
            self._verified = request.verify_tls
            setopt(pycurl.SSL_VERIFYPEER, int(self._verified))
            setopt(pycurl.SSL_VERIFYHOST, 2 if self._verified else 0)

    def response(self, elapsed: float) -> Response:
        """The answer that came, and the handle is ready for the next request."""
        status = self.curl.getinfo(self._pycurl.RESPONSE_CODE)
        headers = kept(self._lines) if self._lines else {}
        body = bytes(self._body[: self._keep])
        truncated = len(self._body) > self._keep
        self._reset()
        return Response(status, headers, body, elapsed, truncated)

    def _reset(self) -> None:
        self._lines.clear()
        if self._body:
            self._body = bytearray()
        self._room = MAX_HEAD
        self._refused = None
        while self._sockets:
            self._sockets.pop().close()

    def close(self) -> None:
        self._reset()
        self.curl.close()

    def start_anew(self, code: int) -> bool:
        """Whether what was sent got lost in a kept connection, and the next one at hand was not new either.
        The handle then opens a new one if it is prepared and performed once more."""
        if code != self._pycurl.E_ABORTED_BY_CALLBACK or self._opened:
            return False
        self._reset()
        self.curl.setopt(self._pycurl.FRESH_CONNECT, 1)
        return True

    def failure(self, code: int, said: str, request: Request, host: str, port: int) -> ExchangeFailed | None:
        """Why there is no answer, by libcurl's error code; None if there is one, of which enough was read."""
        p = self._pycurl
        failing = self.curl.getinfo(p.OS_ERRNO)  # of the system, 0 if it refused nothing
        # It may quote the receiver: the name in its certificate, cut in the middle of a character.
        said = "".join(
            character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in said
        )
        match self._refused:
            case Blocked() as blocked:
                return ExchangeFailed(Reason.BLOCKED, f"Not called: {blocked}")
            case OSError(errno=errno.EMFILE | errno.ENFILE | errno.ENOMEM) as full:
                return no_room(str(full))
        if self._sockets:
            return no_room("libcurl got no copy of the socket")
        if code == p.E_WRITE_ERROR and len(self._body) > self._keep:
            return None
        if self._room < 0:
            said = f"The receiver's answer has more than {MAX_HEAD} bytes of headers."
            return ExchangeFailed(Reason.PROTOCOL, said)
        if code == p.E_OPERATION_TIMEDOUT:
            said = f"The receiver did not answer completely within {request.timeout:g} s."
            if not self._sent:
                said = f"No connection to the receiver within {min(CONNECT_TIMEOUT, request.timeout):g} s."
            return ExchangeFailed(Reason.TIMEOUT, said)
        if code == p.E_COULDNT_CONNECT:
            why = os.strerror(failing) if failing else said
            return ExchangeFailed(Reason.CONNECT, f"{host}:{port} could not be connected to: {why}.")
        if code == p.E_PEER_FAILED_VERIFICATION:
            return ExchangeFailed(Reason.TLS, f"The certificate of {host} is not trusted: {said}.")
        if code in (p.E_SSL_CONNECT_ERROR, p.E_SSL_CIPHER, p.E_SSL_CERTPROBLEM):
            return ExchangeFailed(Reason.TLS, f"TLS with the receiver failed: {said}.")
        if code == p.E_SEND_ERROR or (code == p.E_RECV_ERROR and failing):
            return ExchangeFailed(Reason.CONNECT, f"The connection to the receiver was lost: {said}.")
        if code == p.E_GOT_NOTHING:
            return ExchangeFailed(Reason.PROTOCOL, "The receiver closed the connection without answering.")
        if code == p.E_PARTIAL_FILE:
            return ExchangeFailed(Reason.PROTOCOL, f"The receiver's answer broke off: {said}.")
        if code == TOO_LARGE:
            return ExchangeFailed(Reason.PROTOCOL, "The receiver's answer has a header that is too long.")
        if code in (
            p.E_RECV_ERROR,
            p.E_UNSUPPORTED_PROTOCOL,
            p.E_FTP_WEIRD_SERVER_REPLY,
            p.E_BAD_CONTENT_ENCODING,
        ):
            return ExchangeFailed(Reason.PROTOCOL, f"The receiver's answer is not HTTP: {said}.")
        return ExchangeFailed(Reason.INTERNAL, f"The request could not be sent: {said} ({code}).")

    # -- called by libcurl

    def _open(self, _purpose: int, address: Any) -> Any:
        try:
            made = self._socket_for(*address)
        except OSError as error:
            self._refused = error
            return self._pycurl.SOCKET_BAD
        self._opened += 1
        self._sockets.append(made)  # until libcurl has its copy
        return made

    def _copied(self, descriptor: int, _purpose: int) -> int:
        while self._sockets:
            self._sockets.pop().close()
        self._opened_as(descriptor)
        os.set_inheritable(descriptor, False)  # programs that are started meanwhile do not get it
        return int(self._pycurl.SOCKOPT_OK)

    def _before_sending(self, *_addresses: object) -> int:
        """libcurl sends anew what it lost in a kept connection, up to six times and over other kept ones.
        Here that is once more, over a new one."""
        self._sent += 1
        if self._sent > 1 and not self._opened:
            return int(self._pycurl.PREREQFUNC_ABORT)
        return 0  # PREREQFUNC_OK

    def _head_line(self, line: bytes) -> int | None:
        self._room -= len(line)
        if self._room < 0:
            return 0
        self._lines.append(line)
        return None

    def _body_part(self, part: bytes) -> int | None:
        self._body += part
        return 0 if len(self._body) > self._keep else None


def no_room(why: str) -> ExchangeFailed:
    return ExchangeFailed(Reason.INTERNAL, f"This machine has no room for another connection: {why}.")


@lru_cache(maxsize=256)
def check_name(name: str) -> None:
    """Raises ValueError unless a request may have a header of this name."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError(f"{name!r} is no name of a header")
    if name.lower() in FRAMING:
        raise ValueError(f"the header {name!r} is not the request's to set")


def kept(lines: Sequence[bytes]) -> dict[str, str]:
    """What is kept of an answer's headers: 32 at most, 8 KiB at most, names in lower case, no cookies.

    ``lines`` are those of the answer and of what came before it (100 Continue), each as it was sent. Bytes
    that are no UTF-8 are replaced: they could neither be stored nor shown.
    """
    found: dict[str, str] = {}
    room = MAX_HEADER_BYTES_KEPT
    full = False
    for line in lines:
        if line.startswith(b"HTTP/"):
            found, room, full = {}, MAX_HEADER_BYTES_KEPT, False
            continue
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if not colon or full:
            continue
        name, value = name.strip().lower(), value.strip()
        if name == "set-cookie" or (name not in found and len(found) == MAX_HEADERS_KEPT):
            continue
        room -= len(name) + len(value)
        if room < 0:
            full = True
            continue
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
