"""What each page says: the values of its template, from the same questions as the query API."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from clarion.collector import operating, oversight, questions
from clarion.collector.canary import judged
from clarion.collector.exporting import as_text
from clarion.collector.kinds import described, laid_out
from clarion.collector.questions import OTHER, Period, Span, version_order
from clarion.collector.service import Collector
from clarion.collector.sql import COLUMNS
from clarion.errors import InvalidInput, NotFound

DAYS: Final = (1, 7, 30, 90, 400)
PERIODS: Final = ("day", "week", "month")
RECENT: Final = 5
"""Events of one type that are shown at once."""
STEPS: Final = 5
"""Most steps of a funnel on the page."""
IGNORED: Final = "ignored"
LOOKS: Final = 100
"""Looks on one page of the audit log."""

_LONGEST: Final[Mapping[Period, timedelta]] = {
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=31),
}
_STACKED: Final = 6


@dataclass(frozen=True)
class Where:
    """What a page is about: a project, and its last days. ``now`` is aware."""

    project: str
    projects: tuple[str, ...]
    days: int
    now: datetime

    @property
    def span(self) -> Span:
        """A day longer at its end, for clocks that run ahead."""
        return Span(self.project, self.now - timedelta(days=self.days), self.now + timedelta(days=1))

    @property
    def period(self) -> Period:
        """What a chart of these days is drawn by."""
        return "day" if self.days <= 90 else "week"

    def query(self, **more: str | int) -> str:
        """The URL parameters that stay on the same project and days."""
        return urlencode({"project": self.project, "days": self.days, **more})

    def file(self, path: str, **more: str | Sequence[str]) -> str:
        """Where a list of the query API is as a file."""
        span = {"project": self.project, "since": self.span.since.isoformat(timespec="seconds")}
        return f"/api/{path}?{urlencode({**span, **more, 'format': 'csv'}, doseq=True)}"


def events(collector: Collector, where: Where) -> dict[str, Any]:
    """Every event type: is it anonymous, does it arrive, how often, from how many."""
    store, k = collector.store, collector.settings.k
    listed = questions.volume(store, where.span, where.now, k)
    volume = {row["event"]: row for row in listed}
    alerts = oversight.alerts(listed, collector.settings.schema, where.now)
    verdict = judged(collector, where.span)
    found = questions.series(store, where.span, where.period)
    starts = starts_of(where)
    rows = [
        {
            **entry,
            **volume.get(entry["event"], {"events": 0}),
            "declared": entry["event"] in collector.settings.schema.events,
            "silent": entry["event"] in alerts["gone_silent"],
            "spark": chart(starts, {"Events": _by(found, entry["event"])}, "line"),
        }
        for entry in verdict["events"]
    ]
    return {
        "verdict": verdict,
        "seen": sorted((row for row in rows if row["events"]), key=lambda row: -row["events"]),
        "unseen": [row for row in rows if not row["events"]],
        **alerts,
        "total": sum(row["events"] for row in rows),
        "refused": sum(row["quarantined"] for row in rows) + verdict["unknown_events"],
        "chart": chart(starts, {"Events": _by(found)}),
    }


def event(collector: Collector, where: Where, name: str) -> dict[str, Any]:
    """One event type: its properties as they are declared and as they are filled. Raises NotFound."""
    schema = collector.settings.schema.events.get(name)
    if schema is None:
        raise NotFound("no event of that name is declared")
    store, k = collector.store, collector.settings.k
    verdict = oversight.verdict(store, where.span, collector.settings.schema)
    spread = questions.properties(store, where.span, collector.settings.schema, name, k)
    found = questions.series(store, where.span, where.period, name)
    about = described(schema)
    volume = questions.volume(store, where.span, where.now, k, name)
    return {
        "schema": schema,
        "seen": volume[0] if volume else None,
        "verdict": next(row for row in verdict["events"] if row["event"] == name),
        "hash": verdict["schema_hash"],
        "properties": [row | leaf for row, leaf in zip(spread, about["properties"], strict=True)],
        "chart": chart(starts_of(where), {"Events": _by(found)}),
        "recent": None,
    }


def recent(collector: Collector, where: Where, name: str) -> list[dict[str, Any]]:
    """The last events of a type, each beside its schema. A look: whoever calls this has it written down."""
    schema = collector.settings.schema.events[name]
    found = oversight.recent(collector.store, where.span, name, RECENT)
    return [{**one, "values": laid_out(one["properties"], schema)} for one in found]


def installations(collector: Collector, where: Where, by: str) -> dict[str, Any]:
    """How many installations there are, new, returning and churned, and what they run on."""
    store, k = collector.store, collector.settings.k
    period: Period = by if by in PERIODS else where.period  # type: ignore[assignment]
    active = questions.installations(store, where.span, period, k)
    lines = {
        name: {row["period"]: row[key] for row in active}
        for name, key in (("Active", "installations"), ("New", "new"), ("Churned", "churned"))
    }
    return {
        "by": period,
        "periods": PERIODS,
        "active": list(reversed(active)),
        "chart": chart(starts_of(where, period), lines, "line"),
        "lately": questions.active(store, where.project, where.now, k),
        "platforms": questions.platforms(store, where.span, collector.settings.schema, k),
    }


def versions(collector: Collector, where: Where, by: str) -> dict[str, Any]:
    """Which versions installations are on by day, week or month, and how long each took to half of them."""
    store, k = collector.store, collector.settings.k
    period: Period = by if by in PERIODS else where.period  # type: ignore[assignment]
    adopted = questions.versions(store, where.span, period, k)
    return {
        "by": period,
        "periods": PERIODS,
        "versions": list(reversed(adopted)),
        "chart": _adoption(adopted, starts_of(where, period)),
        "adoption": questions.adoption(store, where.span, k),
    }


def journeys(collector: Collector, where: Where, steps: Sequence[str], window: str) -> dict[str, Any]:
    """A funnel over the steps that were chosen, and who comes back. Raises InvalidInput."""
    store, k = collector.store, collector.settings.k
    declared = collector.settings.schema.events
    chosen = [step for step in steps if step][:STEPS]
    if any(step not in declared for step in chosen):
        raise InvalidInput("every step must be a declared event")
    days = int(window) if window.isascii() and window.isdigit() and 1 <= int(window[:4]) <= 400 else 14
    counted = questions.funnel(store, where.span, chosen, timedelta(days=days), k) if len(chosen) > 1 else []
    cohorts = questions.retention(store, where.span, "week", "", k)
    return {
        "names": list(declared),
        "steps": [*chosen, *[""] * (STEPS - len(chosen))],
        "chosen": chosen,
        "window": days,
        "funnel": counted,
        "cohorts": [row | {"shares": _shares(row)} for row in cohorts],
        "longest": max((len(row["returned"]) for row in cohorts), default=0),
    }


def quarantine(collector: Collector, where: Where, show: str) -> dict[str, Any]:
    """What was refused, as shapes: those somebody ignores, or all others."""
    ignored = show == IGNORED
    found = oversight.quarantine(collector.store, where.span, collector.settings.k, ignored)
    return {"shapes": found, "total": sum(row["count"] for row in found), "ignored": ignored}


def sql(collector: Collector, where: Where, reader: str, text: str, run: bool) -> dict[str, Any]:
    """A statement and, if it is to be run, what it finds; or why it may not be."""
    values: dict[str, Any] = {
        "text": text,
        "allowed": reader in collector.settings.administrators,
        "columns": COLUMNS,
        "found": None,
        "said": "",
        "savable": ("/sql", where.query(sql=text)),
    }
    if run:
        try:
            found = collector.ask(reader, where.span, text)
        except InvalidInput as error:
            return values | {"said": error.message}
        rows = [[as_text(value) for value in row] for row in found.rows]
        values["found"] = {"columns": found.columns, "rows": rows, "more": found.more}
    return values


def saved(collector: Collector) -> dict[str, Any]:
    """The saved views."""
    return {"views": collector.saved.all(), "savable": None}


def catalogue(collector: Collector) -> dict[str, Any]:
    """What every event means, for everybody: nothing of what was received."""
    listed = collector.settings.schema
    return {"schema": listed, "events": {name: described(one) for name, one in listed.events.items()}}


def live(collector: Collector, where: Where, asked: Mapping[str, str]) -> dict[str, Any]:
    """The filters of the live tail; the events come by themselves."""
    wanted = {name: asked.get(name, "").strip()[:200] for name in ("event", "installation", "version")}
    given = {name: value for name, value in wanted.items() if value}
    return {
        "names": list(collector.settings.schema.events),
        "wanted": wanted,
        "stream": f"/api/live?{urlencode({'project': where.project, **given})}",
    }


def operation(collector: Collector, where: Where) -> dict[str, Any]:
    """How the collector itself does."""
    return operating.operation(collector, where.span)


def looks(collector: Collector, before: str) -> dict[str, Any]:
    """Who looked at raw events, newest first, from before a number on."""
    number = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None
    found = collector.audit.looks(LOOKS, number)
    return {"looks": found, "older": found[-1]["id"] if len(found) == LOOKS else None}


def starts_of(where: Where, period: Period | None = None) -> list[date]:
    """The first day of every period of a chart, also of those in which nothing happened."""
    last, period = where.now.date(), period or where.period
    starts = [_start(where.span.since.date(), period)]
    while (after := _start(starts[-1] + _LONGEST[period], period)) <= last:
        starts.append(after)
    return starts


def _start(day: date, period: Period) -> date:
    """The first day of the period a day is in, as ``date_trunc`` has it."""
    if period == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if period == "week" else day


def chart(
    starts: Sequence[date], series: Mapping[str, Mapping[str, int | None]], kind: str = "bars"
) -> dict[str, Any]:
    """What ``chart.js`` draws: for each start (Unix seconds) the value of each series; null is not said."""
    days = [start.isoformat() for start in starts]
    return {
        "kind": kind,
        "days": days,
        "x": [int(datetime(*day.timetuple()[:3], tzinfo=UTC).timestamp()) for day in starts],
        "series": [
            {"label": label, "values": [values.get(day, 0) for day in days]}
            for label, values in series.items()
        ],
    }


def _by(rows: Iterable[Mapping[str, Any]], name: str | None = None) -> dict[str, int | None]:
    totals: dict[str, int | None] = {}
    for row in rows:
        if name in (None, row["event"]):
            totals[row["period"]] = (totals.get(row["period"]) or 0) + row["events"]
    return totals


def _adoption(periods: Sequence[Mapping[str, Any]], starts: Sequence[date]) -> dict[str, Any]:
    """Installations on each version, stacked: the newest versions by name, older ones together."""
    counts: dict[str, dict[str, int | None]] = {}
    for period in periods:
        for row in period["versions"]:
            if row["value"] != OTHER:
                counts.setdefault(row["value"], {})[period["period"]] = row["installations"]
    newest = sorted(counts, key=version_order, reverse=True)
    shown = {name: counts[name] for name in newest[:_STACKED]}
    if older := newest[_STACKED:]:
        shown["older"] = {}
        for name in older:
            for start, n in counts[name].items():
                shown["older"][start] = (shown["older"].get(start) or 0) + (n or 0)
    return chart(starts, shown, "stack")


def _shares(cohort: Mapping[str, Any]) -> list[float | None]:
    whole = cohort["installations"]
    return [None if n is None or not whole else min(n / whole, 1.0) for n in cohort["returned"]]
