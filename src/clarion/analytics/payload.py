"""One event's telemetry, constructed for its declared fields: nothing given is ever copied.

Serves `send_event` and the browser relay alike, for captured types and for recorded ones.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from clarion import anonymous
from clarion.anonymous import iso
from clarion.catalogue import EventType
from clarion.declarations import Field
from clarion.events import look_up, put


class WrongShape(ValueError):
    """Properties that are not declared, or declared ones that are missing. Names keys, never values."""

    undeclared = False
    """Whether there are any that are not declared."""


class WrongValue(ValueError):
    """A property's value is not of its declared type. The text never holds the value."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """When something happened, and the id it is sent under."""

    uuid: UUID
    at: datetime


def construct(
    event_type: EventType, event: Mapping[str, Any], derived: Mapping[str, Any], when: Occurrence, key: bytes
) -> dict[str, Any]:
    """``event_properties`` and ``derived_properties`` as they leave.

    Raises:
        WrongShape: a key is not declared or missing, or a group of properties is not a mapping.
        WrongValue: a value is not of its declared type.
    """
    facts, measures = groups_of(event_type)
    made = {} if event_type.captured else root(event_type, when)
    check_shape(event_type.name, facts, event, made)
    check_shape(event_type.name, measures, derived, ())
    return {
        facts.name: made | fill(event_type.name, event, facts.fields, key),
        measures.name: fill(event_type.name, derived, measures.fields, key),
    }


@dataclass(frozen=True, slots=True)
class Group:
    """One of the two groups of a type's properties: its fields by their paths, and the paths above them."""

    name: str
    fields: Mapping[tuple[str, ...], Field]
    above: frozenset[tuple[str, ...]]


@cache
def groups_of(event_type: EventType) -> tuple[Group, Group]:
    """What of a type leaves as ``event_properties``, and as ``derived_properties``."""
    fields = [f for f in event_type.fields if f.in_telemetry]
    facts = {f.path: f for f in fields if f.role != "measure"}
    measures = {f.path: f for f in fields if f.role == "measure"}
    return group("event_properties", facts), group("derived_properties", measures)


def group(name: str, fields: Mapping[tuple[str, ...], Field]) -> Group:
    return Group(name, fields, frozenset(p[:n] for p in fields for n in range(1, len(p))))


def root(event_type: EventType, when: Occurrence) -> dict[str, Any]:
    """What a recorded type carries besides its fields; made here, so it need not be given."""
    return {
        "uuid": str(when.uuid),
        "type": event_type.name,
        "timestamp": iso(when.at),
        "schema_version": event_type.cls.schema_version,
    }


def check_shape(name: str, group: Group, given: Any, made: Iterable[str]) -> None:
    if not isinstance(given, Mapping):
        raise WrongShape(f"{name}: {group.name} must be a mapping, not {type(given).__name__}")
    paths = set(leaves(given, group.above))
    undeclared = paths.difference(group.fields, [(key,) for key in made])
    missing = [".".join(p) for p in group.fields if p not in paths]
    if undeclared or missing:
        declared = ", ".join(".".join(p) for p in group.fields) or "none"
        problems = [f"{len(undeclared)} undeclared"] if undeclared else []
        problems += [f"missing: {', '.join(missing)}"] if missing else []
        said = "; ".join(problems)
        wrong = WrongShape(f"{name}: {group.name} do not fit ({said}); declared are: {declared}")
        wrong.undeclared = bool(undeclared)
        raise wrong


def leaves(given: Mapping[Any, Any], groups: Container[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The paths of what is given, going down only where a group of fields is declared."""
    found: list[tuple[str, ...]] = []
    waiting: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), given)]
    while waiting:
        prefix, mapping = waiting.pop()
        for key, value in mapping.items():
            path = (*prefix, key)
            if path in groups and isinstance(value, Mapping):
                waiting.append((path, value))
            else:
                found.append(path)
    return found


def fill(
    name: str, given: Mapping[str, Any], fields: Mapping[tuple[str, ...], Field], key: bytes
) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for path, field in fields.items():
        put(filled, path, leaving(name, field, look_up(given, path), key))
    return filled


def leaving(name: str, field: Field, value: Any, key: bytes) -> Any:
    """One value as it leaves. An identifier leaves as its pseudonym."""
    where = f"{name}: {'.'.join(field.path)}"
    if field.role == "identity":
        if not isinstance(value, str | int | UUID) or isinstance(value, bool):
            raise WrongValue(f"{where} must be an identifier, not {type(value).__name__}")
        return anonymous.pseudonym(key, field.path[-2], str(value))
    if value is None:
        return None
    try:
        return anonymous.convert(field.type, value)
    except (ValueError, TypeError) as error:
        raise WrongValue(f"{where}: {error}") from None
