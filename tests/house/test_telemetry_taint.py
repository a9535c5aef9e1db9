"""Nothing given to an event reaches telemetry as it was given: texts are followed as objects, by type.

Every text an event is built with is `Tainted`, which it stays wherever it is only handed on. What telemetry
renders, looked at as Python objects before it is JSON, holds none of them, and no text that equals one.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from clarion import anonymous, events
from clarion.analytics.payload import Occurrence, WrongValue, construct
from clarion.catalogue import Catalogue, EventType, catalogue
from clarion.declarations import Field, plain_type
from clarion.events import Event
from orchest.events import CATALOGUE
from orchest.events import materials as material_module
from orchest.models import Base
from tests.clarion import sample
from tests.clarion.telemetry_sample import TYPES
from tests.house.telemetry_world import holds_text
from tests.orchest.test_events import values_for
from tests.orchest.world import NOW, World

KEY = b"k" * 32
SAMPLE = catalogue([sample.__name__])
WHEN = Occurrence(UUID(int=7), datetime(2026, 1, 1, tzinfo=UTC))


class Tainted(str):
    """A text of somebody's. Handing it on keeps the type; deriving something else from it does not."""


def tainted(value: Any, known: set[str]) -> Any:
    """``value`` with every text in it tainted and noted in ``known``: keys too, at every depth."""
    match value:
        case Enum():  # one of a closed list is nobody's text
            return value
        case str():
            known.add(str(value))
            return Tainted(value)
        case Mapping():
            return {tainted(key, known): tainted(item, known) for key, item in value.items()}
        case list() | tuple():
            return [tainted(item, known) for item in value]
    return value


