"""How results are printed: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import typer

WIDTH = 160
"""Columns of a table that goes into a pipe, where there is no terminal to ask."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def say(text: str = "") -> None:
    typer.echo(text)


def print_json(value: Any) -> None:
    """One JSON document, readable."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=plain))


def plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return when(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def when(moment: datetime | None) -> str:
    """UTC, to the second; ISO 8601."""
    return "" if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Rows under their columns; ``empty`` is what is said when there are none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = [[cell(value) for value in row] for row in rows]
    if not listed:
        say(empty)
        return
    made = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        made.add_column(name, overflow="fold", no_wrap=index == 0)
    for row in listed:
        made.add_row(*(Text(printable(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False).print(made)


def facts(pairs: Mapping[str, Any]) -> None:
    """Names and values, one a line."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        say(f"{name:<{width}}  {printable(cell(value))}")


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return when(value) if isinstance(value, datetime) else str(value)


def printable(text: str) -> str:
    """Text from outside without what could steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
