"""What telemetry sends, shown before it is sent: the same bytes from the same function."""

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clarion.analytics.capturing import Analytics
from clarion.catalogue import EXAMPLE, Catalogue
from clarion.deliverees.analytics import AnalyticsDeliveree, deliveree_of
from clarion.deliverees.backends import BATCH, Envelope, backend_named
from clarion.envelope import AppProperties, detect_system, render
from clarion.errors import NotFound
from clarion.events import Event
from clarion.losses import KIND
from clarion.messages import Message
from clarion.outbox.tables import PENDING, Capture, Delivery
from clarion.subscriptions import Subscriber
from clarion.telemetry import TelemetryState, state_of


def preview(analytics: Analytics, type: str | None = None) -> bytes:
    """The exact body of the next request, or of a request with one example of ``type``, as if sent now.

    Byte for byte what a relay sends that looks now; one that looks later says so in ``sent_at`` (PostHog's
    format; ``sentAt`` in Segment's), and takes what has become due by then.

    Raises:
        NotFound: nothing waits, telemetry is not configured and no type is given, or there is no such type.
    """
    if analytics.engine is None:
        raise NotFound("telemetry is not configured: there is no analytics backend to send to")
    config, now = analytics.telemetry.config, analytics.clock()
    with Session(analytics.engine.execution_options(read_only=True)) as session:
        if type is not None:
            made = example(analytics.types, type, now)
            state = configured_state(session)
            return (unconfigured() if state is None else deliveree_of(state, config)).body([made], now)
        deliveree = deliveree_of(state_of(session), config)
        for batch in batches(session, now, deliveree.batch):
            if deliveree.events(batch):  # of a batch that may not leave as a whole there is no request
                return deliveree.body(batch, now)
        raise NotFound("nothing waits to be sent; name a type to see an example of it")


def unconfigured() -> AnalyticsDeliveree:
    """What shows examples before a backend is configured: an id of nobody, and the usual wire format."""
    app, system = json.dumps(render(AppProperties())), json.dumps(render(detect_system()))
    return AnalyticsDeliveree(backend_named("posthog"), "", "", Envelope(str(EXAMPLE), app, system), b"")


def shown(event: Event) -> None:
    """Print a recorded event's telemetry to standard error: `Recording.telemetry_shown`."""
    print_message(
        Message(event.uuid, event.type, event.occurred_at, None, 1, None, json.dumps(event.telemetry))
    )


def print_message(message: Message) -> None:
    """Print what would be sent of a message, but for the installation's id and the write key."""
    print(unconfigured().body([message], message.occurred_at).decode(), file=sys.stderr)


def batches(session: Session, now: datetime, size: int = BATCH) -> Iterator[list[Message]]:
    """What is due now, or else what will be first, in the batches and the order a relay takes it in."""
    told = select(Subscriber.id).where(Subscriber.kind == KIND, Subscriber.enabled)
    waits = (Delivery.state == PENDING) & Delivery.subscriber_id.in_(told)
    first = session.scalar(select(func.min(Delivery.due_at)).where(waits))
    if first is None:
        return
    due = waits & (Delivery.due_at <= max(first, now))
    for start in itertools.count(0, size):
        found = rows(session, due, (Delivery.due_at, Delivery.id), size, start)
        if not found:
            return
        yield [message_of(*row) for row in found]


def finished(session: Session, limit: int) -> list[tuple[Message, Delivery]]:
    """What was sent or given up last, newest first."""
    found = rows(session, Delivery.state != PENDING, (Delivery.id.desc(),), limit)
    return [(message_of(delivery, event, capture), delivery) for delivery, event, capture in found]


def rows(
    session: Session, which: Any, order: Sequence[Any], limit: int, offset: int = 0
) -> list[tuple[Delivery, Any, Capture | None]]:
    ours = select(Subscriber.id).where(Subscriber.kind == KIND)
    table = Event.__table__.c
    query = (
        select(Delivery, table.uuid, table.type, table.occurred_at, table.telemetry, Capture)
        .outerjoin(Event.__table__, table.sequence == Delivery.event_sequence)
        .outerjoin(Capture, Capture.id == Delivery.capture_id)
        .where(Delivery.subscriber_id.in_(ours), which)
        .order_by(*order)
        .limit(limit)
        .offset(offset)
    )
    return [(row[0], row[1:5], row[5]) for row in session.execute(query)]


def message_of(delivery: Delivery, event: Any, capture: Capture | None) -> Message:
    if capture is not None:
        uuid, type, at, telemetry = capture.uuid, capture.type, capture.occurred_at, capture.telemetry
    else:
        uuid, type, at, telemetry = event
    text = None if telemetry is None else json.dumps(telemetry)
    return Message(uuid, type, at, delivery.event_sequence, delivery.attempts + 1, None, text)


def example(types: Catalogue, name: str, now: datetime) -> Message:
    """A made-up message of a type, with the first allowed value of every field. Raises NotFound."""
    event_type = types[name]
    telemetry = event_type.telemetry_example(now)
    return Message(EXAMPLE, name, now, None, 1, None, json.dumps(telemetry))


def configured_state(session: Session) -> TelemetryState | None:
    """Telemetry's state, or None if it was never configured."""
    return session.get(TelemetryState, 1)
