"""`Analytics`: takes one event, checks it, and makes it a row and a delivery in one short transaction."""

import json
import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

from pydantic_core import to_json
from sqlalchemy import Connection, Engine, insert, select, true
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from clarion import anonymous, consent
from clarion.analytics import ATTACHED, Accepted, Disabled, Rejected, Result, TelemetryData, carrier
from clarion.analytics.payload import Occurrence, WrongShape, WrongValue, construct
from clarion.backlog import trim
from clarion.captured import CAPTURED
from clarion.catalogue import Catalogue, EventType, catalogue
from clarion.consent import Why
from clarion.database import normalise_url, open_engine
from clarion.errors import ConfigurationError
from clarion.events import CLASSES
from clarion.gate import MAX_BYTES
from clarion.losses import KIND, Loss, lose, telemetry_types
from clarion.messages import Message
from clarion.observe import counters, log
from clarion.outbox.tables import Capture, Delivery
from clarion.subscriptions import Subscriber
from clarion.telemetry import PATIENCE, SettingReader, Telemetry, TelemetryState, identify, utc_now

UNSTORED = "it could not be stored"
"""Why an event is rejected whose row the database did not take: it may be sent again."""

UNUSABLE = "CLARION_DATABASE_URL names no database that can be used, or its driver is not installed"
"""Why an event is rejected for which no database can be opened. A URL may hold a password: it is not said."""

TRIM_EVERY = 256
"""Captures between looks at how many wait."""


