"""The last gate: what is about to leave is held to its declared schema once more, whoever wrote it down.

It was constructed for that schema when it was recorded. Between then and now lie a database and perhaps
another version of the program, so who sends asks again, after everything was put together. A program that
relays for an application it does not know cannot tell its types; it lets pass only what looks like them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from clarion.anonymous import MAX_DEPTH, MAX_ITEMS
from clarion.catalogue import EventType, declared
from clarion.envelope import whole_schema

MAX_BYTES = 32 * 1024
"""Of one event's properties as they leave (Segment's limit of an event)."""

WORD = re.compile(r"[A-Za-z0-9_$][A-Za-z0-9_$.:+-]{0,63}")
"""What every declared key and text looks like: a word of a list, a version, a pseudonym, a time, an id."""


def refusal(type: str, properties: Mapping[str, Any]) -> str:
    """Why an event with these ``properties`` may not leave; empty if it may. Holds nothing of theirs."""
    try:
        size = len(json.dumps(properties, allow_nan=False))
    except (ValueError, TypeError):
        return "it is not JSON"
    if size > MAX_BYTES:
        return f"it has more than {MAX_BYTES} bytes"
    event_type = declared(type)
    if event_type is None:
        return "" if shaped(properties) else "it holds what no declared type could have made"
    where = next(faults(schema_of(event_type), properties), None)
    return "" if where is None else f"{'.'.join(where) or 'it'} is not as declared"


@cache
def schema_of(event_type: EventType) -> dict[str, Any]:
    return whole_schema(event_type.telemetry_schema())


Path = tuple[str, ...]


def faults(schema: Mapping[str, Any], value: Any, path: Path = ()) -> Iterator[Path]:
    """Where ``value`` breaks a schema made here (JSON Schema 2020-12, the few words of it that we use)."""
    if "anyOf" in schema:
        if all(next(faults(one, value), None) is not None for one in schema["anyOf"]):
            yield path
    elif "const" in schema or "enum" in schema:
        allowed = schema["enum"] if "enum" in schema else [schema["const"]]
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            yield path
    elif schema["type"] == "object":
        yield from faults_of_object(schema, value, path)
    elif schema["type"] == "array":
        if not isinstance(value, list) or len(value) > schema["maxItems"]:
            yield path
        else:
            for item in value:
                yield from faults(schema["items"], item, path)
    elif not SCALARS[schema["type"]](schema, value):
        yield path


def faults_of_object(schema: Mapping[str, Any], value: Any, path: Path) -> Iterator[Path]:
    properties = schema["properties"]
    if not isinstance(value, dict) or not value.keys() <= properties.keys():
        yield path  # an undeclared key is somebody's word: it is not named
        return
    yield from ((*path, name) for name in schema.get("required", ()) if name not in value)
    for name, item in value.items():
        yield from faults(properties[name], item, (*path, name))


def is_number(schema: Mapping[str, Any], value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    whole = isinstance(value, int) or value.is_integer()  # JSON knows one kind of number
    return schema["type"] == "number" or (whole and schema["minimum"] <= value <= schema["maximum"])


def is_text(schema: Mapping[str, Any], value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        match schema.get("format"):
            case "uuid":
                return str(UUID(value)) == value
            case "date-time":
                return value.endswith("Z") and len(value) <= 32 and bool(datetime.fromisoformat(value))
    except ValueError:
        return False
    return "pattern" in schema and re.fullmatch(schema["pattern"], value) is not None


SCALARS = {
    "null": lambda _, value: value is None,
    "boolean": lambda _, value: isinstance(value, bool),
    "integer": is_number,
    "number": is_number,
    "string": is_text,
}


def shaped(value: Any, depth: int = MAX_DEPTH + 2) -> bool:
    """Whether declared types could have made ``value``, at most ``depth`` levels deep."""
    match value:
        case None | bool() | int() | float():
            return True
        case str():
            return WORD.fullmatch(value) is not None
        case list() if depth > 0 and len(value) <= MAX_ITEMS:
            return all(shaped(one, depth - 1) for one in value)
        case dict() if depth > 0:
            return all(shaped(one, depth - 1) for pair in value.items() for one in pair)
    return False
