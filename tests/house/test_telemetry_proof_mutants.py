"""Who watches the proof: with a raw column added to a projection, it must turn red. Each in turn."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from clarion import anonymous, gate
from clarion.analytics import Rejected, TelemetryData, capturing
from clarion.analytics.capturing import Analytics
from clarion.analytics.payload import Occurrence
from clarion.catalogue import EventType
from clarion.consent import NOTICE_VERSION, Stored
from clarion.database import Base as ClarionBase
from clarion.database import open_engine
from clarion.deliverees.analytics import deliveree_of
from clarion.events import Event
from clarion.messages import Message
from clarion.outbox import Recording, record
from clarion.telemetry import SettingReader, Telemetry
from orchest.events import CATALOGUE
from orchest.models import Base
from tests.house.markers import Leak, Search, marker, marker_id
from tests.house.telemetry_world import (
    Renaming,
    as_text,
    happenings,
    holds_text,
    populate,
    private,
    sending,
)
from tests.orchest.world import NOW

KEY = b"k" * 32
EVENT = UUID("00000000-0000-4000-8000-000000000001")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    engine = open_engine("sqlite://", **options)
    for base in (ClarionBase, Base):
        base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def leaks(engine: Engine, only: type[Event] | None = None, *, gated: bool = False) -> list[Leak]:
    """The proof in short: every type (or those of one class) from record to the bytes of a request.

    Without the last gate, unless it is ``gated``: what is looked for is a leak of the projection.
    """
    renaming = Renaming(lambda original, longest: marker(original)[:longest], marker_id)
    recording = Recording(clock=lambda: NOW, telemetry_key=lambda: KEY)
    with Session(engine, info=recording.info()) as session:
        world = populate(session, renaming)
        events = [e for e in happenings(session, world, renaming) if only is None or type(e) is only]
        record(session, *events)
        told = [
            Message(e.uuid, e.type, e.occurred_at, e.sequence, 1, None, json.dumps(e.telemetry, default=str))
            for e in events
        ]
        session.rollback()
    state = sending(KEY)
    search = Search(renaming.known.items())
    with pytest.MonkeyPatch.context() as patch:
        if not gated:
            patch.setattr(gate, "refusal", lambda *_: "")
        return search.leaks("wire", deliveree_of(state).body(told, NOW))


CLASSES: list[Any] = list(dict.fromkeys(t.cls for t in CATALOGUE.recorded))
PROJECTIONS = [
    pytest.param(cls, declared.name, id=f"{cls.__name__}.{declared.name}")
    for cls in CLASSES
    for declared in private(cls)
    if holds_text(declared) and declared.name != "job_schedule"
]
IDENTITIES = [
    pytest.param(cls, declared.name, id=f"{cls.__name__}.{declared.name}")
    for cls in CLASSES
    for declared in cls.fields
    if declared.role == "identity"
]

DISGUISES: dict[str, Callable[[str], Any]] = {
    "sha256": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "short md5": lambda text: hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:16],
    "base64": lambda text: base64.b64encode(b"x" + text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "upper": str.upper,
    "reversed": lambda text: text[::-1],
    "six letters": lambda text: text[:6],
    "path": lambda text: f"/home/{text}/file.py",
    "key of a map": lambda text: {text: 1},
    "in a list": lambda text: [[text]],
}


def leaking(cls: type[Event], name: str, group: str, disguise: Callable[[str], Any]) -> Any:
    """The class's projection with a raw column added."""
    honest = cls.to_telemetry_payload

    def to_telemetry_payload(self: Event, key: bytes) -> dict[str, Any]:
        payload = honest(self, key)
        value = getattr(self, name, None)
        if value is not None:
            payload[group]["leak"] = disguise(as_text(value))
        return payload

    return to_telemetry_payload


def test_without_a_mutant_it_is_green(engine: Engine) -> None:
    assert leaks(engine) == []


@pytest.mark.parametrize(("cls", "name"), [*PROJECTIONS, *IDENTITIES])
def test_a_raw_column_in_a_projection_turns_it_red(
    engine: Engine, cls: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cls, "to_telemetry_payload", leaking(cls, name, "event_properties", str))
    assert leaks(engine, cls)


