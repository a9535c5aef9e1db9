"""The allow-list: which events and properties may be kept, and what is wrong with the rest, in shapes.

The file format, written by ``clarion events schema --telemetry``::

    {"hash": "sha256 of the catalogue", "version": 3,
     "events": {"project:created": {"description": "...", "source": "server", "owner": "...", "since": "1.0",
                                    "expires": "2027-06-01", "purposes": {"app_properties.version": "..."},
                                    "schema": {JSON Schema 2020-12}}}}

Only ``schema`` must be there.
Each schema describes the whole ``properties`` object and is closed (``additionalProperties: false``).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import jsonschema_rs

from clarion.errors import ConfigurationError

TRANSPORT_SWITCHES: Final = frozenset({"$process_person_profile", "$geoip_disable"})
"""Switches a PostHog server reads and forgets: said by the client, never kept here, never required."""

MAX_FAULTS: Final = 20
"""Most shapes kept of one refused event."""

UNNAMED: Final = "*"
"""Stands in a path for an array index or a key the schema does not name."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an event, without any of its values.

    ``unknown_key`` is the undeclared name itself: data until enough installations have sent it, so it goes
    through :class:`clarion.collector.privacy.UnknownNames` before anything is written.
    """

    path: str
    problem: str
    type: str = ""
    size: str = ""
    unknown_key: str = ""


@dataclass(frozen=True)
class EventSchema:
    """What one event type may carry."""

    name: str
    schema: Mapping[str, Any]
    description: str = ""
    source: str = "server"
    owner: str = ""
    since: str = ""
    expires: str = ""
    purposes: Mapping[str, str] = field(default_factory=dict)
    """Dotted path of a property to what it is collected for."""

    @cached_property
    def top(self) -> frozenset[str]:
        """The declared keys of the ``properties`` object."""
        return frozenset(self.schema.get("properties", ())) - TRANSPORT_SWITCHES

    @cached_property
    def leaves(self) -> Mapping[str, Mapping[str, Any]]:
        """Dotted path of every declared value that is not an object, with its schema."""
        found = _leaves(self.schema, ())
        return {".".join(path): leaf for path, leaf in found if path and path[0] not in TRANSPORT_SWITCHES}

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(part for path, _ in _leaves(self.schema, ()) for part in path) | self.top

    @cached_property
    def _validator(self) -> Any:
        try:
            return jsonschema_rs.validator_for(_without_switches(self.schema))
        except (jsonschema_rs.ValidationError, ValueError) as error:
            raise ConfigurationError(
                f"the schema of {self.name} is not JSON Schema 2020-12: {error}"
            ) from error

    def compile(self) -> None:
        """Build the validator now. Raises ConfigurationError when the schema cannot be used."""
        self._validator.is_valid({})
        if self.schema.get("additionalProperties") is not False:
            raise ConfigurationError(
                f"the schema of {self.name} must be closed: additionalProperties must be false"
            )

    def allows(self, properties: Mapping[str, Any]) -> bool:
        """Whether every property is declared and has an allowed value (about 1 microsecond)."""
        try:
            return bool(self._validator.is_valid(properties))
        except (UnicodeEncodeError, ValueError, TypeError):  # a value JSON has no form for
            return False

    def faults(self, properties: Mapping[str, Any]) -> tuple[Fault, ...]:
        """What is wrong, as shapes. Empty only when ``allows`` is true."""
        try:
            errors = self._validator.iter_errors(properties)
            found = [fault for error in errors for fault in self._shape(error)][:MAX_FAULTS]
        except (UnicodeEncodeError, ValueError, TypeError):
            found = [Fault("", "unreadable")]
        return tuple(found)

    def _shape(self, error: Any) -> Iterator[Fault]:
        path = ".".join(self._known(part) for part in error.instance_path)
        kind = error.kind.name
        if kind in ("additionalProperties", "unevaluatedProperties"):
            for key in error.kind.unexpected:
                value = error.instance.get(key) if isinstance(error.instance, dict) else None
                yield Fault(path, "unknown property", json_type(value), size_of(value), str(key))
        elif kind == "required":
            name = str(error.kind.property)
            yield Fault(f"{path}.{name}".lstrip("."), "missing")
        else:
            problem = {"type": "wrong type", "enum": "value not allowed", "const": "value not allowed"}
            yield Fault(
                path, problem.get(kind, f"breaks {kind}"), json_type(error.instance), size_of(error.instance)
            )

    def _known(self, part: str | int) -> str:
        return part if isinstance(part, str) and part in self._names else UNNAMED


@dataclass(frozen=True)
class AllowList:
    """Every event type that may be kept: the Schema value the collector is built on."""

    events: Mapping[str, EventSchema]
    version: int = 0
    hash: str = ""

    def __post_init__(self) -> None:
        for schema in self.events.values():
            schema.compile()

    @classmethod
    def load(cls, path: Path) -> "AllowList":
        """Read a schema file. Raises ConfigurationError naming what is wrong with it."""
        try:
            return cls.parse(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise ConfigurationError(f"cannot read the event schema {path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigurationError(f"the event schema {path} is not JSON: {error}") from error

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "AllowList":
        """Build from the decoded file. Raises ConfigurationError."""
        events = document.get("events") if isinstance(document, dict) else None
        if not isinstance(events, dict):
            raise ConfigurationError('an event schema is {"hash", "version", "events": {name: {"schema"}}}')
        built = {}
        for name, entry in events.items():
            if not isinstance(entry, dict) or not isinstance(entry.get("schema"), dict):
                raise ConfigurationError(f'the event schema has no "schema" for {name}')
            about = {
                key: str(entry[key])
                for key in ("description", "source", "owner", "since", "expires")
                if key in entry
            }
            purposes = entry.get("purposes")
            built[name] = EventSchema(
                name, entry["schema"], **about, purposes=purposes if isinstance(purposes, dict) else {}
            )
        text = json.dumps(events, sort_keys=True, separators=(",", ":"))
        digest = document.get("hash") or hashlib.sha256(text.encode()).hexdigest()
        return cls(built, int(document.get("version", 0)), str(digest))


def json_type(value: object) -> str:
    """The JSON type of a decoded value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def size_of(value: object) -> str:
    """How long a string, array or object is, in buckets (facts 6.1); empty for anything else."""
    if not isinstance(value, str | list | dict):
        return ""
    length = len(value)
    for limit, label in ((0, "0"), (1, "1"), (5, "2-5"), (10, "6-10"), (50, "11-50"), (100, "51-100")):
        if length <= limit:
            return label
    return "101-1000" if length <= 1000 else "1000+"


def _leaves(
    schema: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    children = schema.get("properties")
    if isinstance(children, dict) and children:
        for key, child in children.items():
            yield from _leaves(child, (*path, key))
    else:
        yield path, schema


def _without_switches(schema: Mapping[str, Any]) -> dict[str, Any]:
    required: Sequence[str] = schema.get("required", ())
    return {**schema, "required": [name for name in required if name not in TRANSPORT_SWITCHES]}
