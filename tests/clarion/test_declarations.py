"""Event classes that are declared wrongly are refused when they are defined, with a message that helps."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from sqlalchemy.orm import Mapped

from clarion.anonymous import Bucket, DurationBucket, Version
from clarion.database import Base
from clarion.declarations import derived, fact, identity, measure, sql_type
from clarion.errors import DeclarationError
from clarion.events import CLASSES, Event
from tests.clarion.sample import OrderEvent, ShopEvent

FREE_TEXT = [str, str | None, list[str], dict[str, int], Any, bytes, list[Any], Annotated[str, "x"], object]
ANONYMOUS = [bool, int, float, Literal["a", "b"], datetime, Bucket, DurationBucket, Version, int | None]

SAID: dict[str, Any] = {"doc": "It.", "purpose": "To know."}


class Colour(Enum):
    RED = "red"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Any:
    """A refused class leaves no trace: no kind, no column."""
    kinds, columns = set(CLASSES), set(Base.metadata.tables["events"].columns.keys())
    yield
    assert set(CLASSES) == kinds
    assert set(Base.metadata.tables["events"].columns.keys()) == columns


def declare(annotations: dict[str, Any], **body: Any) -> None:
    """Define an event class of kind ``test:bad`` with these annotations and attributes."""
    arguments = body.pop("arguments", {"kind": "test:bad", "layer": "bad"})
    bases = body.pop("bases", (Event,))
    namespace = {"verbs": {"happened": "It happened"}, "__annotations__": annotations, "__module__": __name__}
    type(Event)("BadEvent", bases, namespace | body, **arguments)


@pytest.mark.parametrize("tp", FREE_TEXT)
def test_free_text_cannot_be_anonymous(tp: Any) -> None:
    with pytest.raises(
        DeclarationError, match="can carry free text; telemetry may only carry bool, int"
    ) as caught:
        declare({"bad_note": Mapped[tp]}, bad_note=fact(anonymous=True, **SAID))
    assert "BadEvent.bad_note" in str(caught.value)


def test_what_is_sent_lies_at_most_seven_levels_deep() -> None:
    deep: Any = dict[Literal["a"], dict[Literal["b"], list[int]]]
    for key, levels in (("a.b.c", 7), ("a.b.c.d", 8)):
        with pytest.raises(DeclarationError) as caught:
            declare(
                {"bad_map": Mapped[deep]},
                bad_map=fact(anonymous=True, key=key, **SAID),
                arguments={"kind": "test:bad", "layer": "bad"},
            )
        assert (f"would lie {levels} levels deep" in str(caught.value)) is (levels > 7)


@pytest.mark.parametrize("tp", FREE_TEXT)
def test_free_text_cannot_be_measured(tp: Any) -> None:
    def note(self: Event) -> Any:
        """It."""

    note.__annotations__["return"] = tp
    with pytest.raises(DeclarationError, match="can carry free text"):
        declare({}, note=measure(purpose="To know.")(note))


@pytest.mark.parametrize("tp", [*ANONYMOUS, Colour, str, list[dict[str, Any]]])
def test_facts_have_a_column_type(tp: Any) -> None:
    assert sql_type("X.y", tp) is not None


def test_a_fact_needs_a_type_a_database_can_store() -> None:
    with pytest.raises(DeclarationError, match=r"cannot be of type .*allowed are str, bool, int"):
        declare({"bad_x": Mapped[complex]}, bad_x=fact())


def test_a_fact_needs_an_annotation() -> None:
    with pytest.raises(DeclarationError, match=r"annotate it as Mapped"):
        declare({"bad_x": int}, bad_x=fact())


def test_a_derived_value_needs_a_return_type() -> None:
    def url(self): ...  # type: ignore[no-untyped-def]

    with pytest.raises(DeclarationError, match="annotate what it returns"):
        declare({}, url=derived(url))


def test_a_derived_value_takes_only_a_session() -> None:
    def url(self: Event, request: object) -> str: ...  # type: ignore[empty-body]

    with pytest.raises(DeclarationError, match="takes nothing or `session`, not request"):
        declare({}, url=derived(url))


def test_a_kind_is_declared_once() -> None:
    with pytest.raises(DeclarationError, match="kind 'shop' is already declared by ShopEvent"):
        declare({}, arguments={"kind": "shop", "layer": "other"})


@pytest.mark.parametrize("kind", ["", "Shop", "a::b", "a b", ":a", "a_b", "*"])
def test_a_kind_is_lower_case_words(kind: str) -> None:
    with pytest.raises(DeclarationError, match="is not a kind"):
        declare({}, arguments={"kind": kind, "layer": "bad"})


@pytest.mark.parametrize("verb", ["Done", "a:b", "*"])
def test_a_verb_is_a_lower_case_word(verb: str) -> None:
    with pytest.raises(DeclarationError, match="is not a verb"):
        declare({}, verbs={verb: "It happened"})


def test_only_a_class_of_one_type_can_do_without_a_verb() -> None:
    with pytest.raises(DeclarationError, match="'' is not a verb"):
        declare({}, verbs={"": "It happened", "ended": "It ended"})


def test_a_fact_somebody_sees() -> None:
    with pytest.raises(DeclarationError, match="seen by nobody"):
        fact(notified=False)


def test_a_class_with_a_kind_has_verbs() -> None:
    with pytest.raises(DeclarationError, match="has no verbs"):
        declare({}, verbs={})


def test_a_summary_names_only_fields_there_are() -> None:
    with pytest.raises(
        DeclarationError, match=r"no field 'nme'; there are shop.bad.name, shop.name, shop.uuid"
    ):
        declare(
            {"bad_name": Mapped[str]},
            bad_name=fact(),
            bases=(ShopEvent,),
            verbs={"happened": "{nme} happened"},
        )


def test_a_summary_must_be_a_format_string() -> None:
    with pytest.raises(DeclarationError, match=r"verbs\['happened'\]"):
        declare({}, verbs={"happened": "{"})


def test_a_layer_collides_with_a_field_of_that_name() -> None:
    with pytest.raises(
        DeclarationError, match=r"collide in the payload: shop.order.number.uuid and shop.order.number"
    ):
        declare(
            {"x_uuid": Mapped[str]},
            x_uuid=identity(key="uuid", doc="It."),
            bases=(OrderEvent,),
            arguments={"kind": "test:bad", "layer": "number"},
        )


def test_two_fields_of_a_layer_cannot_share_a_key() -> None:
    with pytest.raises(DeclarationError, match="collide in the payload"):
        declare({"bad_name": Mapped[str], "other": Mapped[str]}, bad_name=fact(), other=fact(key="name"))


def test_a_layer_has_one_identity() -> None:
    with pytest.raises(DeclarationError, match="a layer has one identity"):
        declare(
            {"bad_a": Mapped[str], "bad_b": Mapped[str]}, bad_a=identity(doc="It."), bad_b=identity(doc="It.")
        )


def test_a_field_cannot_hide_a_column_of_every_event() -> None:
    with pytest.raises(DeclarationError, match="every event already has a 'type'"):
        declare({"type": Mapped[str]}, type=fact())


def test_a_field_needs_a_layer_to_lie_in() -> None:
    with pytest.raises(DeclarationError, match="the class has no layer"):
        declare({"name": Mapped[str]}, name=fact(), arguments={"kind": "test:bad"})


def test_a_field_is_limited_to_verbs_the_class_has() -> None:
    with pytest.raises(DeclarationError, match="limited to verbs the class does not have; it has happened"):
        declare({"bad_x": Mapped[int]}, bad_x=fact(verbs=("ended",)))