@pytest.mark.parametrize("group", ["event_properties", "derived_properties"])
@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_a_disguised_column_turns_it_red(
    engine: Engine, disguise: Callable[[str], Any], group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = CLASSES[0]
    monkeypatch.setattr(cls, "to_telemetry_payload", leaking(cls, "project_name", group, disguise))
    assert leaks(engine, cls)


@pytest.mark.parametrize("group", ["event_properties", "derived_properties"])
@pytest.mark.parametrize("cls", CLASSES)
def test_the_last_gate_alone_stops_a_raw_column(
    engine: Engine, cls: Any, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next((f.name for f in cls.fields if f.stored and holds_text(f)), "uuid")
    monkeypatch.setattr(cls, "to_telemetry_payload", leaking(cls, name, group, str))
    assert leaks(engine, cls, gated=True) == []


def captured_leaks(*, gated: bool = False) -> list[Leak]:
    """The same for what is captured: every type with a marker for each value, and for the key of one more."""
    said, analytics, when = marker("captured"), Analytics(None, types=CATALOGUE), Occurrence(EVENT, NOW)
    told = []
    for event_type in (t for t in CATALOGUE if t.captured):
        example = event_type.telemetry_example(NOW)["event_properties"]
        for given in (dict.fromkeys(example, said), {**example, said: True}):
            try:
                made = analytics.constructed(event_type, TelemetryData(given), when, KEY)
            except ValueError:
                continue
            if not isinstance(made, Rejected):
                told.append(Message(EVENT, event_type.name, NOW, None, 1, None, json.dumps(made)))
    assert told
    with pytest.MonkeyPatch.context() as patch:
        if not gated:
            patch.setattr(gate, "refusal", lambda *_: "")
        events = deliveree_of(sending(KEY)).events(told)
    return Search([("captured", said)]).leaks("wire", json.dumps([one.properties for one in events]))


def copied(
    _type: EventType, event: Mapping[str, Any], derived: Mapping[str, Any], _when: Occurrence, _key: bytes
) -> dict[str, Any]:
    """What `construct` would be if it sent what it is given."""
    return {"event_properties": dict(event), "derived_properties": dict(derived)}


def test_captured_properties_that_are_copied_turn_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    assert captured_leaks() == []
    monkeypatch.setattr(capturing, "construct", copied)
    assert captured_leaks()
    assert captured_leaks(gated=True) == []


def test_a_pseudonym_without_its_key_turns_it_red(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def plain_hash(_key: bytes, _kind: str, identifier: str) -> str:
        return hashlib.sha256(identifier.encode()).hexdigest()[:32]

    monkeypatch.setattr(anonymous, "pseudonym", plain_hash)
    assert leaks(engine)


def test_an_identifier_that_is_not_made_a_pseudonym_turns_it_red(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anonymous, "pseudonym", lambda _key, _kind, identifier: identifier)
    assert leaks(engine)


def test_an_event_s_own_id_is_sent_nowhere(engine: Engine) -> None:
    recording = Recording(clock=lambda: NOW, telemetry_key=lambda: KEY)
    with Session(engine, info=recording.info()) as session:
        renaming = Renaming(lambda original, longest: marker(original)[:longest], marker_id)
        world = populate(session, renaming)
        for event in happenings(session, world, renaming):
            record(session, event)
            assert str(event.uuid) not in json.dumps(event.telemetry)
            assert event.uuid.hex not in json.dumps(event.telemetry)
        session.rollback()


def test_a_type_that_could_hold_text_cannot_be_declared_anonymous() -> None:
    for tp in (str, bytes, Any, dict[str, int], list[str], str | None, dict[str, str], object):
        with pytest.raises(anonymous.NotAnonymous):
            anonymous.schema(tp)


def test_no_type_takes_an_undeclared_property(engine: Engine) -> None:
    reader = SettingReader(engine)
    reader.read = lambda: (Stored(True, NOTICE_VERSION), KEY)  # type: ignore[method-assign]
    analytics = Analytics(engine, types=CATALOGUE, telemetry=Telemetry(reader, environ={}))
    for event_type in CATALOGUE:
        with pytest.raises(ValueError, match="undeclared"):
            analytics.send(event_type.name, TelemetryData({"leak": marker("leak")}))
