"""SQL that somebody writes: what may be asked is answered; nothing else is reached, changed or used up."""

import contextlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.collector import sql
from clarion.collector.ingest import stamp
from clarion.collector.limits import QueryTooSlow
from clarion.collector.records import Event, Shape, line
from clarion.collector.store import DuckDBStore
from clarion.errors import InvalidInput
from tests.clarion.collector.sample import CREATED, FAILED, PROJECT, properties

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRET = "the-secret-of-the-collector"


def stored(name: str, project: str = PROJECT, days_ago: float = 0) -> Event:
    at = stamp(NOW - timedelta(days=days_ago))
    return Event(
        key=str(uuid.uuid4()),
        project=project,
        event=name,
        installation=str(uuid.UUID(int=1)),
        occurred_at=at,
        received_at=at,
        library="direct",
        library_version="",
        app_version="1.2.0",
        schema_version=3,
        schema_hash="",
        properties=properties(name),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBStore]:
    """Five events of the project in the span, one of another, one too old, one refused; a secret beside."""
    data = tmp_path_factory.mktemp("sql")
    (data / "collector.key").write_text(SECRET)
    (data.parent / "outside.csv").write_text(SECRET)
    made = DuckDBStore(data / "events.duckdb")
    shape = Shape(PROJECT, "", SECRET, "unknown event", "", "", "", "", "", str(uuid.UUID(int=1)), stamp(NOW))
    records = [
        *(stored(CREATED, days_ago=n) for n in range(3)),
        *(stored(FAILED, days_ago=n) for n in range(2)),
        stored(CREATED, project="another"),
        stored(CREATED, days_ago=50),
        shape,
    ]
    segment = data / "1.ndjson"
    segment.write_bytes(b"".join(line(one) for one in records))
    made.load(1, segment)
    yield made
    made.close()


def ask(store: DuckDBStore, text: str) -> sql.Table:
    since, until = stamp(NOW - timedelta(days=30)), stamp(NOW + timedelta(days=1))
    return store.select(text, PROJECT, since, until)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SELECT count(*) FROM events", [(5,)]),
        ("from events select event, count(*) as n group by all order by n desc", [(CREATED, 3), (FAILED, 2)]),
        ("SELECT e.event FROM events AS e WHERE e.event LIKE '%failed' LIMIT 1;", [(FAILED,)]),
        ("SELECT events.app_version FROM events LIMIT 1 -- one", [("1.2.0",)]),
        (
            "SELECT properties->>'$.system_properties.os' AS os, count(*) FROM events GROUP BY 1",
            [("linux", 5)],
        ),
        ("WITH x AS (SELECT event FROM events), y AS (FROM x) SELECT count(*) FROM y, x AS z", [(25,)]),
        ("WITH shapes AS (SELECT 1 AS a) SELECT * FROM shapes", [(1,)]),
        ("SELECT event FROM events EXCEPT SELECT event FROM events WHERE event LIKE '%failed'", [(CREATED,)]),
        ("WITH a AS (SELECT 1 AS x) (SELECT x FROM a) UNION ALL (SELECT 2) ORDER BY x", [(1,), (2,)]),
        ("SELECT CASE WHEN EXISTS (SELECT 1 FROM events WHERE findings > 0) THEN 1.5 END", [(None,)]),
        (
            "SELECT date_trunc('week', occurred_at)::DATE::VARCHAR, count(DISTINCT installation)"
            " FILTER (WHERE true) FROM events GROUP BY 1",
            [("2026-11-16", 1)],
        ),
        (
            "SELECT row_number() OVER w AS n FROM events WINDOW w AS (ORDER BY key) ORDER BY n LIMIT 2",
            [(1,), (2,)],
        ),
        ("SELECT e.n FROM (VALUES (1), (2)) AS e(n) JOIN events AS x ON false", []),
        ("SELECT 'it''s; -- all text' AS \"DROP TABLE events\"", [("it's; -- all text",)]),
        ("SELECT max(occurred_at) - INTERVAL 1 DAY < max(received_at) FROM events", [(True,)]),
    ],
)
def test_what_may_be_asked_is_answered(store: DuckDBStore, text: str, rows: list[Any]) -> None:
    assert ask(store, text).rows == rows


