"""Asks the kernel about a TCP connection: does its end still exist, and which socket is it? Linux.

The question goes to ``sock_diag(7)`` (``struct inet_diag_req_v2``, ``struct inet_diag_msg`` of
linux/inet_diag.h). It is answered for one connection in some 10 µs, and without privileges; /proc/net/tcp
holds the same, but the kernel writes all of its table for one line of it.
"""

import socket
import struct
from collections.abc import MutableMapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

ESTABLISHED = 1
"""A state of a TCP socket (net/tcp_states.h)."""
_SOCK_DIAG = 4
_BY_FAMILY = 20
_ERROR = 2
_REQUEST = 1
_ANY_COOKIE = b"\xff" * 8
_HEADER = struct.Struct("=IHHII")
_WANTED = struct.Struct("=BBBBI")
_PORTS = struct.Struct("!HH")
_FOUND = struct.Struct("=BB2x48x5I")
_COOKIE = slice(_HEADER.size + 44, _HEADER.size + 52)
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class End:
    """A socket. ``inode`` is 0 when no process holds it any more; ``cookie`` is no other socket's, ever."""

    state: int
    inode: int
    uid: int
    cookie: bytes


@dataclass(frozen=True, slots=True)
class Connection:
    """A TCP connection, seen from one of its ends."""

    address: IPv4Address | IPv6Address
    port: int
    peer: IPv4Address | IPv6Address
    peer_port: int

    @property
    def reversed(self) -> "Connection":
        """The same, seen from the other end."""
        return Connection(self.peer, self.peer_port, self.address, self.port)

    def end(self) -> End | None:
        """The socket of this end; None when there is none on this machine (any more).

        Raises:
            OSError: the kernel does not answer such questions.
        """
        family = socket.AF_INET if self.address.version == 4 else socket.AF_INET6
        body = b"".join(
            [
                _WANTED.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF),
                _PORTS.pack(self.port, self.peer_port),
                self.address.packed.ljust(16, b"\0"),
                self.peer.packed.ljust(16, b"\0"),
                bytes(4),
                _ANY_COOKIE,
            ]
        )
        header = _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST, 0, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
            kernel.sendto(header + body, (0, 0))
            answer = kernel.recv(_LONGEST)
        if _HEADER.unpack_from(answer)[1] == _ERROR:
            number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
            if number == 2:  # ENOENT
                return None
            raise OSError(number, "the kernel does not tell about sockets")
        _, state, *_, uid, inode = _FOUND.unpack_from(answer, _HEADER.size)
        if _PORTS.unpack_from(answer, _HEADER.size + 4) != (self.port, self.peer_port):
            return None  # a socket that listens there, which is what is told of when there is no connection
        return End(state, inode, uid, answer[_COOKIE])


def caller_of(scope: MutableMapping[str, Any]) -> Connection | None:
    """The connection a request came over, seen from its caller; None when it is no TCP connection."""
    try:
        peer, peer_port = scope["client"]
        here, port = scope["server"]
        return Connection(_plain(peer), peer_port, _plain(here), port)
    except (KeyError, TypeError, ValueError):
        return None  # another kind of socket, or an application that is called without any


def is_lost(scope: MutableMapping[str, Any]) -> bool:
    """Whether the connection of a request was gone before anybody asked who has its other end: what was sent
    before a reset is read all the same."""
    client, server = scope.get("client", ()), scope.get("server")
    return client is None and (server is None or server[1] is not None)  # a Unix socket's has no port


def _plain(host: str) -> IPv4Address | IPv6Address:
    """An address; one of IPv4 as such, also where a socket of IPv6 sees it (``::ffff:127.0.0.1``)."""
    address = ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address
