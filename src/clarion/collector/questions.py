# ruff: noqa: S608 -- fragments come from a Dialect or a Literal, every value is bound
"""Every question the collector answers, as SQL over a Store. Written once, for every dialect.

Small groups never show: a value that fewer than ``k`` installations share is folded into ``other`` (T39).
Periods are ``day``, ``week`` (from Monday) or ``month``, in UTC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

from clarion.collector.ingest import stamp
from clarion.collector.privacy import K_DEFAULT
from clarion.collector.schema import AllowList
from clarion.collector.store import Store

Period = Literal["day", "week", "month"]
OTHER: Final = "other"
MOST_VALUES: Final = 50
"""Most values of one property that are shown one by one."""

VOLUME: Final = (
    "event",
    "events",
    "last_24h",
    "last_7d",
    "last_30d",
    "installations",
    "first_seen",
    "last_seen",
    "versions",
)
"""What :func:`volume` says of an event type."""

IN_SPAN: Final = (
    "project = {project:String} AND occurred_at >= {since:DateTime64} AND occurred_at < {until:DateTime64}"
)
"""The condition of most questions: the events of a :class:`Span`."""


@dataclass(frozen=True, slots=True)
class Span:
    """One project's events between two moments."""

    project: str
    since: datetime
    until: datetime

    def parameters(self, **more: object) -> dict[str, object]:
        """The named values of a question."""
        return {"project": self.project, "since": naive(self.since), "until": naive(self.until), **more}


def volume(
    store: Store, span: Span, now: datetime, k: int = K_DEFAULT, event: str = ""
) -> list[dict[str, Any]]:
    """Each event type: how many in the span, from how many and in how many versions; the last day, week and
    30 days.

    First and last seen are of all time. One type when ``event`` is given. How many installations is
    null below ``k``.
    """
    d = store.dialect
    only, named = (" AND event = {event:String}", {"event": event}) if event else ("", {})
    found = store.rows(  # apart, because counting different values only where they count is 5 times slower
        "WITH seen AS (SELECT event, count(*) FILTER (WHERE occurred_at >= {since:DateTime64}"
        " AND occurred_at < {until:DateTime64}) AS n,"
        " count(*) FILTER (WHERE occurred_at >= {day:DateTime64}) AS day,"
        " count(*) FILTER (WHERE occurred_at >= {week:DateTime64}) AS week,"
        " count(*) FILTER (WHERE occurred_at >= {month:DateTime64}) AS month,"
        " min(occurred_at) AS first, max(occurred_at) AS last"
        f" FROM {d.events} WHERE project = {{project:String}}{only} GROUP BY event),"
        " who AS (SELECT event, count(DISTINCT installation) AS installations,"
        f" count(DISTINCT app_version) AS versions FROM {d.events} WHERE {IN_SPAN}{only}"
        " GROUP BY event)"
        " SELECT seen.event, n, day, week, month, coalesce(installations, 0), first, last,"
        " coalesce(versions, 0)"
        " FROM seen LEFT JOIN who ON who.event = seen.event ORDER BY 2 DESC, 1",
        span.parameters(**_ago(now), **named),
    )
    return [
        {
            **dict(zip(VOLUME, row, strict=True)),
            "installations": masked(row[5], k),
            "first_seen": iso(row[6]),
            "last_seen": iso(row[7]),
        }
        for row in found
    ]


def series(store: Store, span: Span, period: Period, event: str = "") -> list[dict[str, Any]]:
    """Events of each type in each period; of one type when ``event`` is given."""
    only = " AND event = {event:String}" if event else ""
    found = store.rows(
        f"SELECT date_trunc('{period}', occurred_at) AS start, event, count(*) FROM {store.dialect.events}"
        f" WHERE {IN_SPAN}{only} GROUP BY 1, 2 ORDER BY 1, 2",
        span.parameters(**({"event": event} if event else {})),
    )
    return [{"period": _day(start), "event": name, "events": n} for start, name, n in found]


def properties(
    store: Store, span: Span, allowed: AllowList, event: str, k: int = K_DEFAULT
) -> list[dict[str, Any]]:
    """Each declared property of an event: how often it is filled, and how its values are spread."""
    schema = allowed.events[event]
    total = store.rows(
        f"SELECT count(*) FROM {store.dialect.events} WHERE {IN_SPAN} AND event = {{event:String}}",
        span.parameters(event=event),
    )[0][0]
    paths = [tuple(path.split(".")) for path in schema.leaves]
    if not paths:
        return []
    groups = values_of(store, span, event, paths)
    return [
        {
            "property": path,
            "filled": sum(events for _, events, _ in groups.get(path, [])),
            "events": total,
            "values": fold(groups.get(path, []), k),
        }
        for path in schema.leaves
    ]


