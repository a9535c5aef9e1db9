"""Captured types: what may be declared, and that only what is declared gets through."""

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from sqlalchemy.orm import Mapped

import tests.clarion.sample
from clarion.captured import CAPTURED, Captured, prop
from clarion.catalogue import Catalogue
from clarion.declarations import fact, measure, own_fields
from clarion.errors import DeclarationError, InvalidEvent

DOC = {"doc": "It.", "purpose": "To know."}


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = dict(CAPTURED)
    yield
    CAPTURED.clear()
    CAPTURED.update(before)


def declare(
    kind: str = "test:captured", annotations: dict[str, Any] | None = None, **body: Any
) -> type[Captured]:
    body = {"upkeep": tests.clarion.sample.KEPT} | body
    namespace = {"__doc__": "A test.", "__annotations__": annotations or {}, "__module__": __name__, **body}
    return type(Captured)("Tested", (Captured,), namespace, kind=kind, source="browser")


def test_properties_are_constructed_never_copied() -> None:
    cls = declare(
        annotations={"view": Literal["a", "other"], "count": int}, view=prop(**DOC), count=prop(**DOC)
    )
    assert cls.properties({"view": "/home/jane", "count": 10**12}) == {"view": "other", "count": 10**9}


@pytest.mark.parametrize("values", [{}, {"count": "jane"}, {"count": 1, "name": "jane"}, {"count": None}])
def test_anything_else_is_refused_without_being_repeated(values: dict[str, Any]) -> None:
    cls = declare(annotations={"count": int}, count=prop(**DOC))
    with pytest.raises(InvalidEvent, match="test:captured") as caught:
        cls.properties(values)
    assert "jane" not in str(caught.value)


def test_a_property_is_of_an_anonymous_type() -> None:
    with pytest.raises(DeclarationError, match="can carry free text"):
        declare(annotations={"name": str}, name=prop(**DOC))
    with pytest.raises(DeclarationError, match="annotate it"):
        declare(name=prop(**DOC))
    assert "test:captured" not in CAPTURED


def test_a_property_is_a_fact_that_only_telemetry_is_told() -> None:
    [field] = declare(annotations={"count": int}, count=prop(**DOC)).fields
    assert (field.role, field.in_telemetry, field.in_notification) == ("fact", True, False)


def test_a_type_is_declared_once() -> None:
    declare()
    with pytest.raises(DeclarationError, match="already declared"):
        declare()
    with pytest.raises(DeclarationError, match="already declared"):
        declare("shop:opened")


def test_the_catalogue_lists_it_with_a_closed_schema() -> None:
    cls = declare(annotations={"active": bool}, active=prop(**DOC))
    listed = Catalogue([tests.clarion.sample.ShopEvent, cls])
    event_type = listed["test:captured"]
    assert (event_type.source, event_type.captured, event_type.description) == ("browser", True, "A test.")
    assert "test:captured" not in listed.recorded
    assert listed["shop:opened"].source == "api"
    properties = event_type.telemetry_schema()["properties"]
    assert list(properties["event_properties"]["properties"]) == ["active"]
    assert properties["event_properties"]["additionalProperties"] is False
    assert properties["derived_properties"]["properties"] == {}


class Mixed:
    """A mixin with fields, above a class that has a subclass."""

    mixed_count: Mapped[int] = fact(anonymous=True, notified=False, **DOC)

    @measure(purpose="To know.")
    def double(self) -> int:
        """Twice as much."""
        return 2 * self.mixed_count


def test_a_mixins_fields_belong_to_the_class_it_is_mixed_into() -> None:
    parent: Any = type("Parent", (Mixed, event_like()), {})
    child: Any = type("Child", (parent,), {})
    base = parent.__mro__[2]
    assert [f.name for f in own_fields(parent, ("p",), base)] == ["mixed_count", "double"]
    assert own_fields(child, ("p", "c"), base) == []


def event_like() -> type:
    return type("EventLike", (), {})


def test_a_fact_for_telemetry_only_is_not_notified() -> None:
    parent: Any = type("Parent", (Mixed, event_like()), {})
    field, _ = own_fields(parent, ("p",), parent.__mro__[2])
    assert field.in_telemetry
    assert not field.in_notification
    assert field.stored
