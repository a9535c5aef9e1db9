"""Everything telemetry may carry, as one document: for the collector, for review, for the reference pages.

The snapshot is checked in, and the changelog names the fingerprint of what it lets out and the notice that
was shown for it: whoever changes what is sent has to say so there. `difference` says what a change means.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from clarion.anonymous import classification
from clarion.catalogue import Catalogue, EventType, example_of
from clarion.envelope import SCHEMA_VERSION, AppProperties, SystemProperties, documented, whole_schema
from clarion.losses import telemetry_types
from clarion.upkeep import AHEAD, Never, Upkeep

EXAMPLE_DAY = datetime(2026, 1, 1, tzinfo=UTC)
"""When the examples happened: the snapshot must not change with the clock."""


def telemetry_document(types: Catalogue) -> dict[str, Any]:
    """The collector's allow-list: ``{"hash", "version", "events": {type: {"schema", ...}}}``.

    Besides ``types`` it has what the library itself sends in every application, as the snapshot has. The hash
    is of what the types are and carry, not of who answers for them and what for.
    """
    events = {
        t.name: {
            "description": t.description,
            "source": t.source,
            "schema": whole_schema(t.telemetry_schema()),
        }
        for t in in_order(types)
    }
    answered = {t.name: {**events[t.name], **answered_for(t)} for t in in_order(types)}
    return {"hash": digest(events), "version": SCHEMA_VERSION, "events": answered}


def answered_for(event_type: EventType) -> dict[str, Any]:
    """Who answers for a type, since when and until when, and what each property is for, by its path."""
    said = event_entry(event_type)
    groups = {name: said[name] for name in ("event_properties", "derived_properties")}
    groups |= {
        "app_properties": dict(envelope_entries(AppProperties)),
        "system_properties": dict(envelope_entries(SystemProperties)),
    }
    purposes = {
        f"{group}.{path}": entry["purpose"]
        for group, entries in groups.items()
        for path, entry in entries.items()
    }
    upkeep = {key: value for key, value in (said["upkeep"] or {}).items() if key != "triggers"}
    return {**upkeep, "purposes": purposes}


def in_order(types: Catalogue) -> list[EventType]:
    """All that may be sent where ``types`` are declared, by name."""
    return sorted(telemetry_types(types), key=lambda t: t.name)


def digest(events: Mapping[str, Any]) -> str:
    """SHA-256 of the events' canonical JSON."""
    text = json.dumps(events, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def registry(types: Catalogue) -> dict[str, Any]:
    """The snapshot that is checked in: every type with every property, what it holds and what it is for."""
    return {
        "version": SCHEMA_VERSION,
        "envelope": {
            "app_properties": dict(envelope_entries(AppProperties)),
            "system_properties": dict(envelope_entries(SystemProperties)),
        },
        "events": {t.name: event_entry(t) for t in in_order(types)},
    }


def envelope_entries(
    cls: type[AppProperties] | type[SystemProperties],
) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = whole_schema({"properties": {"event_properties": {}, "derived_properties": {}}})
    group = "app_properties" if cls is AppProperties else "system_properties"
    for name, _, about in documented(cls):
        holds = schema["properties"][group]["properties"][name]
        holds = {key: value for key, value in holds.items() if key != "description"}
        yield name, entry(holds, about.doc, about.purpose)


def entry(holds: dict[str, Any], doc: str, purpose: str) -> dict[str, Any]:
    """One property of the snapshot; its class and its example follow from what it may hold."""
    return {
        "holds": holds,
        "classification": classification(holds).value,
        "doc": doc,
        "purpose": purpose,
        "example": example_of(holds, EXAMPLE_DAY, {}),
    }


def event_entry(event_type: EventType) -> dict[str, Any]:
    schema = event_type.telemetry_schema()
    docs = {f.path: f.declared for f in event_type.fields if f.in_telemetry}
    groups = {}
    for group in ("event_properties", "derived_properties"):
        entries = {}
        for path, holds in leaves(schema["properties"][group], ()):
            declared = docs.get(path)
            doc = declared.doc if declared else holds.get("description", "")
            purpose = declared.purpose if declared else "To read the event."
            if declared and declared.role == "identity":
                purpose = "To see which events belong together, without learning whose they are."
            holds = {key: value for key, value in holds.items() if key != "description"}
            entries[".".join(path)] = entry(holds, doc, purpose)
        groups[group] = entries
    said = {"description": event_type.description, "source": event_type.source}
    return {**said, "upkeep": upkeep_entry(event_type.cls.upkeep), **groups}


def upkeep_entry(upkeep: Upkeep | None) -> dict[str, Any] | None:
    """Who answers for a type; None if it sends nothing but identities and nobody said so."""
    if upkeep is None:
        return None
    expires = upkeep.expires
    return {
        "owner": upkeep.owner,
        "since": upkeep.since,
        "expires": f"never: {expires.reason}" if isinstance(expires, Never) else expires.isoformat(),
        "triggers": list(upkeep.triggers),
    }


def expiring(types: Iterable[EventType], today: date) -> list[str]:
    """The types that have expired, or will within `AHEAD`: they go, or somebody says anew that they stay."""
    return [t.name for t in types if t.cls.upkeep is not None and t.cls.upkeep.expires_by(today + AHEAD)]


def leaves(
    schema: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every property of a closed schema that is not itself a layer."""
    for name, child in schema["properties"].items():
        if child.get("type") == "object" and "description" not in child:
            yield from leaves(child, (*path, name))
        else:
            yield (*path, name), dict(child)


def rendered(types: Catalogue) -> str:
    """The snapshot's text, as it is checked in: a line for each property, so that a change reads as one."""
    return laid_out(registry(types), 0) + "\n"


def laid_out(value: Any, depth: int) -> str:
    if not isinstance(value, dict) or not value or "holds" in value:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    inner = [
        f"{' ' * (depth + 1)}{json.dumps(key)}: {laid_out(value[key], depth + 1)}" for key in sorted(value)
    ]
    return "{\n" + ",\n".join(inner) + f"\n{' ' * depth}}}"


def widening(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What ``after`` lets out that ``before`` did not: new types, new properties, properties that hold more.

    Each is named ``type property``.
    """
    old, new = properties(before), properties(after)
    return sorted(name for name, holds in new.items() if name not in old or wider(old[name], holds))


class Difference(StrEnum):
    """What a change of the snapshot means for whoever sends, and for whoever asks questions."""

    NONE = "none"
    ADDITIVE = "additive"
    """Only more is said: descriptions, purposes, who answers for a type."""
    BREAKING = "breaking"
    """Something is no longer sent, or fewer values of it."""
    WIDENING = "privacy-widening"
    """Something is sent that was not, whatever else changed: people have to be told."""


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Difference:
    """The class of a change, the gravest that applies."""
    if widening(before, after):
        return Difference.WIDENING
    if properties(before) != properties(after):
        return Difference.BREAKING
    return Difference.NONE if before == after else Difference.ADDITIVE


def properties(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """What every property of a snapshot holds, by ``type property``."""
    found = {
        f"{group} {name}": entry["holds"]
        for group, entries in snapshot["envelope"].items()
        for name, entry in entries.items()
    }
    for type, event in snapshot["events"].items():
        found[f"{type} event_properties"] = {}
        for group in ("event_properties", "derived_properties"):
            found |= {f"{type} {name}": entry["holds"] for name, entry in event[group].items()}
    return found


def wider(old: Any, new: Any) -> bool:
    """Whether a schema allows something it did not. Conservative: what is not understood is wider."""
    if old == new:
        return False
    if options(old) is not None and options(new) is not None:
        return not all(any(not wider(o, n) for o in options(old) or []) for n in options(new) or [])
    if options(old) is not None:
        return all(wider(o, new) for o in options(old) or [])
    if "enum" in old and "enum" in new:
        return not set(map(repr, new["enum"])) <= set(map(repr, old["enum"]))
    if old.get("type") == new.get("type") == "array":
        return wider(old["items"], new["items"]) or new.get("maxItems", 10**9) > old.get("maxItems", 10**9)
    if old.get("type") == new.get("type") == "object":
        return any(
            name not in old["properties"] or wider(old["properties"][name], holds)
            for name, holds in new["properties"].items()
        )
    return not ("const" in new and "const" in old)  # a version that is counted up, a type's own name


def options(schema: Mapping[str, Any]) -> list[Any] | None:
    found = schema.get("anyOf")
    return found if isinstance(found, list) else None


def fingerprint(snapshot: Mapping[str, Any]) -> str:
    """Twelve hex digits over everything that may be sent; descriptions and purposes play no part."""
    return digest(properties(snapshot))[:12]


ACKNOWLEDGED = re.compile(r"telemetry (?P<fingerprint>[0-9a-f]{12}), notice (?P<notice>\d+)\b")
"""How the changelog says what is sent: the snapshot's fingerprint, and the notice that people were shown."""


def acknowledged(snapshot: Mapping[str, Any], changelog: str) -> bool:
    """Whether the changelog names the snapshot's fingerprint and its notice, and that notice only once.

    So whoever lets out more has to show the notice anew: a second line for it is one too many.
    """
    lines = [(found["fingerprint"], int(found["notice"])) for found in ACKNOWLEDGED.finditer(changelog)]
    notices = [notice for _, notice in lines]
    return (fingerprint(snapshot), snapshot["version"]) in lines and len(set(notices)) == len(notices)
