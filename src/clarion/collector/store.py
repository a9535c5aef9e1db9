# ruff: noqa: S608 -- table names and fragments are ours, every value is bound
"""Where events are kept: the Store protocol and its first implementation, DuckDB in one file.

A store loads journal segments, answers SQL, forgets. What is asked is in :mod:`.questions`, written once for
all stores against a :class:`Dialect`; one contract suite (``tests/contracts/test_stores.py``) runs every
question against every store.
"""

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb

from clarion.collector import sql
from clarion.collector.limits import Gate, QueryTooSlow, ended
from clarion.collector.privacy import SCANNERS
from clarion.errors import ClarionError, ConfigurationError, InvalidInput

QUERY_SECONDS: Final = 15.0
"""Longest a question may run before it is interrupted."""

STORAGE_VERSION: Final = "v1.4.0"
"""File format that DuckDB 1.4, 1.5 and 2.0 all read (a default 2.0 file is refused by 1.5)."""


class Unsupported(ClarionError):
    """This store has no such thing."""

    status = 501


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading one segment did. ``events`` new ones, ``duplicates`` already there."""

    events: int = 0
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Erased:
    """Proof of an erasure: rows removed, and rows of that installation found afterwards (must be 0)."""

    events: int
    shapes: int
    left: int


@dataclass(frozen=True)
class Dialect:
    """How one database says what SQL does not agree on. Parameters are written ``{name:Type}`` by all."""

    name: str
    events: str
    """The events table in a FROM clause, each event once."""
    shapes: str
    counts: str
    ignored: str

    def leaf(self, path: Sequence[str]) -> str:
        """SQL for one property as text, NULL when absent."""
        where = json_path(path)
        if self.name == "clickhouse":
            return f"nullIf(JSON_VALUE(properties, '{where}'), '')"
        return f"json_extract_string(properties, '{where}')"

    def bit(self, place: int) -> str:
        """SQL for whether scanner ``place`` matched an event."""
        mask = 1 << place
        return f"bitAnd(findings, {mask}) > 0" if self.name == "clickhouse" else f"findings & {mask} > 0"

    def latest(self, column: str) -> str:
        """SQL for a column's value in the last event of a group."""
        function = "argMax" if self.name == "clickhouse" else "arg_max"
        return f"{function}({column}, occurred_at)"

    def exploded(self, paths: Sequence[Sequence[str]], where: str) -> str:
        """SQL for rows (p, v, installation): every path of every matching event, in one pass."""
        names = ", ".join(f"'{quoted('.'.join(path))}'" for path in paths)
        if self.name == "clickhouse":
            pairs = ", ".join(f"('{quoted('.'.join(path))}', {self.leaf(path)})" for path in paths)
            return (
                f"SELECT pair.1 AS p, pair.2 AS v, installation FROM (SELECT arrayJoin([{pairs}]) AS pair,"
                f" installation FROM {self.events} WHERE {where})"
            )
        found = ", ".join(f"'{json_path(path)}'" for path in paths)
        return (
            f"SELECT unnest([{names}]) AS p, unnest(json_extract_string(properties, [{found}])) AS v,"
            f" installation FROM {self.events} WHERE {where}"
        )


