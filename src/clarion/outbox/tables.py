"""The outbox's tables: what must be told to whom, and every attempt to do so."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from clarion.database import Base, BigId, UTCDateTime
from clarion.events import Event

PENDING, DELIVERED, DEAD, CANCELLED = STATES = ("pending", "delivered", "dead", "cancelled")

LIVE = text("state = 'pending'")


class Capture(Base):
    """A telemetry message without an event: sent straight to analytics."""

    __tablename__ = "captures"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    uuid: Mapped[UUID] = mapped_column(Uuid(), unique=True)
    type: Mapped[str] = mapped_column(String(255))
    occurred_at: Mapped[datetime] = mapped_column(UTCDateTime())
    telemetry: Mapped[dict[str, Any]] = mapped_column(JSON())

    __table_args__ = (
        Index("ix_captures_occurred_at", "occurred_at"),  # retention: captures older than
        {"sqlite_autoincrement": True},
    )


class Delivery(Base):
    """Someone must be told of something.

        pending ──► delivered
           │  ▲
           │  └──── redelivered by hand ──── dead, cancelled, delivered
           ├──► dead        attempts used up, or refused for good
           └──► cancelled   the subscriber is gone

    A relay that holds a delivery has set ``lease_token`` and moved ``due_at`` to the end of its lease, so
    one comparison with the clock finds both what is due and what a killed relay has left behind.
    """

    __tablename__ = "deliveries"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    event_sequence: Mapped[int | None] = mapped_column(ForeignKey(Event.sequence, ondelete="CASCADE"))
    capture_id: Mapped[int | None] = mapped_column(ForeignKey(Capture.id, ondelete="CASCADE"))
    subscriber_id: Mapped[int] = mapped_column(BigId)
    """No foreign key: a delivery stays visible when its subscriber is gone, and recording locks no row."""
    state: Mapped[str] = mapped_column(String(16), server_default=PENDING)
    due_at: Mapped[datetime] = mapped_column(UTCDateTime())
    lease_token: Mapped[UUID | None] = mapped_column(Uuid())
    attempts: Mapped[int] = mapped_column(Integer(), server_default=text("0"))
    """How many attempts were made, in all."""
    round: Mapped[int] = mapped_column(Integer(), server_default=text("0"))
    """How many of them were made before it was last redelivered by hand; the schedule counts from there."""
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime())

    __table_args__ = (
        UniqueConstraint("event_sequence", "subscriber_id"),  # told once; also: who was told of an event
        UniqueConstraint("capture_id", "subscriber_id"),
        CheckConstraint(f"state IN {STATES}", name="state"),
        CheckConstraint("(event_sequence IS NULL) <> (capture_id IS NULL)", name="subject"),
        CheckConstraint("(finished_at IS NULL) = (state = 'pending')", name="finished"),
        CheckConstraint("lease_token IS NULL OR state = 'pending'", name="lease"),
        # claim: the due deliveries of one subscriber; subscribers that have any
        Index(
            "ix_deliveries_due",
            "subscriber_id",
            "due_at",
            "id",
            postgresql_where=LIVE,
            sqlite_where=LIVE,
        ),
        # the dead and the cancelled, newest first; there are few
        Index(
            "ix_deliveries_unfinished",
            "state",
            "id",
            postgresql_where=text("state IN ('dead', 'cancelled')"),
            sqlite_where=text("state IN ('dead', 'cancelled')"),
        ),
        Index("ix_deliveries_finished_at", "finished_at"),  # retention: finished before
        {
            "sqlite_autoincrement": True,
            # a queue's table turns over all day: vacuum by count, not by share of the table
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": "0",
                "autovacuum_vacuum_threshold": "5000",
                "autovacuum_vacuum_cost_delay": "0",
            },
        },
    )


class Attempt(Base):
    """One try: when, how long, what came back."""

    __tablename__ = "attempts"

    delivery_id: Mapped[int] = mapped_column(ForeignKey(Delivery.id, ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer(), primary_key=True)
    """Counts from 1."""
    started_at: Mapped[datetime] = mapped_column(UTCDateTime())
    duration_ms: Mapped[int] = mapped_column(Integer())
    outcome: Mapped[str] = mapped_column(String(16))
    status: Mapped[int | None] = mapped_column(Integer())
    """The HTTP status, if an answer came."""
    reason: Mapped[str | None] = mapped_column(String(16))
    """Why it was not delivered: one of `errors.Reason`."""
    detail: Mapped[str | None] = mapped_column(Text())
    headers: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    body: Mapped[bytes | None] = mapped_column(LargeBinary())
    truncated: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = (
        CheckConstraint("outcome IN ('delivered', 'retry', 'dead')", name="outcome"),
        CheckConstraint("(reason IS NULL) = (outcome = 'delivered')", name="reason"),
    )
