"""What happened and who was told of it: events, deliveries and their attempts."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import ColumnElement, Row, Select, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from clarion.errors import NotFound
from clarion.events import Event
from clarion.outbox import Attempt, Delivery, redeliver
from clarion.subscriptions import Subscriber, check_pattern, matches
from orchest import subscribers
from orchest.api.http import (
    Number,
    Page,
    PageQuery,
    Readers,
    Shown,
    ThePlatform,
    Time,
    Uuid,
    problems,
)
from orchest.events import CATALOGUE

router = APIRouter(prefix="/api/notifications", tags=["notifications"])

State = Literal["pending", "delivered", "dead", "cancelled"]


class EventShown(Shown):
    """Something that happened."""

    uuid: str
    sequence: int = Field(description="Counts up; events are listed by it.")
    type: str
    occurred_at: Time
    summary: str

    @classmethod
    def of(cls, row: Any, **more: Any) -> Self:
        return cls(
            uuid=str(row.uuid),
            sequence=row.sequence,
            type=row.type,
            occurred_at=row.occurred_at,
            summary=str((row.notification or {}).get("summary", "")),
            **more,
        )


class EventDetails(EventShown):
    """Something that happened, as subscribers see it and as telemetry does, and who was told."""

    notification: dict[str, Any] = Field(description="The payload subscribers are sent.")
    telemetry: dict[str, Any] | None = Field(
        description="The properties telemetry sends; null if it was off then, or before it sent them."
    )
    deliveries: list["DeliveryShown"]


class DeliveryShown(Shown):
    """A subscriber must be told of an event."""

    id: int
    state: State
    event: EventShown
    subscriber_uuid: str | None = Field(description="Null once the subscriber is deleted.")
    subscriber_name: str | None
    attempts: int = Field(description="How many there were.")
    due_at: Time | None = Field(description="When the next attempt is due; null when there is none.")
    in_flight: bool = Field(description="Whether a relay holds it now.")
    finished_at: Time | None


class AttemptShown(Shown):
    """One try to deliver."""

    number: int
    started_at: Time
    duration_ms: int
    outcome: str = Field(description="`delivered`, `retry` or `dead`.")
    status: int | None = Field(description="The HTTP status that was answered, if anything was.")
    reason: str | None = Field(description="Why it was not delivered, in one word.")
    detail: str | None = Field(description="Why it was not delivered, in a sentence.")
    headers: dict[str, str] | None = Field(description="Of the answer.")
    body: str | None = Field(description="Of the answer, its first 16 KiB.")
    truncated: bool

    @classmethod
    def of(cls, row: Attempt) -> Self:
        body = None if row.body is None else row.body.decode("utf-8", "replace")
        columns = ("number", "started_at", "duration_ms", "outcome", "status", "reason", "detail", "headers")
        return cls(**{name: getattr(row, name) for name in columns}, body=body, truncated=bool(row.truncated))


class DeliveryDetails(DeliveryShown):
    """A delivery with every attempt."""

    tries: list[AttemptShown]


EVENT = (
    Event.sequence,
    Event.uuid,
    Event.type,
    Event.occurred_at,
    Event.notification,
)
"""The columns that are shown; not the mapped class, so that types no longer declared stay readable."""


def delivery_rows(*where: ColumnElement[bool]) -> Select[Any]:
    """Deliveries of events to subscribers that are shown, or that are gone."""
    return (
        select(Delivery, *EVENT, Subscriber.uuid.label("subscriber_uuid"), Subscriber.name)
        .join(Event, Event.sequence == Delivery.event_sequence)
        .outerjoin(Subscriber, Subscriber.id == Delivery.subscriber_id)
        .where(or_(Subscriber.id.is_(None), subscribers.visible()), *where)
    )


def shown(row: Row[Any]) -> dict[str, Any]:
    delivery: Delivery = row.Delivery
    pending = delivery.state == "pending"
    return {
        "id": delivery.id,
        "state": delivery.state,
        "event": EventShown.of(row),
        "subscriber_uuid": None if row.subscriber_uuid is None else str(row.subscriber_uuid),
        "subscriber_name": row.name,
        "attempts": delivery.attempts,
        "due_at": delivery.due_at if pending else None,
        "in_flight": delivery.lease_token is not None,
        "finished_at": delivery.finished_at,
    }


def find_delivery(session: Session, delivery_id: int) -> DeliveryDetails:
    row = session.execute(delivery_rows(Delivery.id == delivery_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no delivery {delivery_id}")
    tries = session.scalars(
        select(Attempt).where(Attempt.delivery_id == delivery_id).order_by(Attempt.number)
    )
    return DeliveryDetails(**shown(row), tries=[AttemptShown.of(one) for one in tries])


def of_type(pattern: str) -> ColumnElement[bool]:
    """Events whose type matches. Raises InvalidSubscription, which says what a pattern is."""
    check_pattern(CATALOGUE.recorded, pattern)
    return Event.type.in_([one.name for one in CATALOGUE.recorded if matches(pattern, one.name)])


def within(scope: str) -> ColumnElement[bool]:
    """Events at or below a scope."""
    return or_(Event.scope == scope, Event.scope.startswith(f"{scope}/", autoescape=True))


Type = Annotated[str | None, Query(max_length=255, description="A type, or a pattern such as `*:failed`.")]


@router.get("/events")
def list_events(
    page: PageQuery,
    readers: Readers,
    type: Type = None,
    project_uuid: Annotated[Uuid | None, Query(description="Only of this project.")] = None,
) -> Page[EventShown]:
    """What happened, the newest first; also what belongs to things that are deleted."""
    with readers() as session:
        query = select(*EVENT)
        if type is not None:
            query = query.where(of_type(type))
        if project_uuid is not None:
            query = query.where(within(f"project/{project_uuid}"))
        by: Sequence[InstrumentedAttribute[Any]] = (Event.sequence,)
        rows, cursor = page.cut(session.execute(page.ordered(query, by)).all(), by)
        return Page(items=[EventShown.of(row) for row in rows], next=cursor)


@router.get("/events/{event_uuid}", responses=problems(404))
def show_event(event_uuid: Uuid, readers: Readers) -> EventDetails:
    """One event, the payload subscribers see, what telemetry sends, and who was told."""
    with readers() as session:
        return find_event(session, event_uuid)


def find_event(session: Session, event_uuid: str) -> EventDetails:
    columns = select(*EVENT, Event.telemetry).where(Event.uuid == UUID(event_uuid))
    row = session.execute(columns).one_or_none()
    if row is None:
        raise NotFound(f"there is no event {event_uuid}")
    query = delivery_rows(Delivery.event_sequence == row.sequence).order_by(Delivery.id)
    deliveries = [DeliveryShown(**shown(one)) for one in session.execute(query)]
    frozen = {"notification": row.notification, "telemetry": row.telemetry}
    return EventDetails.of(row, **frozen, deliveries=deliveries)


@router.get("/deliveries")
def list_deliveries(
    page: PageQuery,
    readers: Readers,
    state: State | None = None,
    subscriber_uuid: Annotated[Uuid | None, Query(description="Only to this subscriber.")] = None,
    type: Type = None,
) -> Page[DeliveryShown]:
    """Who must be told of what, the newest first."""
    where = []
    if state is not None:
        where.append(Delivery.state == state)
    if subscriber_uuid is not None:
        where.append(Subscriber.uuid == UUID(subscriber_uuid))
    if type is not None:
        where.append(of_type(type))
    by: Sequence[InstrumentedAttribute[Any]] = (Delivery.id,)
    with readers() as session:
        query = page.ordered(delivery_rows(*where), by)
        rows = [DeliveryShown(**shown(row)) for row in session.execute(query)]
        kept, cursor = page.cut(rows, by)
        return Page(items=list(kept), next=cursor)


@router.get("/deliveries/{delivery_id}", responses=problems(404))
def show_delivery(delivery_id: Number, readers: Readers) -> DeliveryDetails:
    """One delivery, with every attempt and what was answered."""
    with readers() as session:
        return find_delivery(session, delivery_id)


@router.post("/deliveries/{delivery_id}/redeliver", responses=problems(404, 409))
def redeliver_delivery(delivery_id: Number, platform: ThePlatform) -> DeliveryDetails:
    """Deliver what is delivered, dead or cancelled once more, under the same message id."""
    with platform.sessions.begin() as session:
        find_delivery(session, delivery_id)
        redeliver(session, delivery_id, platform.site.clock())
        shown_again = find_delivery(session, delivery_id)
    platform.nudge_relay()
    return shown_again
