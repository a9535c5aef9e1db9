"""The canary, seen from the collector: without a fresh one nothing is called green.

A verdict says what was found in what arrived. That something can still arrive, and is looked at, is what the
canary proves (`clarion telemetry canary`), every night. It has a project of its own, so nothing counts it.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from clarion.collector.questions import iso
from clarion.collector.store import Store

PATIENCE: Final = timedelta(hours=26)
"""How old the last canary may be: a day, and two hours for a night that is slow."""


def last_seen(store: Store, project: str) -> datetime | None:
    """When the newest event of the canary's project arrived."""
    events = store.dialect.events
    [[newest, count]] = store.rows(
        f"SELECT max(received_at), count(*) FROM {events} WHERE project = {{project:String}}",  # noqa: S608
        {"project": project},
    )
    if not count:
        return None
    found: datetime = newest
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def with_canary(verdict: dict[str, Any], store: Store, project: str | None, now: datetime) -> dict[str, Any]:
    """A verdict with what became of the canary: red if it is overdue. Unchanged where none is expected."""
    if project is None:
        return verdict
    last = last_seen(store, project)
    well = last is not None and now - last <= PATIENCE
    canary = {
        "project": project,
        "well": well,
        "last_seen": None if last is None else iso(last),
        "said": "" if well else overdue(last, now),
    }
    return verdict | {"canary": canary} | ({} if well else {"verdict": "red"})


def overdue(last: datetime | None, now: datetime) -> str:
    if last is None:
        return "No canary has ever arrived."
    return f"No canary for {(now - last) // timedelta(hours=1)} hours."
