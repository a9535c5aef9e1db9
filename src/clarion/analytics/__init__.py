"""The shared analytics module: send what is already anonymous, or find out at once why it is not sent.

    from clarion import analytics

    analytics.send_event(
        app,
        analytics.Event.HEARTBEAT_TRIGGER,
        analytics.TelemetryData(event_properties={"active": True}, derived_properties={}),
    )

``app`` is a Flask, FastAPI or Starlette application, or a plain mapping of settings; what telemetry needs to
know of it was put there by `attach`, or is read from its settings (`CONFIG_KEYS`). Importing this module
opens nothing and loads neither database nor network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clarion.analytics.capturing import Analytics
    from clarion.catalogue import EventType

__all__ = [
    "Accepted",
    "Disabled",
    "Event",
    "Rejected",
    "Result",
    "TelemetryData",
    "attach",
    "enumeration",
    "send_event",
]

ATTACHED = "clarion_analytics"
"""The name under which an application carries its `Analytics`."""

CONFIG_KEYS = ("CLARION_DATABASE_URL", "TELEMETRY_DISABLED", "TELEMETRY_UUID")
"""What is read of a plain mapping of settings, or of a Flask application's configuration."""


@dataclass(frozen=True, slots=True)
class TelemetryData:
    """The content of one event: what happened, and what was computed of it. Both must be anonymous already;
    what is not declared for the event is refused."""

    event_properties: Mapping[str, Any] = field(default_factory=dict)
    derived_properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is stored, and will be sent whatever happens to this process. ``id`` is what it is sent under."""

    id: str

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Disabled:
    """Telemetry is off: nothing was stored and nothing will be sent. ``reason`` says what decided."""

    reason: str

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Rejected:
    """It could not be taken; ``reason`` says why and never holds a value."""

    reason: str

    def __bool__(self) -> bool:
        return False


Result = Accepted | Disabled | Rejected
"""What became of an event: a closed sum type, truthy only when it is durably stored."""


def send_event(app: Any, event: Enum, data: TelemetryData | None = None, /) -> Result:
    """Store one event to be sent, and say what became of it. Never touches the network, never blocks on it.

    ``data`` is not changed. While telemetry is off nothing is stored. Whatever else is wrong is `Rejected`,
    counted and logged: a value that does not fit its declared type, a database that cannot be used or that
    does not answer. In development (`Analytics` with ``strict``) a wrong value is a ValueError too.
    ``TELEMETRY_UUID`` of the application's settings is the id that events are sent under, unless the
    environment gives another; no UUID, and it is `Rejected`.

    A database that does not answer is waited for: SQLite's writer a quarter of a second, PostgreSQL 2 s to
    connect and 1 s for answers, and is then left alone ten times as long. An application that carries an
    `Analytics` of its own (`attach`) waits for PostgreSQL as long as its own engine does.

    Raises:
        ValueError: ``event`` is not of an enumeration of declared types, or ``data`` is not of its shape: a
            property it does not declare, or lacks one it does.
        TypeError: ``app`` is neither an application of a known kind nor a mapping of settings.
    """
    from clarion.analytics.capturing import send_from

    return send_from(app, event, data)


def attach(app: Any, analytics: "Analytics") -> None:
    """Make ``app`` carry ``analytics``, so that `send_event(app, ...)` finds it.

    Flask carries it in its ``extensions``, Starlette and FastAPI in their ``state``, a mapping as an item. If
    telemetry is switched off by the environment or the application's configuration, what waits is deleted.
    """
    holder = carrier(app)
    if isinstance(holder, dict):
        holder[ATTACHED] = analytics
    else:
        setattr(holder, ATTACHED, analytics)
    analytics.telemetry.begin()


def carrier(app: Any) -> Any:
    """Where an application carries things: a dict, or an object with attributes.

    Raises:
        TypeError: it is not an application of a known kind and not a mapping.
    """
    if isinstance(app, Mapping):
        return app
    extensions = getattr(app, "extensions", None)
    if isinstance(extensions, dict):
        return extensions
    state = getattr(app, "state", None)
    if state is not None:
        return state
    raise TypeError(
        "expected a Flask, FastAPI or Starlette application or a mapping of settings, "
        f"got {type(app).__name__}"
    )


def enumeration(types: "Iterable[EventType]", name: str = "Event") -> type[Enum]:
    """An enumeration of a catalogue's types: ``project:created`` is its member ``PROJECT_CREATED``."""
    members = {one.name.replace(":", "_").replace("-", "_").upper(): one.name for one in types}
    return cast("Callable[[str, dict[str, str]], type[Enum]]", Enum)(name, members)


_enumerations: dict[int, type[Enum]] = {}
"""Every declared type, by how many there were: types are only ever added."""


def __getattr__(name: str) -> Any:
    """``Event``: every type declared so far, whatever was imported; an application makes its own once."""
    if name == "Event":
        from clarion.catalogue import catalogue

        types = catalogue()
        if len(types) not in _enumerations:
            _enumerations[len(types)] = enumeration(types)
        return _enumerations[len(types)]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
