"""What telemetry still has to send: how much, since when, and how it is forgotten."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from clarion.events import Event
from clarion.losses import KIND, Loss, lose
from clarion.outbox.tables import DELIVERED, PENDING, Capture, Delivery
from clarion.subscriptions import Subscriber

BACKLOG = 10_000
"""Telemetry messages that may wait; beyond it the oldest are dropped and counted."""

LATE = timedelta(hours=24)
"""How old what waits may be before people are warned: the backend is away, or no relay runs."""

TOO_LONG = "telemetry has been waiting for {hours} hours: does a relay run, and does the backend answer?"
"""How they are warned."""


def purge(session: Session) -> int:
    """Forget every telemetry message that was not delivered; returns how many.

    Deletes the deliveries and the captures, and empties the events' telemetry. Events stay. What waited is
    counted as lost, which is told if telemetry is ever on again, and not to anybody before.
    """
    waited = waiting(session)
    forgotten = forget(session, Delivery.state != DELIVERED)
    lose(session, {Loss.DISABLED_PURGED: waited})  # last, as in `trim`: who locks the other way round waits
    return forgotten


def waits() -> tuple[ColumnElement[bool], ...]:
    """What is true of the deliveries that telemetry has still to make."""
    ours = select(Subscriber.id).where(Subscriber.kind == KIND)
    return (Delivery.subscriber_id.in_(ours), Delivery.state == PENDING)


def waiting(session: Session) -> int:
    """How many messages wait to be sent."""
    return session.scalar(select(func.count()).select_from(Delivery).where(*waits())) or 0


def oldest_waiting(session: Session) -> datetime | None:
    """When the oldest happened of what waits to be sent; None if nothing waits."""
    event = Event.__table__
    return session.scalar(
        select(func.min(func.coalesce(event.c.occurred_at, Capture.occurred_at)))
        .select_from(Delivery)
        .outerjoin(event, event.c.sequence == Delivery.event_sequence)
        .outerjoin(Capture, Capture.id == Delivery.capture_id)
        .where(*waits())
    )


def overdue(session: Session, now: datetime) -> timedelta | None:
    """How long the oldest has been waiting if that is more than `LATE`, or None."""
    oldest = oldest_waiting(session)
    return now - oldest if oldest is not None and now - oldest > LATE else None


def trim(session: Session, keep: int = BACKLOG) -> int:
    """Drop the oldest telemetry messages beyond ``keep`` that wait; returns and counts how many."""
    oldest = session.scalar(
        select(Delivery.id).where(*waits()).order_by(Delivery.id.desc()).offset(keep).limit(1)
    )
    if oldest is None:
        return 0
    dropped = forget(session, (Delivery.state == PENDING) & (Delivery.id <= oldest))
    lose(session, {Loss.QUEUE_FULL: dropped})
    return dropped


def forget(session: Session, which: ColumnElement[bool]) -> int:
    """Delete the analytics subscribers' deliveries that match, and what of them nobody else needs."""
    ours = select(Subscriber.id).where(Subscriber.kind == KIND).scalar_subquery()
    matching = Delivery.subscriber_id.in_(ours) & which
    session.flush()
    session.execute(
        update(Event)
        .where(Event.sequence.in_(select(Delivery.event_sequence).where(matching)))
        .values(telemetry=None)
        .execution_options(synchronize_session=False)
    )
    captures = list(
        session.scalars(select(Delivery.capture_id).where(matching, Delivery.capture_id.is_not(None)))
    )
    result = session.execute(delete(Delivery).where(matching).execution_options(synchronize_session=False))
    for start in range(0, len(captures), 500):
        some = captures[start : start + 500]
        session.execute(
            delete(Capture).where(Capture.id.in_(some)).execution_options(synchronize_session=False)
        )
    return int(getattr(result, "rowcount", 0))