class Analytics:
    """Takes telemetry events for one database. Safe to share between threads, opens nothing by itself.

    Without an ``engine`` telemetry is off. ``strict`` raises for a value that does not fit its declared
    type, for development and tests. ``nudge`` is called after each stored event, to wake a relay.
    """

    def __init__(
        self,
        engine: Engine | None,
        *,
        types: Catalogue | None = None,
        telemetry: Telemetry | None = None,
        clock: Callable[[], datetime] = utc_now,
        nudge: Callable[[], None] | None = None,
        strict: bool = False,
    ) -> None:
        self.engine = engine
        self.telemetry = telemetry or Telemetry(engine)
        self.clock = clock
        self.nudge = nudge
        self.strict = strict
        self._types = None if types is None else telemetry_types(types)
        self._declared: tuple[int, Catalogue] | None = None
        self._sent = 0

    @property
    def types(self) -> Catalogue:
        """The types that may be sent: those given and the library's own, or all that are declared."""
        if self._types is not None:
            return self._types
        declared = len(CLASSES) + len(CAPTURED)
        if self._declared is None or self._declared[0] != declared:
            self._declared = (declared, catalogue())
        return self._declared[1]

    def send(
        self,
        event: Enum | str,
        data: TelemetryData | None = None,
        *,
        id: UUID | None = None,
        occurred_at: datetime | None = None,
    ) -> Result:
        """`send_event` without the application. ``id`` collapses repeats of one message into one.

        Raises:
            ValueError: an undeclared type, or properties that are not of its shape.
        """
        try:
            return self.taken(event, data, id, occurred_at)
        except (WrongShape, WrongValue, ConfigurationError):
            raise
        except Exception as error:  # whatever a value's own methods raise: telemetry never fails who sends it
            if self.strict:
                raise
            counters.add("telemetry_refused", "fault")
            log.warning("a telemetry event was refused", error=type(error).__name__)
            self.note_lost(Loss.SCHEMA_REJECT)
            return Rejected(f"{type(error).__name__} was raised over it")

    def taken(
        self, event: Enum | str, data: TelemetryData | None, id: UUID | None, occurred_at: datetime | None
    ) -> Result:
        event_type, given = self.known(event), shaped(data)
        decision, key = self.telemetry.ask()
        when = Occurrence(uuid4() if id is None else id, occurred_at or self.clock())
        if decision.why is Why.DEBUG:
            rendered = self.constructed(event_type, given, when, consent.DEBUG_KEY)
            if not isinstance(rendered, Rejected):
                show(event_type, rendered, when)
            return Disabled(decision.why.value)
        if key is None:
            # a wrong shape is one whether or not it would have been sent
            self.constructed(event_type, given, when, b"")
            if decision.why is Why.UNKNOWN:
                counters.add("telemetry_refused", "storage")
                return Rejected(UNSTORED)
            self.telemetry.heed(decision.why)
            return Disabled(decision.why.value)
        if id is not None:  # a client's id is a client's data: it leaves as its pseudonym
            when = Occurrence(anonymous.pseudonym_uuid(key, id), when.at)
        try:
            rendered = self.constructed(event_type, given, when, key)
        except (WrongShape, WrongValue):
            self.note_lost(Loss.SCHEMA_REJECT)
            raise
        if isinstance(rendered, Rejected):
            self.note_lost(Loss.SCHEMA_REJECT)
            return rendered
        refused = self.unidentified(event_type)
        return self.stored(event_type, rendered, when, key) if refused is None else refused

    def unidentified(self, event_type: EventType) -> Rejected | None:
        """Why nothing can be sent under the id that the application's configuration gives; None if it can."""
        try:
            self.adopt_given()
        except ConfigurationError as error:
            counters.add("telemetry_refused", "configuration")
            log.warning("a telemetry event was refused", type=event_type.name, problem=error.message)
            if self.strict:
                raise
            return Rejected(error.message)
        except Exception as error:  # whatever a driver raises: telemetry never fails who sends it
            counters.add("telemetry_refused", "storage")
            log.warning("telemetry's id could not be stored", error=type(error).__name__)
            return Rejected(UNSTORED)
        return None

    def adopt_given(self) -> None:
        """Store the id that the application's configuration gives, for relays that do not read it; once.

        The environment's is left to each process, which asks it when sending.

        Raises:
            ConfigurationError: the id is not a UUID.
        """
        reader, environ = self.telemetry.reader, self.telemetry.environ
        installation = consent.given_installation({}, self.telemetry.config)
        if installation is None or consent.given_installation(environ) is not None:
            return
        if reader is None or self.engine is None or reader.adopted == installation:
            return
        with Session(self.engine.execution_options(patience=PATIENCE)) as session, session.begin():
            identify(session, installation)
        reader.adopted = installation

    def known(self, event: Enum | str) -> EventType:
        name = event.value if isinstance(event, Enum) else event
        if not isinstance(name, str) or name not in self.types:
            raise WrongShape("the event is not one of the declared types; see the Event enumeration")
        return self.types[name]

    def constructed(
        self, event_type: EventType, given: TelemetryData, when: Occurrence, key: bytes
    ) -> dict[str, Any] | Rejected:
        try:
            return construct(event_type, given.event_properties, given.derived_properties, when, key)
        except WrongShape:
            counters.add("telemetry_refused", "shape")
            raise
        except WrongValue as error:
            counters.add("telemetry_refused", "value")
            log.warning("a telemetry event was refused", type=event_type.name, problem=str(error))
            if self.strict:
                raise
            return Rejected(str(error))

    def stored(
        self, event_type: EventType, telemetry: dict[str, Any], when: Occurrence, key: bytes
    ) -> Result:
        if len(to_json(telemetry)) > MAX_BYTES:
            counters.add("telemetry_refused", "size")
            self.note_lost(Loss.SCHEMA_REJECT)
            return Rejected(f"{event_type.name}: an event may have at most {MAX_BYTES} bytes")
        try:
            told = self.inserted(event_type.name, telemetry, when, key)
        except IntegrityError:  # the same message came before, and is stored
            counters.add("telemetry_repeated")
            return Accepted(str(when.uuid))
        except Outdated:
            if self.telemetry.reader is not None:
                self.telemetry.reader.forget()
            return Rejected(UNSTORED)
        except Exception as error:  # whatever a driver raises: telemetry never fails who sends it
            counters.add("telemetry_refused", "storage")
            log.warning(
                "a telemetry event could not be stored", type=event_type.name, error=type(error).__name__
            )
            return Rejected(UNSTORED)
        if not told:
            return Disabled(Why.UNCONFIGURED.value)
        self.after()
        return Accepted(str(when.uuid))

    def inserted(self, name: str, telemetry: dict[str, Any], when: Occurrence, key: bytes) -> int:
        """Make the event rows, in a transaction of its own; how many subscribers are told."""
        assert self.engine is not None  # without one telemetry is off
        with self.engine.execution_options(patience=PATIENCE).begin() as connection:
            return store(connection, name, telemetry, when, key, self.clock())

    def note_lost(self, reason: Loss, count: int = 1) -> None:
        """Count messages that were lost, for the daily report; not while telemetry is off."""
        try:
            if self.engine is None or not self.telemetry.decision():
                return
            with self.engine.execution_options(patience=PATIENCE).begin() as connection:
                lose(connection, {reason: count})
        except Exception as error:  # whatever a driver raises: telemetry never fails who sends it
            log.warning("a telemetry loss could not be counted", error=type(error).__name__)

    def after(self) -> None:
        self._sent += 1
        if self.engine is not None and self._sent % TRIM_EVERY == 0:
            try:
                patient = self.engine.execution_options(patience=PATIENCE)
                with Session(patient) as session, session.begin():
                    trim(session)
            except Exception as error:  # the next time, or `retention.prune`
                log.warning("the telemetry backlog could not be trimmed", error=type(error).__name__)
        if self.nudge is not None:
            try:
                self.nudge()
            except Exception as error:  # what is stored must not be reported as failed
                log.warning("a nudge failed; the relay looks by itself", exc_info=error)


