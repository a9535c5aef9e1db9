"""Answers as files: rows as CSV (RFC 4180), events as CSV or JSON, produced while they are sent.

A cell that a spreadsheet would run as a formula gets an apostrophe in front (OWASP, CSV injection); numbers
stay numbers. A count that is too small to be shown is an empty cell.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

from clarion.collector.audit import Look

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?\Z")


def flat(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows without nesting: one for each entry of a list inside, which repeats what stands beside it.

    Entries that are no objects get their place, from 1, as ``<name>_place``.
    """
    for row in rows:
        inside = next((name for name, value in row.items() if isinstance(value, list)), None)
        if inside is None:
            yield dict(row)
            continue
        beside = {name: value for name, value in row.items() if name != inside}
        if not row[inside]:
            yield beside
        for place, entry in enumerate(row[inside], 1):
            if isinstance(entry, Mapping):
                shared = {f"{inside}_{name}" if name in beside else name: entry[name] for name in entry}
                yield from flat([beside | shared])
            else:
                yield beside | {f"{inside}_place": place, inside: entry}


def as_csv(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], header: Sequence[str] | None = None
) -> Iterator[str]:
    """CSV of these columns with a header, their names unless said otherwise, a chunk for each row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([_cell(name) for name in header or columns])
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in columns])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def as_json(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[str]:
    """A JSON object with the rows under ``name``, a chunk for each."""
    between = f"{{{json.dumps(name)}:["
    for row in rows:
        yield between + json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        between = ","
    yield "]}" if between == "," else between + "]}"


def counted(rows: Iterable[Mapping[str, Any]], look: Look) -> Iterator[Mapping[str, Any]]:
    """The same rows, each added to what a look has shown."""
    for row in rows:
        look.events += 1
        yield row


def as_text(value: object) -> str | int | float | bool | None:
    """A value of a database as JSON has it: what JSON has no form for becomes text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str | int | float | bool | None):
        return value
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _cell(value: object) -> object:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) and not _NUMBER.match(value) else value
    return json.dumps(value) if isinstance(value, bool | list | dict) else value
