"""What every store must do: load once, answer every question alike, forget completely.

ClickHouse runs here as the real engine of chDB (ClickHouse 26.9 in this process) behind the client,
clickhouse-connect, that also speaks to a server; the HTTP wire between them is the one thing not run.
Debian's ``clickhouse-server`` is 18.16 (2018), too old for the SQL.
"""

import base64
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clarion.collector import operating, oversight, questions
from clarion.collector.ingest import stamp
from clarion.collector.questions import Span
from clarion.collector.records import Count, Event, Shape, line
from clarion.collector.schema import AllowList
from clarion.collector.sql import Table
from clarion.collector.store import SHAPE_KEY, DuckDBStore, Store, Unsupported
from tests.clarion.collector.sample import CREATED, FAILED, PROJECT, SCHEMA, properties

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SPAN = Span(PROJECT, NOW - timedelta(days=60), NOW + timedelta(days=1))
Load = Callable[..., Any]


def _duckdb(tmp_path: Path) -> Store:
    return DuckDBStore(tmp_path / "events.duckdb")


def _clickhouse(tmp_path: Path) -> Store:
    pytest.importorskip("chdb", reason="pip install chdb-core runs these on ClickHouse's engine")
    from clarion.collector.clickhouse import ClickHouseStore

    return ClickHouseStore(interface="chdb", path=str(tmp_path / "clickhouse"), database="default")


