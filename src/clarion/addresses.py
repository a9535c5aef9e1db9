"""Which addresses may be called: a pure policy over URLs and IP addresses. ``egress`` enforces it.

The table is explicit because ``ipaddress.is_global`` is not enough: Python 3.11.7 calls 224.0.0.1,
168.63.129.16, ::127.0.0.1, fec0::1, 2002:7f00:1::1 and 64:ff9b::c0a8:1 global.
Sources: the IANA special-purpose registries for IPv4 and IPv6, and the RFC named in each row.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote, urlsplit

from clarion.errors import ConfigurationError, InvalidAddress

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NETWORKS_SETTING = "CLARION_EGRESS_ALLOWED_NETWORKS"
HOSTS_SETTING = "CLARION_EGRESS_ALLOWED_HOSTS"
MAX_URL = 2048
"""Characters a URL may have."""

BLOCKED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network, RFC 791"),
        ("10.0.0.0/8", "private use, RFC 1918"),
        ("100.64.0.0/10", "shared by carriers, RFC 6598"),
        ("127.0.0.0/8", "loopback, RFC 1122"),
        ("169.254.0.0/16", "link-local and cloud metadata, RFC 3927"),
        ("172.16.0.0/12", "private use, RFC 1918"),
        ("192.0.0.0/24", "IETF protocol assignments, RFC 6890"),
        ("192.0.2.0/24", "documentation, RFC 5737"),
        ("192.88.99.0/24", "6to4 relays, RFC 7526"),
        ("192.168.0.0/16", "private use, RFC 1918"),
        ("198.18.0.0/15", "benchmarking, RFC 2544"),
        ("198.51.100.0/24", "documentation, RFC 5737"),
        ("203.0.113.0/24", "documentation, RFC 5737"),
        ("224.0.0.0/4", "multicast, RFC 5771"),
        ("240.0.0.0/4", "reserved and broadcast, RFC 1112"),
        ("168.63.129.16/32", "the Azure platform address"),
        ("::/128", "unspecified, RFC 4291"),
        ("::1/128", "loopback, RFC 4291"),
        ("::/96", "IPv4-compatible, RFC 4291"),
        ("64:ff9b::/96", "NAT64, RFC 6052"),
        ("64:ff9b:1::/48", "local NAT64, RFC 8215"),
        ("100::/64", "discard only, RFC 6666"),
        ("2001::/23", "IETF protocol assignments and Teredo, RFC 2928 and 4380"),
        ("2001:db8::/32", "documentation, RFC 3849"),
        ("2002::/16", "6to4, RFC 3056"),
        ("3fff::/20", "documentation, RFC 9637"),
        ("5f00::/16", "segment routing, RFC 9602"),
        ("fc00::/7", "private use, RFC 4193"),
        ("fe80::/10", "link-local, RFC 4291"),
        ("fec0::/10", "site-local, RFC 3879"),
        ("ff00::/8", "multicast, RFC 4291"),
    )
)
"""Networks no subscriber may be in unless a setting says so. ``::ffff:0:0/96`` is unwrapped instead."""

_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")

_NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::([0-9]{1,5}))?", re.ASCII)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a packet to this IPv6 address is translated or tunnelled to, if any."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    compatible = address in _COMPATIBLE and int(address) > 1  # :: and ::1 are addresses of their own
    if compatible or address in _NAT64 or address in _LOCAL_NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


@dataclass(frozen=True)
class Target:
    """A URL that was understood: ``url`` is ASCII and what is called; ``host`` is lower-case."""

    url: str
    scheme: str
    host: str
    port: int

    @cached_property
    def address(self) -> Address | None:
        """The address, if the host is one and not a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


