"""What a revision does to the rows of ``event_types``, and how that is undone.

    add_event_types({"project:created": "A project. (created)"})
    describe_event_types({"project:created": ("the description before", "the description after")})
    remove_event_types({"project:archived": "A project. (archived)"})

Each says everything that its opposite needs.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.operations import MigrateOperation

TABLE = sa.table("event_types", sa.column("name", sa.String), sa.column("description", sa.Text))


def add_event_types(types: Mapping[str, str]) -> None:
    """In a revision: these types, ``{name: description}``, exist from now on."""
    op.bulk_insert(TABLE, [{"name": name, "description": text} for name, text in types.items()])


def describe_event_types(types: Mapping[str, tuple[str, str]]) -> None:
    """In a revision: these types, ``{name: (before, after)}``, are described anew."""
    for name, (_before, after) in types.items():
        described = sa.update(TABLE).values(description=sa.literal(after))
        op.execute(described.where(TABLE.c.name == sa.literal(name)))


def remove_event_types(types: Mapping[str, str]) -> None:
    """In a revision: these types, ``{name: description}``, are gone. Their events stay."""
    for name in types:
        op.execute(sa.delete(TABLE).where(TABLE.c.name == sa.literal(name)))


class EventTypesOp(MigrateOperation):
    """One of the three while autogenerate thinks; ``function`` is what it is written as."""

    def __init__(self, function: str, types: Mapping[str, Any]) -> None:
        self.function = function
        self.types = dict(types)

    def reverse(self) -> "EventTypesOp":
        if self.function == describe_event_types.__name__:
            swapped = {name: (after, before) for name, (before, after) in self.types.items()}
            return EventTypesOp(self.function, swapped)
        return EventTypesOp(OPPOSITES[self.function], self.types)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return (self.function, self.types)


OPPOSITES = {
    add_event_types.__name__: remove_event_types.__name__,
    remove_event_types.__name__: add_event_types.__name__,
}


def changes(present: Mapping[str, str], wanted: Mapping[str, str]) -> list[EventTypesOp]:
    """The operations that lead from the rows that are there to those that are wanted."""
    new = {name: text for name, text in wanted.items() if name not in present}
    gone = {name: present[name] for name in sorted(present) if name not in wanted}
    said = {
        name: (present[name], text)
        for name, text in wanted.items()
        if name in present and present[name] != text
    }
    found = [
        EventTypesOp(add_event_types.__name__, new),
        EventTypesOp(describe_event_types.__name__, said),
        EventTypesOp(remove_event_types.__name__, gone),
    ]
    return [one for one in found if one.types]
