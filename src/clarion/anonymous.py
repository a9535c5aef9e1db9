"""The types telemetry may carry. None of them can hold free text, so nobody's data fits into them.

===================================  ==========================================================
declared as                          what leaves
===================================  ==========================================================
``bool``                             true or false
``int``                              a whole number, clamped to ± `MAX_COUNT`
``float``                            a number up to ± `LARGEST`, rounded to three significant digits
``Enum``, ``Literal``                one of its values; an unknown one becomes ``other`` if declared
``Bucket``                           a count as a bucket: ``0 1 2-5 6-10 11-50 51-100 101-1000 1000+``
``DurationBucket``                   seconds as the next power of two
``datetime``                         UTC, ISO 8601 with milliseconds
``Version``                          ``1.2.3``: up to four numbers, optionally a/b/rc/dev and a number
``Pseudonym``                        an identifier under the installation's own key; never the identifier
``list[T]``, ``dict[closed, T]``     of the above; keys from an ``Enum`` or a ``Literal``
===================================  ==========================================================

Any of them may be ``| None``.
"""

import hmac
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import cache
from hashlib import sha256
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

MAX_COUNT = 10**9
LARGEST = 1e308
"""Of a ``float``; what is greater could be rounded to infinity."""

MAX_ITEMS = 100
"""Entries of a list or a map that leave; more are cut off."""

MAX_DEPTH = 7
"""Levels a declared value may lie deep in its group of properties, its own lists and maps counted. As many as
``project.pipeline.session.pipeline_run.definition.step_file_extension_count.py`` has, of which the first four
are layers of the original's payload of an interactive run."""

OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """How an anonymous type outside Python's own leaves: its JSON Schema, and the function that makes it."""

    schema: dict[str, Any]
    convert: Callable[[Any], Any]


class Classification(StrEnum):
    """What kind of data a value is, whatever it is about; from what tells least to what tells most."""

    CONSTANT = "constant"
    """The same in every event of a type."""
    FLAG = "yes or no"
    CHOICE = "one of a list"
    """One of the values the schema lists, and never another."""
    BUCKET = "bucket"
    """A count or a duration, known only roughly."""
    COUNT = "count"
    """A whole number."""
    NUMBER = "number"
    """A number of three digits, and how large it is."""
    VERSION = "version"
    TIME = "time"
    """A moment, to the millisecond."""
    EVENT_ID = "event id"
    """A number that names this event, and nothing else."""
    PSEUDONYM = "pseudonym"
    """Which of one installation's events are of the same thing, until its key is replaced; not of which."""
    TEXT = "text"
    """No schema of an anonymous type; a fault where it is found."""


BUCKETS = ((0, "0"), (1, "1"), (5, "2-5"), (10, "6-10"), (50, "11-50"), (100, "51-100"), (1000, "101-1000"))
LAST_BUCKET = "1000+"
VERSION = r"^\d{1,6}(\.\d{1,6}){0,3}((a|b|rc|\.dev)\d{1,6})?$"
PSEUDONYM = r"^[0-9a-f]{32}$"


def bucket(count: int) -> str:
    """The bucket a count falls into; the exact count never leaves.

    Raises:
        ValueError: it is no count: not a whole number, or below zero.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ValueError("not a count")
    return next((name for top, name in BUCKETS if count <= top), LAST_BUCKET)


def duration_bucket(seconds: float) -> int:
    """Seconds rounded up to a power of two, at most 2**20 (twelve days); 0 where a clock was set back.

    Raises:
        ValueError: it is no finite number.
    """
    if type(seconds) not in (int, float) or not -math.inf < seconds < math.inf:
        raise ValueError("not a finite number of seconds")
    return 0 if seconds <= 0 else 2 ** math.ceil(min(max(math.log2(seconds), 0), 20))


def version(text: str) -> str:
    if not isinstance(text, str) or not (found := re.fullmatch(VERSION, text)):
        raise ValueError("not a version")
    return str(found[0])


def pseudonym_text(text: str) -> str:
    if not isinstance(text, str) or not (found := re.fullmatch(PSEUDONYM, text)):
        raise ValueError("not a pseudonym")
    return str(found[0])


COUNTED = Shape({"enum": [*(name for _, name in BUCKETS), LAST_BUCKET]}, bucket)
LASTED = Shape({"enum": [0, *(2**n for n in range(21))]}, duration_bucket)

Bucket = Annotated[int, COUNTED]
DurationBucket = Annotated[float, LASTED]
Version = Annotated[str, Shape({"type": "string", "pattern": VERSION}, version)]
Pseudonym = Annotated[str, Shape({"type": "string", "pattern": PSEUDONYM}, pseudonym_text)]

ALLOWED = (
    "bool, int, float, Enum, Literal, datetime, Bucket, DurationBucket, Version, Pseudonym, "
    "and lists and dicts of these with Enum or Literal keys"
)

SIMPLE: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": -MAX_COUNT, "maximum": MAX_COUNT},
    float: {"type": "number"},
    datetime: {"type": "string", "format": "date-time", "pattern": "Z$"},
}


CLASSIFIED: Mapping[str, Classification] = {
    PSEUDONYM: Classification.PSEUDONYM,
    VERSION: Classification.VERSION,
    "uuid": Classification.EVENT_ID,
    "date-time": Classification.TIME,
    "boolean": Classification.FLAG,
    "integer": Classification.COUNT,
    "number": Classification.NUMBER,
}
"""By a schema's pattern, its format, or else its type."""


class NotAnonymous(TypeError):
    """A type that could carry free text."""

    def __init__(self, found: Any) -> None:
        name = getattr(found, "__name__", None) or str(found)
        super().__init__(f"{name} can carry free text; telemetry may only carry {ALLOWED}")


