"""The worker that once a day deletes old deliveries and captures, in one process of many.

It then has telemetry tell what it lost since the day before, if it is on and lost something.

Whose turn it is lies in a row of the leases: it says until when nobody needs to. Who takes the turn has an
hour for it; if it dies meanwhile another one does it after that, and when it is done the next is a day later.
"""

from datetime import datetime, timedelta

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from clarion.analytics.reporting import report
from clarion.observe import log
from clarion.retention import Pruned, prune
from orchest.models import SchedulerLease
from orchest.pollers import Poller

LEASE = "pruning"
EVERY = timedelta(days=1)
TURN = timedelta(hours=1)
"""How long whoever took the turn may need before another one takes it."""
POLL = 600.0
"""Seconds between two looks at whether it is time."""


def is_time(session: Session, now: datetime) -> bool:
    """Whether a turn may be taken."""
    until = session.scalar(select(SchedulerLease.until).where(SchedulerLease.name == LEASE))
    return until is None or until <= now


def take_turn(session: Session, holder: str, now: datetime) -> bool:
    """Take the turn if it is time. False: someone else has it, or had it within a day."""
    due = update(SchedulerLease).where(SchedulerLease.name == LEASE, SchedulerLease.until <= now)
    taken = session.execute(due.values(holder=holder, until=now + TURN))
    if taken.rowcount == 1:  # type: ignore[attr-defined]
        return True
    if session.get(SchedulerLease, LEASE) is not None:
        return False
    session.execute(insert(SchedulerLease).values(name=LEASE, holder=holder, until=now + TURN))
    return True


def end_turn(session: Session, holder: str, began: datetime) -> None:
    """It is done: the next is a day after this one began, unless someone else has taken over."""
    mine = update(SchedulerLease).where(SchedulerLease.name == LEASE, SchedulerLease.holder == holder)
    session.execute(mine.values(holder=None, until=began + EVERY))


class Pruning(Poller):
    """A `Poller`. Any number may run."""

    kind = "pruning"
    poll = POLL

    def nudge(self) -> None:
        """Nothing that is committed makes anything old."""

    def look(self) -> Pruned | None:
        """Once: delete what is old if it is time; None if it is not, or is another one's turn."""
        now = self.platform.site.clock()
        with self.platform.readers() as session:
            if not is_time(session, now):
                return None
        try:
            with self.platform.sessions.begin() as session:
                if not take_turn(session, self.owner, now):
                    return None
        except IntegrityError:  # the very first turn, taken by two at once
            return None
        pruned = prune(self.platform.engine, now, self.platform.kept)
        report(self.platform.analytics)
        with self.platform.sessions.begin() as session:
            end_turn(session, self.owner, now)
        log.info("what is old was deleted", deliveries=pruned.deliveries, captures=pruned.captures)
        return pruned