def show(event_type: EventType, telemetry: dict[str, Any], when: Occurrence) -> None:
    from clarion.analytics.previewing import print_message

    print_message(Message(when.uuid, event_type.name, when.at, None, 1, None, json.dumps(telemetry)))


def shaped(data: TelemetryData | None) -> TelemetryData:
    if data is None:
        return TelemetryData()
    if not isinstance(data, TelemetryData):
        raise WrongShape(f"the data must be TelemetryData or None, not {type(data).__name__}")
    return data


TOLD = (
    select(Subscriber.id, TelemetryState.key)
    .join(TelemetryState, true())
    .where(Subscriber.kind == KIND, Subscriber.enabled)
    .with_for_update(read=True, of=TelemetryState)
)
"""Who is told, and the key: whoever replaces it waits until what it made is there to be deleted."""


class Outdated(Exception):
    """The key that pseudonyms were made with was replaced meanwhile."""


def store(
    connection: Connection, name: str, telemetry: dict[str, Any], when: Occurrence, key: bytes, now: datetime
) -> int:
    """Insert the capture and its delivery, unless there is no analytics subscriber; returns how many.

    Raises:
        Outdated: ``key``, which made its pseudonyms, is not the installation's any more.
    """
    told = connection.execute(TOLD).all()
    if not told:
        return 0
    if any(current != key for _, current in told):
        raise Outdated
    capture = connection.execute(
        insert(Capture)
        .values(uuid=when.uuid, type=name, occurred_at=when.at, telemetry=telemetry)
        .returning(Capture.id)
    ).scalar_one()
    connection.execute(
        insert(Delivery),
        [{"capture_id": capture, "subscriber_id": subscriber, "due_at": now} for subscriber, _ in told],
    )
    return len(told)


_opened: dict[str | URL, SettingReader] = {}
_opening = threading.Lock()
if hasattr(os, "register_at_fork"):  # a fork while another thread holds it would leave it held for ever
    os.register_at_fork(
        before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release
    )


def send_from(app: Any, event: Enum, data: TelemetryData | None) -> Result:
    """`analytics.send_event`."""
    try:
        analytics = analytics_of(app)
    except ConfigurationError as error:
        Analytics(None).send(event, data)  # a wrong shape is one whether or not it could have been stored
        counters.add("telemetry_refused", "configuration")
        log.warning("a telemetry event was refused", problem=UNUSABLE, error=type(error.__cause__).__name__)
        return Rejected(UNUSABLE)
    return analytics.send(event, data)


def analytics_of(app: Any) -> Analytics:
    """What ``app`` carries, or one made from its settings; without either telemetry is off.

    Raises:
        ConfigurationError: the database that its settings name cannot be used.
        TypeError: it is neither an application nor a mapping.
    """
    holder = carrier(app)
    carried = holder.get(ATTACHED) if isinstance(holder, Mapping) else getattr(holder, ATTACHED, None)
    if isinstance(carried, Analytics):
        return carried
    config = app if isinstance(app, Mapping) else getattr(app, "config", None)
    return configured(config if isinstance(config, Mapping) else {})


def configured(settings: Mapping[str, Any]) -> Analytics:
    """The `Analytics` for the database that settings name, with these settings asked live.

    Raises:
        ConfigurationError: the URL is none, or of a database whose driver is missing.
    """
    url = settings.get("CLARION_DATABASE_URL")
    if not url:
        return Analytics(None, telemetry=Telemetry(None, config=settings))
    try:
        reader = reader_of(url)
    except ConfigurationError:
        if consent.objection(os.environ, settings) is None:
            raise
        return Analytics(None, telemetry=Telemetry(None, config=settings))
    return Analytics(reader.engine, telemetry=Telemetry(reader, config=settings))


def reader_of(url: Any) -> SettingReader:
    """The one for this database; nothing is connected yet. Raises ConfigurationError as `configured` does."""
    if not isinstance(url, str | URL):
        raise ConfigurationError(f"a database URL is a text, not {type(url).__name__}")
    with _opening:
        if url not in _opened:
            _opened[url] = SettingReader(opened(url))
        return _opened[url]


def opened(url: str | URL) -> Engine:
    """The database as `send_event` opens it for itself, so that it waits for no server long.

    Raises:
        ConfigurationError: the URL is none, or the database's driver is missing.
    """
    target = normalise_url(url)
    try:
        if target.get_backend_name() != "postgresql":
            return open_engine(target)
        from clarion.analytics.answering import open_impatient

        return open_impatient(target)
    except ImportError as error:
        raise ConfigurationError("psycopg is not installed: pip install 'clarion[postgres]'") from error
