"""What telemetry has lost: counted where it happens, told once a day as an event of the library's own.

Counts lie in the database, so they survive restarts and are one for all processes. They are kept apart from
what was told already, so that each loss is told once.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, Connection, String, func, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from clarion.anonymous import Bucket
from clarion.captured import Captured, prop
from clarion.catalogue import Catalogue
from clarion.database import Base
from clarion.errors import Reason
from clarion.outbox.tables import DEAD, Attempt, Delivery
from clarion.subscriptions import Subscriber
from clarion.upkeep import Never, Upkeep

KIND = "analytics"
"""The kind of the subscriber that telemetry goes to."""


class Loss(StrEnum):
    """Why a telemetry message was lost. A closed list, safe as a metric label."""

    QUEUE_FULL = "queue_full"
    """Too many waited: the oldest were dropped."""
    SCHEMA_REJECT = "schema_reject"
    """It was not of its type's shape, or too large."""
    EXPIRED = "expired"
    """The backend took it in none of the attempts of a week."""
    REFUSED = "refused"
    """The backend will not take it."""
    DISABLED_PURGED = "disabled_purged"
    """It waited when telemetry was switched off."""
    BROWSER_DROPPED = "browser_dropped"
    """A browser could not hand it over."""


class TelemetryLost(Captured, kind="telemetry:events:lost", source="webserver"):
    """Telemetry events were lost since the last report; sent at most once a day, if there were any."""

    upkeep = Upkeep(
        owner="Clarion",
        since="0.1",
        expires=Never("Without it nobody knows how complete the other numbers are."),
        triggers=("clarion/analytics/reporting.py",),
    )

    lost: dict[Loss, Bucket] = prop(
        doc="How many events were lost, by why.",
        purpose="Whether the other numbers are complete, and what keeps events from arriving.",
    )


class TelemetryLoss(Base):
    """How many messages were lost for one reason, and how many of these were told."""

    __tablename__ = "telemetry_losses"

    reason: Mapped[str] = mapped_column(String(16), primary_key=True)
    lost: Mapped[int] = mapped_column(BigInteger())
    reported: Mapped[int] = mapped_column(BigInteger(), server_default=text("0"))


OWN: tuple[type[Captured], ...] = (TelemetryLost,)
"""What the library itself may send, in every application."""


def telemetry_types(types: Catalogue) -> Catalogue:
    """Everything telemetry may send where ``types`` are declared: these, and the library's own."""
    return Catalogue(dict.fromkeys((*types.classes, *OWN)))


COUNT = text(
    "INSERT INTO telemetry_losses (reason, lost, reported) VALUES (:reason, :lost, 0) "
    "ON CONFLICT (reason) DO UPDATE SET lost = telemetry_losses.lost + excluded.lost"
)


def lose(connection: Connection | Session, lost: Mapping[Loss, int]) -> None:
    """Count losses, in the caller's transaction."""
    for reason in sorted(lost):
        if lost[reason] > 0:
            connection.execute(COUNT, {"reason": reason.value, "lost": lost[reason]})


def losses(connection: Connection | Session) -> dict[str, int]:
    """How many were lost since ever, by reason."""
    columns = select(TelemetryLoss.reason, TelemetryLoss.lost).order_by(TelemetryLoss.reason)
    return {str(reason): int(lost) for reason, lost in connection.execute(columns)}


def take_unreported(connection: Connection | Session) -> dict[str, int]:
    """What was not told yet, by reason; from now on it counts as told."""
    untold = TelemetryLoss.lost - TelemetryLoss.reported
    columns = select(TelemetryLoss.reason, untold).where(untold > 0)
    taken = {str(reason): int(count) for reason, count in connection.execute(columns)}
    connection.execute(update(TelemetryLoss).values(reported=TelemetryLoss.lost))
    return taken


def given_up(connection: Connection | Session, since: datetime | None, until: datetime) -> dict[Loss, int]:
    """How many deliveries to analytics died between two times: withheld, refused, or tried for a week."""
    ours = select(Subscriber.id).where(Subscriber.kind == KIND).scalar_subquery()
    last = (Attempt.delivery_id == Delivery.id) & (Attempt.number == Delivery.attempts)
    query = (
        select(Attempt.outcome, Attempt.reason, func.count())
        .select_from(Delivery)
        .outerjoin(Attempt, last)
        .where(Delivery.subscriber_id.in_(ours), Delivery.state == DEAD, Delivery.finished_at < until)
        .group_by(Attempt.outcome, Attempt.reason)
    )
    if since is not None:
        query = query.where(Delivery.finished_at >= since)
    found: dict[Loss, int] = {}
    for outcome, why, count in connection.execute(query):
        withheld = Loss.SCHEMA_REJECT if why == Reason.INTERNAL.value else Loss.REFUSED  # by the last gate
        reason = Loss.EXPIRED if outcome == "retry" else withheld
        found[reason] = found.get(reason, 0) + count
    return found
