"""Captured types: telemetry without an event row, declared as closely as events are.

    class ViewLoaded(Captured, kind="view:loaded", source="browser"):
        \"\"\"A view of the web application was opened.\"\"\"

        upkeep = Upkeep(owner="web team", since="1.0", expires=date(2027, 6, 1), triggers=("views.ts",))

        name: View = prop(doc="Which one.", purpose="Which parts are used.")

Its properties are all that may be sent, and each is of an anonymous type. Defining it is registering it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_type_hints

from clarion import anonymous
from clarion.declarations import Declared, Field, require_anonymous, require_explained
from clarion.errors import DeclarationError, InvalidEvent
from clarion.events import CLASSES, Source, type_name
from clarion.upkeep import Upkeep, require_upkeep

CAPTURED: dict[str, type["Captured"]] = {}
"""Every captured type by its name."""


@dataclass(frozen=True, slots=True)
class Prop:
    """What the author of a property said about it."""

    doc: str
    purpose: str


def prop(*, doc: str, purpose: str) -> Any:
    """A property of a captured type; what it is, and what it is collected for."""
    return Prop(doc, purpose)


class Captured:
    """A type of telemetry message sent straight to analytics, by the web server or the browser."""

    source: ClassVar[Source] = "webserver"
    declared_kind: ClassVar[str | None] = None
    verbs: ClassVar[Mapping[str, str]] = {"": ""}
    schema_version: ClassVar[int] = 1
    fields: ClassVar[tuple[Field, ...]] = ()
    upkeep: ClassVar[Upkeep | None] = None

    def __init_subclass__(cls, *, kind: str, source: Source, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        require_upkeep(cls.__name__, cls.upkeep)
        recorded = {type_name(name, verb) for name, event in CLASSES.items() for verb in event.verbs}
        if kind in CAPTURED or kind in recorded:
            raise DeclarationError(f"{cls.__name__}: the type {kind!r} is already declared")
        cls.declared_kind, cls.source = kind, source
        hints = get_type_hints(cls, include_extras=True)
        cls.fields = tuple(
            captured_field(cls, name, hints.get(name), value)
            for name, value in vars(cls).items()
            if isinstance(value, Prop)
        )
        CAPTURED[kind] = cls

    @classmethod
    def properties(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """``values`` as telemetry may carry them: one for each declared property, constructed, not copied.

        Raises:
            InvalidEvent: a property is undeclared, missing or of the wrong type; its text holds no value.
        """
        declared = {field.name: field for field in cls.fields}
        problems = [f"undeclared property {name!r}" for name in values if name not in declared]
        sent: dict[str, Any] = {}
        for name, field in declared.items():
            if name not in values:
                problems.append(f"missing property {name!r}")
                continue
            try:
                sent[name] = anonymous.convert(field.type, values[name])
            except (ValueError, TypeError) as error:
                problems.append(f"property {name!r}: {error}")
        if problems:
            raise InvalidEvent(f"{cls.declared_kind}: {'; '.join(problems)}")
        return sent


def captured_field(cls: type, name: str, tp: Any, value: Prop) -> Field:
    where = f"{cls.__name__}.{name}"
    if tp is None:
        raise DeclarationError(f"{where}: annotate it; that is the property's type")
    declared = Declared("fact", anonymous=True, doc=value.doc, purpose=value.purpose, notified=False)
    field = Field(name, (name,), tp, declared)
    require_explained(where, field)
    require_anonymous(where, field)
    return field
