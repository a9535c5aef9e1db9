import asyncio
import errno
import functools
import gc
import os
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from clarion.egress import Egress, EgressPolicy, parse_url
from clarion.errors import ConfigurationError, InvalidAddress, Reason
from clarion.messages import Failure, Request, Response

LOOPBACK = EgressPolicy.of(["127.0.0.0/8", "::1/128"])
Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A real server on a free port that answers each request with ``answer`` and remembers what came."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.hung_up = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [
                    line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                ]
                body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
                self.requests.append(head + body)
                await self.answer(head, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Answer | bytes, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None):
    async def fixed(_head: bytes, writer: asyncio.StreamWriter) -> None:
        assert isinstance(answer, bytes)
        writer.write(answer)
        await writer.drain()

    server = Server(fixed if isinstance(answer, bytes) else answer)
    listening = await asyncio.start_server(server.connected, host, 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{server.port}/hook"
    try:
        yield server
    finally:
        listening.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def resolving(*answers: list[str]) -> Callable[[str], Awaitable[list[str]]]:
    """A resolver that gives these answers in turn, and the last one for ever."""
    left = list(answers)

    async def resolve(host: str) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


async def test_headers_that_are_no_text_are_kept_as_text():
    found = b"HTTP/1.1 302 Found\r\nLocation: http://x/\xff\xc3\xa9\r\nContent-Length: 0\r\n\r\n"
    async with serving(found) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"{}", {}))
    assert isinstance(answer, Response)
    assert answer.headers["location"] == "http://x/\ufffd\u00e9"


async def test_a_request_arrives_as_it_was_built():
    async with serving(OK) as server, Egress(LOOPBACK) as egress:
        headers = {"content-type": "application/json", "X-Orchest-Event": "a:b"}
        answer = await egress.send(Request(server.url + "?a=b%20c", b'{"x": 1}', headers))
    assert isinstance(answer, Response)
    assert (answer.status, answer.body, answer.truncated) == (200, b"ok", False)
    assert 0 < answer.elapsed < 15
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /hook?a=b%20c HTTP/1.1"
    assert body == b'{"x": 1}'
    lowered = {line.lower() for line in lines}
    assert f"host: 127.0.0.1:{server.port}".encode() in lowered
    assert b"accept-encoding: identity" in lowered
    assert b"content-type: application/json" in lowered
    assert b"x-orchest-event: a:b" in lowered
    assert b"content-length: 8" in lowered
    assert not any(line.startswith((b"cookie", b"transfer-encoding", b"authorization")) for line in lowered)


async def test_connections_are_kept_and_bounded():
    async with serving(OK) as server, Egress(LOOPBACK, connections_per_host=3) as egress:
        await asyncio.gather(*[egress.send(Request(server.url, b"x")) for _ in range(30)])
        assert len(server.requests) == 30
        assert server.connections <= 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_answers(status):
    async with serving(OK) as elsewhere:
        moved = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n".encode()
        async with serving(moved) as server, Egress(LOOPBACK) as egress:
            answer = await egress.send(Request(server.url, b"x"))
    assert isinstance(answer, Response)
    assert answer.status == status
    assert answer.headers["location"] == elsewhere.url
    assert elsewhere.requests == []


