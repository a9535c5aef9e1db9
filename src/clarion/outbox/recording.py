"""`record`: add events, and every delivery they cause, to the caller's own transaction."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, overload

from pydantic_core import to_json
from sqlalchemy import JSON, Connection
from sqlalchemy import event as listen
from sqlalchemy.orm import Session, SessionTransaction

from clarion.consent import DEBUG_KEY
from clarion.database import bind_time
from clarion.errors import ConfigurationError, InvalidEvent
from clarion.events import Event, connection_of
from clarion.observe import log
from clarion.subscriptions import patterns_of, scopes_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import scoped_session

INFO = "clarion"
"""The key in a session's ``info`` under which its `Recording` lies."""

ARMED = "clarion_armed"


def utc_now() -> datetime:
    return datetime.now(UTC)


def telemetry_off() -> bytes | None:
    return None


@dataclass(frozen=True)
class Recording:
    """How an application records. Give it to the session factory: ``sessionmaker(engine, info=r.info())``.

    ``nudge`` is called, without arguments and outside any transaction, after a commit that made deliveries;
    it must return at once and not raise. ``telemetry_key`` is asked at each recording: the installation's
    key for pseudonyms, or None while telemetry is off, and then no telemetry is stored.
    """

    clock: Callable[[], datetime] = utc_now
    nudge: Callable[[], None] | None = None
    telemetry_key: Callable[[], bytes | None] = telemetry_off
    telemetry_shown: Callable[[Event], None] | None = None
    """What prints an event's telemetry instead, while `consent.DEBUG_KEY` is the key."""

    def info(self) -> dict[str, "Recording"]:
        return {INFO: self}


DEFAULT = Recording()


@overload
def record(session: "Session | scoped_session[Any]", *events: Event) -> None: ...
@overload
def record(session: "AsyncSession | async_scoped_session[Any]", *events: Event) -> Awaitable[None]: ...
def record(session: Any, *events: Event) -> Awaitable[None] | None:
    """Add ``events``, and a delivery for each subscriber that wants one, to the session's transaction.

    Never commits and never touches the network. An event costs one statement on PostgreSQL and two on
    SQLite, whatever the number of subscribers, and what its own derived values query. With an
    ``AsyncSession``, await the result. Commit, and all of it happened; roll back, and none of it did.
    A scoped session stands for the one it holds.

    Raises:
        InvalidEvent: an event is given twice, and nothing was added; or a fact holds something JSON
            cannot, and neither that event nor those after it were added.
        ConfigurationError: the database or its driver is not one Clarion knows.
    """
    if not isinstance(session, Session) and hasattr(session, "registry"):
        session = session()
    if isinstance(session, Session):
        record_all(session, events)
        return None
    told: Awaitable[None] = session.run_sync(record_all, events)
    return told


def record_all(session: Session, events: tuple[Event, ...]) -> None:
    recording: Recording = session.info.get(INFO, DEFAULT)
    if len(set(map(id, events))) < len(events):
        raise InvalidEvent("the same event is given twice; what happened twice is two events")
    session.flush()  # what follows sees the caller's writes, and their errors stay the caller's
    for event in events:
        now = recording.clock()
        key = recording.telemetry_key()
        renderings = event.freeze(session, now, key)
        if key == DEBUG_KEY:
            renderings = (renderings[0], None)
            if recording.telemetry_shown is not None:
                recording.telemetry_shown(event)
            event.__dict__["telemetry"] = None
        told = insert(connection_of(session), event, renderings, now)
        if told and recording.nudge is not None:
            arm(session, recording.nudge)


def arm(session: Session, nudge: Callable[[], None]) -> None:
    """Call ``nudge`` once when the outermost transaction has committed; forget it when that is rolled back.

    A savepoint that is rolled back changes nothing: what was recorded outside of it is still to come, and
    a nudge too many costs the relay one look.
    """
    if ARMED not in session.info:
        listen.listen(session, "after_commit", fire)
        listen.listen(session, "after_soft_rollback", disarm)
    session.info[ARMED] = nudge


def fire(session: Session) -> None:
    if session.in_nested_transaction():
        return
    nudge = session.info.get(ARMED)
    if nudge is not None:
        session.info[ARMED] = None
        try:
            nudge()
        except Exception as error:  # what is committed must not be reported as failed
            log.warning("a nudge failed; the relay looks by itself", exc_info=error)


