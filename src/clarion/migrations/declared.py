"""What an application declares that its database must hold: event types, and columns of Clarion's tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Mapper

from clarion import deliverees, outbox  # they map the library's own tables and kinds of subscribers
from clarion.catalogue import catalogue
from clarion.events import Event
from clarion.subscriptions import Subscriber

LIBRARY = "clarion"
"""The library's own name: of its package, and of its branch in a history."""

SHARED: Mapping[str, type[Any]] = {"events": Event, "subscribers": Subscriber}
"""The tables that an application's classes add columns to, and the class at the top of each."""

MAPPED = (deliverees, outbox)
"""Imported for what they map."""


@dataclass(frozen=True, slots=True)
class Declared:
    """The event types to hold, with their descriptions, and the columns each shared table may have."""

    event_types: Mapping[str, str]
    columns: Mapping[str, frozenset[str]]


def declared(modules: Iterable[str]) -> Declared:
    """What the classes in ``modules``, or below them, declare; the library's own columns belong to it."""
    names = tuple(modules)
    types = {t.name: t.description for t in catalogue(names)}
    columns = {table: columns_of(top, (LIBRARY, *names)) for table, top in SHARED.items()}
    return Declared(types, columns)


def columns_of(top: type[Any], modules: tuple[str, ...]) -> frozenset[str]:
    """The columns of ``top``'s table that classes in ``modules``, or below them, map."""
    mapper: Mapper[Any] = top.__mapper__
    return frozenset(
        column.name
        for one in mapper.self_and_descendants
        if one.class_.__module__.startswith(tuple(f"{name}." for name in modules))
        or one.class_.__module__ in modules
        for attribute in one.column_attrs
        for column in attribute.columns
        if one.inherits is None or attribute.key not in one.inherits.column_attrs
    )
