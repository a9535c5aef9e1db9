"""Image builds: of an environment and of the user's JupyterLab. One shape, two tables."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from clarion.database import UTCDateTime
from orchest.models.base import Base, Id, one_of
from orchest.models.projects import Environment
from orchest.states import Language, Status

ENDED = "(finished IS NULL) = (status IN ('PENDING', 'STARTED'))"
UNFINISHED = text("status IN ('PENDING', 'STARTED')")


class ImageBuild:
    """What both builds are: PENDING, STARTED, then SUCCESS, FAILURE or ABORTED for good.

    ``gpu_support``, ``language`` and ``base_is_ours`` are what was built, copied when it was asked for: the
    environment may have changed since. ``image_tag`` counts up from 1 within what is built.
    """

    uuid: Mapped[Id]
    image_tag: Mapped[int] = mapped_column(Integer())
    status: Mapped[Status] = mapped_column(one_of(Status), default=Status.PENDING)
    requested: Mapped[datetime] = mapped_column(UTCDateTime())
    started: Mapped[datetime | None] = mapped_column(UTCDateTime())
    finished: Mapped[datetime | None] = mapped_column(UTCDateTime())
    reason: Mapped[str | None] = mapped_column(Text())
    """Why it failed or was aborted, for people."""
    log_path: Mapped[str | None] = mapped_column(Text())
    """Of the log it streams to."""
    image_path: Mapped[str | None] = mapped_column(Text())
    """Of the directory that was built."""
    setup_script: Mapped[str] = mapped_column(Text(), default="")
    gpu_support: Mapped[bool] = mapped_column(default=False)
    language: Mapped[Language] = mapped_column(one_of(Language, name="language"), default=Language.PYTHON)
    base_is_ours: Mapped[bool] = mapped_column(default=True)
    owner: Mapped[str | None] = mapped_column(String(255))
    """The process that builds it; None before one has taken it."""
    heartbeat: Mapped[datetime | None] = mapped_column(UTCDateTime())
    """When its owner last said that it lives; an old one means that the build is an orphan."""


class EnvironmentImageBuild(ImageBuild, Base):
    """A build of an environment; of its successful ones, that with the highest tag is in use."""

    __tablename__ = "environment_image_builds"

    environment_uuid: Mapped[str] = mapped_column(ForeignKey(Environment.uuid))

    environment: Mapped[Environment] = relationship()

    __table_args__ = (
        UniqueConstraint("environment_uuid", "image_tag"),  # also: an environment's builds, newest first
        # at most one build of an environment is under way; also: those to start and to watch
        Index(
            "uq_environment_image_builds_unfinished",
            "environment_uuid",
            unique=True,
            postgresql_where=UNFINISHED,
            sqlite_where=UNFINISHED,
        ),
        CheckConstraint(ENDED, name="ended"),
        CheckConstraint("image_tag > 0", name="image_tag"),
    )


class JupyterImageBuild(ImageBuild, Base):
    """A build of the user's JupyterLab from their set-up script; there is one JupyterLab."""

    __tablename__ = "jupyter_image_builds"

    __table_args__ = (
        UniqueConstraint("image_tag"),  # also: the builds, newest first
        # those to start and to watch
        Index(
            "ix_jupyter_image_builds_unfinished",
            "status",
            postgresql_where=UNFINISHED,
            sqlite_where=UNFINISHED,
        ),
        CheckConstraint(ENDED, name="ended"),
        CheckConstraint("image_tag > 0", name="image_tag"),
    )
