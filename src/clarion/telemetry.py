"""Telemetry's own state: the installation's id and key, the administrator's word, and asking for them live.

Everything lies in one row, which exists once a backend was configured. The key makes pseudonyms and never
leaves; the id is random and says nothing of the machine.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from weakref import WeakSet

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Engine,
    Integer,
    LargeBinary,
    String,
    Uuid,
    inspect,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from clarion import consent
from clarion.backlog import forget, purge
from clarion.consent import DEBUG_KEY, NOTICE_VERSION, Decision, Stored, Why
from clarion.database import Base, UTCDateTime
from clarion.errors import NotFound
from clarion.losses import KIND, take_unreported
from clarion.observe import log
from clarion.outbox.tables import DELIVERED, Delivery
from clarion.subscriptions import Subscriber

KEY_BYTES = 32

ROTATION = timedelta(days=365)
"""After how long an id and a key that were made are replaced (T29 of the requirements)."""

MAX_AGE = 1.0
"""Seconds the stored setting may be remembered; a process that missed a change sends nothing all the same,
because sending asks again."""

UNREADABLE = 10
"""How many times as long as a try took that failed no other is made: a database that hangs is waited for in a
tenth of the time at most, and one that refuses is soon asked again."""

PATIENCE = 0.25
"""Seconds telemetry may wait for SQLite's one writer: whoever sends an event is doing something else."""


class TelemetryState(Base):
    """The one row of telemetry's state."""

    __tablename__ = "telemetry_state"

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, default=1)
    installation: Mapped[UUID] = mapped_column(Uuid(), default=uuid4)
    """Random, nothing of the machine is in it; what events are sent under."""
    key: Mapped[bytes] = mapped_column(LargeBinary(KEY_BYTES), default=lambda: secrets.token_bytes(KEY_BYTES))
    """Makes pseudonyms; never leaves this database."""
    renewed_at: Mapped[datetime] = mapped_column(UTCDateTime())
    """When id and key were made."""
    enabled: Mapped[bool | None] = mapped_column(Boolean())
    """The administrator's word; None if nobody said anything yet."""
    notice: Mapped[int | None] = mapped_column(Integer())
    """The version of the notice that was shown last."""
    notice_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    backend: Mapped[str] = mapped_column(String(16))
    url: Mapped[str] = mapped_column(String(2048))
    write_key: Mapped[str] = mapped_column(String(255))
    app: Mapped[dict[str, Any]] = mapped_column(JSON())
    system: Mapped[dict[str, Any]] = mapped_column(JSON())
    reported_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    """Until when losses are told; None if they never were."""
    given: Mapped[bool] = mapped_column(Boolean(), default=False, server_default=text("false"))
    """Whether somebody chose the id: it is then never replaced by itself."""

    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        CheckConstraint("(notice IS NULL) = (notice_at IS NULL)", name="notice"),
    )

    @property
    def stored(self) -> Stored:
        return Stored(self.enabled, self.notice)

    def __repr__(self) -> str:
        return f"TelemetryState(backend={self.backend!r}, enabled={self.enabled})"


def state_of(session: Session) -> TelemetryState:
    """The state's row.

    Raises:
        NotFound: no backend was ever configured.
    """
    state = session.get(TelemetryState, 1)
    if state is None:
        raise NotFound("telemetry is not configured: there is no analytics backend to send to")
    return state


def installation_of(
    state: TelemetryState,
    environ: Mapping[str, str] = os.environ,
    config: Mapping[str, Any] | None = None,
) -> UUID:
    """The id that events are sent under now: ``TELEMETRY_UUID`` if it is set, or the stored one.

    Raises:
        ConfigurationError: ``TELEMETRY_UUID`` is not a UUID.
    """
    return consent.given_installation(environ, config) or state.installation


def show_notice(session: Session, now: datetime) -> None:
    """Note that the notice was shown: from now on events may be recorded and sent. Raises NotFound."""
    state = state_of(session)
    state.notice, state.notice_at = NOTICE_VERSION, now


