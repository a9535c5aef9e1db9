"""Events: something that happened, declared as a class, frozen when recorded, immutable after.

    class CronJobRunEvent(CronJobEvent, kind="project:cron-job:run", layer="run"):
        verbs = {"started": "Run {number} of {project.job.name} started"}

        run_uuid: Mapped[str] = identity(doc="The run.")
        number: Mapped[int] = fact(anonymous=True, doc="Counts the runs.", purpose="How often jobs run.")

Each class adds one layer to its parent's payload. Defining it is registering it.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from string import Formatter
from typing import Any, ClassVar, Literal, get_args
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import JSON, Connection, Index, String, Uuid, event
from sqlalchemy.orm import Mapped, Mapper, Session, mapped_column
from uuid_utils.compat import uuid7

from clarion import anonymous
from clarion.anonymous import iso
from clarion.database import Base, BigId, UTCDateTime
from clarion.declarations import Field, own_fields, plain_type
from clarion.errors import ClarionError, DeclarationError, InvalidEvent
from clarion.observe import counters, log
from clarion.upkeep import Upkeep, require_upkeep

CLASSES: dict[str, type["Event"]] = {}
"""Every declared event class by its kind."""

Source = Literal["api", "webserver", "browser"]
"""Where a type comes from: recorded with a transaction (api), or captured and only ever telemetry."""

KIND_PART = "abcdefghijklmnopqrstuvwxyz0123456789-"


@dataclass(frozen=True, slots=True)
class Template:
    """A verb's summary sentence, taken apart once: ``(literal text, path of the value after it)`` pairs."""

    parts: tuple[tuple[str, tuple[str, ...] | None], ...]

    def fill(self, payload: Mapping[str, Any]) -> str:
        return "".join(
            text + ("" if path is None else shown(look_up(payload, path))) for text, path in self.parts
        )


