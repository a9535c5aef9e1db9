"""Interactive sessions and the processes of their services."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, ForeignKeyConstraint, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from clarion.database import UTCDateTime
from orchest.models.base import Base, new_uuid, one_of
from orchest.models.projects import Pipeline, Project
from orchest.states import SessionStatus


class InteractiveSession(Base):
    """A pipeline opened for interactive work; one at most a pipeline, and none once it has ended."""

    __tablename__ = "interactive_sessions"

    project_uuid: Mapped[str] = mapped_column(String(36), primary_key=True)
    pipeline_uuid: Mapped[str] = mapped_column(String(36), primary_key=True)
    uuid: Mapped[str] = mapped_column(String(36), default=new_uuid, unique=True)
    status: Mapped[SessionStatus] = mapped_column(
        one_of(SessionStatus), default=SessionStatus.LAUNCHING, index=True
    )  # indexed: the sessions a restarted platform must take up or end
    definition: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    """The pipeline's definition as it was when the session started; its services come from here."""
    requested: Mapped[datetime] = mapped_column(UTCDateTime())
    started: Mapped[datetime | None] = mapped_column(UTCDateTime())
    """When all of its services ran."""
    owner: Mapped[str | None] = mapped_column(String(255))
    """The process that runs its services."""
    heartbeat: Mapped[datetime | None] = mapped_column(UTCDateTime())

    pipeline: Mapped[Pipeline] = relationship()
    project: Mapped[Project] = relationship(
        viewonly=True,
        primaryjoin=lambda: InteractiveSession.project_uuid == Project.uuid,
        foreign_keys=project_uuid,
    )
    services: Mapped[list["ServiceProcess"]] = relationship(
        back_populates="session",
        cascade="all, delete-orphan",
        passive_deletes=True,
        order_by=lambda: ServiceProcess.name,
    )

    __table_args__ = (
        ForeignKeyConstraint(["project_uuid", "pipeline_uuid"], [Pipeline.project_uuid, Pipeline.uuid]),
    )


class ServiceProcess(Base):
    """A service of a session: a process with its ports and its log."""

    __tablename__ = "service_processes"

    session_uuid: Mapped[str] = mapped_column(
        ForeignKey(InteractiveSession.uuid, ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    pid: Mapped[int | None] = mapped_column(Integer())
    """None while it does not run."""
    ports: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    """The ports the definition names, each with the one it really listens on."""
    restarts: Mapped[int] = mapped_column(Integer(), default=0)
    started: Mapped[datetime | None] = mapped_column(UTCDateTime())
    exit_code: Mapped[int | None] = mapped_column(Integer())
    """Of its last end; negative is the signal that killed it."""
    log_path: Mapped[str | None] = mapped_column(Text())

    session: Mapped[InteractiveSession] = relationship(back_populates="services")

    __table_args__ = (CheckConstraint("restarts >= 0", name="restarts"),)