def switch(session: Session, on: bool, now: datetime) -> int:
    """Store the administrator's word. Off forgets what waits; returns how many messages that were.

    Whoever switches it on must have the notice before them: that it was shown is noted, too. No event tells
    anybody that it was switched off. Raises NotFound.
    """
    state_of(session).enabled = on
    if not on:
        return purge(session)
    show_notice(session, now)
    return 0


def reset_identity(session: Session, now: datetime) -> UUID:
    """A new installation id and a new key. What waits is forgotten, or it would link the two."""
    state = state_of(session)
    forget_history(session)
    state.installation, state.key, state.renewed_at = uuid4(), secrets.token_bytes(KEY_BYTES), now
    state.reported_at, state.given = now, False
    session.flush()
    return state.installation


def rotate(
    session: Session,
    now: datetime,
    after: timedelta | None = ROTATION,
    environ: Mapping[str, str] = os.environ,
) -> bool:
    """Replace id and key if they are older than ``after``, once, whichever process asks; whether they were.

    What waits is forgotten, as above. An id that was given, to `identify` or as ``TELEMETRY_UUID``, stays,
    and its key with it; None never replaces anything.
    """
    if after is None or environ.get("TELEMETRY_UUID", "").strip():
        return False
    old = (TelemetryState.given.is_(False), TelemetryState.renewed_at <= now - after)
    if session.scalar(select(TelemetryState.id).where(*old).with_for_update()) is None:
        return False
    reset_identity(session, now)
    log.info("telemetry has a new id and key, as it has every so often", days=after.days)
    return True


def rotates_at(
    state: TelemetryState, after: timedelta | None, environ: Mapping[str, str] = os.environ
) -> datetime | None:
    """When id and key are to be replaced; None if they stay."""
    given = state.given or environ.get("TELEMETRY_UUID", "").strip()
    return None if after is None or given else state.renewed_at + after


def forget_history(session: Session) -> None:
    """Forget what waits, and what was lost and not told: under another id it would say whose they were."""
    forget(session, Delivery.state != DELIVERED)
    take_unreported(session)


def identify(session: Session, installation: UUID) -> None:
    """Give the installation an id of one's own choice; the key stays, and neither is replaced by itself.

    What waits is forgotten, as above.

    Raises NotFound.
    """
    state = state_of(session)
    state.given = True
    if state.installation != installation:
        forget_history(session)
        state.installation = installation


def database_exists(engine: Engine) -> bool:
    """False for a SQLite file that is not there, which connecting would make."""
    file = engine.url.database or ":memory:"
    return engine.dialect.name != "sqlite" or file.startswith((":", "file:")) or Path(file).exists()