def look_up(payload: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = payload
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def shown(value: Any) -> str:
    plain = value.value if isinstance(value, Enum) else value
    return "" if plain is None else str(plain)


@dataclass(frozen=True, slots=True)
class Plan:
    """A type's fields by what is done with them, sorted out once."""

    identities: tuple[Field, ...]
    stored: Mapping[str, Field]
    computed: tuple[Field, ...]
    notified: tuple[Field, ...]
    sent: tuple[Field, ...]


@cache
def plan(cls: "type[Event]", verb: str) -> Plan:
    fields = [f for f in cls.fields if f.applies(verb)]
    return Plan(
        identities=tuple(f for f in fields if f.role == "identity"),
        stored={f.name: f for f in fields if f.stored},
        computed=tuple(f for f in fields if not f.stored),
        notified=tuple(f for f in fields if f.in_notification),
        sent=tuple(f for f in fields if f.in_telemetry),
    )


class Event(Base):
    """Something that happened: immutable, outliving its subject, carrying its two frozen renderings."""

    __tablename__ = "events"

    sequence: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    uuid: Mapped[UUID] = mapped_column(Uuid(), unique=True)
    type: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(255))
    scope: Mapped[str] = mapped_column(String(1024))
    occurred_at: Mapped[datetime] = mapped_column(UTCDateTime())
    notification: Mapped[dict[str, Any]] = mapped_column(JSON(none_as_null=True))
    telemetry: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    __table_args__ = (
        Index("ix_events_type", "type", "sequence"),  # the log filtered by type, newest first
        # the log of one subject and what lies below it, newest first; by default it would serve no prefix
        Index("ix_events_scope", "scope", "sequence", postgresql_ops={"scope": "varchar_pattern_ops"}),
        Index("ix_events_occurred_at", "occurred_at"),  # retention: events older than
        {"sqlite_autoincrement": True},
    )
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_abstract": True}

    source: ClassVar[Source] = "api"
    verbs: ClassVar[Mapping[str, str]] = {}
    schema_version: ClassVar[int] = 1
    declared_kind: ClassVar[str | None] = None
    layer: ClassVar[tuple[str, ...]] = ()
    fields: ClassVar[tuple[Field, ...]] = ()
    templates: ClassVar[Mapping[str, Template]] = {}
    upkeep: ClassVar[Upkeep | None] = None
    """Who answers for what telemetry sends of it; must be said if that is more than identities."""

    def __init_subclass__(
        cls, *, kind: str | None = None, layer: str | None = None, **arguments: Any
    ) -> None:
        inherited = cls.fields
        if layer is not None:
            cls.layer = (*cls.layer, layer)
            # what is limited to a layer's verbs does not reach the layers below it
            inherited = tuple(f for f in inherited if f.declared.verbs is None)
        cls.declared_kind = kind
        cls.fields = merge(cls, inherited, own_fields(cls, cls.layer, Event))
        if kind is None:
            cls.__mapper_args__ = {"polymorphic_abstract": True}
        else:
            check_kind(cls, kind)
            if any(f.in_telemetry and f.role != "identity" for f in cls.fields):
                require_upkeep(cls.__name__, cls.upkeep)
            cls.templates = {verb: parse(cls, verb, text) for verb, text in cls.verbs.items()}
            cls.__mapper_args__ = {"polymorphic_identity": kind}
        super().__init_subclass__(**arguments)
        if kind is not None:
            CLASSES[kind] = cls

    def __init__(self, verb: str, /, *, occurred_at: datetime | None = None, **values: Any) -> None:
        """``verb`` is one of the class's; ``values`` are its identities and facts by attribute name.

        Raises:
            InvalidEvent: an unknown verb or field, a missing identity or fact, a value of the wrong type.
        """
        cls = type(self)
        assert cls.declared_kind is not None  # a class without one cannot be instantiated
        if verb not in cls.verbs:
            raise InvalidEvent(f"{cls.__name__} has no verb {verb!r}; it has {', '.join(cls.verbs)}")
        if occurred_at is not None and occurred_at.tzinfo is None:
            raise InvalidEvent("occurred_at has no time zone")
        checked = check_values(cls, verb, values)
        scope = "/".join(f"{f.path[-2]}/{checked[f.name]}" for f in plan(cls, verb).identities)
        # Past the attribute instrumentation: an event never goes through the unit of work, and recording
        # should not pay for it.
        self.__dict__.update(
            checked,
            kind=cls.declared_kind,
            type=type_name(cls.declared_kind, verb),
            scope=scope,
            occurred_at=None if occurred_at is None else occurred_at.astimezone(UTC),
            computed={},
        )

    @property
    def verb(self) -> str:
        return self.type[len(self.kind) + 1 :]

    def to_notification_payload(self) -> dict[str, Any]:
        """What subscribers see: one nested object, a layer a class."""
        payload: dict[str, Any] = {
            "uuid": str(self.uuid),
            "type": self.type,
            "timestamp": iso(self.occurred_at),
            "summary": "",
            "schema_version": self.schema_version,
        }
        for field in plan(type(self), self.verb).notified:
            put(payload, field.path, self.value(field))
        payload["summary"] = self.templates[self.verb].fill(payload)
        return payload

    def to_telemetry_payload(self, key: bytes) -> dict[str, Any]:
        """What the product team sees: ``event_properties`` and ``derived_properties``.

        Constructed from the fields declared anonymous and from nothing else; identities leave as
        pseudonyms under ``key``. A value its type does not allow is null and counted.
        """
        properties: dict[str, Any] = {
            "uuid": str(anonymous.pseudonym_uuid(key, self.uuid)),
            "type": self.type,
            "timestamp": iso(self.occurred_at),
            "schema_version": self.schema_version,
        }
        measures: dict[str, Any] = {}
        for field in plan(type(self), self.verb).sent:
            target = measures if field.role == "measure" else properties
            put(target, field.path, self.anonymous_value(field, key))
        return {"event_properties": properties, "derived_properties": measures}

    def value(self, field: Field) -> Any:
        return getattr(self, field.name) if field.stored else self.__dict__["computed"].get(field.name)

    def anonymous_value(self, field: Field, key: bytes) -> Any:
        value = self.value(field)
        if value is None:
            return None
        try:
            if field.role == "identity":
                return anonymous.pseudonym(key, field.path[-2], value)
            return anonymous.convert(field.type, value)
        except (ValueError, TypeError) as error:
            failed("telemetry", self, field, error)
            return None

    def freeze(self, session: Session, now: datetime, telemetry_key: bytes | None) -> tuple[str, str | None]:
        """Compute the derived values, give the event its id and time, and render it: two JSON texts.

        The second is None when ``telemetry_key`` is: telemetry that is off stores nothing.

        Raises:
            InvalidEvent: a fact holds something JSON cannot.
        """
        state = self.__dict__
        state["uuid"] = uuid7()
        if state["occurred_at"] is None:
            state["occurred_at"] = now.astimezone(UTC)
        self.compute(session, telemetry_key is not None)
        state["notification"] = self.to_notification_payload()
        try:
            notification = to_json(self.notification, inf_nan_mode="null").decode()
        except (PydanticSerializationError, UnicodeError) as error:
            raise InvalidEvent(f"{self.type} cannot be written as JSON: {error}") from None
        if telemetry_key is None:
            return notification, None
        state["telemetry"] = self.to_telemetry_payload(telemetry_key)
        return notification, to_json(self.telemetry).decode()

    def compute(self, session: Session, telemetry: bool) -> None:
        computed = plan(type(self), self.verb).computed
        wanted = [f for f in computed if telemetry or f.in_notification]
        querying = [f for f in wanted if f.queries]
        for field in wanted:
            if not field.queries:
                self.compute_one(field, ())
        if querying:
            self.compute_guarded(session, querying)

    def compute_guarded(self, session: Session, querying: list[Field]) -> None:
        """Computed values that query: a failed statement must not spoil the caller's transaction.

        PostgreSQL refuses everything after an error until a savepoint is rolled back; SQLite does not.
        """
        connection = connection_of(session)
        savepoint = connection.dialect.name == "postgresql"
        while querying:
            with connection.begin_nested() if savepoint else nullcontext() as nested:
                while querying:
                    if not self.compute_one(querying.pop(0), (session,)) and nested is not None:
                        nested.rollback()
                        break

    def compute_one(self, field: Field, arguments: tuple[Session, ...]) -> bool:
        assert field.function is not None
        try:
            self.__dict__["computed"][field.name] = field.function(self, *arguments)
        except Exception as error:
            self.__dict__["computed"][field.name] = None
            failed("derived", self, field, error)
            return False
        return True


