"""The catalogue: every declared event type, its JSON Schemas and examples, and its table ``event_types``."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from inspect import getdoc
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from clarion import anonymous
from clarion.captured import CAPTURED, Captured
from clarion.database import Base
from clarion.declarations import Field
from clarion.errors import NotFound
from clarion.events import CLASSES, Event, Source, type_name

DIALECT = "https://json-schema.org/draft/2020-12/schema"

ROOT: dict[str, dict[str, Any]] = {
    "uuid": {"type": "string", "format": "uuid", "description": "The event."},
    "type": {"type": "string", "description": "Its type."},
    "timestamp": {"type": "string", "format": "date-time", "description": "When it happened, in UTC."},
    "summary": {"type": "string", "description": "What happened, in one sentence."},
    "schema_version": {"type": "integer", "description": "The version of this payload's shape."},
}


class EventTypeRow(Base):
    """The catalogue's projection in the database, written by migrations."""

    __tablename__ = "event_types"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    description: Mapped[str] = mapped_column(Text())


@dataclass(frozen=True)
class EventType:
    """One type, ``kind:verb``. ``captured`` ones are only ever telemetry: nobody can subscribe to them."""

    cls: type[Event] | type[Captured]
    verb: str

    @property
    def source(self) -> Source:
        return self.cls.source

    @property
    def captured(self) -> bool:
        return issubclass(self.cls, Captured)

    @property
    def kind(self) -> str:
        assert self.cls.declared_kind is not None
        return self.cls.declared_kind

    @cached_property
    def name(self) -> str:
        return type_name(self.kind, self.verb)

    @property
    def description(self) -> str:
        """The first sentence of the class's docstring, then what the verb's summary says."""
        first = (getdoc(self.cls) or "").split("\n\n")[0].replace("\n", " ").strip()
        if not self.verb:
            return first
        return f"{first} ({self.verb})" if first else self.cls.verbs[self.verb]

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(f for f in self.cls.fields if f.applies(self.verb))

    @cached_property
    def scope_layers(self) -> tuple[str, ...]:
        """The layers of its scope path, outermost first."""
        return tuple(f.path[-2] for f in self.fields if f.role == "identity")

    def notification_schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of the payload that subscribers see."""
        leaves = {f.path: field_schema(f) for f in self.fields if f.in_notification}
        # references in them count from the root, so what they refer to must lie there
        shared = {name: part for leaf in leaves.values() for name, part in leaf.pop("$defs", {}).items()}
        document = self.document({**ROOT, **self.fixed}, nest(leaves))
        return {**document, "$defs": shared} if shared else document

    def telemetry_schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of ``event_properties`` and ``derived_properties``; closed at every level."""
        root: dict[str, Any] = {}
        if not self.captured:
            root = {key: value for key, value in ROOT.items() if key != "summary"} | self.fixed
        sent = [f for f in self.fields if f.in_telemetry]
        facts = nest({f.path: telemetry_field_schema(f) for f in sent if f.role != "measure"})
        measures = nest({f.path: telemetry_field_schema(f) for f in sent if f.role == "measure"})
        return self.document(
            {}, {"event_properties": closed({**root, **facts}), "derived_properties": closed(measures)}
        )

    def notification_example(self, now: datetime) -> dict[str, Any]:
        """A made-up notification that conforms to the schema, as of ``now``."""
        schema = self.notification_schema()
        made: dict[str, Any] = example_of(schema, now, schema.get("$defs", {}))
        return made

    def telemetry_example(self, now: datetime) -> dict[str, Any]:
        """Made-up telemetry that conforms to the schema, with the first allowed value of every field."""
        made: dict[str, Any] = example_of(self.telemetry_schema(), now, {})
        return made

    @property
    def fixed(self) -> dict[str, Any]:
        """What of `ROOT` is the same in every event of the type."""
        values = {"type": self.name, "schema_version": self.cls.schema_version}
        return {
            key: {"const": value, "description": ROOT[key]["description"]} for key, value in values.items()
        }

    def document(self, root: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
        return {
            "$schema": DIALECT,
            "title": self.name,
            "description": self.description,
            **closed({**root, **tree}),
        }


class Catalogue:
    """The types of some event classes, by name; iterates in order of declaration."""

    def __init__(self, classes: Iterable[type[Event] | type[Captured]]) -> None:
        self.classes = tuple(classes)
        self._types = {
            t.name: t for cls in self.classes for t in (EventType(cls, verb) for verb in cls.verbs)
        }

    def __iter__(self) -> Iterator[EventType]:
        return iter(self._types.values())

    def __len__(self) -> int:
        return len(self._types)

    def __contains__(self, name: str) -> bool:
        return name in self._types

    def __getitem__(self, name: str) -> EventType:
        """The type called ``name``.

        Raises:
            NotFound: there is none; the message names similar ones.
        """
        if name in self._types:
            return self._types[name]
        near = self.near(name)
        raise NotFound(
            f"there is no event type {name!r}"
            + (f"; did you mean {' or '.join(map(repr, near))}?" if near else "")
        )

    @cached_property
    def recorded(self) -> "Catalogue":
        """The types that are events: what can be recorded and subscribed to."""
        return Catalogue(cls for cls in self.classes if issubclass(cls, Event))

    def near(self, name: str) -> list[str]:
        """Up to three types that look like ``name``."""
        return difflib.get_close_matches(name.strip("*:"), self._types, n=3)


def catalogue(modules: Iterable[str] | None = None) -> Catalogue:
    """Every declared type; with ``modules``, only those declared in these modules or below them."""
    if modules is None:
        return Catalogue([*CLASSES.values(), *CAPTURED.values()])
    roots = tuple(modules)
    declared: list[type[Event] | type[Captured]] = [*CLASSES.values(), *CAPTURED.values()]
    return Catalogue(
        cls
        for cls in declared
        if any(cls.__module__ == r or cls.__module__.startswith(f"{r}.") for r in roots)
    )


def declared(name: str) -> EventType | None:
    """The type of this name, if the program has declared it."""
    if (captured := CAPTURED.get(name)) is not None:
        return EventType(captured, "")
    for kind, verb in ((name, ""), name.rpartition(":")[::2]):
        if kind in CLASSES and verb in CLASSES[kind].verbs:
            return EventType(CLASSES[kind], verb)
    return None


EXAMPLE = UUID("00000000-0000-4000-8000-000000000000")
"""The identifier of what does not exist."""


def example_of(schema: Mapping[str, Any], now: datetime, shared: Mapping[str, Any]) -> Any:
    """A value that conforms to a schema made here; ``shared`` are the parts it may refer to."""
    if "$ref" in schema:
        return example_of(shared[schema["$ref"].rpartition("/")[2]], now, shared)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], now, shared)
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {}).items()
            return {key: example_of(value, now, shared) for key, value in fields}
        case "array":
            return [example_of(schema["items"], now, shared)] if "items" in schema else []
        case "boolean":
            return True
        case "integer" | "number":
            return 1
        case "string" | None:
            return example_text(schema, now)