def walked(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf and every key of what is rendered, with where it lies."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{path} (key)", key
            yield from walked(item, f"{path}.{key}")
    elif isinstance(value, list | tuple | set | frozenset):
        for number, item in enumerate(value):
            yield from walked(item, f"{path}[{number}]")
    else:
        yield path, value


def leaks(rendered: Any, known: Iterable[str]) -> list[str]:
    """Where somebody's text lies in ``rendered``: the object itself, or one that equals it."""
    texts = set(known)
    return [
        path
        for path, leaf in walked(rendered)
        if isinstance(leaf, Tainted) or (isinstance(leaf, str) and str(leaf) in texts)
    ]


def closed(declared: Field) -> bool:
    """Whether a field takes one of a list: its values are the platform's own, whatever type they come in."""
    try:
        return bool(anonymous.closed_values(plain_type(declared.type)))
    except anonymous.NotAnonymous:
        return False


def given_closed(value: Any) -> Any:
    """A value of a closed list as an object of the caller's: it must be the list's own that leaves."""
    return tainted(value.value if isinstance(value, Enum) else value, set())


def soiled(event_type: EventType, values: dict[str, Any], known: set[str]) -> Event:
    """The event, given nothing but tainted texts; and what it stored of them, tainted once more.

    Checking and storing may copy a text, which loses its type but not its danger: so the stored values are
    tainted too, right before they are rendered.
    """
    cls: Any = event_type.cls
    declared = {f.name: f for f in cls.fields if f.stored and f.applies(event_type.verb)}
    given = {
        name: given_closed(value) if name in declared and closed(declared[name]) else tainted(value, known)
        for name, value in values.items()
    }
    event: Event = cls(event_type.verb, **given)
    for name, field in declared.items():
        if name in event.__dict__:
            stored = event.__dict__[name]
            event.__dict__[name] = given_closed(stored) if closed(field) else tainted(stored, known)
    return event


def rendering(session: Session, event: Event) -> dict[str, Any]:
    """What telemetry makes of it: the objects, as they are before they become JSON."""
    event.freeze(session, NOW, KEY)
    telemetry = event.__dict__["telemetry"]
    assert isinstance(telemetry, dict)
    return telemetry


def values_of(event_type: EventType, world: World | None) -> dict[str, Any]:
    """Values for an event of the platform or of the sample, with every text of its own."""
    if world is not None:
        return values_for(event_type.cls, event_type.verb, world)  # type: ignore[arg-type]
    cls: Any = event_type.cls
    values: dict[str, Any] = {}
    for field in cls.fields:
        if field.stored and field.applies(event_type.verb):
            values[field.name] = sample_value(field)
    return values


def sample_value(field: Field) -> Any:
    plain = plain_type(field.type)
    if plain is str:
        return f"private-{field.name}"
    if plain is int:
        return 7
    if closed(field):
        return sample.Channel.WEB
    return [{"private-key": "private-old"}]


@pytest.fixture
def world(engine: Engine) -> Iterator[tuple[Session, World]]:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session, World.in_session(session)
        session.rollback()
    Base.metadata.drop_all(engine)


def everything_soiled(session: Session, types: Catalogue, world: World | None) -> dict[str, list[str]]:
    """Where each recorded type leaks."""
    found = {}
    for event_type in types.recorded:
        known: set[str] = set()
        event = soiled(event_type, values_of(event_type, world), known)
        private = [f for f in event_type.fields if f.stored and not closed(f) and holds_text(f)]
        assert known or not private, f"{event_type.name} was given no text"
        found[event_type.name] = leaks(
            rendering(session, event), known - own_words(event_type.telemetry_schema())
        )
    return {name: where for name, where in found.items() if where}


def own_words(schema: Any) -> set[str]:
    """The texts a type's schema itself holds: its keys, and the values of closed lists.

    What equals one of them is nobody's. Only equality is forgiven: handing on somebody's object is a leak
    whatever it says.
    """
    words: set[str] = set()
    if isinstance(schema, dict):
        words |= set(schema.get("properties", {}))
        words |= {value for value in schema.get("enum", ()) if isinstance(value, str)}
        words |= {schema["const"]} if isinstance(schema.get("const"), str) else set()
        for inner in schema.values():
            words |= own_words(inner)
    elif isinstance(schema, list):
        for inner in schema:
            words |= own_words(inner)
    return words


def test_nothing_of_the_platform_s_events_is_handed_on(world: tuple[Session, World]) -> None:
    assert everything_soiled(world[0], CATALOGUE, world[1]) == {}


def test_nothing_of_the_sample_s_events_is_handed_on(engine: Engine) -> None:
    with Session(engine) as session:
        assert everything_soiled(session, SAMPLE, None) == {}


def soiled_properties(event_type: EventType) -> dict[str, dict[str, Any]]:
    """Properties the type accepts, with every text that may be one tainted: closed values, versions, ids."""
    example = event_type.telemetry_example(NOW)
    groups: dict[str, dict[str, Any]] = {"event_properties": {}, "derived_properties": {}}
    for field in event_type.fields:
        if field.in_telemetry:
            group = "derived_properties" if field.role == "measure" else "event_properties"
            leaf = events.look_up(example[group], field.path)
            events.put(groups[group], field.path, acceptable(field, leaf))
    return groups


def acceptable(field: Field, leaf: Any) -> Any:
    """What the field takes: the example, tainted; or, if it takes no text, a number or a time."""
    if field.role == "identity":
        return Tainted(leaf)
    for candidate in (tainted(leaf, set()), 3, NOW):
        try:
            anonymous.convert(field.type, candidate)
        except (ValueError, TypeError):
            continue
        return candidate
    raise AssertionError(f"nothing fits {'.'.join(field.path)}")


@pytest.mark.parametrize(
    "event_type",
    [t for types in (CATALOGUE, TYPES) for t in types if t.captured],
    ids=lambda t: t.name,
)
def test_a_captured_type_sends_its_own_objects(event_type: EventType) -> None:
    """A value of a closed list equals what was given, of course; but it is the list's, not the caller's."""
    given = soiled_properties(event_type)["event_properties"]
    assert leaks(construct(event_type, given, {}, WHEN, KEY), ()) == []


@pytest.mark.parametrize(
    "event_type",
    [t for types in (CATALOGUE, TYPES) for t in types if t.captured and t.fields],
    ids=lambda t: t.name,
)
def test_a_captured_type_takes_no_text_of_anybody_s(event_type: EventType) -> None:
    given = {field.name: Tainted("private-text") for field in event_type.fields}
    refused = ""
    try:
        rendered = construct(event_type, given, {}, WHEN, KEY)
    except WrongValue as error:
        rendered, refused = {}, str(error)
    assert leaks(rendered, {"private-text"}) == []  # what is not in a closed list is `other`
    assert "private-text" not in refused


def test_recorded_types_sent_by_hand_hand_nothing_on() -> None:
    """`send_event` takes recorded types too, with their properties as they would be sent."""
    for event_type in CATALOGUE.recorded:
        given = soiled_properties(event_type)
        rendered = construct(event_type, given["event_properties"], given["derived_properties"], WHEN, KEY)
        assert leaks(rendered, ()) == [], event_type.name


def test_a_measure_that_hands_a_name_on_is_caught(
    world: tuple[Session, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate taken away (`convert` lets everything pass) and a measure that returns a name."""
    monkeypatch.setattr(anonymous, "convert", lambda _type, value: value)
    monkeypatch.setattr(
        material_module.Materials, "shape", lambda self: Everything(self.__dict__["project_name"])
    )
    found = everything_soiled(world[0], CATALOGUE, world[1])
    measured = [t for t in CATALOGUE.recorded if any("definition" in f.path for f in t.fields)]
    assert measured
    for event_type in measured:
        assert any(".derived_properties" in where for where in found[event_type.name])


class Everything:
    """A shape all of whose counts are one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.step_file_extension_count = {text: text}

    def __getattr__(self, _name: str) -> str:
        return self.text


def test_a_raw_measure_is_stopped_by_the_gate_alone(
    world: tuple[Session, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        material_module.Materials, "shape", lambda self: Everything(self.__dict__["project_name"])
    )
    assert everything_soiled(world[0], CATALOGUE, world[1]) == {}


def test_identities_that_leave_as_they_are_are_caught(
    world: tuple[Session, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anonymous, "pseudonym", lambda _key, _kind, identifier: identifier)
    found = everything_soiled(world[0], CATALOGUE, world[1])
    assert {t.name for t in CATALOGUE.recorded if any(f.role == "identity" for f in t.fields)} <= set(found)


def test_a_copied_text_is_caught_though_it_has_lost_its_type(
    world: tuple[Session, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anonymous, "pseudonym", lambda _key, _kind, identifier: "".join(list(identifier)))
    assert "project:created" in everything_soiled(world[0], CATALOGUE, world[1])


def test_a_private_fact_that_is_sent_is_caught(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = events.plan

    def careless(cls: type[Event], verb: str) -> events.Plan:
        own = plan(cls, verb)
        return events.Plan(own.identities, own.stored, own.computed, own.notified, own.notified)

    monkeypatch.setattr(events, "plan", careless)
    monkeypatch.setattr(anonymous, "convert", lambda _type, value: value)
    with Session(engine) as session:
        found = everything_soiled(session, SAMPLE, None)
    assert found.keys() == {t.name for t in SAMPLE.recorded}
    assert ".event_properties.shop.order.update.changes[0].private-key" in found["shop:order:updated"]
    assert ".event_properties.shop.order.update.changes[0] (key)" in found["shop:order:updated"]


def test_convert_hands_no_text_on() -> None:
    """A member of an enumeration or a literal that equals a given text is the declared one."""
    for kind in (sample.Channel, material_module.Extension):
        given = Tainted(anonymous.closed_values(kind)[0])
        assert type(anonymous.convert(kind, given)) is str