def connection_of(session: Session) -> Connection:
    """The connection of a session on which events lie: one may have several, by mapped class."""
    return session.connection(bind_arguments={"mapper": Event})


def type_name(kind: str, verb: str) -> str:
    """``kind:verb``; a class with the one verb ``""`` is a type of its kind's name."""
    return f"{kind}:{verb}" if verb else kind


def failed(what: str, subject: Event, field: Field, error: Exception) -> None:
    """Count and log a value that is null because of ``error``; its text may hold names, so only its class."""
    path = ".".join(field.path)
    counters.add(f"{what}_failed", path)
    log.warning("a value could not be computed", field=path, type=subject.type, error=type(error).__name__)


@event.listens_for(Event, "before_update", propagate=True)
def refuse_update(_mapper: Mapper[Any], _connection: Any, target: Event) -> None:
    raise ClarionError(f"event {target.uuid} is immutable: what happened cannot be changed")


@event.listens_for(Event, "before_insert", propagate=True)
def refuse_insert(_mapper: Mapper[Any], _connection: Any, target: Event) -> None:
    raise ClarionError(
        f"do not add a {type(target).__name__} to the session; record(session, event) does it all"
    )


def put(payload: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        payload = payload.setdefault(key, {})
    payload[path[-1]] = value


def merge(cls: type, inherited: tuple[Field, ...], own: list[Field]) -> tuple[Field, ...]:
    """The parent's fields and the class's own; paths must not meet, names must not hide a column."""
    fields = list(inherited)
    for new in own:
        if new.name in RESERVED:
            raise DeclarationError(f"{cls.__name__}.{new.name}: every event already has a {new.name!r}")
        for old in fields:
            shorter = min(len(new.path), len(old.path))
            if new.path[:shorter] == old.path[:shorter]:
                raise DeclarationError(
                    f"{cls.__name__}.{new.name} would collide in the payload: "
                    f"{'.'.join(new.path)} and {'.'.join(old.path)} (field {old.name})"
                )
        layers_with_identity = {f.path[:-1] for f in fields if f.role == "identity"}
        if new.role == "identity" and new.path[:-1] in layers_with_identity:
            raise DeclarationError(f"{cls.__name__}.{new.name}: a layer has one identity")
        fields.append(new)
    return tuple(fields)


def check_kind(cls: type[Event], kind: str) -> None:
    parts = kind.split(":")
    if any(not part or set(part) - set(KIND_PART) for part in parts):
        raise DeclarationError(
            f"{cls.__name__}: {kind!r} is not a kind; use lower-case words with '-', parted by ':'"
        )
    if kind in CLASSES:
        raise DeclarationError(
            f"{cls.__name__}: kind {kind!r} is already declared by {CLASSES[kind].__name__}"
        )
    if not cls.verbs:
        raise DeclarationError(
            f"{cls.__name__} has no verbs; give each type a summary: verbs = {{'created': '...'}}"
        )
    for verb in cls.verbs:
        if set(verb) - set(KIND_PART) or (not verb and len(cls.verbs) > 1):
            raise DeclarationError(f"{cls.__name__}: {verb!r} is not a verb; use lower-case words with '-'")
    for field in cls.fields:
        if field.declared.verbs is not None and not field.declared.verbs & cls.verbs.keys():
            raise DeclarationError(
                f"{cls.__name__}.{field.name} is limited to verbs the class does not have; "
                f"it has {', '.join(cls.verbs)}"
            )


def parse(cls: type[Event], verb: str, text: str) -> Template:
    """A summary template; its names are keys of the class's own layer or paths from the root."""
    known = {f.path for f in cls.fields if f.in_notification and f.applies(verb)}
    parts: list[tuple[str, tuple[str, ...] | None]] = []
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise DeclarationError(f"{cls.__name__}.verbs[{verb!r}]: {error}") from None
    for literal, name, _spec, _conversion in parsed:
        if name is None:
            parts.append((literal, None))
            continue
        path = tuple(name.split("."))
        found = next((p for p in ((*cls.layer, *path), path) if p in known), None)
        if found is None:
            allowed = ", ".join(sorted(".".join(p) for p in known))
            raise DeclarationError(f"{cls.__name__}.verbs[{verb!r}]: no field {name!r}; there are {allowed}")
        parts.append((literal, found))
    return Template(tuple(parts))


def check_values(cls: type[Event], verb: str, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` checked against the class's stored fields.

    Raises:
        InvalidEvent: names every field that is unknown, missing or of the wrong type.
    """
    stored = plan(cls, verb).stored
    problems = [f"unknown field {name!r}" for name in values if name not in stored]
    checked: dict[str, Any] = {}
    for name, field in stored.items():
        value = values.get(name)
        if value is None:
            if not field.optional:
                problems.append(f"missing {field.role} {name!r}")
            continue
        try:
            checked[name] = CHECKS.get(field.role, check_fact)(field, value)
        except ValueError as error:
            problems.append(f"{name!r} {error}")
    if problems:
        raise InvalidEvent(f"{cls.declared_kind}:{verb}: {'; '.join(problems)}")
    return checked


def check_identity(_field: Field, value: Any) -> str:
    text = str(value) if isinstance(value, UUID | int) else value
    if not isinstance(text, str) or not text or "/" in text or len(text) > 255 or not text.isprintable():
        raise ValueError("must be an identifier: 1 to 255 printable characters without '/'")
    return text


def check_fact(field: Field, value: Any) -> Any:
    plain = plain_type(field.type)
    if isinstance(value, Enum):
        value = value.value
    if plain is str and isinstance(value, str):
        # PostgreSQL text holds neither NUL nor half a surrogate pair; the event must not fail over one
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if plain is datetime and isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("has no time zone")
        return value.astimezone(UTC)
    if plain is float and type(value) is int:
        return float(value)
    if isinstance(plain, type) and not issubclass(plain, Enum):
        if isinstance(value, plain) and not (plain is int and isinstance(value, bool)):
            return value
        raise ValueError(f"must be {plain.__name__}, not {type(value).__name__}")
    if get_args(plain) and isinstance(value, list | dict):
        return value
    if value in (allowed := anonymous.closed_values(plain)):
        return value
    raise ValueError(f"must be one of {', '.join(map(str, allowed))}")


CHECKS: dict[str, Callable[[Field, Any], Any]] = {"identity": check_identity}

RESERVED = frozenset(Event.__table__.columns.keys()) | {
    "verb",
    "verbs",
    "fields",
    "layer",
    "computed",
    "upkeep",
}
