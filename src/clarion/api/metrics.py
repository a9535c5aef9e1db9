"""``GET /metrics``: how the outbox and telemetry are doing, in Prometheus' text format (version 0.0.4).

A router of its own, for any FastAPI application. What the database says is the same in every process; what
a process counts (attempts, refusals) is its own and begins at 0 with it, so scrape each of them.

===========================================  ==============================================================
``clarion_deliveries_pending{kind}``         deliveries that wait, by kind of subscriber
``clarion_oldest_pending_seconds{kind}``     how long ago the oldest happened of what waits
``clarion_deliveries_dead{kind}``            deliveries that were given up and are still kept
``clarion_telemetry_lost_total{reason}``     telemetry messages that were lost
``clarion_attempts_total{label}``            this process's attempts by outcome; ``delivered`` are deliveries
``clarion_..._total{label}``                 whatever else this process counts (`clarion.observe`)
===========================================  ==============================================================
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from fastapi import APIRouter
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session
from starlette.responses import PlainTextResponse, Response

from clarion.events import Event
from clarion.losses import losses
from clarion.observe import counters
from clarion.outbox.tables import DEAD, PENDING, Capture, Delivery
from clarion.subscriptions import Subscriber

MEDIA_TYPE = "text/plain; version=0.0.4"


def metrics_router(engine: Engine, clock: Callable[[], datetime]) -> APIRouter:
    """``GET /metrics`` for ``engine``'s database. Who may ask is for the application to say."""
    router = APIRouter()

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    def metrics() -> Response:
        """What waits to be delivered, since when, what was attempted, and what telemetry lost."""
        with Session(engine.execution_options(read_only=True)) as session:
            text = exposition(session, clock())
        return Response(text, media_type=MEDIA_TYPE)

    return router


def exposition(session: Session, now: datetime) -> str:
    """Every metric as of now."""
    waiting = pending(session)
    kinds = session.scalars(select(Subscriber.kind).distinct().order_by(Subscriber.kind)).all()
    lines = [
        *family("deliveries_pending", "gauge", "kind", {k: waiting.get(k, (0, now))[0] for k in kinds}),
        *family(
            "oldest_pending_seconds",
            "gauge",
            "kind",
            {k: max((now - waiting.get(k, (0, now))[1]).total_seconds(), 0.0) for k in kinds},
        ),
        *family("deliveries_dead", "gauge", "kind", dict.fromkeys(kinds, 0) | dead(session)),
        *family("telemetry_lost_total", "counter", "reason", losses(session)),
    ]
    for name, values in counters.snapshot().items():
        lines += family(f"{re.sub(r'[^a-z0-9_]', '_', name)}_total", "counter", "label", values)
    return "\n".join(lines) + "\n"


def family(name: str, kind: str, label: str, values: Mapping[str, float]) -> Iterator[str]:
    """One metric with each of its labels."""
    yield f"# TYPE clarion_{name} {kind}"
    yield from (f'clarion_{name}{{{label}="{escaped(key)}"}} {value}' for key, value in values.items())


def escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def pending(session: Session) -> dict[str, tuple[int, datetime]]:
    """How many deliveries wait for each kind of subscriber, and when the oldest happened.

    Reads the index of what waits, and one row a subscriber besides.
    """
    each = (
        select(Delivery.subscriber_id, func.count().label("count"), func.min(Delivery.id).label("oldest"))
        .where(Delivery.state == PENDING)
        .group_by(Delivery.subscriber_id)
        .subquery()
    )
    event = Event.__table__
    found = session.execute(
        select(
            Subscriber.kind,
            func.sum(each.c.count),
            func.min(func.coalesce(event.c.occurred_at, Capture.occurred_at)),
        )
        .select_from(each)
        .join(Subscriber, Subscriber.id == each.c.subscriber_id)
        .join(Delivery, Delivery.id == each.c.oldest)
        .outerjoin(event, event.c.sequence == Delivery.event_sequence)
        .outerjoin(Capture, Capture.id == Delivery.capture_id)
        .group_by(Subscriber.kind)
    )
    return {kind: (int(count), oldest) for kind, count, oldest in found}


def dead(session: Session) -> dict[str, int]:
    """How many deliveries to each kind of subscriber were given up."""
    found = session.execute(
        select(Subscriber.kind, func.count())
        .join(Delivery, Delivery.subscriber_id == Subscriber.id)
        .where(Delivery.state == DEAD)
        .group_by(Subscriber.kind)
    )
    return {kind: int(count) for kind, count in found}
