"""The lines of the journal: what is kept of an event, of a refused one, and of everything only counted.

Each line is a JSON object; ``k`` says which: ``e`` an event, ``s`` the shape of something refused, ``c`` a
counter. The same columns are the tables of the stores.
"""

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


class Event(msgspec.Struct, tag="e", tag_field="k"):
    """An event that conformed. ``key`` is its identity within the store: project and event id, hashed."""

    key: str
    project: str
    event: str
    installation: str
    occurred_at: str
    received_at: str
    library: str
    library_version: str
    app_version: str
    schema_version: int
    schema_hash: str
    properties: dict[str, Any]


class Shape(msgspec.Struct, tag="s", tag_field="k"):
    """One thing wrong with a refused event: no value of it."""

    project: str
    event: str
    path: str
    problem: str
    type: str
    size: str
    library: str
    library_version: str
    app_version: str
    installation: str
    received_at: str
    n: int = 1


class Count(msgspec.Struct, tag="c", tag_field="k"):
    """Something that happened ``n`` times: ``name`` and ``label`` are words of ours, never of a client."""

    project: str
    name: str
    label: str
    received_at: str
    n: int


def line(record: Event | Shape | Count) -> bytes:
    """One journal line."""
    return _encode(record) + b"\n"
