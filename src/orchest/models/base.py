"""The platform's mapped base and its column shapes.

The tables lie in the same database as Clarion's (an event is recorded in the transaction that made it
true), but in a `MetaData` of their own: Clarion's migrations and the platform's are two histories.
"""

from enum import StrEnum
from typing import Annotated, Any
from uuid import uuid4

from sqlalchemy import JSON, Enum, MetaData, String
from sqlalchemy.orm import DeclarativeBase, mapped_column

from clarion.database import metadata as clarion_metadata


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
