"""The canary, seen from the collector: without a fresh one nothing is called green.

A verdict says what was found in what arrived. That something can still arrive, and is looked at, is what the
canary proves (`clarion telemetry canary`), every night. It has a project of its own, so nothing counts it.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from clarion.collector import oversight
from clarion.collector.questions import Span, iso
from clarion.collector.service import Collector
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


def judged(collector: Collector, span: Span) -> dict[str, Any]:
    """The verdict, and what became of the canary: red if it is overdue. No more where none is expected."""
    verdict = oversight.verdict(collector.store, span, collector.settings.schema)
    project, now = collector.settings.canary, collector.clock()
    if project is None:
        return verdict
    last = last_seen(collector.store, project)
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
