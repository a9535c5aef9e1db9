"""What a declared value can be, in a word, and a stored payload beside its schema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from clarion.anonymous import classification
from clarion.collector.schema import EventSchema

_SHAPES: Final = {"array": "list", "object": "map"}


def kind_of(schema: Mapping[str, Any]) -> str:
    """The class of data of a value, as privacy.md names them; ``text`` would be a fault of the schema."""
    word = classification(schema).value
    shape = _SHAPES.get(_without_null(schema).get("type", ""))
    return word if shape is None else f"{shape}: {word}"


def allowed_of(schema: Mapping[str, Any]) -> str:
    """Which values may come, short enough for a table cell."""
    schema = _without_null(schema)
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']:,} to {schema['maximum']:,}"
    return str(schema.get("pattern", ""))


def described(schema: EventSchema) -> dict[str, Any]:
    """An event type for whoever reads about it: what it is, who answers for it, every property's kind."""
    return {
        "description": schema.description,
        "source": schema.source,
        "owner": schema.owner,
        "since": schema.since,
        "expires": schema.expires,
        "properties": [
            {
                "property": path,
                "kind": kind_of(leaf),
                "allowed": allowed_of(leaf),
                "description": str(leaf.get("description", "")),
                "purpose": schema.purposes.get(path, ""),
            }
            for path, leaf in schema.leaves.items()
        ],
    }


def laid_out(properties: str, schema: EventSchema) -> list[dict[str, Any]]:
    """Every value of a stored payload (JSON) with the kind it is declared as, and whether it conforms.

    What is declared and not there comes last, without a value.
    """
    payload = json.loads(properties)
    wrong = {fault.path: fault.problem for fault in schema.faults(payload)}
    leaves = schema.leaves
    rows = []
    for path, value in _values(payload, (), frozenset(leaves)):
        declared = leaves.get(path)
        rows.append(
            {
                "path": path,
                "value": json.dumps(value, ensure_ascii=False),
                "kind": kind_of(declared) if declared is not None else "not declared",
                "allowed": allowed_of(declared) if declared is not None else "",
                "problem": wrong.get(path, "") if declared is not None else "not declared",
            }
        )
    there = {row["path"] for row in rows}
    return rows + [
        {
            "path": path,
            "value": None,
            "kind": kind_of(one),
            "allowed": allowed_of(one),
            "problem": wrong.get(path, ""),
        }
        for path, one in leaves.items()
        if path not in there and not any(name.startswith(f"{path}.") for name in there)
    ]


def _values(value: Any, path: tuple[str, ...], leaves: frozenset[str]) -> Iterator[tuple[str, Any]]:
    name = ".".join(path)
    if isinstance(value, dict) and value and name not in leaves:
        for key, child in value.items():
            yield from _values(child, (*path, key), leaves)
    else:
        yield name, value


def _without_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    members = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    return members[0] if len(members) == 1 else schema