def schema(tp: Any) -> dict[str, Any]:
    """The JSON Schema (2020-12) of what an anonymous type sends.

    Raises:
        NotAnonymous: the type could carry free text.
    """
    origin, args = get_origin(tp), get_args(tp)
    if origin is Annotated:
        shape = next((meta for meta in args[1:] if isinstance(meta, Shape)), None)
        return dict(shape.schema) if shape else schema(args[0])
    if origin in (Union, UnionType):
        members = [schema(arg) for arg in args if arg is not NoneType]
        return {"anyOf": [*members, {"type": "null"}]} if NoneType in args else {"anyOf": members}
    if origin is list and args:
        return {"type": "array", "items": schema(args[0]), "maxItems": MAX_ITEMS}
    if origin is dict and args:
        return {
            "type": "object",
            "properties": {key: schema(args[1]) for key in closed_values(args[0])},
            "additionalProperties": False,
        }
    if tp in SIMPLE:
        return dict(SIMPLE[tp])
    return {"enum": list(closed_values(tp))}


def classification(schema: Mapping[str, Any]) -> Classification:
    """The class of what a schema of an anonymous type holds; of lists, maps and unions the gravest inside."""
    inner = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    inner += [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else ())]
    if inner:
        return max(map(classification, inner), key=list(Classification).index)
    if "const" in schema:
        return Classification.CONSTANT
    if "enum" in schema:
        bucketed = schema["enum"] in (COUNTED.schema["enum"], LASTED.schema["enum"])
        return Classification.BUCKET if bucketed else Classification.CHOICE
    said = [str(schema[key]) for key in ("pattern", "format", "type") if key in schema]
    return next((CLASSIFIED[one] for one in said if one in CLASSIFIED), Classification.TEXT)


def levels(schema: dict[str, Any]) -> int:
    """How many levels of lists and maps a schema of an anonymous type has."""
    inner = [*schema.get("anyOf", ()), *schema.get("properties", {}).values()]
    inner += [schema["items"]] if "items" in schema else []
    return (schema.get("type") in ("array", "object")) + max(map(levels, inner), default=0)


@cache
def closed_values(tp: Any) -> tuple[Any, ...]:
    """The values of an ``Enum`` or a ``Literal``.

    Raises:
        NotAnonymous: it is neither.
    """
    if get_origin(tp) is Literal:
        return get_args(tp)
    if isinstance(tp, type) and issubclass(tp, Enum):
        return tuple(member.value for member in tp)
    raise NotAnonymous(tp)


def convert(tp: Any, value: Any) -> Any:
    """``value`` as telemetry may carry it: constructed for its type, never copied.

    Raises:
        ValueError: the value is not of the type. The text of the error never holds the value.
        NotAnonymous: the type could carry free text.
    """
    origin, args = get_origin(tp), get_args(tp)
    if origin is Annotated:
        shape = next((meta for meta in args[1:] if isinstance(meta, Shape)), None)
        return shape.convert(value) if shape else convert(args[0], value)
    if origin in (Union, UnionType):
        if value is None and NoneType in args:
            return None
        return convert_member([arg for arg in args if arg is not NoneType], value)
    if origin is list and args:
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list, got {type(value).__name__}")
        return [convert(args[0], item) for item in value[:MAX_ITEMS]]
    if origin is dict and args:
        if not isinstance(value, dict):
            raise ValueError(f"expected a dict, got {type(value).__name__}")
        closed = {plain(key): item for key, item in value.items()}
        return {key: convert(args[1], closed[key]) for key in closed_values(args[0]) if key in closed}
    return convert_plain(tp, value)


def convert_member(members: list[Any], value: Any) -> Any:
    for member in members:
        try:
            return convert(member, value)
        except (ValueError, TypeError):
            continue
    raise ValueError("the value is of none of the declared types")


def convert_plain(tp: Any, value: Any) -> Any:
    if tp is bool and isinstance(value, bool):
        return value
    if tp is int and isinstance(value, int) and not isinstance(value, bool):
        return max(-MAX_COUNT, min(MAX_COUNT, value))
    if tp is float and type(value) in (int, float) and abs(value) <= LARGEST:
        return float(f"{value:.3g}")
    if tp is datetime and isinstance(value, datetime) and value.tzinfo is not None:
        return iso(value)
    if tp in (bool, int, float, datetime):
        raise ValueError(f"expected {tp.__name__}, got {type(value).__name__}")
    allowed = closed_values(tp)
    if plain(value) in allowed:
        return allowed[allowed.index(plain(value))]  # the declared one, not the object that equals it
    if OTHER in allowed:
        return OTHER
    raise ValueError("not one of the declared values")


def plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def iso(moment: datetime) -> str:
    """UTC, ISO 8601 with ``T``, milliseconds and ``Z`` (RFC 3339).

    Raises:
        ValueError: in UTC it would lie before the year 1 or after 9999.
    """
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time has no year of four digits in UTC") from None
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def pseudonym(key: bytes, kind: str, identifier: str) -> str:
    """The name ``identifier`` goes by in this installation's telemetry: 128 bits of HMAC-SHA256 as hex.

    ``kind`` separates the layers, so that equal identifiers of two layers do not match.
    """
    return hmac.new(key, f"{kind}\0{identifier}".encode(), sha256).digest()[:16].hex()


def pseudonym_uuid(key: bytes, identifier: UUID) -> UUID:
    """A telemetry message's own id: stable for one event, not linkable to it without the key (RFC 9562)."""
    return UUID(bytes=hmac.new(key, b"event\0" + identifier.bytes, sha256).digest()[:16], version=4)
