# ruff: noqa: S608 -- table names and fragments are ours, every value is bound
"""The store for those who outgrow one file: ClickHouse, through clickhouse-connect.

Duplicates are collapsed by the engine (ReplacingMergeTree, read with FINAL); erasure rewrites the parts and
returns when that is done, and the server deletes the old parts within seconds of it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import clickhouse_connect
import msgspec
from clickhouse_connect.driver.exceptions import DatabaseError

from clarion.collector.limits import QueryTooSlow
from clarion.collector.records import Count, Event, Shape
from clarion.collector.sql import Table
from clarion.collector.store import (
    QUERY_SECONDS,
    SHAPE_KEY,
    Dialect,
    Erased,
    Loaded,
    Unsupported,
    findings,
)

_MOMENT: Final = "DateTime64(3, 'UTC')"
_WORD: Final = "LowCardinality(String)"
_KEPT: Final = "SETTINGS old_parts_lifetime = 5"
_FINDINGS: Final = findings("match", escape="\\\\")
_TABLES: Final = (
    f"""CREATE TABLE IF NOT EXISTS events (key UUID, project {_WORD}, event {_WORD}, installation UUID,
    occurred_at {_MOMENT}, received_at {_MOMENT}, library {_WORD}, library_version {_WORD},
    app_version {_WORD}, schema_version UInt32, schema_hash {_WORD}, properties String,
    findings UInt32 DEFAULT {_FINDINGS}, segment UInt64)
    ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(received_at) ORDER BY (project, event, key) {_KEPT}""",
    f"""CREATE TABLE IF NOT EXISTS shapes (project {_WORD}, event {_WORD}, path String, problem {_WORD},
    type {_WORD}, size {_WORD}, library {_WORD}, library_version {_WORD}, app_version {_WORD},
    installation UUID, n UInt64, first_seen {_MOMENT}, last_seen {_MOMENT}, segment UInt64)
    ENGINE = ReplacingMergeTree ORDER BY (project, event, path, problem, type, size, library,
    library_version, app_version, installation, segment) {_KEPT}""",
    f"""CREATE TABLE IF NOT EXISTS counts (project {_WORD}, name {_WORD}, label String, day Date, n UInt64,
    segment UInt64) ENGINE = ReplacingMergeTree ORDER BY (project, name, label, day, segment) {_KEPT}""",
    "CREATE TABLE IF NOT EXISTS segments (number UInt64) ENGINE = ReplacingMergeTree ORDER BY number",
    f"""CREATE TABLE IF NOT EXISTS ignored (project {_WORD}, {
        ", ".join(f"{name} String" for name in SHAPE_KEY)
    }) ENGINE = ReplacingMergeTree ORDER BY (project, {", ".join(SHAPE_KEY)}) {_KEPT}""",
)
_SHAPE: Final = " AND ".join(f"{name} = {{{name}:String}}" for name in ("project", *SHAPE_KEY))
_SETTINGS: Final[dict[str, Any]] = {
    "session_timezone": "UTC",
    "max_execution_time": int(QUERY_SECONDS),
    "mutations_sync": 2,
    "function_json_value_return_type_allow_complex": 1,
}
_TIMEOUT: Final = "TIMEOUT_EXCEEDED"
_lines = msgspec.json.Decoder(Event | Shape | Count)


class ClickHouseStore:
    """A ClickHouse database. ``options`` go to ``clickhouse_connect.get_client`` (host, dsn, ...)."""

    dialect = Dialect(
        "clickhouse",
        events="events FINAL",
        shapes="shapes FINAL",
        counts="counts FINAL",
        ignored="ignored FINAL",
    )

    def __init__(self, **options: Any) -> None:
        if options.get("interface") != "chdb":
            options.setdefault("autogenerate_session_id", False)  # questions run at the same time
        self._client = clickhouse_connect.get_client(**options, settings=_SETTINGS)
        for table in _TABLES:
            self._client.command(table)

    def load(self, number: int, segment: Path) -> Loaded:
        if self.rows("SELECT 1 FROM segments WHERE number = {number:UInt64}", {"number": number}):
            return Loaded()
        records = [_lines.decode(raw) for raw in segment.read_bytes().splitlines()]
        events = {one.key: one for one in records if isinstance(one, Event)}
        offered = Counter(one.project for one in records if isinstance(one, Event))
        known = self._known(list(events), number)
        fresh = Counter(one.project for key, one in events.items() if key not in known)
        # The order makes a crash in between harmless: everything but the last line can be said twice.
        self._insert("events", list(_event_rows((e for k, e in events.items() if k not in known), number)))
        self._insert("shapes", _shape_rows([one for one in records if isinstance(one, Shape)], number))
        counts = [one for one in records if isinstance(one, Count)]
        for project, n in offered.items():
            if n > fresh[project]:
                newest = max(one.received_at for one in events.values() if one.project == project)
                counts.append(Count(project, "duplicate", "", newest, n - fresh[project]))
        self._insert("counts", _count_rows(counts, number))
        self._insert("segments", [{"number": number}])
        return Loaded(fresh.total(), offered.total() - fresh.total())

    def _known(self, keys: Sequence[str], number: int) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(keys), 1000):
            some = {f"k{place}": key for place, key in enumerate(keys[start : start + 1000])}
            names = ", ".join(f"{{{name}:UUID}}" for name in some)
            rows = self.rows(
                f"SELECT key FROM events WHERE key IN ({names}) AND segment != {{number:UInt64}}",
                {**some, "number": number},
            )
            found.update(str(row[0]) for row in rows)
        return found

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            names = list(rows[0])
            self._client.insert(table, [[row[name] for name in names] for row in rows], column_names=names)

    def newest(self) -> int:
        return int(self.rows("SELECT max(number) FROM segments", {})[0][0])

    def rows(self, sql: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        try:
            return [tuple(row) for row in self._client.query(sql, parameters=dict(parameters)).result_rows]
        except DatabaseError as error:
            if _TIMEOUT in str(error):
                raise QueryTooSlow from error
            raise

    def select(self, text: str, project: str, since: str, until: str) -> Table:
        raise Unsupported(
            "ClickHouse answers SQL itself, under its own users, limits and read-only profiles: "
            "see docs/decisions/0017"
        )

    def ignore(self, project: str, shape: Sequence[str], ignored: bool = True) -> None:
        what = _named(project, shape)
        self._client.command(f"ALTER TABLE ignored DELETE WHERE {_SHAPE}", parameters=what)
        if ignored:
            self._insert("ignored", [what])

    def purge(self, project: str, shape: Sequence[str]) -> int:
        what = _named(project, shape)
        times = int(self.rows(f"SELECT sum(n) FROM shapes FINAL WHERE {_SHAPE}", what)[0][0])
        self._client.command(f"ALTER TABLE shapes DELETE WHERE {_SHAPE}", parameters=what)
        return times

    def erase(self, project: str, installations: Sequence[str]) -> Erased:
        names = {f"i{place}": name for place, name in enumerate(installations)}
        listed = ", ".join(f"{{{name}:UUID}}" for name in names)
        condition = f"project = {{project:String}} AND installation IN ({listed})"
        what: dict[str, object] = {"project": project, **names}
        events, shapes = self._count("events", condition, what), self._count("shapes", condition, what)
        for table in ("events", "shapes"):
            self._client.command(f"ALTER TABLE {table} DELETE WHERE {condition}", parameters=what)
        left = self._count("events", condition, what) + self._count("shapes", condition, what)
        return Erased(events, shapes, left)

    def expire(self, before: str) -> int:
        what: dict[str, object] = {"before": datetime.fromisoformat(before)}
        moment = "{before:DateTime64}"
        events = self._count("events", f"received_at < {moment}", what)
        for table, column in (("events", "received_at"), ("shapes", "last_seen"), ("counts", "day")):
            bound = f"CAST({moment} AS DATE)" if column == "day" else moment
            self._client.command(f"ALTER TABLE {table} DELETE WHERE {column} < {bound}", parameters=what)
        return events

    def still(self) -> AbstractContextManager[Path]:
        raise Unsupported("events in ClickHouse are backed up by its own BACKUP statement")

    def size(self) -> int:
        sql = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()"
        return int(self.rows(sql, {})[0][0])

    def close(self) -> None:
        self._client.close()

    def _count(self, table: str, condition: str, what: Mapping[str, object]) -> int:
        return int(self.rows(f"SELECT count(*) FROM {table} FINAL WHERE {condition}", what)[0][0])


def _named(project: str, shape: Sequence[str]) -> dict[str, Any]:
    return dict(zip(("project", *SHAPE_KEY), (project, *shape), strict=True))


def _event_rows(events: Iterator[Event], number: int) -> Iterator[dict[str, Any]]:
    for one in events:
        yield {
            **{name: getattr(one, name) for name in Event.__struct_fields__},
            "occurred_at": _moment(one.occurred_at),
            "received_at": _moment(one.received_at),
            "properties": msgspec.json.encode(one.properties).decode(),
            "segment": number,
        }


def _shape_rows(shapes: Sequence[Shape], number: int) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[Shape]] = {}
    names = [name for name in Shape.__struct_fields__ if name not in ("n", "received_at")]
    for one in shapes:
        groups.setdefault(tuple(getattr(one, name) for name in names), []).append(one)
    return [
        {
            **dict(zip(names, key, strict=True)),
            "n": sum(one.n for one in group),
            "first_seen": _moment(min(one.received_at for one in group)),
            "last_seen": _moment(max(one.received_at for one in group)),
            "segment": number,
        }
        for key, group in groups.items()
    ]


def _count_rows(counts: Sequence[Count], number: int) -> list[dict[str, Any]]:
    totals: Counter[tuple[str, str, str, str]] = Counter()
    for one in counts:
        totals[one.project, one.name, one.label, one.received_at[:10]] += one.n
    return [
        {"project": p, "name": name, "label": label, "day": _moment(day).date(), "n": n, "segment": number}
        for (p, name, label, day), n in totals.items()
    ]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
