# ruff: noqa: S608 -- fragments come from a Dialect, every value is bound
"""Questions about the collecting itself: what was refused, is it anonymous, did it arrive, whose is it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from clarion.collector.declaring import declaration
from clarion.collector.privacy import K_DEFAULT, SCANNERS
from clarion.collector.questions import IN_SPAN, Span, fold, iso, masked
from clarion.collector.schema import AllowList
from clarion.collector.store import SHAPE_KEY, Store

QUARANTINE: Final = (
    "event",
    "path",
    "problem",
    "type",
    "size",
    "library",
    "count",
    "installations",
    "versions",
    "first_seen",
    "last_seen",
    "declare",
)
"""What :func:`quarantine` says of a shape."""


def quarantine(store: Store, span: Span, k: int = K_DEFAULT, ignored: bool = False) -> list[dict[str, Any]]:
    """What was refused, as shapes: where, what is wrong, which JSON type and length, how often, what would
    take it. Those somebody ignores, or all others.

    How many installations sent it is null below ``k``.
    """
    d, key = store.dialect, ", ".join(SHAPE_KEY)
    found = store.rows(
        f"SELECT {key}, sum(n), count(DISTINCT installation), count(DISTINCT app_version),"
        f" min(first_seen), max(last_seen) FROM {d.shapes}"
        " WHERE project = {project:String} AND last_seen >= {since:DateTime64}"
        f" AND first_seen < {{until:DateTime64}} AND ({key}) {'' if ignored else 'NOT '}IN"
        f" (SELECT {key} FROM {d.ignored} WHERE project = {{project:String}})"
        f" GROUP BY {key} ORDER BY 7 DESC, 1, 2 LIMIT 500",
        span.parameters(),
    )
    return [
        {
            **dict(zip(QUARANTINE, row[:9], strict=False)),
            "count": int(row[6]),
            "installations": masked(row[7], k),
            "first_seen": iso(row[9]),
            "last_seen": iso(row[10]),
            "declare": declaration(row[0], row[1], row[2], row[3]),
        }
        for row in found
    ]


def is_refused(store: Store, project: str, shape: Sequence[str]) -> bool:
    """Whether a shape (the values of ``SHAPE_KEY``) is in the quarantine, ignored or not."""
    named = " AND ".join(f"{name} = {{{name}:String}}" for name in SHAPE_KEY)
    found = store.rows(
        f"SELECT 1 FROM {store.dialect.shapes} WHERE project = {{project:String}} AND {named} LIMIT 1",
        {"project": project, **dict(zip(SHAPE_KEY, shape, strict=True))},
    )
    return bool(found)


def verdict(store: Store, span: Span, allowed: AllowList) -> dict[str, Any]:
    """Is what is kept anonymous? Per event type: conforming, refused, what the scanners found (D11).

    Red: a scanner matched. Amber: something was refused. Green: seen, and neither. Unseen: no claim at all.
    """
    d = store.dialect
    bits = ", ".join(f"count(*) FILTER (WHERE {d.bit(place)})" for place, _ in enumerate(SCANNERS))
    kept = {
        row[0]: row[1:]
        for row in store.rows(
            "SELECT event, count(*), count(*) FILTER (WHERE schema_hash = {hash:String}), max(received_at), "
            f"{bits} FROM {store.dialect.events} WHERE {IN_SPAN} GROUP BY event",
            span.parameters(hash=allowed.hash[:16]),
        )
    }
    refused = _refused(store, span)
    events = [
        _verdict(name, kept.get(name), refused.get(name, 0)) for name in sorted({*allowed.events, *kept})
    ]
    unnamed = sum(n for name, n in refused.items() if name not in allowed.events)
    colours = {entry["verdict"] for entry in events}
    overall = "amber" if unnamed else "unseen"
    for colour in ("green", "amber", "red") if not unnamed else ("amber", "red"):
        overall = colour if colour in colours else overall
    return {
        "project": span.project,
        "verdict": overall,
        "schema_hash": allowed.hash,
        "schema_version": allowed.version,
        "unknown_events": unnamed,
        "events": events,
    }


def _verdict(name: str, row: Sequence[Any] | None, refused: int) -> dict[str, Any]:
    found = {scanner: int(n) for scanner, n in zip(SCANNERS, row[3:], strict=True) if n} if row else {}
    kept = int(row[0]) if row else 0
    colour = "red" if found else "amber" if refused else "green" if kept else "unseen"
    return {
        "event": name,
        "verdict": colour,
        "kept": kept,
        "judged_by_this_schema": int(row[1]) if row else 0,
        "quarantined": refused,
        "findings": found,
        "last_seen": iso(row[2]) if row else None,
    }


def _refused(store: Store, span: Span) -> dict[str, int]:
    found = store.rows(
        f"SELECT event, sum(n) FROM {store.dialect.shapes} WHERE project = {{project:String}}"
        " AND last_seen >= {since:DateTime64} AND first_seen < {until:DateTime64} GROUP BY event",
        span.parameters(),
    )
    return {name: int(n) for name, n in found}


def arrivals(store: Store, keys: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Which of some events have arrived: ``keys`` maps the id a client knows to the stored key."""
    if not keys:
        return {}
    names = ", ".join(f"{{k{place}:UUID}}" for place in range(len(keys)))
    found = store.rows(
        f"SELECT key, event, occurred_at, received_at, findings FROM {store.dialect.events}"
        f" WHERE key IN ({names})",
        {f"k{place}": key for place, key in enumerate(keys.values())},
    )
    by_key = {str(row[0]): row for row in found}
    return {
        given: {
            "event": row[1],
            "occurred_at": iso(row[2]),
            "received_at": iso(row[3]),
            "lag_seconds": (row[3] - row[2]).total_seconds(),
            "anonymous": row[4] == 0,
        }
        for given, key in keys.items()
        if (row := by_key.get(key)) is not None
    }


