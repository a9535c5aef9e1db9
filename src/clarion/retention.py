"""Retention: what is finished and old is deleted, in small batches that block nobody."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Engine, delete, exists, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from clarion.backlog import trim
from clarion.events import Event
from clarion.outbox.tables import Capture, Delivery
from clarion.telemetry import ROTATION, rotate

BATCH = 1000
"""Rows deleted in one transaction."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How long what is kept. None keeps it for ever.

    A delivery is kept, with its attempts, from when it was finished; an event from when it happened. What
    still has a delivery is not deleted before that is.
    """

    deliveries: timedelta | None = timedelta(days=90)
    events: timedelta | None = None
    captures: timedelta | None = timedelta(days=7)
    identity: timedelta | None = ROTATION
    """How long telemetry's id and key stay the same, unless the id was given (`telemetry.rotate`)."""


DEFAULT = Kept()


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows were deleted."""

    deliveries: int = 0
    events: int = 0
    captures: int = 0
    telemetry: int = 0
    """Messages to analytics that were dropped because too many waited."""
    identity: bool = False
    """Whether telemetry's id and key were replaced."""


def prune(engine: Engine, now: datetime, kept: Kept = DEFAULT) -> Pruned:
    """Delete what is older than ``kept`` says; pending deliveries, and what they refer to, stay.

    All but those to analytics, of which no more than `telemetry.BACKLOG` may wait, and none when its
    identity is replaced.
    """
    with Session(engine) as session, session.begin():
        dropped = trim(session)
        renewed = rotate(session, now, kept.identity)
    has_delivery = exists().where(Delivery.event_sequence == Event.sequence)
    has_capture_delivery = exists().where(Delivery.capture_id == Capture.id)
    return Pruned(
        deliveries=count(engine, Delivery.id, older(Delivery.finished_at, now, kept.deliveries)),
        events=count(engine, Event.sequence, older(Event.occurred_at, now, kept.events), ~has_delivery),
        captures=count(
            engine, Capture.id, older(Capture.occurred_at, now, kept.captures), ~has_capture_delivery
        ),
        telemetry=dropped,
        identity=renewed,
    )


def older(
    column: "InstrumentedAttribute[Any]", now: datetime, age: timedelta | None
) -> ColumnElement[bool] | None:
    return None if age is None else column < now - age


def count(
    engine: Engine,
    key: "InstrumentedAttribute[int]",
    old: ColumnElement[bool] | None,
    *also: ColumnElement[bool],
) -> int:
    return 0 if old is None else sum(batches(engine, key, old, *also))


def batches(engine: Engine, key: "InstrumentedAttribute[int]", *where: ColumnElement[bool]) -> Iterator[int]:
    """Delete the rows a batch at a time, each in a transaction of its own; yields how many went."""
    while True:
        with engine.begin() as connection:
            ids = connection.scalars(select(key).where(*where).order_by(key).limit(BATCH)).all()
            if ids:
                connection.execute(delete(key.class_).where(key.in_(ids)))
        if not ids:
            return
        yield len(ids)
