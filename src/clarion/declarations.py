"""How an event class declares its fields: `identity`, `fact`, `derived`, `measure`, and what they become."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from inspect import Parameter, getdoc, signature
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from sqlalchemy import JSON, BigInteger, Boolean, Double, String, Text
from sqlalchemy.orm import Mapped, MappedColumn, mapped_column
from sqlalchemy.types import TypeEngine

from clarion import anonymous
from clarion.database import UTCDateTime
from clarion.errors import DeclarationError

F = TypeVar("F", bound=Callable[..., Any])

Role = Literal["identity", "fact", "derived", "measure"]

INFO = "clarion"
"""The key in a column's ``info`` under which its declaration lies."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What the author of a field said about it, before its class is known."""

    role: Role
    anonymous: bool = False
    verbs: frozenset[str] | None = None
    key: str | None = None
    doc: str = ""
    purpose: str = ""
    notified: bool = True


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event class. ``path`` leads to it in the payload; ``function`` computes it, if any."""

    name: str
    path: tuple[str, ...]
    type: Any
    declared: Declared
    function: Callable[..., Any] | None = None
    queries: bool = False

    @property
    def role(self) -> Role:
        return self.declared.role

    @property
    def stored(self) -> bool:
        return self.function is None

    @property
    def optional(self) -> bool:
        return NoneType in get_args(self.type)

    def applies(self, verb: str) -> bool:
        return self.declared.verbs is None or verb in self.declared.verbs

    @property
    def in_notification(self) -> bool:
        return self.role != "measure" and self.declared.notified

    @property
    def in_telemetry(self) -> bool:
        return self.role in ("identity", "measure") or self.declared.anonymous


def identity(*, doc: str = "", key: str | None = None) -> MappedColumn[Any]:
    """The identifier of a layer's subject: part of the scope path, in telemetry only as a pseudonym."""
    return column(Declared("identity", doc=doc, key=key))


def fact(
    *,
    anonymous: bool = False,
    verbs: Iterable[str] | None = None,
    key: str | None = None,
    doc: str = "",
    purpose: str = "",
    notified: bool = True,
) -> MappedColumn[Any]:
    """A value stored with the event. Subscribers see it; telemetry does only if it is ``anonymous``.

    ``notified=False`` keeps one from subscribers that only the product team needs.
    ``verbs`` limits it to some of the class's verbs. ``key`` is its name in the payload, by default the
    attribute's without the layer's name in front; dots nest (``update.changes``).
    """
    if not notified and not anonymous:
        raise DeclarationError("a fact that is neither notified nor anonymous would be seen by nobody")
    return column(Declared("fact", anonymous, frozen(verbs), key, doc, purpose, notified))


def column(declared: Declared) -> MappedColumn[Any]:
    return mapped_column(nullable=True, use_existing_column=True, info={INFO: declared})


@overload
def derived(function: F) -> F: ...
@overload
def derived(
    *,
    anonymous: bool = False,
    verbs: Iterable[str] | None = None,
    key: str | None = None,
    purpose: str = "",
) -> Callable[[F], F]: ...
def derived(
    function: F | None = None,
    *,
    anonymous: bool = False,
    verbs: Iterable[str] | None = None,
    key: str | None = None,
    purpose: str = "",
) -> Any:
    """A method whose value is computed when the event is recorded; one that raises is null there.

    The method takes nothing, or the caller's ``session`` if it has a parameter of that name, to query with:
    it must not write, since a failed one is not undone on SQLite. Its return annotation is the field's
    type, its docstring the field's description.
    """
    return mark(function, Declared("derived", anonymous, frozen(verbs), key, purpose=purpose))


@overload
def measure(function: F) -> F: ...
@overload
def measure(
    *, verbs: Iterable[str] | None = None, key: str | None = None, purpose: str = ""
) -> Callable[[F], F]: ...
def measure(
    function: F | None = None,
    *,
    verbs: Iterable[str] | None = None,
    key: str | None = None,
    purpose: str = "",
) -> Any:
    """A computed value that only telemetry sees (``derived_properties``); its type must be anonymous."""
    return mark(function, Declared("measure", True, frozen(verbs), key, purpose=purpose))


def mark(function: F | None, declared: Declared) -> Any:
    def decorate(method: F) -> F:
        setattr(method, INFO, declared)
        return method

    return decorate if function is None else decorate(function)


def frozen(verbs: Iterable[str] | None) -> frozenset[str] | None:
    return None if verbs is None else frozenset(verbs)