@dataclass(frozen=True)
class EgressPolicy:
    """Where requests may go: everywhere but ``BLOCKED``, except networks and hosts that are allowed.

    An allowed network opens its addresses for every name; an allowed host (exact, lower-case, ASCII)
    opens whatever address that name has.
    """

    allowed_networks: tuple[Network, ...] = ()
    allowed_hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, networks: Iterable[str] = (), hosts: Iterable[str] = ()) -> "EgressPolicy":
        """From the texts of the two settings. Raises ConfigurationError, which names the setting."""
        allowed: list[Network] = []
        for text in networks:
            try:
                network = ip_network(text.strip())
            except ValueError as error:
                raise ConfigurationError(
                    f"{NETWORKS_SETTING}: {text.strip()!r} is not a network such as 10.0.0.0/8: {error}."
                ) from None
            if network.prefixlen == 0:
                raise ConfigurationError(
                    f"{NETWORKS_SETTING}: {network} would allow everything; name the networks that are meant."
                )
            allowed.append(network)
        try:
            names = frozenset(_ascii_host(host.strip().strip("[]")) for host in hosts)
        except InvalidAddress as error:
            raise ConfigurationError(f"{HOSTS_SETTING}: {error.message}") from None
        return cls(tuple(allowed), names)

    def refusal(self, address: Address, host: str = "") -> str | None:
        """Why this address may not be called, and what to set to allow it; None if it may.

        An IPv4 address inside an IPv6 one is judged too: a NAT64 or 6to4 address must be allowed
        itself, and so must the address it leads to.
        """
        if host and host in self.allowed_hosts:
            return None
        inner = embedded(address) if isinstance(address, IPv6Address) else None
        if inner is not None and isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            return self.refusal(inner)
        found = self._blocking(address)
        if found is None:
            return self.refusal(inner) if inner is not None else None
        network, what = found
        name = f"{host} is {address}" if host and host != str(address) else str(address)
        return (
            f"{name}, which is in {network} ({what}) and is not called by default. If it is meant, "
            f"add it to {NETWORKS_SETTING} (a CIDR) or the host to {HOSTS_SETTING}."
        )

    def _blocking(self, address: Address) -> tuple[Network, str] | None:
        if any(address in network for network in self.allowed_networks):
            return None
        return next((row for row in BLOCKED if address in row[0]), None)

    def check_url(self, url: str) -> Target:
        """Understand a URL and refuse one that could never be called. Raises InvalidAddress.

        A name is not looked up: what it resolves to is checked when it is connected to.
        """
        target = parse_url(url)
        if target.address is not None:
            why = self.refusal(target.address, target.host)
            if why is not None:
                raise InvalidAddress(f"The URL's host is {why}")
        return target


def check_url(url: str, policy: EgressPolicy | None = None) -> Target:
    """``EgressPolicy.check_url``, with the strictest policy unless one is given. Raises InvalidAddress."""
    return (policy or EgressPolicy()).check_url(url)


def parse_url(url: str) -> Target:
    """An absolute http or https URL, understood strictly. Raises InvalidAddress.

    Refused: more than 2048 characters, user info, a fragment, control characters, whitespace,
    backslashes, IPv4 addresses not written as four decimal numbers, and ports outside 1 to 65535.
    """
    if len(url) > MAX_URL:
        raise InvalidAddress(f"A URL has at most {MAX_URL} characters; this one has {len(url)}.")
    if any(not character.isprintable() or character.isspace() or character == "\\" for character in url):
        raise InvalidAddress("A URL has no whitespace, control characters or backslashes.")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidAddress(f"This is not a URL: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidAddress("A URL is absolute and starts with http:// or https://, followed by a host.")
    if "@" in parts.netloc:
        raise InvalidAddress("A URL has no user name or password.")
    if "#" in url:
        raise InvalidAddress("A URL has no fragment (#...): it would never be sent.")
    host, port = _host_and_port(parts.netloc, 443 if parts.scheme == "https" else 80)
    netloc = f"[{host}]" if ":" in host else host
    if port != (443 if parts.scheme == "https" else 80):
        netloc += f":{port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]{}|^`\"<>") if parts.query else ""
    text = f"{parts.scheme}://{netloc}{path}{query}"
    if len(text) > MAX_URL:
        raise InvalidAddress(
            f"A URL has at most {MAX_URL} characters once encoded; this one has {len(text)}."
        )
    return Target(url=text, scheme=parts.scheme, host=host, port=port)


def _host_and_port(netloc: str, default: int) -> tuple[str, int]:
    match = _NETLOC.fullmatch(netloc)
    if match is None:
        raise InvalidAddress("The URL's host or port cannot be read; a port is a number from 1 to 65535.")
    port = int(match[2]) if match[2] is not None else default
    if not 1 <= port <= 65535:
        raise InvalidAddress(f"A port is a number from 1 to 65535; this one is {port}.")
    if match[1].startswith("["):
        try:
            return str(IPv6Address(match[1][1:-1])), port
        except ValueError:
            raise InvalidAddress("The URL's host is not an IPv6 address.") from None
    return _ascii_host(match[1]), port


def _ascii_host(host: str) -> str:
    """A host as it is looked up: lower-case ASCII, IDNA-encoded. Raises InvalidAddress."""
    if ":" in host:
        try:
            return str(IPv6Address(host))
        except ValueError:
            raise InvalidAddress(f"{host!r} is not a host.") from None
    name = host.lower() if host.isascii() else _idna(host)
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidAddress(
            "A host is an IP address, or labels of letters, digits, '-' and '_' (63 at most) "
            "separated by single dots."
        )
    # As browsers read it: a host whose last label is a number is an IPv4 address, whatever its form.
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise InvalidAddress(
                "An IPv4 address is written as four decimal numbers without leading zeros, such as 192.0.2.1."
            ) from None
    return name


def _idna(host: str) -> str:
    try:
        import idna
    except ImportError:
        raise InvalidAddress(
            "Write the host in its ASCII form (xn--...), or install clarion[relay], which can convert it."
        ) from None
    try:
        return idna.encode(host, uts46=True, transitional=False).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidAddress(f"The URL's host is not a valid name: {error}.") from None
