"""Answers kept for requests that are sent twice."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from clarion.database import UTCDateTime
from orchest.models.base import Base


class KeptAnswer(Base):
    """What a request with an ``Idempotency-Key`` was answered, written in the transaction that did the work.

    So there is an answer exactly when the work is done, and whoever repeats the request gets it again.
    """

    __tablename__ = "kept_answers"

    operation: Mapped[str] = mapped_column(String(512), primary_key=True)
    """Method and path: the same key may be used for another operation."""
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the body, as hex: the same key with another body is a mistake."""
    status: Mapped[int] = mapped_column(Integer())
    answer: Mapped[Any] = mapped_column(JSON())
    created: Mapped[datetime] = mapped_column(UTCDateTime())

    __table_args__ = (Index("ix_kept_answers_created", "created"),)  # those old enough to forget