class Store(Protocol):
    """What the collector needs of a database. Methods block; the app calls them in threads."""

    dialect: Dialect

    def load(self, number: int, segment: Path) -> Loaded:
        """Load a segment, atomically. Loading the same number again changes nothing."""
        ...

    def newest(self) -> int:
        """The highest segment number ever loaded; 0 at first."""
        ...

    def rows(self, sql: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Answer one question. Raises QueryTooSlow."""
        ...

    def select(self, text: str, project: str, since: str, until: str) -> sql.Table:
        """Answer a statement that somebody wrote, over one project's events between two moments.

        Raises InvalidInput, QueryTooSlow, Unsupported.
        """
        ...

    def ignore(self, project: str, shape: Sequence[str], ignored: bool = True) -> None:
        """Ignore a shape (the values of ``SHAPE_KEY``), or no longer. It is counted all the same."""
        ...

    def purge(self, project: str, shape: Sequence[str]) -> int:
        """Forget that a shape was refused; how often it was. The bytes are gone as after ``erase``."""
        ...

    def erase(self, project: str, installations: Sequence[str]) -> Erased:
        """Remove every trace of some installations; the bytes are gone from the files when this returns."""
        ...

    def expire(self, before: str) -> int:
        """Remove what was received before a moment (``ingest.stamp`` form); how many events."""
        ...

    def still(self) -> AbstractContextManager[Path]:
        """The one file everything is in, whole, and unchanged until this is left. Raises Unsupported."""
        ...

    def size(self) -> int:
        """Bytes on the disk; 0 when unknown."""
        ...

    def close(self) -> None: ...


EVENT_COLUMNS: Final[dict[str, str]] = {
    "key": "UUID",
    "project": "VARCHAR",
    "event": "VARCHAR",
    "installation": "UUID",
    "occurred_at": "TIMESTAMP",
    "received_at": "TIMESTAMP",
    "library": "VARCHAR",
    "library_version": "VARCHAR",
    "app_version": "VARCHAR",
    "schema_version": "INTEGER",
    "schema_hash": "VARCHAR",
    "properties": "JSON",
}
SHAPE_KEY: Final = ("event", "path", "problem", "type", "size", "library")
"""What makes two refused values of a project the same shape."""

SHAPE_COLUMNS: Final = ["project", *SHAPE_KEY, "library_version", "app_version", "installation"]
_LINE_COLUMNS: Final[dict[str, str]] = EVENT_COLUMNS | {
    "k": "VARCHAR",
    "path": "VARCHAR",
    "problem": "VARCHAR",
    "type": "VARCHAR",
    "size": "VARCHAR",
    "name": "VARCHAR",
    "label": "VARCHAR",
    "n": "BIGINT",
}
_PARAMETER: Final = re.compile(r"\{(\w+):[\w()]+\}")

_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS events (
    {", ".join(f"{name} {kind} NOT NULL" for name, kind in EVENT_COLUMNS.items())},
    findings INTEGER NOT NULL, PRIMARY KEY (key));
CREATE TABLE IF NOT EXISTS shapes (project VARCHAR, event VARCHAR, path VARCHAR, problem VARCHAR,
    type VARCHAR, size VARCHAR, library VARCHAR, library_version VARCHAR, app_version VARCHAR,
    installation UUID, n BIGINT, first_seen TIMESTAMP, last_seen TIMESTAMP);
CREATE TABLE IF NOT EXISTS counts (project VARCHAR, name VARCHAR, label VARCHAR, day DATE, n BIGINT);
CREATE TABLE IF NOT EXISTS segments (number BIGINT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS ignored (project VARCHAR, {", ".join(f"{name} VARCHAR" for name in SHAPE_KEY)});
"""
_KEPT: Final = ("events", "shapes", "counts", "segments", "ignored")
_SHAPE: Final = " AND ".join(f"{name} = ?" for name in ("project", *SHAPE_KEY))


class DuckDBStore:
    """One file, owned by this process (DuckDB locks it, even against readers).

    No statement reaches a file outside its directory, a network or an extension, and none can change that.
    """

    dialect = Dialect("duckdb", events="events", shapes="shapes", counts="counts", ignored="ignored")

    def __init__(self, path: Path, threads: int = 2, memory: str = "") -> None:
        self._path = path.resolve()
        self._gate = Gate()
        self._writing = threading.Lock()
        self._asking = threading.Lock()
        limit = {"memory_limit": memory} if memory else {}
        self._connection = duckdb.connect(config={"threads": threads, **limit})
        self._connection.execute(
            "SET preserve_insertion_order = false; SET autoinstall_known_extensions = false;"
            " SET autoload_known_extensions = false; SET python_enable_replacements = false;"
            f" SET temp_directory = '{quoted(str(self._path.with_suffix('.tmp')))}';"
            f" SET allowed_directories = ['{quoted(str(self._path.parent))}/'];"
            " SET enable_external_access = false; SET lock_configuration = true"
        )
        self._attach()

    def _attach(self) -> None:
        where = quoted(str(self._path))
        version = f" (STORAGE_VERSION '{STORAGE_VERSION}')"
        try:
            self._connection.execute(f"ATTACH '{where}' AS collector{version}")
        except duckdb.IOException as error:
            raise ConfigurationError(f"{self._path} is in use by another process, or not readable") from error
        self._connection.execute(f"USE collector; {_TABLES}")

    def load(self, number: int, segment: Path) -> Loaded:
        with self._writing, self._gate.shared(), self._cursor() as cursor:
            if cursor.execute("SELECT 1 FROM segments WHERE number = ?", [number]).fetchone():
                return Loaded()
            columns = ", ".join(f"{name}: '{kind}'" for name, kind in _LINE_COLUMNS.items())
            cursor.execute(
                "CREATE OR REPLACE TEMP TABLE lines AS SELECT * FROM"
                f" read_json('{quoted(str(segment.resolve()))}',"
                f" format = 'newline_delimited', columns = {{{columns}}}, maximum_object_size = 1048576)"
            )
            cursor.execute("BEGIN")
            try:
                loaded = self._insert(cursor, number)
                cursor.execute("COMMIT")
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            finally:
                cursor.execute("DROP TABLE IF EXISTS temp.lines")
            return loaded

    def _insert(self, cursor: Any, number: int) -> Loaded:
        names = ", ".join(EVENT_COLUMNS)
        found = cursor.execute(
            "SELECT project, count(*), max(received_at) FROM lines WHERE k = 'e' GROUP BY project"
        ).fetchall()
        total = doubles = 0
        for project, offered, newest in found:
            kept = cursor.execute(
                f"INSERT OR IGNORE INTO events SELECT {names}, {findings('regexp_matches')}"
                " FROM lines WHERE k = 'e' AND project = ?",
                [project],
            ).fetchone()[0]
            total, doubles = total + kept, doubles + offered - kept
            if offered > kept:
                cursor.execute(
                    "INSERT INTO counts VALUES (?, 'duplicate', '', ?::DATE, ?)",
                    [project, newest, offered - kept],
                )
        shape = ", ".join(SHAPE_COLUMNS)
        cursor.execute(
            f"INSERT INTO shapes SELECT {shape}, sum(n), min(received_at), max(received_at) FROM lines"
            f" WHERE k = 's' GROUP BY {shape}"
        )
        cursor.execute(
            "INSERT INTO counts SELECT project, name, label, received_at::DATE, sum(n) FROM lines"
            " WHERE k = 'c' GROUP BY ALL"
        )
        cursor.execute("INSERT INTO segments VALUES (?)", [number])
        return Loaded(total, doubles)

    def newest(self) -> int:
        return int(self.rows("SELECT coalesce(max(number), 0) FROM segments", {})[0][0])

    def rows(self, sql: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        text = _PARAMETER.sub(r"$\1", sql)
        with self._gate.shared(), self._cursor() as cursor, ended(cursor, QUERY_SECONDS):
            found: list[tuple[Any, ...]] = cursor.execute(text, dict(parameters)).fetchall()
            return found

    def select(self, text: str, project: str, since: str, until: str) -> sql.Table:
        where = f"project = '{quoted(project)}' AND occurred_at >= '{since}' AND occurred_at < '{until}'"
        harmless = sql.harmless(
            text, f"SELECT {', '.join(sql.COLUMNS)} FROM collector.main.events WHERE {where}"
        )
        with self._alone(), self._gate.shared(), self._cursor() as cursor:
            before = self._memory()

            def too_much() -> bool:
                return self._memory() - before > sql.MOST_BYTES

            try:
                with ended(cursor, sql.SECONDS, too_much):
                    cursor.execute("BEGIN TRANSACTION READ ONLY")
                    rows = cursor.execute(harmless).fetchall()
            except (QueryTooSlow, duckdb.OutOfMemoryException) as error:
                raise QueryTooSlow from error
            except duckdb.Error as error:
                why = _first_line(error).replace(sql.PREFIX, "")
                raise InvalidInput(f"the database refuses this: {why}") from error
            names = tuple(str(one[0]) for one in cursor.description or ())
        return sql.Table(names, rows[: sql.MOST_ROWS], len(rows) > sql.MOST_ROWS)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One statement at a time, so that many together take no more. Raises QueryTooSlow after a wait."""
        if not self._asking.acquire(timeout=sql.SECONDS):
            raise QueryTooSlow
        try:
            yield
        finally:
            self._asking.release()

    def _memory(self) -> int:
        """Bytes the database holds in memory."""
        with contextlib.closing(self._connection.cursor()) as cursor:
            found = cursor.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchall()
        return int(found[0][0])

    def ignore(self, project: str, shape: Sequence[str], ignored: bool = True) -> None:
        with self._writing, self._gate.shared(), self._cursor() as cursor:
            cursor.execute(f"DELETE FROM ignored WHERE {_SHAPE}", [project, *shape])
            if ignored:
                cursor.execute("INSERT INTO ignored VALUES (?, ?, ?, ?, ?, ?, ?)", [project, *shape])

    def purge(self, project: str, shape: Sequence[str]) -> int:
        with self._writing:
            with self._gate.shared(), self._cursor() as cursor:
                what = [project, *shape]
                times = cursor.execute(f"SELECT sum(n) FROM shapes WHERE {_SHAPE}", what).fetchone()[0]
                cursor.execute(f"DELETE FROM shapes WHERE {_SHAPE}", what)
            if times:
                self._rewrite()
        return int(times or 0)

    def erase(self, project: str, installations: Sequence[str]) -> Erased:
        condition = "project = ? AND installation IN (SELECT unnest(?::UUID[]))"
        what = [project, list(installations)]
        with self._writing:
            with self._gate.shared(), self._cursor() as cursor:
                events = cursor.execute(f"DELETE FROM events WHERE {condition}", what).fetchone()[0]
                shapes = cursor.execute(f"DELETE FROM shapes WHERE {condition}", what).fetchone()[0]
            if events or shapes:
                self._rewrite()
            with self._gate.shared(), self._cursor() as cursor:
                left = cursor.execute(
                    f"SELECT (SELECT count(*) FROM events WHERE {condition})"
                    f" + (SELECT count(*) FROM shapes WHERE {condition})",
                    [*what, *what],
                ).fetchone()[0]
        return Erased(events, shapes, left)

    def expire(self, before: str) -> int:
        with self._writing:
            with self._gate.shared(), self._cursor() as cursor:
                at = "?::TIMESTAMP"
                events = cursor.execute(f"DELETE FROM events WHERE received_at < {at}", [before]).fetchone()[
                    0
                ]
                shapes = cursor.execute(f"DELETE FROM shapes WHERE last_seen < {at}", [before]).fetchone()[0]
                cursor.execute(f"DELETE FROM counts WHERE day < {at}::DATE", [before])
            if events or shapes:
                self._rewrite()
        return int(events)

    @contextlib.contextmanager
    def still(self) -> Iterator[Path]:
        with self._writing, self._gate.shared():
            with self._cursor() as cursor:
                cursor.execute("FORCE CHECKPOINT collector")
            yield self._path

    def size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def close(self) -> None:
        with self._writing, self._gate.alone():
            self._connection.execute("CHECKPOINT collector")
            self._connection.close()

    def _rewrite(self) -> None:
        """Copy what is left into a new file, swap it in: a DELETE alone leaves the bytes in the old one."""
        scratch = self._path.with_suffix(".rewrite")
        scratch.unlink(missing_ok=True)
        with self._gate.alone():
            run = self._connection.execute
            run(f"ATTACH '{quoted(str(scratch))}' AS rewritten (STORAGE_VERSION '{STORAGE_VERSION}')")
            run("USE rewritten")
            run(_TABLES)
            for table in _KEPT:
                run(f"INSERT INTO rewritten.{table} SELECT * FROM collector.{table}")
            run("CHECKPOINT rewritten; USE memory; DETACH rewritten; CHECKPOINT collector; DETACH collector")
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}.wal").unlink()
            scratch.replace(self._path)
            self._attach()

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        cursor = self._connection.cursor()
        try:
            cursor.execute("USE collector")
            yield cursor
        finally:
            cursor.close()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]


def findings(function: str, escape: str = "\\") -> str:
    """SQL for the scanners that match an event, one bit each, in the order of SCANNERS.

    All patterns are tried at once first, because almost no event matches any (5 times less CPU, measured).
    ``escape`` is what a backslash in a string is written as.
    """
    patterns = [quoted(pattern).replace("\\", escape) for pattern in SCANNERS.values()]
    any_of = "|".join(f"(?:{pattern})" for pattern in patterns)
    bits = " + ".join(
        f"(CASE WHEN {function}(properties, '{pattern}') THEN {1 << place} ELSE 0 END)"
        for place, pattern in enumerate(patterns)
    )
    return f"(CASE WHEN {function}(properties, '{any_of}') THEN {bits} ELSE 0 END)"


def json_path(path: Sequence[str]) -> str:
    """A JSONPath with every key quoted, safe inside a single-quoted SQL string."""
    return quoted("$" + "".join('."' + part.replace('"', "") + '"' for part in path))


def quoted(text: str) -> str:
    """Text for a single-quoted SQL string."""
    return text.replace("'", "''")