def values_of(
    store: Store, span: Span, event: str, paths: Sequence[Sequence[str]], which: str = "v IS NOT NULL"
) -> dict[str, list[tuple[str, int, int]]]:
    """The values of an event's properties by path, the most frequent first: value, events, installations.

    ``which`` is SQL about ``v``. Nothing is folded yet.
    """
    exploded = store.dialect.exploded(paths, f"{IN_SPAN} AND event = {{event:String}}")
    found = store.rows(
        f"SELECT p, v, count(*), count(DISTINCT installation) FROM ({exploded}) AS x"
        f" WHERE {which} GROUP BY 1, 2 ORDER BY 3 DESC, 2",
        span.parameters(event=event),
    )
    groups: dict[str, list[tuple[str, int, int]]] = {}
    for path, value, events, installations in found:
        groups.setdefault(path, []).append((str(value), events, installations))
    return groups


def installations(store: Store, span: Span, period: Period, k: int = K_DEFAULT) -> list[dict[str, Any]]:
    """Active installations in each period: how many in all, new (never seen before), returning, and churned
    (active in the period before, and not in this one).

    A number below ``k`` is null, and so is the one that would give it away by subtraction. Of the first
    period it is not known who churned, and the last may not be over.
    """
    d = store.dialect
    found = store.rows(
        f"WITH active AS (SELECT DISTINCT {_starts(period, 'occurred_at')} AS start, installation"
        f" FROM {d.events} WHERE {IN_SPAN}),"
        f" born AS (SELECT installation, {_starts(period, 'min(occurred_at)')} AS birth FROM {d.events}"
        " WHERE project = {project:String} GROUP BY installation)"
        " SELECT active.start, count(*), count(*) FILTER (WHERE born.birth = active.start),"
        f" count(*) FILTER (WHERE (active.installation, active.start - INTERVAL 1 {period}) IN"
        " (SELECT installation, start FROM active))"
        " FROM active JOIN born ON born.installation = active.installation GROUP BY 1 ORDER BY 1",
        span.parameters(),
    )
    rows: list[dict[str, Any]] = []
    before: tuple[date, int] | None = None
    for start, n, new, stayed in found:
        first = _date(start)
        was = 0 if before is None or _apart(period, before[0], first) > 1 else before[1]
        rows.append(
            {"period": _day(start), "installations": masked(n, k)}
            | _parts(k, new=new, returning=n - new)
            | {
                "churned": None
                if before is None
                else _parts(k, churned=was - stayed, stayed=stayed)["churned"]
            }
        )
        before = (first, n)
    return rows


def _starts(period: Period, moment: str) -> str:
    """SQL for the period a moment is in. A cast to a day is half the work of truncating (measured)."""
    return f"CAST({moment} AS DATE)" if period == "day" else f"date_trunc('{period}', {moment})"


def _parts(k: int, **parts: int) -> dict[str, int | None]:
    """The parts of a whole that is shown: all of them, or none if one is of few."""
    hidden = None in [masked(n, k) for n in parts.values()]
    return {name: None if hidden else int(n) for name, n in parts.items()}


def versions(store: Store, span: Span, period: Period, k: int = K_DEFAULT) -> list[dict[str, Any]]:
    """Installations on each version of the application in each period."""
    found = store.rows(
        f"SELECT date_trunc('{period}', occurred_at) AS start, app_version, count(*),"
        f" count(DISTINCT installation) FROM {store.dialect.events} WHERE {IN_SPAN}"
        " GROUP BY 1, 2 ORDER BY 1, 4 DESC, 2",
        span.parameters(),
    )
    groups: dict[str, list[tuple[str, int, int]]] = {}
    for start, version, events, count in found:
        groups.setdefault(_day(start), []).append((version or "unknown", events, count))
    return [{"period": start, "versions": fold(values, k)} for start, values in groups.items()]


def active(store: Store, project: str, now: datetime, k: int = K_DEFAULT) -> dict[str, int | None]:
    """How many installations were active in the last day, 7 days and 30 days; null below ``k``."""
    found = store.rows(
        "SELECT count(*) FILTER (WHERE last >= {day:DateTime64}),"
        " count(*) FILTER (WHERE last >= {week:DateTime64}),"
        " count(*) FILTER (WHERE last >= {month:DateTime64}) FROM (SELECT max(occurred_at) AS last"
        f" FROM {store.dialect.events} WHERE project = {{project:String}} GROUP BY installation) AS seen",
        {"project": project, **_ago(now)},
    )
    return dict(zip(("last_24h", "last_7d", "last_30d"), (masked(n, k) for n in found[0]), strict=True))


