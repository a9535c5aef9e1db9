"""What the platform knows of itself: settings kept in the database, and who does what only one may do."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from clarion.database import UTCDateTime
from orchest.models.base import Base


class Setting(Base):
    """A value by its key, shared by all processes: the access token's hash, the installation's id, ..."""

    __tablename__ = "orchest_settings"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON())
    changed: Mapped[datetime] = mapped_column(UTCDateTime())


class SchedulerLease(Base):
    """The right to do ``name`` (fire schedules, send the heartbeat), held by one process of many.

    Whoever finds ``until`` in the past may take it; one UPDATE with both in its WHERE decides the race.
    """

    __tablename__ = "scheduler_leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str | None] = mapped_column(String(255))
    until: Mapped[datetime] = mapped_column(UTCDateTime())
