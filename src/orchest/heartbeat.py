"""The heartbeat: every 15 minutes one process of many says that this installation runs, and is used.

Two rows of the settings hold what it takes: when the last one was sent, and when the platform was last used,
which every process notes at most once between two heartbeats. Who sends is decided by a lease, as with the
scheduler. Its holder may die between sending and noting that it did: whoever comes next sends the same
heartbeat again, under an id made of the one before, and what has an id that is known is stored once.

While telemetry is off nothing is written and nothing remembered.
"""

from datetime import datetime, timedelta
from uuid import UUID, uuid5

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from clarion.analytics import Accepted, TelemetryData
from orchest.analytics import Event
from orchest.models import Setting
from orchest.pollers import Poller
from orchest.scheduler import give_up_lease, hold_lease, holds_lease

EVERY = timedelta(minutes=15)
LEASE = "heartbeat"
TTL = timedelta(seconds=30)
"""How long whoever holds the lease may need to send one."""
POLL = 5.0
"""Seconds between two looks."""
SENT = "heartbeat_sent"
"""The setting that was changed when the last one was sent."""
USED = "platform_used"
"""The setting that was changed when the platform was used."""
HEARTBEAT = UUID("5b0a3fd3-6a39-4d37-9c56-6a0f3c1d9f5e")
"""The namespace of heartbeats' ids."""


def changed(session: Session, key: str) -> datetime | None:
    """When a setting was changed last."""
    return session.scalar(select(Setting.changed).where(Setting.key == key))


def note(session: Session, key: str, now: datetime) -> None:
    """Change a setting now. Raises IntegrityError if two write the very first one."""
    noted = session.execute(update(Setting).where(Setting.key == key).values(changed=now))
    if noted.rowcount == 0:  # type: ignore[attr-defined]
        session.execute(insert(Setting).values(key=key, value=True, changed=now))


def is_due(last: datetime | None, now: datetime) -> bool:
    """Whether a heartbeat is due; also if the last one is in a future that a wrong clock made."""
    return last is None or now - last >= EVERY or last - now > EVERY


def was_used(used: datetime | None, last: datetime | None) -> bool:
    """Whether the platform was used since the last heartbeat."""
    return used is not None and (last is None or used > last)


def identifier(last: datetime | None) -> UUID:
    """The id of the heartbeat that follows the one sent at ``last``: the same whoever sends it."""
    return uuid5(HEARTBEAT, "" if last is None else last.isoformat())


class Heartbeat(Poller):
    """A `Poller`. Any number may run; the one with the lease sends."""

    kind = "heartbeat"
    poll = POLL

    def nudge(self) -> None:
        """Nothing that is committed makes a heartbeat due."""

    def look(self) -> bool:
        """Once: note that the platform was used, and send a heartbeat if one is due. Whether one was sent."""
        used = self.platform.usage.taken()
        if not self.platform.analytics.telemetry.decision():
            return False
        now = self.platform.site.clock()
        with self.platform.readers() as session:
            last, noted = changed(session, SENT), changed(session, USED)
        if used and not was_used(noted, last):
            self._note_use(now)
        return is_due(last, now) and self._take(now) and self._send(now)

    def _note_use(self, now: datetime) -> None:
        try:
            with self.platform.sessions.begin() as session:
                note(session, USED, now)
        except IntegrityError:  # another process has written it at the same moment
            return
        except SQLAlchemyError:
            self.platform.usage.note()
            raise

    def _take(self, now: datetime) -> bool:
        """Take the lease."""
        try:
            with self.platform.sessions.begin() as session:
                return hold_lease(session, self.owner, now, TTL, LEASE)
        except IntegrityError:  # the very first one, taken by two at once
            return False

    def _send(self, now: datetime) -> bool:
        """Send one if it is still due, note that it was, and give up the lease."""
        with self.platform.readers() as session:
            last, used = changed(session, SENT), changed(session, USED)
        sent = False
        if is_due(last, now):
            data = TelemetryData(event_properties={"active": was_used(used, last)})
            result = self.platform.analytics.send(Event.HEARTBEAT_TRIGGER, data, id=identifier(last))
            sent = isinstance(result, Accepted)
        with self.platform.sessions.begin() as session:
            if sent and holds_lease(session, self.owner, self.platform.site.clock(), LEASE):
                note(session, SENT, now)
            give_up_lease(session, self.owner, now, LEASE)
        return sent
