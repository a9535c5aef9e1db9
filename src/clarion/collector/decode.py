"""From the bytes of a request body to a JSON value, as tolerantly as the official clients need.

Order (PostHog's own): Content-Encoding or the magic bytes, then ``data=`` forms, then base64, then JSON.
Everything is capped: the wire size by the caller, the decompressed size and the nesting depth here.
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import brotli
import msgspec
import zstandard

MAX_DECODED: Final = 64 * 1024 * 1024
"""Most bytes a body may unpack to."""

MAX_DEPTH: Final = 64
"""Deepest nesting of arrays and objects that is read."""

_CHUNK: Final = 128 * 1024
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_BOMS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_ENCODINGS: Final = frozenset({"", "identity", "gzip", "x-gzip", "deflate", "br", "zstd"})


class Undecodable(Exception):
    """The body cannot be read. ``status`` is 400, 413 or 415; the message never quotes the body."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def decode(
    body: bytes, encoding: str, content_type: str, query: Mapping[str, str], limit: int = MAX_DECODED
) -> Any:
    """The JSON value in ``body``. Raises Undecodable.

    ``encoding`` and ``content_type`` are the header values in lower case, ``query`` the URL parameters
    (``compression=gzip|gzip-js|base64|b64``). Non-finite numbers become null, lone surrogates U+FFFD.
    """
    raw = decompress(body, encoding, limit)
    if raw.startswith(b"data=") or content_type.startswith("application/x-www-form-urlencoded"):
        raw = _form(raw)
        raw = decompress(raw, "", limit) if raw[:2] == _GZIP else raw
    stripped = raw.lstrip()
    if not stripped:
        raise Undecodable(400, "empty body")
    if stripped[:1] not in b"{[" and not stripped.startswith(_BOMS):
        raw = _base64(stripped)
        raw = decompress(raw, "", limit) if raw[:2] == _GZIP else raw
    return parse(raw)


def decompress(body: bytes, encoding: str, limit: int = MAX_DECODED) -> bytes:
    """Unpack by magic bytes, else by the Content-Encoding. Raises Undecodable 400, 413 or 415."""
    encoding = encoding.strip()
    if encoding not in _ENCODINGS:
        raise Undecodable(415, "unsupported Content-Encoding; allowed: gzip, deflate, br, zstd, identity")
    try:
        if body[:2] == _GZIP:
            return _inflate(body, 31, limit)
        if body[:4] == _ZSTD:
            return _unzstd(body, limit)
        if encoding == "deflate":
            return _deflate(body, limit)
        if encoding == "br":
            return _unbrotli(body, limit)
    except (zlib.error, zstandard.ZstdError, brotli.error) as error:
        raise Undecodable(400, f"the body is not valid {encoding or 'compressed'} data") from error
    return body  # a client that names gzip but sends plain JSON is taken at the bytes


def parse(raw: bytes) -> Any:
    """JSON, also with NaN, Infinity, lone surrogates, NUL, a byte order mark. Raises Undecodable 400."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _parse_tolerantly(raw)
    except RecursionError as error:
        raise Undecodable(400, f"the JSON is nested deeper than {MAX_DEPTH}") from error
    if _too_deep(value):
        raise Undecodable(400, f"the JSON is nested deeper than {MAX_DEPTH}")
    return value


def _parse_tolerantly(raw: bytes) -> Any:
    text = raw.decode(json.detect_encoding(raw), "replace")
    try:
        value = json.loads(
            text, strict=False, parse_constant=lambda _: None, parse_int=_int, parse_float=_float
        )
    except ValueError as error:
        raise Undecodable(400, "the body is not JSON") from error
    except RecursionError as error:
        raise Undecodable(400, f"the JSON is nested deeper than {MAX_DEPTH}") from error
    if _too_deep(value):
        raise Undecodable(400, f"the JSON is nested deeper than {MAX_DEPTH}")
    return _clean(value)


def _int(text: str) -> int | None:
    return int(text) if len(text) < 20 else None


def _float(text: str) -> float | None:
    value = float(text)
    return value if abs(value) < float("inf") else None


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(child for child in item.values() if isinstance(child, dict | list))
            elif isinstance(item, list):
                below.extend(child for child in item if isinstance(child, dict | list))
        if not below:
            return False
        level = below
    return True


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATES.sub("�", value)
    if isinstance(value, dict):
        return {_clean(key): _clean(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_clean(child) for child in value]
    return value


def _inflate(body: bytes, wbits: int, limit: int) -> bytes:
    unpacker = zlib.decompressobj(wbits)
    raw = unpacker.decompress(body, limit + 1)
    if len(raw) > limit:
        raise Undecodable(413, f"the body unpacks to more than {limit} bytes")
    if not unpacker.eof:
        raise Undecodable(400, "the compressed body is cut short")
    return raw


def _deflate(body: bytes, limit: int) -> bytes:
    try:
        return _inflate(body, zlib.MAX_WBITS, limit)
    except zlib.error:
        return _inflate(body, -zlib.MAX_WBITS, limit)  # raw deflate, as some clients read RFC 9110


def _unzstd(body: bytes, limit: int) -> bytes:
    chunks: list[bytes] = []
    room = limit
    with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(body) as reader:
        while chunk := reader.read(_CHUNK):
            room -= len(chunk)
            if room < 0:
                raise Undecodable(413, f"the body unpacks to more than {limit} bytes")
            chunks.append(chunk)
    return b"".join(chunks)


def _unbrotli(body: bytes, limit: int) -> bytes:
    unpacker = brotli.Decompressor()
    raw = bytes(unpacker.process(body, output_buffer_limit=limit + 1))
    while len(raw) <= limit and not unpacker.is_finished():
        more = unpacker.process(b"", output_buffer_limit=limit + 1 - len(raw))
        if not more:
            raise Undecodable(400, "the compressed body is cut short")
        raw += more
    if len(raw) > limit:
        raise Undecodable(413, f"the body unpacks to more than {limit} bytes")
    return raw


def _form(raw: bytes) -> bytes:
    values = parse_qs(raw.decode("utf-8", "replace")).get("data")
    if not values:
        raise Undecodable(400, "a form body needs a data= field")
    return values[0].encode()


def _base64(raw: bytes) -> bytes:
    # A form turns the plus signs of base64 that was not escaped into spaces.
    text = raw.strip().replace(b"-", b"+").replace(b"_", b"/").replace(b" ", b"+")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise Undecodable(400, "the body is neither JSON, compressed, a form nor base64") from error