REFUSED = [
    # other statements, and several
    "INSERT INTO events SELECT * FROM events", "DELETE FROM events", "UPDATE events SET event = ''",
    "DROP TABLE events", "CREATE TABLE t AS SELECT 1", "ALTER TABLE events ADD COLUMN x INT",
    "TRUNCATE events",
    "COPY events TO 'out.csv'", "EXPORT DATABASE 'out'", "ATTACH 'x.db'", "DETACH collector", "USE memory",
    "INSTALL httpfs", "LOAD httpfs", "PRAGMA database_list", "SET threads = 1", "RESET threads",
    "CALL pragma_version()",
    "CHECKPOINT", "VACUUM", "BEGIN", "COMMIT", "EXPLAIN ANALYZE SELECT 1", "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "SHOW TABLES", "DESCRIBE events", "SUMMARIZE events", "PIVOT events ON event",
    "SELECT 1; DELETE FROM events",
    "SELECT 1) UNION (SELECT 1", "SELECT * FROM (DELETE FROM events RETURNING *)", "", ";", "nonsense",
    # other tables, by every name
    "SELECT * FROM shapes", "TABLE counts", "SELECT * FROM segments", "SELECT * FROM ignored",
    "SELECT * FROM lines",
    "SELECT * FROM main.events", "SELECT * FROM collector.main.shapes", "SELECT * FROM temp.lines",
    "SELECT * FROM information_schema.tables", "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM duckdb_settings()", "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM pragma_table_info('shapes')",
    "SELECT * FROM query('FROM shapes')", "SELECT * FROM query_table('shapes')",
    "SELECT * FROM asked_events",
    "SELECT (SELECT path FROM shapes LIMIT 1)", "SELECT 1 WHERE 1 IN (SELECT n FROM counts)",
    "SELECT * FROM (WITH shapes AS (SELECT 1) FROM shapes), shapes",
    "WITH events AS (FROM shapes) FROM events", "WITH EVENTS AS (SELECT 1) FROM EVENTS",
    "SELECT * FROM events AT (VERSION => 1)", "SELECT rowid FROM events", "SELECT segment FROM events",
    "SELECT * FROM store", "SELECT * FROM self",
    # files, network, settings, the environment
    "SELECT * FROM 'collector.key'", "SELECT * FROM 'outside.csv'",
    "SELECT * FROM read_text('collector.key')",
    "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_blob('*')", "SELECT * FROM glob('*')",
    "SELECT * FROM 'https://example.org/x.csv'", "SELECT getenv('HOME')",
    "SELECT current_setting('threads')",
    "SELECT getvariable('x')", "SELECT nextval('s')", "SELECT setseed(0.5)", "SELECT write_log('x')",
    "SELECT main.lower('x')", "SELECT system.main.lower('x')", "SELECT version()", "SELECT pg_sleep(100)",
    # parameters of ours, code, memory
    "SELECT $1", "SELECT ?", "SELECT $project", "SELECT list_transform([1], x -> x)",
    "SELECT COLUMNS(x -> true) FROM events",
    "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t) SELECT * FROM t",
    "SELECT repeat('x', 1000000000)",
    "SELECT 'x' || 'y'", "SELECT string_agg(event, '') FROM events", "SELECT list(properties) FROM events",
    "SELECT range(1000000000)", "SELECT * FROM range(1000000000000)", "SELECT unnest([1, 2])",
    "SELECT #1 FROM events",
    "SELECT 1 -- " + "x" * sql.MOST_CHARACTERS,
    "SELECT '\ud800'",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text)[1:60])