@pytest.fixture(params=[_duckdb, _clickhouse], ids=["duckdb", "clickhouse"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = request.param(tmp_path)
    yield made
    made.close()


@pytest.fixture
def load(store: Store, tmp_path: Path) -> Load:
    numbers = iter(range(1, 1000))

    def load(*records: Event | Shape | Count, number: int = 0) -> Any:
        number = number or next(numbers)
        path = tmp_path / f"{number:012d}.ndjson"
        path.write_bytes(b"".join(line(record) for record in records))
        return store.load(number, path)

    return load


def who(number: int) -> str:
    return str(uuid.UUID(int=number, version=4))


def event(
    name: str = CREATED, person: int = 1, days_ago: float = 0, version: str = "1.2.0", **more: Any
) -> Event:
    at = stamp(NOW - timedelta(days=days_ago))
    given = properties(name, **more.pop("changes", {}))
    return Event(
        **{
            "key": str(uuid.uuid4()),
            "project": PROJECT,
            "event": name,
            "installation": who(person),
            "occurred_at": at,
            "received_at": at,
            "library": "direct",
            "library_version": "",
            "app_version": version,
            "schema_version": 3,
            "schema_hash": SCHEMA.hash[:16],
            "properties": given,
            **more,
        }
    )


def shape(path: str = "event_properties.secret", person: int = 1, event: str = CREATED, **more: Any) -> Shape:
    fields: dict[str, Any] = {
        "project": PROJECT,
        "event": event,
        "path": path,
        "problem": "unknown property",
        "type": "string",
        "size": "6-10",
        "library": "direct",
        "library_version": "",
        "app_version": "1.2.0",
        "installation": who(person),
        "received_at": stamp(NOW),
    }
    return Shape(**(fields | more))


def test_a_segment_is_loaded_once(store: Store, load: Load) -> None:
    one = event()
    assert (load(one, shape(), number=7).events, store.newest()) == (1, 7)
    again = load(one, shape(), number=7)
    assert (again.events, again.duplicates) == (0, 0)
    assert questions.volume(store, SPAN, NOW, k=1)[0]["events"] == 1
    assert oversight.quarantine(store, SPAN, k=1)[0]["count"] == 1


def test_an_event_is_kept_once_and_its_duplicates_are_counted(store: Store, load: Load) -> None:
    one, other = event(), event(FAILED)
    load(one, one)
    loaded = load(one, other)
    assert (loaded.events, loaded.duplicates) == (1, 1)
    assert {row["event"]: row["events"] for row in questions.volume(store, SPAN, NOW, k=1)} == {
        CREATED: 1,
        FAILED: 1,
    }
    assert oversight.counters(store, SPAN) == [{"name": "duplicate", "label": "", "count": 2}]


def test_counters_add_up_over_segments(store: Store, load: Load) -> None:
    for n in (2, 3):
        load(event(), Count(PROJECT, "stripped", "posthog-js:$host", stamp(NOW), n))
    assert oversight.counters(store, SPAN) == [{"name": "stripped", "label": "posthog-js:$host", "count": 5}]


def test_volume_says_how_many_when_and_by_whom(store: Store, load: Load) -> None:
    load(*(event(person=p, days_ago=d) for p, d in ((1, 0.5), (1, 3), (2, 10))), event(FAILED, days_ago=59))
    first = questions.volume(store, SPAN, NOW, k=1)[0]
    assert first == {
        "event": CREATED,
        "events": 3,
        "last_24h": 1,
        "last_7d": 2,
        "last_30d": 3,
        "installations": 2,
        "versions": 1,
        "first_seen": "2026-11-10T12:00:00.000Z",
        "last_seen": "2026-11-20T00:00:00.000Z",
    }


def test_series_counts_by_period(store: Store, load: Load) -> None:
    load(event(days_ago=0), event(days_ago=0), event(days_ago=1), event(FAILED, days_ago=1))
    assert questions.series(store, SPAN, "day", CREATED) == [
        {"period": "2026-11-19", "event": CREATED, "events": 1},
        {"period": "2026-11-20", "event": CREATED, "events": 2},
    ]
    weeks = questions.series(store, SPAN, "week")
    assert {row["period"] for row in weeks} == {"2026-11-16"}  # a Monday
    assert {row["period"] for row in questions.series(store, SPAN, "month")} == {"2026-11-01"}


def test_properties_fill_and_distribution_fold_small_groups(store: Store, load: Load) -> None:
    many = [event(FAILED, p, changes={"trigger": "cron", "step_count": p}) for p in range(1, 7)]
    load(*many, event(FAILED, 8, changes={"trigger": "manual", "retried": True}))
    found = {row["property"]: row for row in questions.properties(store, SPAN, SCHEMA, FAILED)}
    trigger = found["event_properties.trigger"]
    assert (trigger["filled"], trigger["events"]) == (7, 7)
    # What one sent could be had by subtraction from what is filled: so the six are not shown either.
    assert trigger["values"] == [{"value": "other", "events": 7, "installations": None}]
    # Every step count is somebody's own: none is shown.
    assert found["event_properties.step_count"]["values"] == [
        {"value": "other", "events": None, "installations": None}
    ]
    assert found["event_properties.project"]["values"] == [
        {"value": "0" * 31 + "1", "events": 7, "installations": 7}
    ]


def test_installations_tells_new_from_returning(store: Store, load: Load) -> None:
    load(event(person=1, days_ago=2), event(person=1, days_ago=1), event(person=2, days_ago=1))
    assert questions.installations(store, SPAN, "day", k=1) == [
        {"period": "2026-11-18", "installations": 1, "new": 1, "returning": 0, "churned": None},
        {"period": "2026-11-19", "installations": 2, "new": 1, "returning": 1, "churned": 0},
    ]


@pytest.mark.parametrize(("period", "days"), [("day", 1), ("week", 7), ("month", 31)])
def test_who_was_there_and_is_not_has_churned(
    store: Store, load: Load, period: questions.Period, days: int
) -> None:
    def of(people: range, back: int) -> list[Event]:
        return [event(person=p, days_ago=back * days) for p in people]

    wide = Span(PROJECT, NOW - timedelta(days=200), NOW + timedelta(days=1))
    load(*of(range(14), 3), *of(range(5, 14), 2), *of(range(9, 14), 1), *of(range(14), 0))
    found = questions.installations(store, wide, period)
    assert [row["churned"] for row in found] == [None, 5, None, 0]  # 4 of few
    assert [row["churned"] for row in questions.installations(store, wide, period, k=1)] == [None, 5, 4, 0]


def test_nobody_churns_over_a_gap(store: Store, load: Load) -> None:
    load(*(event(person=p, days_ago=9) for p in range(6)), *(event(person=p) for p in range(6)))
    assert [row["churned"] for row in questions.installations(store, SPAN, "day")] == [None, 0]


def test_how_many_were_active_lately_is_not_said_of_few(store: Store, load: Load) -> None:
    load(*(event(person=p, days_ago=20) for p in range(9)), *(event(person=p, days_ago=3) for p in range(6)))
    load(event(person=1, days_ago=0.5), event(person=30, days_ago=31))
    assert questions.active(store, PROJECT, NOW) == {"last_24h": None, "last_7d": 6, "last_30d": 9}
    assert questions.active(store, "nobodys", NOW) == {"last_24h": 0, "last_7d": 0, "last_30d": 0}


def test_what_senders_lost_is_told_by_why(store: Store, load: Load) -> None:
    def lost(person: int, **reasons: str) -> Event:
        return event(operating.LOSSES, person, properties={"event_properties": {"lost": reasons}})

    buckets = {"enum": ["0", "1", "2-5"]}
    reasons = {
        "type": "object",
        "properties": {"expired": buckets, "refused": buckets, "queue_full": buckets},
    }
    inner = {"type": "object", "properties": {"lost": {"anyOf": [reasons, {"type": "null"}]}}}
    schema = {"type": "object", "properties": {"event_properties": inner}, "additionalProperties": False}
    allowed = AllowList.parse({"events": {operating.LOSSES: {"schema": schema}}})
    load(*(lost(p, expired="2-5", refused="0") for p in range(8)), *(lost(p, expired="1") for p in range(6)))
    load(lost(1, queue_full="1"), event())
    assert operating.drops(store, SPAN, allowed) == [
        {
            "reason": "expired",
            "values": [
                {"value": "2-5", "events": 8, "installations": 8},
                {"value": "1", "events": 6, "installations": 6},
            ],
        },
        {"reason": "queue_full", "values": [{"value": "other", "events": None, "installations": None}]},
    ]
    assert operating.drops(store, SPAN, SCHEMA) == []  # an application that has no such event


def test_adoption_says_how_long_a_version_took_to_half(store: Store, load: Load) -> None:
    everyone = range(20)
    load(
        *(event(person=p, days_ago=70, version="1.2.0") for p in everyone),
        *(event(person=p, days_ago=10, version="1.9.0" if p < 6 else "1.2.0") for p in everyone),
        *(event(person=p, days_ago=10.2, version="1.2.0") for p in everyone),  # they had it before that day
        *(event(person=p, days_ago=7, version="1.10.0" if p < 6 else "1.9.0") for p in range(12)),
        *(event(person=p, days_ago=7, version="1.2.0") for p in range(12, 20)),
        *(event(person=p, days_ago=7.1, version="2.0.0") for p in range(2)),  # not their last
    )
    assert questions.adoption(store, SPAN) == [
        {"version": "1.10.0", "first_seen": "2026-11-13", "half": None, "days_to_half": None},
        {"version": "1.9.0", "first_seen": "2026-11-10", "half": "2026-11-13", "days_to_half": 3},
    ]


def test_platforms_are_what_each_installation_said_last(store: Store, load: Load) -> None:
    def on(person: int, os: str, days_ago: float = 0) -> Event:
        given = properties() | {"system_properties": {"os": os, "cpu_count": 2}}
        return event(person=person, days_ago=days_ago, properties=given)

    load(*(on(p, "macos", 3) for p in range(20)))
    load(*(on(p, "linux", 2) for p in range(12)), *(on(p, "macos", 1) for p in range(5)))
    found = {row["property"]: row["values"] for row in questions.platforms(store, SPAN, SCHEMA)}
    assert found["system_properties.os"] == [
        {"value": "macos", "installations": 13},
        {"value": "linux", "installations": 7},
    ]
    assert set(found) == {"system_properties.os", "system_properties.cpu_count", "app_properties.version"}


def test_no_platform_of_few_is_shown_or_had_by_subtraction(store: Store, load: Load) -> None:
    def on(person: int, os: str) -> Event:
        return event(person=person, properties=properties() | {"system_properties": {"os": os}})

    load(*(on(p, "linux") for p in range(9)), *(on(p, "macos") for p in range(10, 16)), on(20, "other"))
    found = {row["property"]: row["values"] for row in questions.platforms(store, SPAN, SCHEMA)}
    assert found["system_properties.os"] == [
        {"value": "linux", "installations": 9},
        {"value": "other", "installations": None},
    ]


def test_version_adoption_folds_rare_versions(store: Store, load: Load) -> None:
    many = [event(person=p, version="1.2.0") for p in range(8)]
    load(*many, *(event(person=p, version="1.1.0") for p in range(8, 13)), event(person=19, version="9.9.9"))
    assert questions.versions(store, SPAN, "week") == [
        {
            "period": "2026-11-16",
            "versions": [
                {"value": "1.2.0", "events": 8, "installations": 8},
                {"value": "other", "events": 6, "installations": None},
            ],
        }
    ]


def test_funnel_wants_the_order_and_the_window(store: Store, load: Load) -> None:
    done = [e for p in range(6) for e in (event(person=p, days_ago=5), event(FAILED, p, days_ago=4))]
    before = [event(FAILED, 10, days_ago=6), event(person=10, days_ago=5)]
    late = [event(person=11, days_ago=30), event(FAILED, 11, days_ago=1)]
    load(*done, *before, *late)
    found = questions.funnel(store, SPAN, [CREATED, FAILED], timedelta(days=7))
    assert [(row["event"], row["installations"], row["share"]) for row in found] == [
        (CREATED, 8, 1.0),
        (FAILED, 6, 0.75),
    ]


def test_a_funnel_step_of_few_installations_is_masked(store: Store, load: Load) -> None:
    load(*(event(person=p, days_ago=2) for p in range(6)), event(FAILED, 1))
    found = questions.funnel(store, SPAN, [CREATED, FAILED], timedelta(days=7))
    assert (found[1]["installations"], found[1]["share"]) == (None, None)


def test_retention_by_week_of_birth(store: Store, load: Load) -> None:
    born = [event(person=p, days_ago=15) for p in range(6)]
    back = [event(person=p, days_ago=8) for p in range(5)]
    load(*born, *back, event(person=1, days_ago=1))
    assert questions.retention(store, SPAN, "week") == [
        {"cohort": "2026-11-02", "installations": 6, "returned": [5, None]}
    ]


def test_quarantine_shows_shapes_with_counts(store: Store, load: Load) -> None:
    load(shape(person=1), shape(person=2), shape(person=2))
    load(shape(person=2), shape("", event="", problem="unknown event"))
    first = oversight.quarantine(store, SPAN, k=1)[0]
    assert (first["path"], first["count"], first["installations"]) == ("event_properties.secret", 4, 2)
    assert {key: first[key] for key in ("problem", "type", "size")} == {
        "problem": "unknown property",
        "type": "string",
        "size": "6-10",
    }


def key_of(row: dict[str, Any]) -> list[str]:
    return [row[name] for name in SHAPE_KEY]


def test_an_ignored_shape_stays_ignored_when_it_comes_again_and_is_counted(store: Store, load: Load) -> None:
    load(shape(), shape("event_properties.other"), shape(project="another"))
    ours = next(row for row in oversight.quarantine(store, SPAN) if row["path"] == "event_properties.secret")
    for _ in range(2):  # twice is once
        store.ignore(PROJECT, key_of(ours))
    load(shape(person=2))
    assert [row["path"] for row in oversight.quarantine(store, SPAN)] == ["event_properties.other"]
    assert [(row["path"], row["count"]) for row in oversight.quarantine(store, SPAN, ignored=True)] == [
        ("event_properties.secret", 2)
    ]
    there = Span("another", SPAN.since, SPAN.until)
    assert [row["count"] for row in oversight.quarantine(store, there)] == [1]
    assert oversight.verdict(store, SPAN, SCHEMA)["verdict"] == "amber"  # to ignore it makes nothing conform
    load(shape(size="51-100"))  # the next one is not what was ignored
    assert [row["size"] for row in oversight.quarantine(store, SPAN)] == ["6-10", "51-100"]
    store.ignore(PROJECT, key_of(ours), ignored=False)
    assert oversight.quarantine(store, SPAN, ignored=True) == []
    assert len(oversight.quarantine(store, SPAN)) == 3


def test_what_is_ignored_survives_an_erasure(store: Store, load: Load) -> None:
    load(event(person=1), shape(person=2))
    store.ignore(PROJECT, key_of(oversight.quarantine(store, SPAN)[0]))
    store.erase(PROJECT, [who(1)])
    assert oversight.quarantine(store, SPAN) == []


def test_a_purged_shape_is_forgotten_and_nothing_else(store: Store, load: Load) -> None:
    load(event(), shape(person=1), shape(person=2), shape("event_properties.other"), shape(project="another"))
    purged = next(
        row for row in oversight.quarantine(store, SPAN) if row["path"] == "event_properties.secret"
    )
    assert oversight.is_refused(store, PROJECT, key_of(purged))
    assert store.purge(PROJECT, key_of(purged)) == 2
    assert not oversight.is_refused(store, PROJECT, key_of(purged))
    assert oversight.is_refused(store, "another", key_of(purged))
    assert [row["path"] for row in oversight.quarantine(store, SPAN)] == ["event_properties.other"]
    assert questions.volume(store, SPAN, NOW, k=1)[0]["events"] == 1
    assert store.purge(PROJECT, key_of(purged)) == 0
    load(shape(person=3))
    assert len(oversight.quarantine(store, SPAN)) == 2


def test_sql_is_answered_or_said_not_to_be(store: Store, load: Load) -> None:
    load(event(), event(project="another"))
    asked = ("SELECT count(*) AS n FROM events", PROJECT, stamp(SPAN.since), stamp(SPAN.until))
    if store.dialect.name == "clickhouse":
        with pytest.raises(Unsupported, match="ClickHouse"):
            store.select(*asked)
    else:
        assert store.select(*asked) == Table(("n",), [(1,)], more=False)


def test_the_file_stands_still_to_be_copied_or_there_is_none(
    store: Store, load: Load, tmp_path: Path
) -> None:
    load(event(), shape())
    if store.dialect.name == "clickhouse":
        with pytest.raises(Unsupported, match="BACKUP"):
            store.still()
        return
    with store.still() as path:
        copied = shutil.copy(path, tmp_path / "copied.duckdb")  # without a write-ahead log beside it
    load(event(FAILED))
    again = DuckDBStore(Path(copied))
    assert [row["event"] for row in questions.volume(again, SPAN, NOW, k=1)] == [CREATED]
    assert (len(oversight.quarantine(again, SPAN)), again.newest()) == (1, 1)
    again.close()


def test_verdict_is_green_amber_and_red(store: Store, load: Load) -> None:
    load(event(), event(FAILED))
    green = oversight.verdict(store, SPAN, SCHEMA)
    assert (green["verdict"], green["schema_hash"]) == ("green", SCHEMA.hash)
    load(shape(event=FAILED))
    amber = oversight.verdict(store, SPAN, SCHEMA)
    assert (amber["verdict"], [row["verdict"] for row in amber["events"]]) == ("amber", ["green", "amber"])
    leak = event(CREATED, properties={"event_properties": {"note": "write to ada@example.org"}})
    load(leak)
    red = oversight.verdict(store, SPAN, SCHEMA)
    assert red["verdict"] == "red"
    assert {row["event"]: row["findings"] for row in red["events"]} == {FAILED: {}, CREATED: {"email": 1}}


@pytest.mark.parametrize(
    ("scanner", "text"),
    [
        ("email", "ada@example.org"),
        ("ip", "203.0.113.7"),
        ("path", "/home/ada/secret"),
        ("path", "C:\\Users\\ada"),
        ("mac_uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ("secret", "ghp_abcdefghij0123456789"),
        ("long_token", "a1B2" * 20),
        ("long_token", "4815162342" * 4),
        ("long_token", hashlib.sha256(b"ada").hexdigest()),
        ("long_token", base64.b64encode(hashlib.md5(b"ada").digest() * 2).decode()),
        ("url", "https://git.example.org"),
    ],
)
def test_scanners_find_what_must_not_be_there(store: Store, load: Load, scanner: str, text: str) -> None:
    load(event(properties={"event_properties": {"note": text}}))
    row = next(row for row in oversight.verdict(store, SPAN, SCHEMA)["events"] if row["event"] == CREATED)
    assert scanner in row["findings"]


def test_arrivals_are_found_by_key(store: Store, load: Load) -> None:
    one = event(received_at=stamp(NOW + timedelta(seconds=2)))
    load(one)
    found = oversight.arrivals(store, {"mine": one.key, "lost": str(uuid.uuid4())})
    assert list(found) == ["mine"]
    assert (found["mine"]["lag_seconds"], found["mine"]["anonymous"]) == (2.0, True)


def test_erasure_leaves_nothing_of_an_installation_and_everything_of_others(store: Store, load: Load) -> None:
    load(event(person=1), event(person=2), shape(person=1))
    load(event(FAILED, 1))
    erased = store.erase(PROJECT, [who(1)])
    assert (erased.events, erased.shapes, erased.left) == (2, 1, 0)
    assert list(oversight.export(store, PROJECT, [who(1)])) == []
    assert [row["installations"] for row in questions.volume(store, SPAN, NOW, k=1)] == [1]
    assert load(event(person=2)).events == 1  # the store still works after the rewrite
    assert store.newest() == 3


def test_export_gives_every_event_of_one_installation(store: Store, load: Load) -> None:
    load(event(person=1, days_ago=1), event(FAILED, 1), event(person=2))
    found = list(oversight.export(store, PROJECT, [who(1)]))
    assert [row["event"] for row in found] == [CREATED, FAILED]
    assert json.loads(found[0]["properties"]) == properties(CREATED)


def test_an_export_of_many_pages_misses_and_doubles_nothing(
    store: Store, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oversight, "_PAGE", 4)
    at_once = [event() for _ in range(9)]  # the moment alone does not order them
    later = [event(days_ago=-0.5) for _ in range(3)]
    load(*at_once, *later, event(person=2))
    found = [row["key"] for row in oversight.export(store, PROJECT, [who(1)])]
    assert sorted(found) == sorted(one.key for one in [*at_once, *later])
    assert set(found[9:]) == {one.key for one in later}


def test_the_events_received_last_come_first(store: Store, load: Load) -> None:
    load(*(event(days_ago=day) for day in (3, 1, 2)), event(FAILED))
    found = oversight.recent(store, SPAN, CREATED, 2)
    assert [row["received_at"] for row in found] == ["2026-11-19T12:00:00.000Z", "2026-11-18T12:00:00.000Z"]
    assert json.loads(found[0]["properties"]) == properties(CREATED)


def test_how_many_installations_is_not_said_of_few(store: Store, load: Load) -> None:
    few = [event(person=p, days_ago=2) for p in range(4)]
    many = [event(FAILED, p, days_ago=1) for p in range(6)]
    load(*few, *many, *(shape(person=p) for p in range(4)))
    seen = {row["event"]: row["installations"] for row in questions.volume(store, SPAN, NOW)}
    assert seen == {CREATED: None, FAILED: 6}
    assert oversight.quarantine(store, SPAN)[0]["installations"] is None
    # 2 of the 6 are new: the 4 that returned would give them away
    assert [(row["installations"], row["new"], row["returning"]) for row in by_day(store)] == [
        (None, None, None),
        (6, None, None),
    ]


def by_day(store: Store) -> list[dict[str, Any]]:
    return questions.installations(store, SPAN, "day")


def test_what_is_older_than_the_retention_goes(store: Store, load: Load) -> None:
    old = event(days_ago=401)
    load(old, event(), shape(received_at=stamp(NOW - timedelta(days=401))))
    assert store.expire(stamp(NOW - timedelta(days=400))) == 1
    everything = Span(PROJECT, NOW - timedelta(days=1000), NOW + timedelta(days=1))
    assert [row["events"] for row in questions.volume(store, everything, NOW, k=1)] == [1]
    assert oversight.quarantine(store, everything) == []


def test_projects_never_mix(store: Store, load: Load) -> None:
    load(event(), event(project="another"))
    assert questions.volume(store, SPAN, NOW, k=1)[0]["events"] == 1
    assert store.erase("another", [who(1)]).events == 1
    assert questions.volume(store, SPAN, NOW, k=1)[0]["events"] == 1


def test_unknown_names_go_on_being_counted_after_a_restart(store: Store, load: Load) -> None:
    load(
        shape("event_properties.‹redacted key› 0a1b"),
        shape("", event="‹redacted key› 2c3d", problem="unknown event"),
    )
    assert set(oversight.unknown_names(store)) == {
        ("‹redacted key› 0a1b", who(1)),
        ("‹redacted key› 2c3d", who(1)),
    }


def test_names_with_quotes_are_only_data(store: Store, load: Load) -> None:
    load(event("it's:done"), event("x' OR '1'='1"))
    assert questions.series(store, SPAN, "day", "it's:done")[0]["events"] == 1
    assert list(oversight.export(store, "x' OR '1'='1", [who(1)])) == []


@pytest.mark.parametrize("forget", ["expire", "erase"])
def test_of_what_duckdb_forgets_no_byte_is_left(tmp_path: Path, forget: str) -> None:
    def kept() -> bytes:
        return b"".join(path.read_bytes() for path in sorted(tmp_path.glob("events.duckdb*")))

    store, secret = DuckDBStore(tmp_path / "events.duckdb"), uuid.uuid4().hex
    old = event(days_ago=401, properties={"event_properties": {"note": secret}})
    segment = tmp_path / "1.ndjson"
    segment.write_bytes(line(old) + line(event(person=2)))
    store.load(1, segment)
    assert secret.encode() in kept()
    if forget == "expire":
        assert store.expire(stamp(NOW - timedelta(days=400))) == 1
    else:
        assert store.erase(PROJECT, [who(1)]).events == 1
    assert secret.encode() not in kept()
    store.close()
    assert secret.encode() not in kept()
    assert CREATED.encode() in kept()


def test_duckdb_file_is_written_for_older_readers(tmp_path: Path) -> None:
    import duckdb

    store = DuckDBStore(tmp_path / "events.duckdb")
    tags = store.rows(
        "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = 'collector'", {}
    )
    store.close()
    assert duckdb.__version__
    assert "v1.4.0" in str(tags[0][0])
