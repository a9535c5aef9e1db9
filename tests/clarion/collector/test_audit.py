"""The audit log: looks are durable, counted, kept for their time, and say nothing of what was seen."""

import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clarion.collector.audit import Audit, Look, NotAudited, read_looks
from clarion.collector.ingest import stamp

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


def test_a_look_is_written_before_anything_is_shown_and_counted_when_it_ends(path: Path) -> None:
    moments = iter([NOW, NOW + timedelta(seconds=3)])
    audit = Audit(path, lambda: next(moments))
    with audit.looking(Look("ada", "export", "shop", installation="i-1")) as look:
        assert [(one["who"], one["events"], one["ended_at"]) for one in read_looks(path)] == [
            ("ada", None, None)
        ]
        look.events = 7
    assert read_looks(path) == [
        {
            "id": 1,
            "at": "2026-11-20T12:00:00.000Z",
            "ended_at": "2026-11-20T12:00:03.000Z",
            "who": "ada",
            "what": "export",
            "project": "shop",
            "event": "",
            "installation": "i-1",
            "version": "",
            "events": 7,
            "detail": "",
        }
    ]


def test_the_newest_come_first_page_by_page(path: Path) -> None:
    audit = Audit(path, lambda: NOW)
    for name in "abcde":
        with audit.looking(Look(name, "live", "shop")):
            pass
    first = audit.looks(most=2)
    assert [one["who"] for one in first] == ["e", "d"]
    assert [one["who"] for one in audit.looks(10, before=first[-1]["id"])] == ["c", "b", "a"]


def test_a_look_that_cannot_be_written_down_does_not_happen(path: Path) -> None:
    audit = Audit(path, lambda: NOW)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE looks")
    connection.close()
    with pytest.raises(NotAudited), audit.looking(Look("ada", "live", "shop")):
        pytest.fail("it was shown")


def test_looks_from_many_threads_are_all_kept(path: Path) -> None:
    audit = Audit(path, lambda: NOW)

    def look() -> None:
        for _ in range(10):
            with audit.looking(Look("ada", "live", "shop")) as one:
                one.events = 1

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one["events"] for one in audit.looks()] == [1] * 40


def test_an_erased_installation_leaves_the_log_and_its_files(path: Path) -> None:
    audit = Audit(path, lambda: NOW)
    gone, stays = "0d9c1e5e-6d0f-4b7e-8a53-9b1d2c3e4f50", "1d9c1e5e-6d0f-4b7e-8a53-9b1d2c3e4f50"
    for who in (gone, stays):
        with audit.looking(Look("ada", "export", "shop", installation=who)):
            pass
    audit.forget("shop", [gone])
    assert [one["installation"] for one in audit.looks()] == [stays, "erased"]
    assert all(gone.encode() not in file.read_bytes() for file in path.parent.iterdir())


def test_old_looks_go(path: Path) -> None:
    moments = [NOW]
    audit = Audit(path, lambda: moments[-1])
    for moment in (NOW, NOW + timedelta(days=1)):
        moments.append(moment)
        with audit.looking(Look("ada", "live", "shop")):
            pass
    assert audit.expire(stamp(NOW + timedelta(hours=1))) == 1
    assert len(audit.looks()) == 1


def test_no_log_is_no_looks(path: Path) -> None:
    assert read_looks(path) == []
    assert not path.exists()


def test_a_log_from_before_there_were_changes_in_it_is_kept(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE looks (id INTEGER PRIMARY KEY, at TEXT NOT NULL, ended_at TEXT, who TEXT NOT NULL,"
            " what TEXT NOT NULL CHECK (what IN ('live', 'recent', 'export')), project TEXT NOT NULL,"
            " event TEXT NOT NULL, installation TEXT NOT NULL, version TEXT NOT NULL, events INTEGER)"
        )
        connection.execute(
            "INSERT INTO looks VALUES"
            " (7, '2026-11-01T00:00:00.000', NULL, 'ada', 'live', 'shop', '', '', '', NULL)"
        )
    connection.close()
    for _ in range(2):  # and the second start finds nothing to do
        audit = Audit(path, lambda: NOW)
    with audit.looking(Look("ada", "purge", "shop", detail="x")):
        pass
    assert [(one["id"], one["what"], one["detail"]) for one in audit.looks()] == [
        (8, "purge", "x"),
        (7, "live", ""),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT '6ae262ef-6a45-8f37-a4f4-a3ea90db95e5'",
        "SELECT '6AE262EF6A458F37A4F4A3EA90DB95E5'",
        "SELECT '6ae262ef-' || '6a45-8f37-' || 'a4f4-a3ea90db95e5'",
    ],
)
def test_what_was_asked_about_an_erased_installation_goes_with_it(path: Path, text: str) -> None:
    audit = Audit(path, lambda: NOW)
    for project in ("shop", "another"):
        with audit.looking(Look("ada", "sql", project, detail=text)):
            pass
    with audit.looking(Look("ada", "sql", "shop", detail="SELECT 1")):
        pass
    audit.forget("shop", ["6ae262ef-6a45-8f37-a4f4-a3ea90db95e5"])
    assert [one["detail"] for one in audit.looks()] == ["SELECT 1", text, "erased"]