def own_fields(cls: type, layer: tuple[str, ...], base: type) -> list[Field]:
    """The fields that ``cls`` itself (and mixins below ``base``) declares, typed and placed in ``layer``.

    Raises:
        DeclarationError: a field without a type, or an anonymous one whose type can carry free text.
    """
    fields = []
    parents = [parent for parent in cls.__bases__ if issubclass(parent, base)]
    for owner in reversed(
        [
            c
            for c in cls.__mro__
            if c is cls or not (issubclass(c, base) or any(issubclass(parent, c) for parent in parents))
        ]
    ):
        hints = get_type_hints(owner, include_extras=True)
        for name, value in list(vars(owner).items()):
            declared = declaration(value)
            if declared is None:
                continue
            fields.append(place(cls, name, value, declared, hints, layer))
    return fields


def declaration(value: Any) -> Declared | None:
    if isinstance(value, MappedColumn):
        return value.column.info.get(INFO)
    return getattr(value, INFO, None) if callable(value) else None


def place(
    cls: type, name: str, value: Any, declared: Declared, hints: Mapping[str, Any], layer: tuple[str, ...]
) -> Field:
    where = f"{cls.__name__}.{name}"
    if not layer:
        raise DeclarationError(
            f"{where}: the class has no layer to put it in; give one: class ...(Event, layer='...')"
        )
    key = declared.key or name.removeprefix(f"{layer[-1]}_")
    path = (*layer, *key.split("."))
    if isinstance(value, MappedColumn):
        tp = inner_type(where, hints.get(name))
        field = Field(name, path, tp, declared)
    else:
        returned = get_type_hints(value, include_extras=True).get("return")
        if returned is None:
            raise DeclarationError(f"{where}: annotate what it returns; that is the field's type")
        described = Declared(
            declared.role,
            declared.anonymous,
            declared.verbs,
            declared.key,
            getdoc(value) or "",
            declared.purpose,
        )
        field = Field(name, path, returned, described, value, takes_session(where, value))
    if field.in_telemetry:
        require_explained(where, field)
    if field.in_telemetry and field.role != "identity":
        require_anonymous(where, field)
    if isinstance(value, MappedColumn):
        value.column.type = sql_type(where, field.type)
    return field


def require_anonymous(where: str, field: Field) -> None:
    try:
        deep = len(field.path) + anonymous.levels(anonymous.schema(field.type))
    except anonymous.NotAnonymous as error:
        raise DeclarationError(f"{where} cannot be anonymous: {error}") from None
    if deep > anonymous.MAX_DEPTH:
        raise DeclarationError(
            f"{where} would lie {deep} levels deep in telemetry; at most {anonymous.MAX_DEPTH} are allowed"
        )


def require_explained(where: str, field: Field) -> None:
    """Refuse what telemetry would send without anybody having said what it is, and what for."""
    if not field.declared.doc.strip():
        raise DeclarationError(f"{where}: telemetry sends it, so say what it is (doc=..., or a docstring)")
    if field.role != "identity" and not field.declared.purpose.strip():
        raise DeclarationError(f"{where}: telemetry sends it, so say what for: purpose=...")


def takes_session(where: str, method: Callable[..., Any]) -> bool:
    names = [p.name for p in signature(method).parameters.values() if p.kind is not Parameter.VAR_KEYWORD][1:]
    if names not in ([], ["session"]):
        raise DeclarationError(
            f"{where}: a computed field takes nothing or `session`, not {', '.join(names)}"
        )
    return bool(names)


def inner_type(where: str, hint: Any) -> Any:
    if get_origin(hint) is not Mapped:
        raise DeclarationError(
            f"{where}: annotate it as Mapped[...], for instance `number: Mapped[int] = fact()`"
        )
    return get_args(hint)[0]


def plain_type(tp: Any) -> Any:
    """``tp`` without ``| None`` and ``Annotated``."""
    origin, args = get_origin(tp), get_args(tp)
    if origin is Annotated:
        return plain_type(args[0])
    if origin in (Union, UnionType):
        members = [arg for arg in args if arg is not NoneType]
        return plain_type(members[0]) if len(members) == 1 else tp
    return tp


SQL_TYPES: dict[Any, TypeEngine[Any]] = {
    bool: Boolean(),
    int: BigInteger(),
    float: Double(),
    str: Text(),
    datetime: UTCDateTime(),
}


def sql_type(where: str, tp: Any) -> TypeEngine[Any]:
    """The column type that stores a fact of type ``tp``."""
    plain = plain_type(tp)
    if plain in SQL_TYPES:
        return SQL_TYPES[plain]
    if get_origin(plain) is Literal or (isinstance(plain, type) and issubclass(plain, Enum)):
        return String(64)
    if get_origin(plain) in (list, dict) or plain in (list, dict):
        return JSON()
    allowed = "str, bool, int, float, datetime, Enum, Literal, list, dict"
    raise DeclarationError(f"{where}: a fact cannot be of type {tp}; allowed are {allowed}, each with | None")