def example_text(schema: Mapping[str, Any], now: datetime) -> str:
    if schema.get("pattern") == anonymous.VERSION:
        return "1.2.3"
    if schema.get("pattern") == anonymous.PSEUDONYM:
        return "0" * 32
    match schema.get("format"):
        case "uuid":
            return str(EXAMPLE)
        case "date-time":
            return anonymous.iso(now)
    return "..."


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def nest(leaves: dict[tuple[str, ...], dict[str, Any]]) -> dict[str, Any]:
    """Leaf schemas by path, as nested closed objects."""
    groups: dict[str, dict[tuple[str, ...], dict[str, Any]]] = {}
    for path, leaf in leaves.items():
        groups.setdefault(path[0], {})[path[1:]] = leaf
    return {key: group[()] if () in group else closed(nest(group)) for key, group in groups.items()}


def field_schema(field: Field) -> dict[str, Any]:
    schema = TypeAdapter(field.type).json_schema()
    if field.role == "derived":  # one that fails is null
        schema = {"anyOf": [schema, {"type": "null"}]}
    return described(schema, field)


def telemetry_field_schema(field: Field) -> dict[str, Any]:
    tp: Any = anonymous.Pseudonym if field.role == "identity" else field.type
    schema = anonymous.schema(tp)
    if field.role != "identity" and {"type": "null"} not in schema.get("anyOf", ()):
        schema = {"anyOf": [schema, {"type": "null"}]}  # a value its type does not allow is null
    return described(schema, field)


def described(schema: dict[str, Any], field: Field) -> dict[str, Any]:
    return {**schema, "description": field.declared.doc} if field.declared.doc else schema
