"""The daily report of what telemetry has lost, and a word in the log if it waits for too long."""

from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy.orm import Session

from clarion.analytics import Accepted, Disabled, Rejected, Result, TelemetryData
from clarion.analytics.capturing import UNSTORED, Analytics, Outdated, store
from clarion.analytics.payload import Occurrence
from clarion.backlog import TOO_LONG, overdue
from clarion.consent import Why
from clarion.losses import TelemetryLost, given_up, lose, take_unreported
from clarion.observe import log
from clarion.telemetry import TelemetryState

EVERY = timedelta(days=1)
"""The least time between two reports."""

SETTLED = timedelta(minutes=1)
"""A report ends this long ago: by now, what was given up until then is committed."""


def report(analytics: Analytics) -> Result | None:
    """Store the event that tells what was lost since the last one: at most one a day, of many processes.

    None if it is not time, or nothing was lost. Whoever runs `retention.prune` calls this too; ``clarion
    prune`` does. While telemetry is off nothing is stored: what was lost by then is told when it is on again.
    Also warns in the log if the oldest message waits for more than a day (`backlog.LATE`).

    Raises:
        SQLAlchemyError: the database did not answer; what was lost is told the next time.
    """
    decision, key = analytics.telemetry.ask()
    if key is None or analytics.engine is None:
        return Disabled(decision.why.value)
    now = analytics.clock()
    with Session(analytics.engine) as session, session.begin():
        warn(session, now)
        if not take_turn(session, now - SETTLED):
            return None
        lost = take_unreported(session)
        if not lost:
            return None
        event_type = analytics.known(str(TelemetryLost.declared_kind))
        when = Occurrence(uuid4(), now)
        rendered = analytics.constructed(event_type, TelemetryData({"lost": lost}), when, key)
        if isinstance(rendered, Rejected):
            return rendered
        try:
            told = store(session.connection(), event_type.name, rendered, when, key, now)
        except Outdated:
            session.rollback()
            return Rejected(UNSTORED)
        if not told:
            session.rollback()
            return Disabled(Why.UNCONFIGURED.value)
    analytics.after()
    return Accepted(str(when.uuid))


def take_turn(session: Session, until: datetime) -> bool:
    """Whether it is time for a report that ends at ``until``; if so, count what was given up by then."""
    state = session.get(TelemetryState, 1, with_for_update=True)
    if state is None:
        return False
    since = state.reported_at
    if since is not None and timedelta(0) <= until - since < EVERY:
        return False
    lose(session, given_up(session, since, until))
    state.reported_at = until
    session.flush()
    return True


def warn(session: Session, now: datetime) -> None:
    if (late := overdue(session, now)) is not None:
        log.warning(TOO_LONG.format(hours=late // timedelta(hours=1)))
