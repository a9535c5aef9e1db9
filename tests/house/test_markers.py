"""The search finds a marker in every form it promises, and nothing where nothing is."""

import base64
import hashlib
import hmac
import json
import urllib.parse
import uuid
import zlib
from collections.abc import Callable

import pytest

from tests.house.markers import Search, marker, marker_id

TEXT = marker("one")
SEARCH = Search([("one", TEXT), ("two", marker("two"))])

FORMS: dict[str, Callable[[str], bytes | str]] = {
    "as it is": lambda t: t,
    "upper case": str.upper,
    "reversed": lambda t: t[::-1],
    "a fragment": lambda t: t[7:13],
    "in a path": lambda t: f"/home/{t}/x.py",
    "in JSON": lambda t: json.dumps({"name": t}),
    "url-encoded": lambda t: urllib.parse.quote(f"a b/{t}"),
    "hex": lambda t: t.encode().hex(),
    "upper hex": lambda t: t.encode().hex().upper(),
    **{f"base64 after {n}": lambda t, n=n: base64.b64encode(b"x" * n + t.encode()) for n in range(3)},
    "base64 of a fragment": lambda t: base64.b64encode(f"id={t[3:15]};".encode()),
    **{h: lambda t, h=h: hashlib.new(h, t.encode()).hexdigest() for h in ("md5", "sha1", "sha256", "sha512")},
    "truncated sha256": lambda t: hashlib.sha256(t.encode()).hexdigest()[:16],
    "raw sha256": lambda t: hashlib.sha256(t.encode()).digest(),
    "base64 sha256": lambda t: base64.b64encode(hashlib.sha256(t.encode()).digest()),
    "sha256 of upper case": lambda t: hashlib.sha256(t.upper().encode()).hexdigest(),
    "uuid5": lambda t: str(uuid.uuid5(uuid.NAMESPACE_URL, t)),
    "uuid3 without dashes": lambda t: uuid.uuid3(uuid.NAMESPACE_DNS, t).hex,
    "hmac with a known key": lambda t: hmac.new(b"salt", t.encode(), "sha256").hexdigest(),
    "crc32": lambda t: f"{zlib.crc32(t.encode()):08x}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_found(form: Callable[[str], bytes | str]) -> None:
    made = form(TEXT)
    raw = made if isinstance(made, bytes) else made.encode()
    assert {leak.marker for leak in SEARCH.leaks("here", b'{"a":1,' + raw + b"}")} == {"one"}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_an_identifier_is_found(form: Callable[[str], bytes | str]) -> None:
    text = marker_id("three")
    made = form(text + text if form is FORMS["a fragment"] else text)
    raw = made if isinstance(made, bytes) else made.encode()
    search = Search([("three", text)])
    if form is FORMS["a fragment"]:
        raw = text[7:23].encode()
    assert search.leaks("here", b'{"a":1,' + raw + b"}")
    assert search.leaks("here", uuid.UUID(text).bytes)
    assert search.leaks("here", uuid.UUID(text).hex)


def test_nothing_is_found_where_nothing_is() -> None:
    innocent = json.dumps({"uuid": str(uuid.UUID(int=7)), "pseudonym": hashlib.sha256(b"x").hexdigest()})
    assert SEARCH.leaks("here", innocent * 50) == []
    assert SEARCH.leaks("here", TEXT[:5]) == []


def test_markers_are_constant_and_differ() -> None:
    assert marker("one") == TEXT
    assert len({marker(str(n)) for n in range(1000)}) == 1000
