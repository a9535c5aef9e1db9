"""Markers: texts that must not get out, and the search for them in whatever form they might.

A marker is 20 random lower-case letters from g to z, so that no hex digit is among them and six in a row
happen nowhere by chance. Found are: six letters in a row of it (in any case, forwards and backwards), its
hex, its base64 at each of the three alignments, and what is made of the whole of it: md5, sha1, sha256,
sha512 and blake2b (hex, base64 and raw, from their first bytes on), crc32, uuid3 and uuid5, each also of its
upper case and its reverse, and HMACs under keys anybody could guess.

Where only an identifier is allowed, the marker is a random UUID; of one, twelve characters in a row count,
because six hex digits do happen by chance among pseudonyms.
"""

import base64
import hashlib
import hmac
import random
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

LETTERS = "ghjklmnopqrstuvwxyz"
LENGTH = 20
WINDOW = 6
HASHES = ("md5", "sha1", "sha256", "sha512", "blake2b")
GUESSABLE = (b"", b"salt", b"secret", b"clarion", b"orchest", b"0" * 32, b"\0" * 32)
HASHED_BYTES = 8
"""Bytes of a digest that count as a find: 64 bits do not agree by chance."""


def marker(name: str) -> str:
    """The marker called ``name``: the same for the same name, another for another."""
    chosen = random.Random(f"marker {name}")
    return "".join(chosen.choice(LETTERS) for _ in range(LENGTH))


def marker_id(name: str) -> str:
    """The marker called ``name`` where a UUID is needed."""
    return str(uuid.UUID(int=random.Random(f"marker {name}").getrandbits(128), version=4))


def window_of(text: str) -> int:
    return 12 if set(text) <= set("0123456789abcdef-") else WINDOW


@dataclass(frozen=True, slots=True)
class Leak:
    """A marker's trace: whose it is, in which form, where it was found, and what stands around it."""

    marker: str
    form: str
    where: str
    around: str


Traces = dict[bytes, list[tuple[bytes, str, str]]]
"""By their first bytes: the trace, whose it is, its form."""


class Search:
    """Looks for the traces of markers, given as pairs of name and text: two look-ups a byte, however many."""

    def __init__(self, markers: Iterable[tuple[str, str]]) -> None:
        self._exact: Traces = {}
        self._folded: Traces = {}
        for name, text in markers:
            for trace, form in folded_traces(text):
                self._folded.setdefault(trace.lower()[:WINDOW], []).append((trace.lower(), name, form))
            for trace, form in exact_traces(text):
                self._exact.setdefault(trace[:WINDOW], []).append((trace, name, form))

    def leaks(self, where: str, data: bytes | str) -> list[Leak]:
        """Every marker that left a trace in ``data``, each once a form."""
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        found: dict[tuple[str, str], Leak] = {}
        for haystack, table in ((raw, self._exact), (raw.lower(), self._folded)):
            for start in range(len(haystack) - WINDOW + 1):
                for trace, name, form in table.get(haystack[start : start + WINDOW], ()):
                    if (name, form) not in found and haystack.startswith(trace, start):
                        around = raw[max(start - 40, 0) : start + 60].decode("utf-8", "replace")
                        found[name, form] = Leak(name, form, where, around)
        return list(found.values())


def windows(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(len(text) - size + 1))


def folded_traces(text: str) -> Iterator[tuple[bytes, str]]:
    """Traces whose case does not matter."""
    size = window_of(text)
    for part in windows(text, size):
        yield part.encode(), "text"
        yield part.encode().hex().encode(), "hex"
        yield part.upper().encode().hex().encode(), "hex"
    for part in windows(text[::-1], size):
        yield part.encode(), "reversed"
    if size > WINDOW:  # without its dashes
        yield from ((part.encode(), "text") for part in windows(text.replace("-", ""), size))
    for variant in variants(text):
        for name, digest in digests(variant):
            yield digest[:HASHED_BYTES].hex().encode(), name
        for name, identifier in identifiers(variant):
            yield str(identifier).encode(), name
            yield identifier.hex.encode(), name
        yield f"{zlib.crc32(variant):08x}".encode(), "crc32"


def exact_traces(text: str) -> Iterator[tuple[bytes, str]]:
    """Traces whose case matters: base64 and raw digests."""
    for form in (text, text.upper()):
        for start in range(3):  # six letters are eight base64 letters, wherever the group of three begins
            for part in windows(form[start:], window_of(text)):
                yield base64.b64encode(part.encode()), "base64"
    if window_of(text) > WINDOW:
        yield uuid.UUID(text).bytes, "bytes"
        yield base64.b64encode(uuid.UUID(text).bytes)[:20], "base64"
    for variant in variants(text):
        for name, digest in digests(variant):
            yield digest[:HASHED_BYTES], f"{name} bytes"
            yield base64.b64encode(digest)[:10], f"{name} base64"
            yield base64.urlsafe_b64encode(digest)[:10], f"{name} base64"


def variants(text: str) -> Sequence[bytes]:
    return [text.encode(), text.upper().encode(), text[::-1].encode(), text.title().encode()]


def digests(data: bytes) -> Iterator[tuple[str, bytes]]:
    for name in HASHES:
        yield name, hashlib.new(name, data, usedforsecurity=False).digest()
    for key in GUESSABLE:
        yield "hmac", hmac.new(key, data, "sha256").digest()


def identifiers(data: bytes) -> Iterator[tuple[str, uuid.UUID]]:
    for space in (uuid.NAMESPACE_DNS, uuid.NAMESPACE_URL, uuid.NAMESPACE_OID, uuid.NAMESPACE_X500):
        yield "uuid5", uuid.uuid5(space, data.decode())
        yield "uuid3", uuid.uuid3(space, data.decode())