def _ago(now: datetime) -> dict[str, object]:
    return {
        name: naive(now - timedelta(days=days)) for name, days in (("day", 1), ("week", 7), ("month", 30))
    }


def adoption(store: Store, span: Span, k: int = K_DEFAULT) -> list[dict[str, Any]]:
    """Each version first seen in the span, newest first: when, and how many days until half of the
    installations that were active on a day had it or a newer one. Null: not yet.

    An installation counts each day with the version it had last. Versions and days of fewer than ``k`` are
    left out.
    """
    d = store.dialect
    found = store.rows(
        f"SELECT day, version, count(*) FROM (SELECT {_starts('day', 'occurred_at')} AS day, installation,"
        f" {d.latest('app_version')} AS version FROM {d.events} WHERE {IN_SPAN} GROUP BY 1, 2) AS daily"
        " GROUP BY 1, 2 ORDER BY 1",
        span.parameters(),
    )
    births = store.rows(
        f"SELECT app_version, min(occurred_at) FROM {d.events} WHERE project = {{project:String}} GROUP BY 1",
        {"project": span.project},
    )
    days: dict[date, dict[str, int]] = {}
    for day, version, n in found:
        days.setdefault(_date(day), {})[version] = n
    known = {version for counts in days.values() for version, n in counts.items() if version and n >= k}
    born = {v: _date(at) for v, at in births if v in known and _date(at) >= span.since.date()}
    return [
        {"version": version, "first_seen": born[version].isoformat()} | _half(version, born[version], days, k)
        for version in sorted(born, key=version_order, reverse=True)
    ]


def _half(
    version: str, first: date, days: Mapping[date, Mapping[str, int]], k: int
) -> dict[str, str | int | None]:
    least = version_order(version)
    for day, counts in days.items():
        on = sum(n for name, n in counts.items() if version_order(name) >= least)
        if day >= first and on >= k and 2 * on >= sum(counts.values()):
            return {"half": day.isoformat(), "days_to_half": (day - first).days}
    return {"half": None, "days_to_half": None}


def version_order(text: str) -> list[int]:
    """What versions are ordered by: their numbers."""
    return [int(part) if part.isdigit() else -1 for part in text.replace("-", ".").split(".")]


def platforms(store: Store, span: Span, allowed: AllowList, k: int = K_DEFAULT) -> list[dict[str, Any]]:
    """What installations run on and how they are set up: each by what its last event in the span said."""
    d = store.dialect
    paths = sorted({leaf for schema in allowed.events.values() for leaf in schema.leaves if is_common(leaf)})
    if not paths:
        return []
    last = f"SELECT {d.latest('key')} FROM {d.events} WHERE {IN_SPAN} GROUP BY installation"
    found = store.rows(
        "SELECT p, v, count(*), count(DISTINCT installation) FROM ("
        + d.exploded([tuple(path.split(".")) for path in paths], f"{IN_SPAN} AND key IN ({last})")
        + ") AS x WHERE v IS NOT NULL GROUP BY 1, 2 ORDER BY 4 DESC, 2",
        span.parameters(),
    )
    groups: dict[str, list[tuple[str, int, int]]] = {}
    for path, value, events, count in found:
        groups.setdefault(path, []).append((str(value), events, count))
    return [
        {
            "property": path,
            "values": [
                {"value": one["value"], "installations": one["installations"]} for one in fold(values, k)
            ],
        }
        for path, values in groups.items()
    ]


def is_common(leaf: str) -> bool:
    """Whether a property is said with every event, whatever its type."""
    return leaf.startswith(("system_properties.", "app_properties."))


