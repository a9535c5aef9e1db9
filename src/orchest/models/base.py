"""The platform's mapped base, its column shapes and the states its rows can be in.

The tables lie in the same database as Clarion's (an event is recorded in the transaction that made it
true), but in a `MetaData` of their own: Clarion's migrations and the platform's are two histories.
"""

from enum import StrEnum
from typing import Annotated, Any
from uuid import uuid4

from sqlalchemy import JSON, Enum, MetaData, String
from sqlalchemy.orm import DeclarativeBase, mapped_column

from clarion.database import metadata as clarion_metadata


class Status(StrEnum):
    """The state of a build, a pipeline run, a step or a cron run; the last three are final."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    ABORTED = "ABORTED"


class JobStatus(StrEnum):
    """The state of a job; SUCCESS, FAILURE and ABORTED are final. Only a cron job is ever PAUSED."""

    DRAFT = "DRAFT"
    PENDING = "PENDING"
    STARTED = "STARTED"
    PAUSED = "PAUSED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    ABORTED = "ABORTED"


class SessionStatus(StrEnum):
    """The state of an interactive session. A session that has ended has no row."""

    LAUNCHING = "LAUNCHING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"


class Language(StrEnum):
    """What an environment's kernel speaks."""

    PYTHON = "python"
    R = "r"
    JULIA = "julia"
    OTHER = "other"


FINAL = frozenset({"SUCCESS", "FAILURE", "ABORTED"})
"""States that nothing leaves: a late or repeated transition changes nothing."""


class Base(DeclarativeBase):
    """The base of the platform's mapped classes; ``metadata`` holds the platform's tables and no others."""

    metadata = MetaData(naming_convention=clarion_metadata.naming_convention)
    type_annotation_map = {dict[str, Any]: JSON(), list[Any]: JSON()}


def new_uuid() -> str:
    return str(uuid4())


Id = Annotated[str, mapped_column(String(36), primary_key=True, default=new_uuid)]
"""A uuid4 as text; given by the caller or made when the row is inserted."""

Name = Annotated[str, mapped_column(String(255))]


def one_of(states: type[StrEnum], *, name: str = "status") -> Enum:
    """Text that holds a value of ``states`` and, by a CHECK of the table, nothing else."""
    return Enum(
        states,
        native_enum=False,
        create_constraint=True,
        length=16,
        name=name,
        values_callable=lambda members: [member.value for member in members],
    )