def test_nothing_else_is(store: DuckDBStore, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ask(store, text)
    assert SECRET not in refused.value.message
    assert ask(store, "SELECT count(*) FROM events").rows == [(5,)]


def test_what_is_nested_deeply_harms_nobody(store: DuckDBStore) -> None:
    with contextlib.suppress(InvalidInput):  # DuckDB 2 refuses it, 1.5 answers
        assert ask(store, "SELECT " + "(" * 2000 + "1" + ")" * 2000).rows == [(1,)]
    nested = "SELECT * FROM (" * 300 + "SELECT 1" + ")" * 300
    with contextlib.suppress(InvalidInput):
        assert ask(store, nested).rows == [(1,)]
    assert ask(store, "SELECT count(*) FROM events").rows == [(5,)]


def test_what_takes_too_long_is_ended(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "SECONDS", 0.1)
    joined = ", ".join(f"events AS e{n}" for n in range(20))
    with pytest.raises(QueryTooSlow):
        ask(store, f"SELECT count(*) FROM {joined} WHERE e0.key != e19.key")
    assert ask(store, "SELECT count(*) FROM events").rows == [(5,)]


def test_what_takes_too_much_memory_is_ended(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "MOST_BYTES", 64 * 1024**2)
    joined, keys = (
        ", ".join(f"{name}{n}{rest}" for n in range(10))
        for name, rest in (("events AS e", ""), ("e", ".key"))
    )
    with pytest.raises(QueryTooSlow):
        ask(store, f"SELECT count(*) FROM (SELECT DISTINCT {keys} FROM {joined})")


def test_rows_are_counted_out(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "MOST_ROWS", 4)
    ordered = "SELECT occurred_at FROM events ORDER BY occurred_at DESC"
    for text in (ordered, f"{ordered} LIMIT 100", f"WITH x AS ({ordered}) FROM x ORDER BY 1 DESC"):
        found = ask(store, text)
        assert (found.columns, len(found.rows), found.more) == (("occurred_at",), 4, True)
        assert found.rows == sorted(found.rows, reverse=True)
    assert not ask(store, f"{ordered} LIMIT 4").more


def test_the_lock_holds_even_without_the_lists(store: DuckDBStore, tmp_path: Path) -> None:
    """The second wall: what the database itself refuses to any statement."""
    (tmp_path / "outside.csv").write_text(SECRET)
    for text in (
        f"SELECT * FROM read_text('{tmp_path / 'outside.csv'}')",
        f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
        "SELECT * FROM 'https://127.0.0.1/x.csv'",
        "INSTALL httpfs",
    ):
        with pytest.raises(Exception, match=r"disabled|locked|Cannot change"):
            store.rows(text, {})
    assert not (tmp_path / "out.csv").exists()


WORDS = st.sampled_from(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "WITH",
        "AS",
        "(",
        ")",
        ",",
        ";",
        "*",
        "events",
        "shapes",
        "counts",
        "main",
        ".",
        "'x'",
        "1",
        "count(*)",
        "UNION",
        "ALL",
        "JOIN",
        "ON",
        "read_text",
        "x",
        "DELETE",
        "INSERT",
        "INTO",
        "--",
        "/*",
        "*/",
        '"',
        "'",
        "IN",
        "LIMIT",
        "ORDER",
        "BY",
        "duckdb_tables()",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=14).map(" ".join))
def test_no_sentence_reaches_a_table_of_ours(text: str) -> None:
    try:
        written = sql.harmless(text, "SELECT 1 AS event")
    except InvalidInput:
        return
    import duckdb

    tree = json.loads(duckdb.execute("SELECT json_serialize_sql($q)", {"q": written}).fetchall()[0][0])
    assert len(tree["statements"]) == 1
    named = [part["table_name"] for part in sql._parts(tree) if part.get("type") == "BASE_TABLE"]
    assert all(name.startswith("asked_") for name in named)
