"""What people do to deliveries by hand: redeliver, replay, cancel, delete a subscriber."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, exists, func, insert, literal, select, update
from sqlalchemy.orm import Session

from clarion.errors import Conflict, NotFound
from clarion.events import Event
from clarion.outbox.tables import CANCELLED, PENDING, Delivery
from clarion.subscriptions import EVERYWHERE, Subscriber


def redeliver(session: Session, delivery_id: int, now: datetime) -> Delivery:
    """Make a finished delivery due again, with its message id and a fresh schedule.

    Raises:
        NotFound: there is no such delivery.
        Conflict: it is still pending, or its subscriber is gone.
    """
    # as it is now, and held: another may have redelivered it meanwhile, and a relay hold it
    delivery = session.get(Delivery, delivery_id, with_for_update=True)
    if delivery is None:
        raise NotFound(f"there is no delivery {delivery_id}")
    if delivery.state == PENDING:
        raise Conflict(f"delivery {delivery_id} is still pending; it is next due at {delivery.due_at}")
    if session.scalar(select(Subscriber.id).where(Subscriber.id == delivery.subscriber_id)) is None:
        raise Conflict(f"the subscriber of delivery {delivery_id} is gone")
    delivery.state, delivery.finished_at, delivery.due_at = PENDING, None, now
    delivery.round = delivery.attempts
    session.flush()
    return delivery


def replay(session: Session, subscriber: Subscriber, events: Iterable[int], now: datetime) -> int:
    """Tell ``subscriber`` of old events by sequence; those it was told of before are left alone.

    Returns how many deliveries were added. Events outside the subscriber's own scope are not told.
    """
    known = exists().where(Delivery.event_sequence == Event.sequence, Delivery.subscriber_id == subscriber.id)
    missing = select(Event.sequence, literal(subscriber.id), literal(now, Delivery.due_at.type)).where(
        Event.sequence.in_(list(events)), ~known
    )
    if subscriber.owner != EVERYWHERE:
        beneath = f"{subscriber.owner}/"
        # not LIKE, which on SQLite takes no notice of case
        inside = func.substr(Event.scope, 1, len(beneath)) == beneath
        missing = missing.where((Event.scope == subscriber.owner) | inside)
    result = session.execute(
        insert(Delivery).from_select(["event_sequence", "subscriber_id", "due_at"], missing),
        execution_options={"preserve_rowcount": True},
    )
    return int(getattr(result, "rowcount", 0))


def cancel_deliveries(session: Session, subscriber_id: int, now: datetime) -> int:
    """Cancel what is pending for a subscriber; an attempt in flight finds its lease gone."""
    result = session.execute(
        update(Delivery)
        .where(Delivery.subscriber_id == subscriber_id, Delivery.state == PENDING)
        .values(state=CANCELLED, finished_at=now, lease_token=None)
        .execution_options(synchronize_session=False)
    )
    return int(getattr(result, "rowcount", 0))


def delete_subscriber(session: Session, subscriber: Subscriber, now: datetime) -> int:
    """Delete a subscriber and cancel what is pending for it; what was delivered stays visible.

    Returns how many deliveries were cancelled. One that a transaction still open adds meanwhile is
    cancelled when it is claimed.
    """
    cancelled = cancel_deliveries(session, subscriber.id, now)
    session.execute(delete(Subscriber).where(Subscriber.id == subscriber.id))
    session.expunge(subscriber)
    return cancelled
