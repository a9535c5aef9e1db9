"""The canary: everything it sends is marked and arrives, and no trace of a marker stays unseen."""

import base64
import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest

import clarion.deliverees  # noqa: F401  maps every kind of subscriber
from clarion.addresses import EgressPolicy
from clarion.analytics.configuring import BackendSettings
from clarion.analytics.verifying import Question
from clarion.canary import MOST, SURROUNDINGS, Flight, Lost, fly, marked, traces
from clarion.egress import Egress
from clarion.losses import telemetry_types
from clarion.migrations.history import History, write_revision
from clarion.testing import LOOPBACK, Received, Receiver, Reply
from tests.clarion import plain, sample
from tests.clarion.telemetry_sample import TYPES, events_in

MARKER = "canary0123456789abcdef01234567"
RAW = MARKER.encode()


@pytest.fixture(autouse=True)
def meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    monkeypatch.delenv("TELEMETRY_UUID", raising=False)


@pytest.mark.parametrize(
    "text",
    [
        f"a path /home/{MARKER}/x",
        MARKER.upper(),
        MARKER[:8],
        MARKER[-9:],
        MARKER[::-1],
        RAW.hex(),
        RAW.hex().upper(),
        *(base64.b64encode(b"x" * shift + RAW + b"y").decode() for shift in range(4)),
        *(hashlib.new(name, RAW).hexdigest() for name in ("md5", "sha1", "sha256", "sha512", "blake2b")),
        str(uuid5(NAMESPACE_DNS, MARKER)),
    ],
)
def test_a_trace_of_a_marker_is_found_in_every_form(text: str) -> None:
    assert list(traces(MARKER, json.dumps({"value": f"before {text} after"})))


def test_nothing_is_found_where_nothing_is() -> None:
    text = json.dumps(
        {"value": [str(uuid5(NAMESPACE_DNS, "x")), hashlib.sha256(b"x").hexdigest(), "kanarie"]}
    )
    assert list(traces(MARKER, text)) == []


def test_the_surroundings_are_marked_and_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ann")
    monkeypatch.delenv("CLARION_CANARY", raising=False)
    before = dict(os.environ)
    with marked(MARKER):
        assert {os.environ[name] for name in SURROUNDINGS} == {MARKER}
    assert dict(os.environ) == before


class Backend:
    """A collector that says what it is told to say."""

    def __init__(self) -> None:
        self.lost: frozenset[str] = frozenset()
        self.suspect: frozenset[str] = frozenset()
        self.export: Callable[[], bytes] = lambda: b'{"events": []}'
        self.status = 200
        self.receiver = Receiver(self.answer)
        self.surroundings: list[str] = []
        self.looking: Callable[[], None] = lambda: None

    @property
    def events(self) -> list[dict[str, Any]]:
        return events_in([r for r in self.receiver.received if r.path == "/batch/"])

    def answer(self, request: Received) -> Reply:
        if request.path == "/batch/":
            self.surroundings.append(os.environ["CLARION_CANARY"])
            self.looking()
            return Reply(200, (), b'{"status":"Ok"}')
        assert request.headers["authorization"] == "Bearer look"
        asked = json.loads(request.body)
        assert asked["project"] == "canary"
        if request.path == "/api/arrivals":
            kinds = {event["uuid"]: event["event"] for event in self.events}
            arrived = {
                one: {"anonymous": kinds[one] not in self.suspect, "lag_seconds": 0.1}
                for one in asked["ids"]
                if kinds[one] not in self.lost
            }
            return Reply(200, (), json.dumps({"arrived": arrived}).encode())
        assert request.path == "/api/installations/export"
        assert {event["distinct_id"] for event in self.events} == {asked["installation"]}
        return Reply(self.status, (), self.export())


