"""Who answers for what is sent: said completely, or the class is refused."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from sqlalchemy.orm import Mapped

from clarion.captured import CAPTURED, Captured
from clarion.catalogue import Catalogue
from clarion.database import Base
from clarion.declarations import fact, identity
from clarion.errors import DeclarationError
from clarion.events import CLASSES, Event
from clarion.registry import event_entry, expiring
from clarion.upkeep import Never, Upkeep

COMPLETE: dict[str, Any] = {
    "owner": "shop team",
    "since": "1.4",
    "expires": date(2027, 6, 1),
    "triggers": ("shop.orders",),
}


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    kinds, captured = set(CLASSES), dict(CAPTURED)
    columns = set(Base.metadata.tables["events"].columns.keys())
    yield
    CAPTURED.clear()
    CAPTURED.update(captured)
    assert set(CLASSES) == kinds
    assert set(Base.metadata.tables["events"].columns.keys()) == columns


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"owner": " "}, "owner"),
        ({"since": "next summer"}, "since"),
        ({"expires": Never("")}, "expires"),
        ({"triggers": ()}, "triggers"),
        ({"triggers": ("",)}, "triggers"),
        ({"owner": "", "triggers": ()}, "owner, triggers"),
    ],
)
def test_what_says_nothing_is_named(changed: dict[str, Any], named: str) -> None:
    Upkeep(**COMPLETE)
    with pytest.raises(DeclarationError, match=f"must say {named}:"):
        Upkeep(**COMPLETE | changed)


def declared(**attributes: Any) -> None:
    annotations = {"bad_uuid": Mapped[str], "bad_count": Mapped[int]}
    namespace = {"verbs": {"happened": "It happened"}, "__annotations__": annotations, "__module__": __name__}
    type(Event)("BadEvent", (Event,), namespace | attributes, kind="test:bad", layer="bad")


def test_an_event_that_sends_something_nobody_answers_for_is_refused() -> None:
    count = fact(anonymous=True, doc="How many.", purpose="To know.")
    with pytest.raises(DeclarationError, match="BadEvent has fields that telemetry sends"):
        declared(bad_uuid=identity(doc="It."), bad_count=count)


def test_a_captured_type_that_nobody_answers_for_is_refused() -> None:
    with pytest.raises(DeclarationError, match="Tested has fields that telemetry sends"):
        type(Captured)("Tested", (Captured,), {"__doc__": "It."}, kind="test:one", source="browser")
    assert "test:one" not in CAPTURED


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ({}, "say what it is"),
        ({"doc": "How many."}, "say what for"),
        ({"purpose": "To know."}, "say what it is"),
        ({"doc": " ", "purpose": "To know."}, "say what it is"),
    ],
)
def test_a_field_that_is_sent_says_what_it_is_and_what_for(said: dict[str, str], missing: str) -> None:
    with pytest.raises(DeclarationError, match=rf"BadEvent\.bad_count: telemetry sends it, so {missing}"):
        declared(
            upkeep=Upkeep(**COMPLETE),
            bad_uuid=identity(doc="It."),
            bad_count=fact(anonymous=True, **said),  # type: ignore[arg-type]
        )


def a_type(**changed: Any) -> Catalogue:
    namespace = {"__doc__": "It.", "upkeep": Upkeep(**COMPLETE | changed), "__module__": __name__}
    return Catalogue([type(Captured)("Kept", (Captured,), namespace, kind="test:kept", source="browser")])


def test_a_type_expires_and_is_named_two_weeks_before() -> None:
    types = a_type()
    assert expiring(types, date(2027, 5, 17)) == []
    assert expiring(types, date(2027, 5, 18)) == ["test:kept"]
    assert expiring(types, date(2028, 1, 1)) == ["test:kept"]


def test_a_type_that_never_expires_says_why() -> None:
    types = a_type(expires=Never("Asked in every release."))
    assert expiring(types, date(2999, 1, 1)) == []
    assert event_entry(types["test:kept"])["upkeep"] == {
        "owner": "shop team",
        "since": "1.4",
        "expires": "never: Asked in every release.",
        "triggers": ["shop.orders"],
    }