async def test_cookies_and_proxies_of_the_environment_are_ignored(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    setting = b"HTTP/1.1 204 No Content\r\nSet-Cookie: a=b\r\nX-Kept: 1\r\n\r\n"
    async with serving(setting) as server, Egress(LOOPBACK) as egress:
        first = await egress.send(Request(server.url, b"x"))
        await egress.send(Request(server.url, b"x"))
    assert isinstance(first, Response)
    assert first.headers == {"x-kept": "1"}
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


async def test_the_body_is_read_to_16_kib_and_then_hung_up():
    async def endless(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"a" * 1024 + b"\r\n")
            await writer.drain()

    async with serving(endless) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x", timeout=10))
        assert isinstance(answer, Response)
        assert (len(answer.body), answer.truncated) == (16 * 1024, True)
        await asyncio.wait_for(server.hung_up.wait(), 5)


@pytest.mark.parametrize(("size", "truncated"), [(16 * 1024, False), (16 * 1024 + 1, True)])
async def test_the_edge_of_16_kib(size, truncated):
    answer_bytes = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size
    async with serving(answer_bytes) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x"))
        assert isinstance(answer, Response)
        assert (len(answer.body), answer.truncated) == (16 * 1024, truncated)


async def test_a_request_can_ask_for_more_of_the_answer_and_the_next_one_has_less():
    size = 100 * 1024
    answer_bytes = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size
    async with serving(answer_bytes) as server, Egress(LOOPBACK) as egress:
        for keep, kept in ((size, size), (16 * 1024, 16 * 1024), (size - 1, size - 1)):
            answer = await egress.send(Request(server.url, b"x", keep=keep))
            assert isinstance(answer, Response)
            assert (len(answer.body), answer.truncated) == (kept, keep < size)


async def test_a_compressed_answer_is_not_unpacked():
    packed = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
    async with serving(packed) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x"))
    assert isinstance(answer, Response)
    assert answer.body == b"\x1f\x8b\x08\x00"


async def test_chunks_come_before_a_content_length():
    """RFC 9112, 6.3."""
    both = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    async with serving(both) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x"))
    assert isinstance(answer, Response)
    assert answer.body == b"a"


async def test_response_headers_are_bounded():
    many = b"".join(b"X-%d: v\r\n" % n for n in range(60))
    large = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 3000) for n in range(5))
    for lines, count in [(many, 32), (large, 2), (b"Via: a\r\nVia: b\r\n", 1)]:
        head = b"HTTP/1.1 204 No Content\r\n" + lines + b"\r\n"
        async with serving(head) as server, Egress(LOOPBACK) as egress:
            answer = await egress.send(Request(server.url, b"x"))
        assert isinstance(answer, Response)
        assert len(answer.headers) == count
        assert sum(len(name) + len(value) for name, value in answer.headers.items()) <= 8192
    assert answer.headers == {"via": "a, b"}