def counters(store: Store, span: Span) -> list[dict[str, Any]]:
    """Everything only counted: kept per library, stripped transport keys, quarantined, duplicates."""
    d = store.dialect
    found = store.rows(
        f"SELECT name, label, sum(n) FROM {d.counts} WHERE project = {{project:String}}"
        " AND day >= CAST({since:DateTime64} AS DATE) AND day <= CAST({until:DateTime64} AS DATE)"
        " GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2",
        span.parameters(),
    )
    return [{"name": name, "label": label, "count": int(n)} for name, label, n in found]


def libraries(store: Store, span: Span, k: int = K_DEFAULT) -> list[dict[str, Any]]:
    """Which clients send, in which versions; versions of fewer than ``k`` installations are folded."""
    found = store.rows(
        "SELECT library, library_version, count(*), count(DISTINCT installation)"
        f" FROM {store.dialect.events} WHERE {IN_SPAN} GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2",
        span.parameters(),
    )
    groups: dict[str, list[tuple[str, int, int]]] = {}
    for library, version, events, installations in found:
        groups.setdefault(library, []).append((version or "unknown", events, installations))
    return [{"library": library, "versions": fold(values, k)} for library, values in groups.items()]


LAGS: Final = (
    (0, "before it happened"),
    (1, "1 s"),
    (10, "10 s"),
    (60, "1 min"),
    (3600, "1 h"),
    (86400, "1 day"),
)
"""Upper bounds of how long after an event it was received, in seconds."""


def lags(store: Store, span: Span) -> dict[str, Any]:
    """How late events arrive by their sender's clock, in buckets; when the oldest one kept was received."""
    late = "date_diff('second', occurred_at, received_at)"
    bounds = ", ".join(f"count(*) FILTER (WHERE {late} < {bound})" for bound, _ in LAGS)
    total, *below = store.rows(
        f"SELECT count(*), {bounds} FROM {store.dialect.events} WHERE {IN_SPAN}", span.parameters()
    )[0]
    oldest = store.rows(
        f"SELECT min(received_at), count(*) FROM {store.dialect.events} WHERE project = {{project:String}}",
        {"project": span.project},
    )[0]
    counts = [after - before for before, after in zip([0, *below], [*below, total], strict=True)]
    names = [f"within {name}" if bound else name for bound, name in LAGS]
    return {
        "lags": [{"late": name, "events": int(n)} for name, n in zip([*names, "later"], counts, strict=True)],
        "oldest": iso(oldest[0]) if oldest[1] else None,
        "kept": int(oldest[1]),
    }


SILENT: Final = timedelta(days=7)
"""How long nothing of a type must have come for it to be called silent."""


def alerts(volume: Sequence[Mapping[str, Any]], allowed: AllowList, now: datetime) -> dict[str, Any]:
    """Declared types that never came, and those that came once and not in the last seven days."""
    seen = {row["event"]: row["last_seen"] for row in volume}
    since = iso(now - SILENT)
    return {
        "never_seen": sorted(name for name in allowed.events if name not in seen),
        "gone_silent": sorted(name for name in allowed.events if name in seen and seen[name] < since),
    }


RAW_COLUMNS: Final = (
    "key",
    "event",
    "installation",
    "occurred_at",
    "received_at",
    "library",
    "library_version",
    "app_version",
    "schema_version",
    "properties",
)
"""What a raw event has when it is shown or exported."""

_RAW: Final = ", ".join(RAW_COLUMNS)
_PAGE: Final = 500


def export(store: Store, project: str, stored: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every event kept of some installations, oldest first. Only one page of them is in memory at a time."""
    names = ", ".join(f"{{i{place}:UUID}}" for place in range(len(stored)))
    known: dict[str, object] = {
        "project": project,
        **{f"i{place}": name for place, name in enumerate(stored)},
    }
    after, last = "", dict[str, object]()
    while True:
        found = store.rows(
            f"SELECT {_RAW} FROM {store.dialect.events} WHERE project = {{project:String}}"
            f" AND installation IN ({names}){after} ORDER BY occurred_at, key LIMIT {_PAGE}",
            known | last,
        )
        yield from map(_raw, found)
        if len(found) < _PAGE:
            return
        after = (
            " AND (occurred_at > {at:DateTime64} OR (occurred_at = {at:DateTime64} AND key > {last:UUID}))"
        )
        last = {"at": found[-1][3], "last": str(found[-1][0])}


def recent(store: Store, span: Span, event: str, most: int) -> list[dict[str, Any]]:
    """The events of one type that were received last, newest first."""
    found = store.rows(
        f"SELECT {_RAW} FROM {store.dialect.events} WHERE {IN_SPAN} AND event = {{event:String}}"
        f" ORDER BY received_at DESC, key LIMIT {int(most)}",
        span.parameters(event=event),
    )
    return [_raw(row) for row in found]


def _raw(row: Sequence[Any]) -> dict[str, Any]:
    shown = dict(zip(RAW_COLUMNS, row, strict=True))
    named = {name: str(shown[name]) for name in ("key", "installation", "properties")}
    return {**shown, **named, "occurred_at": iso(row[3]), "received_at": iso(row[4])}


def unknown_names(store: Store) -> list[tuple[str, str]]:
    """(redacted label, installation) of every name nobody declared, to go on counting after a restart."""
    found = store.rows(
        f"SELECT DISTINCT event, path, CAST(installation AS VARCHAR) FROM {store.dialect.shapes}"
        " WHERE problem IN ('unknown event', 'unknown property') LIMIT 100000",
        {},
    )
    return [(event if not path else path.rpartition(".")[2], str(who)) for event, path, who in found]
