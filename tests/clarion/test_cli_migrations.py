"""The manual's steps with the real command: declare an event, write its revision, migrate, record."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import text

from clarion.database import open_engine
from clarion.testing import Receiver
from tests.clarion.cli_runs import clarion

EVENTS = '''
from sqlalchemy.orm import Mapped
from clarion import Event, Never, Upkeep, fact, identity


class BoatEvent(Event, kind="boat", layer="boat"):
    """A boat."""

    verbs = {"launched": "{name} was launched"}

    boat_uuid: Mapped[str] = identity(doc="The boat.")
    boat_name: Mapped[str] = fact(doc="Its name.")
'''

MORE = '''

class TripEvent(BoatEvent, kind="boat:trip", layer="trip"):
    """A trip."""

    upkeep = Upkeep("harbour", "1.0", Never("Asked each year."), ("harbour",))

    verbs = {"ended": "Trip of {boat.name} ended after {miles} miles"}

    trip_uuid: Mapped[str] = identity(doc="The trip.")
    trip_miles: Mapped[int] = fact(anonymous=True, doc="How far it went.", purpose="How far boats go.")
'''

RECORD = """
import sys
from datetime import UTC, datetime
from sqlalchemy.orm import Session
from clarion import open_engine, record
import harbour.events as events
engine = open_engine(sys.argv[1])
with Session(engine) as session:
    about = {"boat_uuid": "b1", "boat_name": "Pequod"}
    if sys.argv[2] == "trip":
        record(session, events.TripEvent("ended", **about, trip_uuid="t1", trip_miles=7))
    else:
        record(session, events.BoatEvent("launched", **about))
    session.commit()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'data' / 'harbour.db'}"
    found: str = request.getfixturevalue("empty_postgres_url")
    return found


@pytest.fixture
def harbour(tmp_path: Path) -> Path:
    """An application that is not installed: a package in the current directory."""
    package = tmp_path / "harbour"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "events.py").write_text(EVENTS)
    (tmp_path / "pyproject.toml").write_text('[tool.clarion]\napp = ["harbour.events"]\n')
    return tmp_path


def record_one(harbour: Path, url: str, what: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RECORD, url, what],
        cwd=harbour,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_event_class_is_added_migrated_recorded_and_taken_back(harbour: Path, url: str) -> None:
    def run(*arguments: str, status: int = 0) -> str:
        ran = clarion(*arguments, cwd=harbour, database_url=url)
        assert ran.status == status, ran
        return ran.out + ran.err

    assert "no revision for: event types without a row: boat:launched" in run("migrations", "check", status=1)
    written = Path(run("migrations", "revision", "-m", "boats").strip())
    assert written.parent == harbour / "harbour" / "migrations" / "versions"
    assert written.name.endswith("_boats.py")
    assert "no revision was written" in run("migrations", "revision", "-m", "again")
    migrated = run("migrate")
    assert "boats" in migrated
    assert "clarion_0001" in migrated
    assert "was up to date" in run("migrate")
    assert "the newest revision and the database agree" in run("migrations", "check")
    assert record_one(harbour, url, "boat").returncode == 0

    (harbour / "harbour" / "events.py").write_text(EVENTS + MORE)
    checked = run("migrations", "check", status=1)
    assert "no revision for: event types without a row: boat:trip:ended" in checked
    assert "no revision for: no column events.trip_miles" in checked
    assert "write it with: clarion migrations revision" in checked
    early = record_one(harbour, url, "trip")
    assert early.returncode != 0
    assert "trip_" in early.stderr
    second = Path(run("migrations", "revision", "--message", "trips").strip()).read_text()
    assert "'boat:trip:ended': 'A trip. (ended)'," in second
    assert "op.add_column('events', sa.Column('trip_miles', sa.BigInteger(), nullable=True))" in second
    assert "boat_name" not in second
    assert "lacks 1 revisions; bring it up to date with: clarion migrate" in run(
        "migrations", "check", status=1
    )
    run("migrate")
    run("migrations", "check")
    assert record_one(harbour, url, "trip").returncode == 0

    engine = open_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT trip_miles FROM events WHERE type = 'boat:trip:ended'")) == 7
        assert connection.scalar(text("SELECT count(*) FROM event_types")) == 2
    assert "is back to harbour@-1" in run("migrate", "--back-to", "harbour@-1")
    assert "trip_miles" not in {c["name"] for c in sa.inspect(engine).get_columns("events")}
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT type, notification FROM events ORDER BY sequence")).all()
        assert [row.type for row in rows] == [
            "boat:launched",
            "boat:trip:ended",
        ]  # events outlive their columns
        payload = rows[1].notification
        payload = json.loads(payload) if isinstance(payload, str) else payload
        assert payload["boat"]["trip"]["miles"] == 7
        assert connection.scalars(text("SELECT name FROM event_types")).all() == ["boat:launched"]
    run("migrate", "--back-to", "base")
    assert sa.inspect(engine).get_table_names() == ["clarion_version"]
    engine.dispose()