def funnel(
    store: Store, span: Span, steps: Sequence[str], window: timedelta, k: int = K_DEFAULT
) -> list[dict[str, Any]]:
    """Installations that did each step after the one before, within ``window`` of their first first step."""
    d = store.dialect
    parts = [
        f"s0 AS (SELECT installation, min(occurred_at) AS t0, min(occurred_at) AS t FROM {d.events}"
        f" WHERE {IN_SPAN} AND event = {{e0:String}} GROUP BY installation)"
    ]
    seconds = int(window.total_seconds())
    for place in range(1, len(steps)):
        before = f"s{place - 1}"
        parts.append(
            f"s{place} AS (SELECT {before}.installation AS installation, min({before}.t0) AS t0,"
            f" min(e.occurred_at) AS t FROM {before} JOIN (SELECT installation, occurred_at FROM {d.events}"
            f" WHERE project = {{project:String}} AND event = {{e{place}:String}}) AS e"
            f" ON e.installation = {before}.installation WHERE e.occurred_at >= {before}.t"
            f" AND e.occurred_at <= {before}.t0 + INTERVAL {seconds} SECOND GROUP BY {before}.installation)"
        )
    counts = ", ".join(f"(SELECT count(*) FROM s{place})" for place in range(len(steps)))
    names = {f"e{place}": step for place, step in enumerate(steps)}
    row = store.rows(f"WITH {', '.join(parts)} SELECT {counts}", span.parameters(**names))[0]
    return [
        {
            "step": place + 1,
            "event": step,
            "installations": masked(row[place], k),
            "share": _share(row[place], row[0], k),
        }
        for place, step in enumerate(steps)
    ]


def retention(
    store: Store, span: Span, period: Period, event: str = "", k: int = K_DEFAULT
) -> list[dict[str, Any]]:
    """Installations by the period they were first seen in, and how many came back 1, 2, ... periods later."""
    d = store.dialect
    only = " AND event = {event:String}" if event else ""
    found = store.rows(
        f"WITH born AS (SELECT installation, date_trunc('{period}', min(occurred_at)) AS birth"
        f" FROM {d.events} WHERE project = {{project:String}} GROUP BY installation),"
        f" active AS (SELECT DISTINCT installation, date_trunc('{period}', occurred_at) AS start"
        f" FROM {d.events} WHERE {IN_SPAN}{only})"
        " SELECT born.birth, active.start, count(*) FROM active"
        " JOIN born ON born.installation = active.installation"
        " WHERE born.birth >= {since:DateTime64} GROUP BY 1, 2 ORDER BY 1, 2",
        span.parameters(**({"event": event} if event else {})),
    )
    cohorts: dict[str, dict[int, int]] = {}
    for birth, start, n in found:
        cohorts.setdefault(_day(birth), {})[_apart(period, _date(birth), _date(start))] = n
    return [
        {"cohort": birth, "installations": masked(ages.get(0, 0), k), "returned": _grid(ages, k)}
        for birth, ages in cohorts.items()
    ]


def fold(groups: Sequence[tuple[str, int, int]], k: int) -> list[dict[str, Any]]:
    """(value, events, installations) with every group below ``k`` installations folded into ``other``.

    Totals stand beside breakdowns, so what is not shown can be had by subtraction: if all that is folded may
    be fewer than ``k`` between them, the smallest group that would be shown is folded as well. ``other`` says
    how many events it holds only when it has ``k`` members for certain; how many different installations is
    never said, because groups overlap.
    """
    shown = [group for group in groups if group[2] >= k and group[0] != OTHER][:MOST_VALUES]
    named = {value for value, _, _ in shown}
    rest = [group for group in groups if group[0] not in named]
    if shown and rest and max(count for _, _, count in rest) < k:
        smallest = min(shown, key=lambda group: group[2])
        shown.remove(smallest)
        rest.append(smallest)
    result: list[dict[str, Any]] = [
        {"value": value, "events": events, "installations": count} for value, events, count in shown
    ]
    if rest:
        enough = max(count for _, _, count in rest) >= k
        result.append(
            {"value": OTHER, "events": sum(n for _, n, _ in rest) if enough else None, "installations": None}
        )
    return result


def _grid(ages: Mapping[int, int], k: int) -> list[int | None]:
    return [masked(ages.get(age, 0), k) for age in range(1, max(ages, default=0) + 1)]


def masked(n: int, k: int) -> int | None:
    """A count of installations, None when it is small enough to point at somebody."""
    return None if 0 < n < k else int(n)


def _share(n: int, whole: int, k: int) -> float | None:
    return None if 0 < n < k or not whole else round(n / whole, 4)


def _apart(period: Period, first: date, second: date) -> int:
    if period == "month":
        return (second.year - first.year) * 12 + second.month - first.month
    return (second - first).days // (7 if period == "week" else 1)


def naive(moment: datetime) -> datetime:
    """A moment as a parameter: UTC without an offset, as both stores keep it."""
    return datetime.fromisoformat(stamp(moment))


def _date(value: date | datetime) -> date:
    return value.date() if isinstance(value, datetime) else value


def _day(value: date | datetime) -> str:
    return _date(value).isoformat()


def iso(value: datetime) -> str:
    """A stored moment as it is answered."""
    stored = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return stored.isoformat(timespec="milliseconds").replace("+00:00", "Z")