async def flown(tmp_path: Path, backend: Backend) -> Flight:
    modules = (sample.__name__, plain.__name__)
    history = History(modules, tmp_path / "migrations")
    assert write_revision(history, "first") is not None
    (tmp_path / "place").mkdir()
    with backend.receiver as receiver:
        async with Egress(EgressPolicy.of(LOOPBACK)) as egress:
            return await fly(
                egress,
                tmp_path / "place",
                history,
                TYPES,
                BackendSettings(receiver.url, "ck_canary"),
                Question("canary", "look"),
                lambda: datetime.now(UTC),
                patience=1,
            )


async def test_one_of_each_type_arrives_and_none_is_marked(tmp_path: Path) -> None:
    backend = Backend()
    backend.export = lambda: json.dumps({"events": backend.events}).encode()
    flight = await flown(tmp_path, backend)
    every = sorted(t.name for t in telemetry_types(TYPES))
    assert flight.well
    assert (list(flight.arrived), flight.missing, flight.traces) == (every, (), ())
    assert sorted(event["event"] for event in backend.events) == every
    [marker] = set(backend.surroundings)
    assert list(traces(marker, json.dumps(backend.events))) == []
    assert "CLARION_CANARY" not in os.environ


async def test_the_events_are_full_of_markers_where_subscribers_look(tmp_path: Path) -> None:
    """The database is gone by then, so look into it while the backend is being asked."""
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    from clarion.database import open_engine
    from clarion.events import Event

    backend, seen = Backend(), set[str]()

    def look() -> None:
        [path] = (tmp_path / "place").glob("*.db")
        engine = open_engine(f"sqlite:///{path}")
        with Session(engine.execution_options(read_only=True)) as session:
            table = Event.__table__.c
            seen.update(map(json.dumps, session.scalars(select(table.notification))))
        engine.dispose()

    backend.looking = look
    await flown(tmp_path, backend)
    assert len(seen) == len(TYPES.recorded)
    [path] = (tmp_path / "place").glob("*.db")
    assert all(path.stem in text for text in seen)


async def test_what_did_not_arrive_is_named(tmp_path: Path) -> None:
    backend = Backend()
    backend.lost = frozenset({"shop:opened"})
    flight = await flown(tmp_path, backend)
    assert (flight.well, flight.missing, flight.traces) == (False, ("shop:opened",), ())


async def test_a_leak_and_what_a_scanner_found_are_named(tmp_path: Path) -> None:
    backend = Backend()
    backend.export = lambda: base64.b64encode(os.urandom(3) + backend.surroundings[0].encode())
    backend.suspect = frozenset({"shop:closed"})
    flight = await flown(tmp_path, backend)
    assert not flight.well
    assert flight.missing == ()
    assert flight.traces == ("base64, shifted by 0", "a scanner's finding in shop:closed")


async def test_what_the_collector_does_not_show_is_not_called_clean(tmp_path: Path) -> None:
    backend = Backend()
    backend.export = lambda: json.dumps({"events": backend.events[1:]}).encode()
    flight = await flown(tmp_path, backend)
    assert (flight.well, flight.missing, flight.traces) == (False, (), ())
    assert flight.kept == len(flight.arrived) - 1


async def test_it_has_an_id_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = "8d5f0e5c-0f5f-4c58-9d35-3a8f7c1f0b11"
    monkeypatch.setenv("TELEMETRY_UUID", given)
    backend = Backend()
    backend.export = lambda: json.dumps({"events": backend.events}).encode()
    flight = await flown(tmp_path, backend)
    assert flight.well
    assert flight.installation != given
    assert os.environ["TELEMETRY_UUID"] == given


@pytest.mark.parametrize(("status", "size"), [(401, 2), (500, 2), (200, MOST + 1)])
async def test_a_collector_that_does_not_say_what_it_keeps_proves_nothing(
    tmp_path: Path, status: int, size: int
) -> None:
    backend = Backend()
    backend.status, backend.export = status, lambda: b"x" * size
    with pytest.raises(Lost, match=f"it answered {status}"):
        await flown(tmp_path, backend)