class SettingReader:
    """Reads the stored setting and the key, and remembers them for ``max_age`` seconds."""

    def __init__(
        self,
        engine: Engine,
        *,
        max_age: float = MAX_AGE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self.max_age = max_age
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._age = max_age
        self._state: tuple[Stored, bytes] | Why | None = None
        self._withdraw_at = float("-inf")
        self.adopted: UUID | None = None
        """The id that this process stored because the application's configuration gives it."""
        _readers.add(self)

    def read(self) -> tuple[Stored, bytes] | Why | None:
        """The setting and the key; None without a configured backend, `Why.UNKNOWN` if it cannot be read.

        One thread reads while the others go on with what is known, so that none waits for a connection.
        """
        self._withdraw_at = float("-inf")  # who asks has nobody who objects
        if self._fresh():
            return self._state
        first = self._read_at == float("-inf")
        if not self._lock.acquire(blocking=first):
            return self._state
        try:
            if not self._fresh():
                began = self._monotonic()
                self._state = self._load()
                self._read_at = self._monotonic()
                self._age = self._pause(began) if self._state is Why.UNKNOWN else self.max_age
            return self._state
        finally:
            self._lock.release()

    def _fresh(self) -> bool:
        return self._monotonic() - self._read_at < self._age

    def _pause(self, began: float) -> float:
        """Seconds to the next try after one that failed and began then."""
        return max(self.max_age, UNREADABLE * (self._monotonic() - began))

    def forget(self) -> None:
        """Read again at the next question."""
        self._read_at = float("-inf")

    def withdraw(self) -> None:
        """Forget what waits; once, until the setting is asked for again. Never raises.

        Where that fails a later call tries again.
        """
        if self._monotonic() < self._withdraw_at or not self._lock.acquire(blocking=False):
            return
        began = self._monotonic()
        try:
            self._forget_waiting()
            self._withdraw_at = float("inf")
        except Exception as error:  # whatever a driver raises: an application must not fail over telemetry
            self._withdraw_at = self._monotonic() + self._pause(began)
            log.warning("what telemetry still has cannot be deleted yet", error=type(error).__name__)
        finally:
            self._lock.release()

    def _forget_waiting(self) -> None:
        if not database_exists(self.engine):
            return
        ours = select(Subscriber.id).where(Subscriber.kind == KIND)
        some = select(Delivery.id).where(Delivery.subscriber_id.in_(ours), Delivery.state != DELIVERED)
        with self.engine.execution_options(read_only=True).connect() as connection:
            if not inspect(connection).has_table(Delivery.__tablename__):
                return
            if connection.scalar(some.limit(1)) is None:
                return
        with Session(self.engine.execution_options(patience=PATIENCE)) as session, session.begin():
            log.info("telemetry is off: what waited was deleted", count=purge(session))

    def begin_anew(self) -> None:
        """In a forked child: a thread that was reading stayed with the parent, and never lets go here."""
        self._lock = threading.Lock()
        self.forget()

    def _load(self) -> tuple[Stored, bytes] | Why | None:
        columns = select(TelemetryState.enabled, TelemetryState.notice, TelemetryState.key)
        try:
            with self.engine.execution_options(read_only=True).connect() as connection:
                row = connection.execute(columns).one_or_none()
        except Exception as error:  # whatever a driver raises: recording must not fail over telemetry
            log.warning("the telemetry setting cannot be read; telemetry is off", error=type(error).__name__)
            return Why.UNKNOWN
        return None if row is None else (Stored(row.enabled, row.notice), row.key)


_readers: WeakSet[SettingReader] = WeakSet()


def begin_readers_anew() -> None:
    for reader in list(_readers):
        reader.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=begin_readers_anew)


class Telemetry:
    """Asks, live, whether telemetry is on, and for the key while it is. Safe to share between threads.

    ``environ`` and ``config`` (the application's own configuration) are read at each question, and while
    one of them says no, no database is asked, except once to forget what waits (`begin`). Only what marks a
    build or a test run is read once, because nobody sets it later. Without a ``reader`` nothing is
    configured: off.
    """

    def __init__(
        self,
        reader: SettingReader | Engine | None,
        *,
        environ: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.reader = SettingReader(reader) if isinstance(reader, Engine) else reader
        self.environ = os.environ if environ is None else environ
        self.config = config
        self._machine = consent.run_by_machine(self.environ)

    def ask(self) -> tuple[Decision, bytes | None]:
        """The decision as of now, and the key if it is on."""
        if (why := consent.objection(self.environ, self.config, self._machine)) is not None:
            return Decision(why), None
        state = None if self.reader is None else self.reader.read()
        if isinstance(state, Why):
            return Decision(state), None
        setting, key = (None, None) if state is None else state
        decision = consent.unobjected(setting)
        return decision, key if decision else None

    def begin(self) -> None:
        """When an application starts: where it is told that telemetry is off, forget what waits.

        `clarion.analytics.attach` does so. Asks no database where nothing says no, and never raises.
        """
        self.heed(consent.objection(self.environ, self.config, self._machine))

    def heed(self, why: Why | None) -> None:
        """Forget what waits if ``why`` is what people say against telemetry; once, until nothing says no.

        Not in a transaction: on SQLite it has to wait for it.
        """
        if why in consent.REFUSALS and self.reader is not None:
            self.reader.withdraw()

    def decision(self) -> Decision:
        """Whether telemetry is on now, and what decided."""
        return self.ask()[0]

    def key(self) -> bytes | None:
        """The key for pseudonyms, or None while telemetry is off: `Recording.telemetry_key`.

        While ``TELEMETRY_DEBUG`` is set, a key for what is only shown.
        """
        decision, key = self.ask()
        return DEBUG_KEY if decision.why is Why.DEBUG else key


def utc_now() -> datetime:
    return datetime.now(UTC)
