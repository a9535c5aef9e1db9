"""Whatever form a client gives its body, the same JSON comes out; what could hurt is refused."""

import base64
import gzip
import json
import math
import tracemalloc
import zlib
from typing import Any
from urllib.parse import quote, urlencode

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from clarion.collector.decode import MAX_DEPTH, Undecodable, decode

VALUE = {"event": "a:b", "properties": {"n": 1, "text": "grüße ☃", "plus": "a+b/c=="}}
RAW = json.dumps(VALUE).encode()
B64 = base64.b64encode(RAW)
GZIPPED = gzip.compress(RAW, mtime=0)  # else the names of tests would differ from worker to worker


@pytest.mark.parametrize(
    ("body", "encoding", "kind"),
    [
        (RAW, "", "application/json"),
        (RAW, "", "text/plain"),
        (RAW, "identity", ""),
        (b"\xef\xbb\xbf" + RAW, "", "application/json"),
        (json.dumps(VALUE).encode("utf-16"), "", "application/json"),
        (b"  \n" + RAW, "", ""),
        (GZIPPED, "gzip", "application/json"),
        (GZIPPED, "", "text/plain"),
        (GZIPPED, "br", "text/plain"),
        (RAW, "gzip", "application/json"),
        (zlib.compress(RAW), "deflate", ""),
        (zlib.compress(RAW)[2:-4], "deflate", ""),
        (brotli.compress(RAW), "br", ""),
        (zstandard.compress(RAW), "zstd", ""),
        (zstandard.compress(RAW), "", ""),
        (B64, "", "text/plain"),
        (base64.urlsafe_b64encode(RAW).rstrip(b"="), "", "text/plain"),
        (base64.b64encode(GZIPPED), "", "text/plain"),
        (b"data=" + quote(B64, safe="").encode(), "", "application/x-www-form-urlencoded"),
        (b"data=" + B64, "", "application/x-www-form-urlencoded"),
        (urlencode({"data": RAW.decode()}).encode(), "", "application/x-www-form-urlencoded"),
        (urlencode({"v": "1", "data": B64.decode()}).encode(), "", "application/x-www-form-urlencoded"),
        (b"data=" + quote(base64.b64encode(GZIPPED), safe="").encode(), "", "text/plain"),
    ],
)
def test_every_form_of_the_same_body(body: bytes, encoding: str, kind: str) -> None:
    assert decode(body, encoding, kind, {}) == VALUE


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"a": NaN, "b": Infinity, "c": [-Infinity], "d": 1e999}',
            {"a": None, "b": None, "c": [None], "d": None},
        ),
        (b'{"a": "x\\ud800y", "\\udfff": 1}', {"a": "x�y", "�": 1}),
        (b'{"a": "x\x00y", "b": "\\u0000"}', {"a": "x\0y", "b": "\0"}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": "\xff\xfe", "b": NaN}', {"a": "��", "b": None}),
        (b'{"a": NaN, "b": ' + b"9" * 5000 + b"}", {"a": None, "b": None}),
    ],
)
def test_json_that_is_not_quite_json(body: bytes, expected: Any) -> None:
    assert decode(body, "", "application/json", {}) == expected


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"", "", 400),
        (b"   ", "", 400),
        (b"{", "", 400),
        (b"!!! not base64 !!!", "", 400),
        (GZIPPED[:-9], "gzip", 400),
        (b"\x1f\x8bnonsense", "gzip", 400),
        (b"nonsense", "br", 400),
        (brotli.compress(RAW * 50)[:-8], "br", 400),
        (b"\x28\xb5\x2f\xfdnonsense", "zstd", 400),
        (RAW, "compress", 415),
        (b"value=1", "", 400),
        (b"[" * 10_000 + b"]" * 10_000, "", 400),
        (b'{"a":NaN,"b":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "", 400),
        (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), "", 400),
    ],
)
def test_what_cannot_be_read_is_refused_without_quoting_it(body: bytes, encoding: str, status: int) -> None:
    with pytest.raises(Undecodable) as refused:
        decode(body, encoding, "application/json", {})
    assert refused.value.status == status
    assert "nonsense" not in refused.value.message


@pytest.mark.parametrize(
    ("pack", "encoding"),
    [
        (gzip.compress, "gzip"),
        (zlib.compress, "deflate"),
        (brotli.compress, "br"),
        (zstandard.compress, "zstd"),
    ],
)
def test_a_bomb_stops_at_the_cap_and_holds_little_memory(pack: Any, encoding: str) -> None:
    limit = 1024 * 1024
    bomb = pack(b" " * (64 * limit))
    tracemalloc.start()
    with pytest.raises(Undecodable) as refused:
        decode(bomb, encoding, "application/json", {}, limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.status == 413
    assert peak < 8 * limit


@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "deflate", "br", "zstd"]))
def test_any_bytes_are_read_or_refused(body: bytes, encoding: str) -> None:
    status = 200
    try:
        decode(body, encoding, "", {})
    except Undecodable as refused:
        status = refused.status
    assert status in (200, 400, 413)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_python_json_with_its_extensions_is_read(value: Any) -> None:
    body = json.dumps({"value": value}).encode()
    read = decode(body, "", "", {})
    encoded = json.dumps(read)
    assert "NaN" not in encoded or "NaN" in repr(value)
    assert all(math.isfinite(number) for number in _numbers(read))


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for child in value.values() for n in _numbers(child)]
    if isinstance(value, list):
        return [n for child in value for n in _numbers(child)]
    return [value] if isinstance(value, float) else []