def disarm(session: Session, ended: SessionTransaction) -> None:
    if ended.parent is None:
        session.info[ARMED] = None


def insert(connection: Connection, event: Event, renderings: tuple[str, str | None], now: datetime) -> int:
    """Insert the event and its deliveries; returns how many deliveries there are."""
    dialect = connection.dialect
    statements = event_statements(type(event), dialect.name, dialect.driver)
    row = bind_row(event, dialect.name)
    row["notification"], row["telemetry"] = renderings
    match: dict[str, Any] = {
        "patterns": list(patterns_of(event.type)),
        "scopes": scopes_of(event.scope),
        "due_at": row["occurred_at"] if event.occurred_at is now else bind_time(now, dialect.name),
        "with_telemetry": renderings[1] is not None,
    }
    if dialect.name == "postgresql":
        result = connection.exec_driver_sql(statements[0], row | match)
        event.sequence, told = result.one()
        return int(told)
    event.sequence = connection.exec_driver_sql(statements[0], row).lastrowid
    match |= {name: to_json(match[name]).decode() for name in ("patterns", "scopes")}
    return connection.exec_driver_sql(statements[1], match | {"sequence": event.sequence}).rowcount


def bind_row(event: Event, dialect: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "uuid": event.uuid.hex if dialect == "sqlite" else event.uuid,
        "type": event.type,
        "kind": event.kind,
        "scope": event.scope,
        "occurred_at": bind_time(event.occurred_at, dialect),
    }
    state = event.__dict__
    for field in event.fields:
        if field.stored:
            value = state.get(field.name)
            if isinstance(value, datetime):
                value = bind_time(value, dialect)
            elif isinstance(value, list | dict):
                value = to_json(value, inf_nan_mode="null").decode()
            row[field.name] = value
    return row


MATCH = """
INSERT INTO deliveries (event_sequence, subscriber_id, due_at)
SELECT {sequence}, s.id, {due_at} FROM {source}subscribers s
WHERE s.enabled AND ({with_telemetry} OR s.reads = 'notification') AND s.owner {in_scopes}
AND s.id IN (SELECT subscriber_id FROM subscriptions WHERE pattern {in_patterns} AND scope {in_scopes})
"""


@lru_cache(maxsize=1024)
def event_statements(cls: type[Event], dialect: str, driver: str) -> tuple[str, ...]:
    """The SQL that records an event of ``cls``: plain text, so that the driver can keep it prepared."""
    if (dialect, driver) not in {
        ("postgresql", "psycopg"),
        ("postgresql", "psycopg_async"),
        ("sqlite", "pysqlite"),
        ("sqlite", "aiosqlite"),
    }:
        raise ConfigurationError(
            f"cannot record through {dialect}+{driver}; use postgresql+psycopg, sqlite or sqlite+aiosqlite"
        )
    json_columns = {"notification", "telemetry"}
    columns = ["uuid", "type", "kind", "scope", "occurred_at", "notification", "telemetry"]
    for field in cls.fields:
        if field.stored:
            columns.append(field.name)
            if isinstance(cls.__table__.c[field.name].type, JSON):
                json_columns.add(field.name)
    if dialect == "sqlite":
        values = ", ".join(f":{name}" for name in columns)
        into = f"INSERT INTO events ({', '.join(columns)}) VALUES ({values})"  # noqa: S608
        return into, MATCH.format(
            sequence=":sequence",
            due_at=":due_at",
            source="",
            with_telemetry=":with_telemetry",
            in_scopes="IN (SELECT value FROM json_each(:scopes))",
            in_patterns="IN (SELECT value FROM json_each(:patterns))",
        )
    values = ", ".join(f"%({name})s{'::json' if name in json_columns else ''}" for name in columns)
    into = f"INSERT INTO events ({', '.join(columns)}) VALUES ({values}) RETURNING sequence"  # noqa: S608
    told = MATCH.format(
        sequence="e.sequence",
        due_at="%(due_at)s",
        source="e, ",
        with_telemetry="%(with_telemetry)s",
        in_scopes="= ANY(%(scopes)s)",
        in_patterns="= ANY(%(patterns)s)",
    )
    return (
        f"WITH e AS ({into}), told AS ({told} RETURNING 1) "  # noqa: S608
        "SELECT e.sequence, (SELECT count(*) FROM told) FROM e",
    )