async def test_the_deadline_holds_against_a_body_that_trickles():
    async def trickle(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(trickle) as server, Egress(LOOPBACK) as egress:
        started = time.monotonic()
        answer = await egress.send(Request(server.url, b"x", timeout=0.4))
        assert time.monotonic() - started < 3
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.TIMEOUT
    assert "0.4 s" in answer.message
    assert answer.elapsed > 0.39  # loops differ in how they round


async def test_the_deadline_covers_the_headers_and_the_wait_for_a_connection():
    async def silent(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serving(silent) as server, Egress(LOOPBACK, connections_per_host=1) as egress:
        sent = [egress.send(Request(server.url, b"x", timeout=timeout)) for timeout in (0.6, 0.2)]
        answers = await asyncio.gather(*sent)
    assert [answer.reason for answer in answers if isinstance(answer, Failure)] == [Reason.TIMEOUT] * 2
    assert [answer.message for answer in answers if isinstance(answer, Failure)] == [
        "The receiver did not answer completely within 0.6 s.",
        "No connection to the receiver within 0.2 s.",
    ]


async def test_a_receiver_that_does_not_greet_back_was_not_connected_to(monkeypatch):
    monkeypatch.setattr("clarion.exchange.CONNECT_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with Egress(LOOPBACK) as egress:
            answer = await egress.send(Request(f"https://127.0.0.1:{silent.getsockname()[1]}/", b"x"))
    assert isinstance(answer, Failure)
    assert (answer.reason, answer.message) == (Reason.TIMEOUT, "No connection to the receiver within 0.2 s.")


async def test_the_deadline_covers_the_lookup():
    async def never(host: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with Egress(LOOPBACK, resolve=never) as egress:
        answer = await egress.send(Request("http://slow.example/", b"x", timeout=0.2))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.TIMEOUT


@pytest.mark.parametrize(
    ("url", "answers"),
    [
        ("http://127.0.0.1:{port}/", []),
        ("http://[::ffff:127.0.0.1]:{port}/", []),
        ("http://name.example:{port}/", ["127.0.0.1"]),
        ("http://name.example:{port}/", ["::ffff:127.0.0.1", "10.0.0.1", "fe80::1%lo"]),
        ("http://2130706433:{port}/", []),
        ("http://localhost:{port}/", None),
    ],
)
async def test_what_is_blocked_is_never_connected_to(url, answers):
    resolve = None if answers is None else resolving(answers)
    async with serving(OK) as server, Egress(resolve=resolve) as egress:
        answer = await egress.send(Request(url.format(port=server.port), b"x"))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.BLOCKED
    if "2130706433" not in url:
        assert "CLARION_EGRESS_ALLOWED_NETWORKS" in answer.message
    assert server.connections == 0


async def test_the_socket_itself_is_checked_even_if_the_lookup_was_not(monkeypatch):
    """The last line: a literal address that no earlier check saw."""
    async with serving(OK) as server, Egress() as egress:
        seen = Egress(LOOPBACK)._destination(server.url)
        checked = replace(seen, socket_for=functools.partial(egress._socket, ""))
        monkeypatch.setattr(egress, "_destination", lambda url: checked)
        answer = await egress.send(Request(server.url, b"x"))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.BLOCKED
    assert server.connections == 0


async def test_a_name_that_changes_its_address_is_checked_again():
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    policy = EgressPolicy.of(["127.0.0.2/32"])
    async with serving(closing, "127.0.0.2") as good, serving(OK, "127.0.0.1") as bad:
        resolve = resolving(["127.0.0.2"], ["127.0.0.1"])
        async with Egress(policy, resolve=resolve, dns_cache=0) as egress:
            url = f"http://rebind.example:{good.port}/"
            first = await egress.send(Request(url, b"x"))
            second = await egress.send(Request(url, b"x"))
        assert isinstance(first, Response)
        assert isinstance(second, Failure)
        assert second.reason is Reason.BLOCKED
        assert bad.connections == 0


async def test_of_a_mixed_answer_only_allowed_addresses_are_called():
    policy = EgressPolicy.of(["127.0.0.2/32"])
    refused = [f"10.0.0.{n}" for n in range(1, 20)]  # more than are tried
    mixed = resolving([*refused, "127.0.0.1", "127.0.0.2", "::1"])
    async with serving(OK, "127.0.0.2") as server, Egress(policy, resolve=mixed) as egress:
        answer = await egress.send(Request(f"http://mixed.example:{server.port}/", b"x"))
    assert isinstance(answer, Response)
    assert f"host: mixed.example:{server.port}".encode() in server.requests[0].lower()


async def test_an_allowed_host_is_called_wherever_it_is_and_no_other():
    policy = EgressPolicy.of(hosts=["intra.example"])
    async with serving(OK) as server, Egress(policy, resolve=resolving(["127.0.0.1"])) as egress:
        for _ in range(2):
            allowed = await egress.send(Request(f"http://Intra.Example:{server.port}/", b"x"))
            other = await egress.send(Request(f"http://other.example:{server.port}/", b"x"))
            assert isinstance(allowed, Response)
            assert isinstance(other, Failure)
            assert other.reason is Reason.BLOCKED


async def test_an_allowed_host_may_be_an_address():
    async with serving(OK) as server, Egress(EgressPolicy.of(hosts=["127.0.0.1"])) as egress:
        assert isinstance(await egress.send(Request(server.url, b"x")), Response)
        other = await egress.send(Request(f"http://127.0.0.2:{server.port}/", b"x"))
    assert isinstance(other, Failure)
    assert other.reason is Reason.BLOCKED


async def test_ipv6():
    try:
        async with serving(OK, "::1") as server, Egress(LOOPBACK) as egress:
            answer = await egress.send(Request(server.url, b"x"))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    assert isinstance(answer, Response)


def certificates(*names: str, version: ssl.TLSVersion | None = None):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    if version is not None:
        context.maximum_version = version
    seen: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: seen.append(name)
    return authority, context, seen


async def test_tls_is_to_the_name_not_to_the_address(tmp_path):
    authority, context, seen = certificates("tls.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    lookup = resolving(["127.0.0.1"])
    trusting = Egress(LOOPBACK, ca_file=str(tmp_path / "ca.pem"), resolve=lookup)
    async with serving(OK, tls=context) as server, trusting as egress:
        good = await egress.send(Request(f"https://tls.example:{server.port}/", b"x"))
        wrong = await egress.send(Request(f"https://other.example:{server.port}/", b"x"))
        unchecked = Request(f"https://other.example:{server.port}/", b"x", verify_tls=False)
        assert isinstance(await egress.send(unchecked), Response)
        # What was opened unverified is not used for who verifies.
        again = await egress.send(Request(f"https://other.example:{server.port}/", b"x"))
    assert isinstance(good, Response)
    assert seen == ["tls.example", "other.example", "other.example", "other.example"]
    for answer in (wrong, again):
        assert isinstance(answer, Failure)
        assert answer.reason is Reason.TLS
        assert "not trusted" in answer.message


@pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning")
async def test_what_a_certificate_calls_itself_is_told_as_text(tmp_path):
    """libcurl quotes it, cut after 255 bytes."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "\n" + "€" * 200, _validate=False)])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "both.pem").write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    async with (
        serving(OK, tls=context) as server,
        Egress(LOOPBACK, resolve=resolving(["127.0.0.1"])) as egress,
    ):
        answer = await egress.send(Request(f"https://tls.example:{server.port}/", b"x"))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.TLS
    assert "€" in answer.message
    assert answer.message.isprintable()


async def test_an_unknown_authority():
    _, context, _ = certificates("127.0.0.1")
    async with serving(OK, tls=context) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x"))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.TLS


async def test_plain_http_behind_https():
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(f"https://127.0.0.1:{port}/", b"x"))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.TLS


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_below_1_2_is_refused_even_unverified():
    _, context, _ = certificates("127.0.0.1", version=ssl.TLSVersion.TLSv1_1)
    async with serving(OK, tls=context) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x", verify_tls=False))
    assert isinstance(answer, Failure)
    assert server.requests == []


async def test_a_ca_file_that_is_none(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(ConfigurationError, match="certificate authorities"):
            async with Egress(ca_file=str(tmp_path / name)):
                pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def test_nobody_listens():
    async with Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(f"http://127.0.0.1:{free_port()}/", b"x"))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.CONNECT
    assert "could not be connected to" in answer.message


async def test_a_name_that_does_not_exist():
    async def unknown(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for resolve in (unknown, resolving([])):
        async with Egress(LOOPBACK, resolve=resolve) as egress:
            answer = await egress.send(Request("http://missing.example/", b"x"))
        assert isinstance(answer, Failure)
        assert answer.reason is Reason.DNS
        assert "missing.example" in answer.message


@pytest.mark.parametrize(
    "garbage",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(2000)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 400_000,
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"just text",
    ],
    ids=range(13),
)
async def test_what_is_not_http(garbage):
    async with serving(garbage) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x", timeout=3))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.PROTOCOL, answer


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_a_receiver_that_breaks_off(start):
    async def breaking(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        await writer.drain()
        writer.close()

    async with serving(breaking) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x", timeout=3))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.PROTOCOL
    assert server.connections == 1


async def test_a_receiver_that_resets():
    async def resetting(_head: bytes, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        writer.transport.abort()

    async with serving(resetting) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x", timeout=3))
    assert isinstance(answer, Failure)
    assert answer.reason in (Reason.CONNECT, Reason.PROTOCOL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {"x": "a\r\nb: c"}},
        {"headers": {"x\n": "a"}},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"method": "G\tET"},
        {"headers": {"Host": "elsewhere.example"}},
        {"headers": {"content-length": "0"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"a b": "c"}},
        {"headers": {"": "c"}},
        {"headers": {"x;": ""}},
    ],
    ids=str,
)
async def test_a_request_that_cannot_be_sent_is_our_fault(wrong):
    async with serving(OK) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x", **wrong))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.INTERNAL
    assert server.requests == []


async def test_running_out_of_files_is_our_fault(monkeypatch):
    def none_left(*_asked: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Egress, "_socket", staticmethod(none_left))
    async with serving(OK) as server, Egress(LOOPBACK) as egress:
        answer = await egress.send(Request(server.url, b"x"))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.INTERNAL
    assert "no room for another connection" in answer.message


async def test_no_file_left_for_a_copy_of_the_socket_is_our_fault(monkeypatch):
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)

    def last_one(family: int, kind: int, protocol: int, _address: object) -> socket.socket:
        made = socket.socket(family, kind, protocol)
        resource.setrlimit(resource.RLIMIT_NOFILE, (made.fileno() + 1, allowed[1]))
        return made

    async with serving(OK) as server, Egress(LOOPBACK) as egress:
        destination = replace(egress._destination(server.url), socket_for=last_one)
        monkeypatch.setattr(egress, "_destination", lambda url: destination)
        try:
            answer = await egress.send(Request(server.url, b"x"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.INTERNAL
    assert "no room for another connection" in answer.message


async def test_a_connection_is_one_file_which_no_program_inherits():
    found: list[bool] = []

    def inheritable(port: int) -> list[bool]:
        known = []
        for file in Path("/proc/self/fd").iterdir():
            with suppress(OSError), socket.socket(fileno=os.dup(int(file.name))) as copy:
                if copy.getpeername()[1:2] == (port,):
                    known.append(os.get_inheritable(int(file.name)))
        return known

    async def look(_head: bytes, writer: asyncio.StreamWriter) -> None:
        found.extend(inheritable(server.port))
        writer.write(OK)

    async with serving(look) as server, Egress(LOOPBACK) as egress:
        assert isinstance(await egress.send(Request(server.url, b"x")), Response)
    assert found == [False]


async def test_who_waits_while_egress_is_closed_is_told_so():
    arrived = asyncio.Event()

    async def silent(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async def never(host: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with serving(silent) as server:
        async with Egress(LOOPBACK, resolve=never) as egress:
            urls = (server.url, "http://slow.example/")
            sent = [asyncio.create_task(egress.send(Request(url, b"x"))) for url in urls]
            await asyncio.wait_for(arrived.wait(), 5)
        answers = await asyncio.gather(*sent)
    for answer in answers:
        assert isinstance(answer, Failure)
        assert answer.reason is Reason.INTERNAL
        assert "was closed" in answer.message


def test_one_loop_after_the_other():
    async def never(host: str) -> list[str]:
        if host == "first.example":
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    async def use(egress: Egress, host: str) -> object:
        async with serving(OK) as server, egress:
            first = asyncio.create_task(egress.send(Request("http://first.example/", b"x", timeout=30)))
            answer = await egress.send(Request(f"http://{host}:{server.port}/", b"x"))
        await first
        return answer

    egress = Egress(LOOPBACK, resolve=never)
    for host in ("one.example", "two.example", "one.example"):
        assert isinstance(asyncio.run(use(egress, host)), Response)


def test_lookups_that_hang_hold_up_no_other_name_and_no_exit():
    script = """
import asyncio, socket, threading

real = socket.getaddrinfo

def hanging(host, *arguments, **keywords):
    if host.startswith("hung"):
        threading.Event().wait()
    return real(host, *arguments, **keywords)

socket.getaddrinfo = hanging

from clarion.egress import Egress
from clarion.messages import Request

async def main():
    async with Egress() as egress:
        hung = [egress.send(Request(f"http://hung{n}.example/", b"x", timeout=0.5)) for n in range(100)]
        waiting = asyncio.gather(*hung)
        answer = await egress.send(Request("http://localhost/", b"x", timeout=30))
        print(answer.reason.value, *sorted({late.reason.value for late in await waiting}))

asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True
    )
    assert ran.stdout.split() == ["blocked", "timeout"]


async def test_closed_egress_and_open_twice():
    egress = Egress(LOOPBACK)
    answer = await egress.send(Request("http://127.0.0.1/", b"x"))
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.INTERNAL
    async with egress:
        with pytest.raises(RuntimeError, match="open already"):
            await egress.__aenter__()


async def test_cancelling_is_the_one_thing_that_is_raised():
    arrived = asyncio.Event()

    async def silent(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async with serving(silent) as server, Egress(LOOPBACK) as egress:
        task = asyncio.create_task(egress.send(Request(server.url, b"x")))
        await asyncio.wait_for(arrived.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_real_framework_reads_it():
    got: list[dict[str, str]] = []

    async def hook(request: web.Request) -> web.Response:
        got.append({"body": await request.text(), "agent": request.headers["user-agent"]})
        return web.json_response({"fine": True}, status=202)

    app = web.Application()
    app.router.add_post("/hook", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        async with Egress(LOOPBACK) as egress:
            request = Request(f"http://127.0.0.1:{port}/hook", "zoë".encode(), {"user-agent": "T/1"})
            answers = await asyncio.gather(*[egress.send(request) for _ in range(50)])
    finally:
        await runner.cleanup()
    assert {answer.status for answer in answers if isinstance(answer, Response)} == {202}
    assert got == [{"body": "zoë", "agent": "T/1"}] * 50


def test_importing_needs_no_pycurl_and_using_names_the_extra():
    script = """
import sys
sys.modules["pycurl"] = None
from clarion.egress import Egress, check_url
from clarion.errors import ConfigurationError
check_url("https://example.com/")
try:
    Egress()
except ConfigurationError as error:
    assert "clarion[relay]" in error.message, error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


async def test_a_kept_connection_that_was_closed_is_opened_anew():
    async def once(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()
        writer.close()  # without having said so

    async with serving(once) as server, Egress(LOOPBACK) as egress:
        for _ in range(5):
            answer = await egress.send(Request(server.url, b"x"))
            assert isinstance(answer, Response), answer
    assert len(server.requests) == 5


async def keep(server: Server, egress: Egress, count: int) -> None:
    """Have ``count`` connections to the server, all idle."""
    await asyncio.gather(*[egress.send(Request(server.url, b"first")) for _ in range(count)])
    assert server.connections == count
    server.requests.clear()


def together(count: int, then: Answer) -> Answer:
    """Answers the first ``count`` requests when all have come, and what comes later as ``then`` does."""
    came: list[asyncio.StreamWriter] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if len(came) == count:
            await then(head, writer)
            return
        came.append(writer)
        if len(came) == count:
            for one in came:
                one.write(OK)

    return answer


@pytest.mark.parametrize("reset", [False, True])
async def test_what_a_kept_connection_swallows_is_sent_once_more_and_over_a_new_one(reset):
    async def swallowing(_head: bytes, writer: asyncio.StreamWriter) -> None:
        if reset:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        writer.transport.abort()

    async with serving(together(10, swallowing)) as server, Egress(LOOPBACK) as egress:
        await keep(server, egress, 10)
        answer = await egress.send(Request(server.url, b"again", timeout=5))
        assert isinstance(answer, Failure)
        assert answer.reason in (Reason.PROTOCOL, Reason.CONNECT)
        assert len(server.requests) == 2
        assert server.connections == 11


async def test_a_receiver_that_closed_all_its_kept_connections_is_reached():
    async def fine(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async with serving(together(10, fine)) as server, Egress(LOOPBACK) as egress:
        await keep(server, egress, 10)
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what closed is sent by the loop
        answer = await egress.send(Request(server.url, b"again"))
        assert isinstance(answer, Response), answer
        assert len(server.requests) == 1


async def test_what_follows_an_answer_is_not_the_next_one():
    twice = OK + b"HTTP/1.1 500 Not Yours\r\nContent-Length: 0\r\n\r\n"
    async with serving(twice) as server, Egress(LOOPBACK) as egress:
        answers = [await egress.send(Request(server.url, b"x")) for _ in range(3)]
    assert [answer.status for answer in answers if isinstance(answer, Response)] == [200] * 3
    assert server.connections == 3


async def test_a_handle_forgets_the_request_before():
    """One handle is used again: another method, name, body, and after a failure."""
    lookups = resolving(["127.0.0.1"])
    policy = EgressPolicy.of(["127.0.0.0/8"], ["one.example"])
    async with serving(OK) as server, Egress(policy, resolve=lookups) as egress:
        for request in (
            Request(f"http://one.example:{server.port}/a", b"first", {"x-first": "1"}),
            Request(f"http://127.0.0.1:{free_port()}/", b"nobody", {"x-nobody": "1"}),
            Request(f"http://127.0.0.1:{server.port}/b", b"", method="DELETE"),
            Request(f"http://two.example:{server.port}/c", b"last", {"x-empty": ""}),
        ):
            await egress.send(request)
    heads = [sent.partition(b"\r\n\r\n")[0].lower().split(b"\r\n") for sent in server.requests]
    assert [head[0] for head in heads] == [b"post /a http/1.1", b"delete /b http/1.1", b"post /c http/1.1"]
    assert [sent.partition(b"\r\n\r\n")[2] for sent in server.requests] == [b"first", b"", b"last"]
    assert b"x-empty:" in heads[2]
    assert not any(line.startswith((b"x-first", b"x-nobody", b"content-type")) for line in heads[2])


async def test_who_is_cancelled_leaves_no_file_open():
    async def silent(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async with serving(silent) as server, Egress(LOOPBACK) as egress:
        for _ in range(20):
            tasks = [asyncio.create_task(egress.send(Request(server.url, b"x"))) for _ in range(5)]
            while len(server.requests) < 5:
                await asyncio.sleep(0)
            before = files()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            server.requests.clear()
        assert files() <= before


async def test_a_lookup_is_made_once_for_all_who_wait():
    asked = 0

    async def lookup(host: str) -> list[str]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return ["127.0.0.1"]

    async with serving(OK) as server, Egress(LOOPBACK, resolve=lookup) as egress:
        url = f"http://name.example:{server.port}/"
        for _ in range(2):
            await asyncio.gather(*[egress.send(Request(url, b"x")) for _ in range(20)])
    assert asked == 1
    assert len(server.requests) == 40


async def test_nothing_is_left_open():
    async with serving(OK) as server:
        async with Egress(LOOPBACK) as egress:
            await egress.send(Request(server.url, b"x"))
        await asyncio.wait_for(server.hung_up.wait(), 5)
    del egress
    gc.collect()  # an unclosed session or connector warns, and warnings are errors


PARTS = [
    *(
        "127.0.0.1",
        "0x7f.1",
        "[::1]",
        "[::ffff:7f00:1]",
        "[fe80::1%25lo]",
        "2130706433",
        "017700000001",
        "a",
        "1",
    ),
    *(
        "example.com",
        "LOCALHOST",
        "ex_ample",
        "xn--zca",
        "ß",
        "。",
        "．",
        "１",
        "ſ",
        "℀",
        "\u00ad",
        "\u200d",
        "\ufe13",
    ),
    *(
        ".",
        "..",
        "/",
        "//",
        "/./",
        "/../",
        "/..;/",
        "?",
        "&",
        "=",
        ":",
        ":80",
        ":0443",
        ":65535",
        "@",
        "#",
        "\\",
    ),
    *(
        "%00",
        "%2e",
        "%2f",
        "%41",
        "%",
        "%zz",
        "-",
        "_",
        "~",
        "'",
        '"',
        "<",
        ">",
        "{",
        "}",
        "|",
        "^",
        "`",
        "[",
        "]",
    ),
    *(";", "+", "*", "(", ")", "!", "$", ",", "0", "0x", "1e3", "http:"),
]


@given(
    st.sampled_from(["http://", "https://", "HTTP://"]),
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=6),
)
def test_libcurl_reads_every_url_as_we_do(scheme, parts):
    url = scheme + "".join(parts)
    try:
        target = parse_url(url)
    except InvalidAddress:
        return
    everywhere = EgressPolicy.of(["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"])
    read = Egress(everywhere)._check(url).url  # raises if the hosts differ
    default = 443 if target.scheme == "https" else 80
    assert (read.scheme, int(read.port or default)) == (target.scheme, target.port)
    path, question, query = target.url.partition("://")[2].partition("/")[2].partition("?")
    assert (read.path, read.query or "") == (f"/{path}", query), question
    assert (read.user, read.password, read.fragment) == (None, None, None)