def test_a_database_that_does_not_answer_does_not_stop_a_check(harbour: Path) -> None:
    nowhere = "postgresql://postgres@127.0.0.1:1/none"
    assert clarion("migrations", "revision", "-m", "boats", cwd=harbour, database_url=nowhere).status == 0
    checked = clarion("migrations", "check", cwd=harbour, database_url=nowhere)
    assert checked.status == 0
    assert "does not answer, so only the revisions were checked" in checked.out
    assert clarion("migrate", cwd=harbour, database_url=nowhere).status == 1


def test_a_check_makes_no_database(harbour: Path) -> None:
    assert clarion("migrations", "revision", "-m", "boats", cwd=harbour).status == 0
    assert (
        clarion("migrations", "check", cwd=harbour).out == "what is declared and the newest revision agree\n"
    )
    assert not (harbour / ".data").exists()


def test_a_revision_needs_a_message(harbour: Path) -> None:
    ran = clarion("migrations", "revision", "-m", " ", cwd=harbour)
    assert ran.status == 2
    assert "say in a few words what the revision is for" in ran.err


def test_an_unknown_revision_is_an_error(harbour: Path) -> None:
    ran = clarion("migrate", "--to", "no_such", cwd=harbour)
    assert ran.status == 2
    assert "Can't locate revision identified by 'no_such'" in ran.err


def test_the_path_is_where_the_librarys_revisions_lie(harbour: Path) -> None:
    found = Path(clarion("migrations", "path", cwd=harbour).out.strip())
    assert (found / "clarion_0001_tables.py").exists()


def test_the_relay_delivers_until_it_is_told_to_stop(harbour: Path, url: str) -> None:
    def run(*arguments: str) -> str:
        ran = clarion(*arguments, cwd=harbour, database_url=url, egress_allowed_networks="127.0.0.0/8")
        assert ran.status == 0, ran
        return ran.out

    run("migrations", "revision", "-m", "boats")
    run("migrate")
    with Receiver() as receiver:
        run("subscribers", "add", "webhook", "--name", "pier", "--url", receiver.url, "--event", "boat:*")
        environ = {
            **os.environ,
            "CLARION_DATABASE_URL": url,
            "CLARION_EGRESS_ALLOWED_NETWORKS": "127.0.0.0/8",
            "CLARION_LOG_FORMAT": "json",
        }
        with subprocess.Popen(
            [Path(sys.executable).parent / "clarion", "relay", "--grace", "5"],
            cwd=harbour,
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        ) as relay:
            try:
                assert relay.stderr is not None
                said = json.loads(relay.stderr.readline())
                assert (said["event"], said["level"]) == ("the relay runs", "info")
                recorded = record_one(harbour, url, "boat")
                assert recorded.returncode == 0, recorded.stderr
                [request] = receiver.wait_for(1, timeout=20)
            finally:
                relay.send_signal(signal.SIGTERM)
            assert relay.wait(20) == 0
    assert json.loads(request.body)["type"] == "boat:launched"
    [row] = json.loads(run("deliveries", "list", "--json"))["items"]
    assert (row["state"], row["subscriber"]) == ("delivered", "pier")
