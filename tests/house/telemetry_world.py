"""A platform whose every text is somebody's: each string and JSON column renamed, found by walking tables.

`Renaming` replaces every text that a user could have chosen, the same one by the same name everywhere, and
leaves what the platform itself wrote: the keys of a pipeline definition and the values of closed lists.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Column, Enum, Integer, String, Table, select
from sqlalchemy import event as listen
from sqlalchemy.orm import Session

from clarion.database import UTCDateTime
from clarion.declarations import Field, plain_type
from clarion.envelope import AppProperties, detect_system, render
from clarion.events import Event
from clarion.telemetry import TelemetryState
from orchest.events import CATALOGUE, ChangedObject, change
from orchest.models import Base
from tests.orchest import test_events
from tests.orchest.world import NOW, World

OURS = frozenset(
    {
        "name",
        "uuid",
        "version",
        "parameters",
        "settings",
        "auto_eviction",
        "data_passing_memory_size",
        "max_steps_parallelism",
        "secret_parameters",
        "steps",
        "title",
        "file_path",
        "environment",
        "kernel",
        "display_name",
        "incoming_connections",
        "meta_data",
        "position",
        "hidden",
        "services",
        "image",
        "command",
        "args",
        "scope",
        "ports",
        "binds",
        "env_variables",
        "env_variables_inherit",
        "exposed",
        "requires_authentication",
        "preserve_base_path",
        "order",
        "pipeline",
        "interactive",
        "noninteractive",
        "both",
        "python",
        "1GB",
        "1.0.0",
    }
)
"""Texts in a pipeline definition that are the platform's own: its keys, and values of closed lists."""

NOT_FREE = {"jobs.schedule": "a cron expression: other texts are not accepted, and its own test renames it"}
"""Columns that cannot hold any text, with the reason."""


def sending(key: bytes, backend: str = "posthog") -> TelemetryState:
    """Where an installation with this key sends, in a backend's wire format. Not stored; nobody listens."""
    return TelemetryState(
        installation=UUID("7d1c2b3a-0000-4000-8000-000000000000"),
        key=key,
        renewed_at=NOW,
        backend=backend,
        url="http://127.0.0.1:9",
        write_key="ck_public",
        app=render(AppProperties()),
        system=render(detect_system()),
    )


def free(column: Column[Any]) -> bool:
    """Whether a column can hold what somebody chose: strings and JSON, but no closed lists."""
    if f"{column.table.name}.{column.name}" in NOT_FREE or isinstance(column.type, Enum):
        return False
    return isinstance(column.type, String | JSON) and not isinstance(column.type, UTCDateTime)


def free_columns() -> Iterator[Column[Any]]:
    """Every such column of every table of the platform."""
    for table in Base.metadata.sorted_tables:
        yield from (column for column in table.columns if free(column))


@dataclass
class Renaming:
    """``name(original, longest)`` chooses the new text; ``original`` is made of the column if it had none."""

    name: Callable[[str, int], str]
    identifiers: Callable[[str], str] | None = None
    """How identifiers are renamed, where ``name`` makes texts that cannot be one."""
    known: dict[str, str] = field(default_factory=dict)
    rows: int = 0

    def text(self, original: str, longest: int = 200) -> str:
        if original in OURS:
            return original
        if original not in self.known:
            identifier = self.identifiers is not None and is_uuid(original)
            stem, dot, extension = original.rpartition(".")
            if dot and extension in ("py", "ipynb", "r", "jl", "sh") and stem:
                # a definition's paths are relative and without backslashes; others are refused when saved
                path = self.text(stem, longest - 6).translate({ord("\\"): None, ord("/"): None})
                self.known[original] = f"{path}.{extension}"
            elif identifier and self.identifiers is not None:
                self.known[original] = self.identifiers(original)
            else:
                self.known[original] = self.name(original, longest)
        return self.known[original]

    def value(self, value: Any) -> Any:
        match value:
            case dict():
                return {self.text(str(key)): self.value(item) for key, item in value.items()}
            case list():
                return [self.value(item) for item in value]
            case str():
                return self.text(value)
        return value

    def column(self, column: Column[Any], value: Any) -> Any:
        """What the column holds instead; a text of its own if it held nothing."""
        own = f"{column.table.name}.{column.name}"
        if isinstance(column.type, JSON):
            return self.value(value) if value else self.value({own: own})
        longest = column.type.length or 200 if isinstance(column.type, String) else 200
        if column.primary_key and value is None:  # each row its own
            self.rows += 1
            own = str(UUID(int=self.rows))
        return self.text(value or own, longest)

    def rename(self, session: Session, *_: Any) -> None:
        """Before a flush: rename every column of the new rows."""
        for row in session.new:
            if isinstance(row, Base):
                mapper = row.__mapper__
                for attribute in mapper.column_attrs:
                    column = attribute.columns[0]
                    if free(column) and not column.foreign_keys:
                        setattr(row, attribute.key, self.column(column, getattr(row, attribute.key)))


def is_uuid(text: str) -> bool:
    try:
        return len(text) == 36 and str(UUID(text)) == text
    except ValueError:
        return False


def populate(session: Session, renaming: Renaming) -> World:
    """One of everything, renamed; a row in every table."""
    listen.listen(session, "before_flush", renaming.rename)
    try:
        world = World.in_session(session)
        for mapper in sorted(Base.registry.mappers, key=lambda m: m.class_.__name__):
            table = mapper.local_table
            if isinstance(table, Table) and session.scalar(select(mapper.class_).limit(1)) is None:
                session.add(mapper.class_(**plain_row(session, table)))
                session.flush()
        session.expire_all()
        return world
    finally:
        listen.remove(session, "before_flush", renaming.rename)


def plain_row(session: Session, table: Table) -> dict[str, Any]:
    """Values for a row of a table nobody has made a row of: a parent's key, the first of a closed list."""
    values: dict[str, Any] = {}
    for column in table.columns:
        if column.foreign_keys:
            parent = next(iter(column.foreign_keys)).column
            values[column.name] = session.scalar(select(parent).limit(1))
        elif isinstance(column.type, Enum):
            values[column.name] = column.type.enums[0]
        elif isinstance(column.type, UTCDateTime):
            values[column.name] = None if column.nullable else NOW
        elif isinstance(column.type, Integer) and column.default is None and not column.nullable:
            values[column.name] = 1
    return values


def happenings(session: Session, world: World, renaming: Renaming) -> Iterator[Event]:
    """Every recorded type of the platform once, about ``world``, as the platform would give it."""
    for event_type in CATALOGUE.recorded:
        cls: Any = event_type.cls
        values = test_events.values_for(cls, event_type.verb, world)
        own = [f for f in cls.fields if f.stored and f.applies(event_type.verb) and f.name in values]
        for declared in own:
            if declared.name.endswith("_changes"):
                old, new = renaming.text("private-old"), renaming.text("private-new")
                values[declared.name] = change(ChangedObject.NAME, old, new)
            elif declared.name.endswith("_url"):
                values[declared.name] = values[declared.name].replace(
                    "orchest.example", renaming.text("host")
                )
            elif declared.name == "restarted_service":
                values[declared.name] = renaming.text("private-service")
        yield cls(event_type.verb, **values)


def private(cls: type[Event]) -> list[Field]:
    """The stored fields of an event class that only its subscribers may see."""
    return [f for f in cls.fields if f.stored and not f.in_telemetry]


def holds_text(declared: Field) -> bool:
    return plain_type(declared.type) not in (bool, int, float, datetime)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
