"""Lists page by page: ``{items, next}``. A cursor holds where a page ended, so what is added meanwhile
neither repeats nor hides anything."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute, Session
from typing_extensions import TypeVarTuple

from clarion.database import UTCDateTime
from orchest.errors import FieldProblem, InvalidFields

Row = TypeVar("Row")
Found = TypeVar("Found")
Columns = TypeVarTuple("Columns")
Shown = TypeVar("Shown")

MOST = 200
USUAL = 50


class Page(BaseModel, Generic[Shown]):
    """A page of a list."""

    items: list[Shown]
    next: str | None = Field(
        default=None, description="Give it as `cursor` to get the next page; null on the last."
    )


class Paging:
    """The query parameters of a list, and the page they ask for."""

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=MOST, description="The most items a page has.")] = USUAL,
        cursor: Annotated[
            str | None, Query(max_length=1024, description="`next` of the page before.")
        ] = None,
    ) -> None:
        self.limit = limit
        self.cursor = cursor

    def page(
        self,
        session: Session,
        query: Select[Row],
        by: Sequence[InstrumentedAttribute[Any]],
        show: Callable[[Row], Shown],
        *,
        newest_first: bool = True,
    ) -> Page[Shown]:
        """The page of ``query`` in the order of ``by``, the last of which is unique.

        Raises:
            InvalidFields: the cursor is none of ours.
        """
        ordered = self.ordered(query, by, newest_first)
        kept, cursor = self.cut(session.scalars(ordered).all(), by)
        return Page(items=[show(row) for row in kept], next=cursor)

    def ordered(
        self,
        query: Select[*Columns],
        by: Sequence[InstrumentedAttribute[Any]],
        newest_first: bool = True,
    ) -> Select[*Columns]:
        """``query`` from where the page begins, with one row more than it has."""
        if self.cursor is not None:
            query = query.where(beyond(by, read_cursor(self.cursor, by), newest_first))
        order = [column.desc() if newest_first else column.asc() for column in by]
        return query.order_by(*order).limit(self.limit + 1)

    def cut(
        self, rows: Sequence[Found], by: Sequence[InstrumentedAttribute[Any]]
    ) -> tuple[Sequence[Found], str | None]:
        """The rows of the page, and the cursor of the next. Rows have the columns of ``by`` as attributes."""
        kept, more = rows[: self.limit], len(rows) > self.limit
        return kept, write_cursor([getattr(kept[-1], column.key) for column in by]) if more else None


PageQuery = Annotated[Paging, Depends()]
"""The parameter of a list operation: ``def list_jobs(page: PageQuery, ...)``."""


def beyond(
    by: Sequence[InstrumentedAttribute[Any]], values: Sequence[Any], newest_first: bool
) -> ColumnElement[bool]:
    """Rows after the one with these values. Spelled out, since not every type can be in a row comparison."""
    cases = []
    for index, (column, value) in enumerate(zip(by, values, strict=True)):
        equal = [c == v for c, v in zip(by[:index], values[:index], strict=True)]
        cases.append(and_(*equal, column < value if newest_first else column > value))
    return or_(*cases)


def write_cursor(values: Sequence[Any]) -> str:
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def read_cursor(text: str, by: Sequence[InstrumentedAttribute[Any]]) -> list[Any]:
    """The values in a cursor, each of the type its column has. Raises InvalidFields."""
    try:
        values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not isinstance(values, list) or len(values) != len(by):
            raise ValueError
        return [read_value(value, column) for value, column in zip(values, by, strict=True)]
    except (ValueError, TypeError, binascii.Error, RecursionError, OverflowError):
        raise InvalidFields(
            [FieldProblem("cursor", "not a cursor; take it from `next` of the page before", "query")]
        ) from None


def read_value(value: Any, column: InstrumentedAttribute[Any]) -> Any:
    if isinstance(column.type, UTCDateTime):
        read = datetime.fromisoformat(value)
        if read.tzinfo is None:
            raise ValueError
        return read.astimezone(UTC)
    if type(value) is not column.type.python_type or (isinstance(value, int) and abs(value) >= 2**63):
        raise ValueError
    if isinstance(value, str) and not value.isprintable():
        raise ValueError
    return value
