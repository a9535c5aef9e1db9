"""Projects, and what lies in their directories: pipelines and environments."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from clarion.database import UTCDateTime
from orchest.models.base import Base, Id, Name, one_of
from orchest.states import Language


class Project(Base):
    """A directory of pipelines and environments."""

    __tablename__ = "projects"

    uuid: Mapped[Id]
    name: Mapped[Name]
    path: Mapped[str] = mapped_column(Text())
    """Absolute path of its directory; unique, so two projects never share files."""
    env_variables: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    """Names and values given to every step of the project."""
    created: Mapped[datetime] = mapped_column(UTCDateTime())

    __table_args__ = (
        UniqueConstraint("path"),
        Index("ix_projects_created", "created", "uuid"),  # the list of projects, page by page
        CheckConstraint("name <> ''", name="name"),
    )


class Pipeline(Base):
    """A pipeline of a project.

    Its uuid comes from its file, and the same file can be in two projects: the key is the pair.
    """

    __tablename__ = "pipelines"

    project_uuid: Mapped[str] = mapped_column(ForeignKey(Project.uuid), primary_key=True)
    uuid: Mapped[Id]
    name: Mapped[Name]
    path: Mapped[str] = mapped_column(Text())
    """Of its file, relative to the project's directory."""
    definition: Mapped[dict[str, Any]] = mapped_column(JSON())
    """The file's JSON as it was last saved, unknown keys included."""
    env_variables: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    created: Mapped[datetime] = mapped_column(UTCDateTime())
    saved: Mapped[datetime] = mapped_column(UTCDateTime())
    """When the definition was last saved."""

    project: Mapped[Project] = relationship()

    __table_args__ = (
        UniqueConstraint("project_uuid", "path"),  # also: the pipelines of a project
        CheckConstraint("name <> ''", name="name"),
    )


class Environment(Base):
    """What steps run in: a directory with its own Python virtual environment, made by a build."""

    __tablename__ = "environments"

    uuid: Mapped[Id]
    project_uuid: Mapped[str] = mapped_column(ForeignKey(Project.uuid))
    name: Mapped[Name]
    base: Mapped[str] = mapped_column(String(255))
    """The base it is built on: the name of one of ours, or a path of the user's own."""
    base_is_ours: Mapped[bool] = mapped_column(default=True)
    """Whether ``base`` is one that the platform comes with."""
    language: Mapped[Language] = mapped_column(one_of(Language, name="language"))
    gpu_support: Mapped[bool] = mapped_column(default=False)
    setup_script: Mapped[str] = mapped_column(Text(), default="")
    created: Mapped[datetime] = mapped_column(UTCDateTime())

    project: Mapped[Project] = relationship()

    __table_args__ = (
        Index("ix_environments_project_uuid", "project_uuid", "created"),  # the environments of a project
        CheckConstraint("name <> ''", name="name"),
    )
