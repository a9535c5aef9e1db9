"""Reads a JSON document that a user wrote, field by field, and collects everything wrong with it."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

MAX_DEPTH = 100
"""How many lists and objects may lie in each other; people's documents have about ten."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document. ``path`` is a JSON pointer into the document (RFC 6901)."""

    path: str
    message: str


def decode(source: str | bytes, fields: "Fields", most: int) -> Any:
    """The JSON of a text of at most ``most`` bytes; None, and a problem in ``fields``, when it is none."""
    if len(source) > most:
        fields.problem("", f"the document is larger than {most} bytes")
        return None
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        # json keeps the last of two equal keys: a step would vanish without a word
        names = Counter(name for name, _ in items)
        repeated.extend(name for name, count in names.items() if count > 1)
        return dict(items)

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    try:
        document = json.loads(source, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        fields.problem("", f"the document is not JSON: {error}")
        return None
    for name in repeated:
        fields.problem("", f"the name {name!r} appears twice in one object")
    return document


def repeats(names: list[str]) -> bool:
    """Whether a name is in the list twice."""
    return len(set(names)) != len(names)


def pointer(*parts: str | int) -> str:
    """A JSON pointer of these parts (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def json_size(value: Any) -> int:
    """Bytes of a value as JSON. Raises ValueError, TypeError or RecursionError when it is none."""
    return len(json.dumps(value, allow_nan=False).encode())


def unusable_values(document: Any, most: int = MAX_DEPTH) -> Iterator[Problem]:
    """Values that decode but that neither a database nor a process environment can carry.

    Nor lists and objects in more than ``most`` others: what reads or writes them calls itself a level.
    """
    waiting: list[tuple[str, Any, int]] = [("", document, 0)]
    while waiting:
        path, item, depth = waiting.pop()
        if depth > most and isinstance(item, dict | list):
            yield Problem(path, f"{path[:100]}...: lists and objects may lie {most} deep, not deeper")
        elif isinstance(item, str):
            if "\0" in item or any("\ud800" <= char <= "\udfff" for char in item):
                yield Problem(path, f"{path!r}: text may not hold a NUL character or half a surrogate pair")
        elif isinstance(item, float):
            if not math.isfinite(item):
                yield Problem(path, f"{path}: {item} is not a JSON number")
        elif isinstance(item, dict):
            waiting.extend((path + pointer(str(key)), inner, depth + 1) for key, inner in item.items())
            waiting.extend((path, key, depth) for key in item)
        elif isinstance(item, list):
            waiting.extend((path + pointer(index), inner, depth + 1) for index, inner in enumerate(item))


class Fields:
    """Collects problems instead of stopping at the first; each method answers with something usable.

    ``at`` is the pointer of the owning object, ``who`` its name in messages.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def problem(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))

    def text(self, owner: dict[str, Any], key: str, at: str, who: str, *, required: bool = False) -> str:
        value = owner.get(key)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or (required and not value.strip()):
            self.problem(
                at + pointer(key), f"{who}: {key} must be {'a non-empty text' if required else 'text'}"
            )
            return ""
        return value

    def flag(self, owner: dict[str, Any], key: str, at: str, who: str, default: bool) -> bool:
        value = owner.get(key, default)
        if not isinstance(value, bool):
            self.problem(at + pointer(key), f"{who}: {key} must be true or false")
            return default
        return value

    def uuid(self, value: Any, at: str, who: str) -> str:
        try:
            if not isinstance(value, str) or str(UUID(value)) != value.lower():
                raise ValueError
        except ValueError:
            self.problem(at, f"{who}: uuid must be a UUID such as 6b1c5931-8bf7-4587-b3ae-06f7ee5ccb8a")
            return ""
        return value

    def texts(self, owner: dict[str, Any], key: str, at: str, who: str) -> Mapping[str, str]:
        value = owner.get(key) or {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            self.problem(at + pointer(key), f"{who}: {key} must be a JSON object of text to text")
            return {}
        return value

    def list(
        self, owner: dict[str, Any], key: str, at: str, who: str, what: str, fits: Callable[[Any], bool]
    ) -> tuple[Any, ...]:
        value = owner.get(key) or []
        if not isinstance(value, list) or not all(fits(item) for item in value):
            self.problem(at + pointer(key), f"{who}: {key} must be a list {what}")
            return ()
        return tuple(value)


def kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def port(value: Any) -> bool:
    return whole(value, 1, 65535)


def is_text(value: Any) -> bool:
    return isinstance(value, str)
