"""Clarion: transactional events, notifications and anonymous telemetry for self-hosted applications.

    from clarion import Event, fact, identity, record

This page is the public API. Names are loaded when they are first used, so that ``clarion.analytics`` and
the command line stay quick to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clarion.anonymous import Bucket, DurationBucket, Pseudonym, Version
    from clarion.catalogue import Catalogue, EventType
    from clarion.database import metadata, open_engine, prepare_sqlite
    from clarion.declarations import derived, fact, identity, measure
    from clarion.errors import ClarionError
    from clarion.events import Event
    from clarion.outbox import Recording, delete_subscriber, record, redeliver, replay
    from clarion.subscriptions import Subscriber, Subscription, subscribe, subscription, who_wants
    from clarion.upkeep import Never, Upkeep

__version__ = "0.1.0"

_HOMES = {
    "anonymous": ("Bucket", "DurationBucket", "Pseudonym", "Version"),
    "catalogue": ("Catalogue", "EventType"),
    "database": ("metadata", "open_engine", "prepare_sqlite"),
    "declarations": ("derived", "fact", "identity", "measure"),
    "errors": ("ClarionError",),
    "events": ("Event",),
    "outbox": ("Recording", "delete_subscriber", "record", "redeliver", "replay"),
    "subscriptions": ("Subscriber", "Subscription", "subscribe", "subscription", "who_wants"),
    "upkeep": ("Never", "Upkeep"),
}

__all__ = [
    "Bucket",
    "Catalogue",
    "ClarionError",
    "DurationBucket",
    "Event",
    "EventType",
    "Never",
    "Pseudonym",
    "Recording",
    "Subscriber",
    "Subscription",
    "Upkeep",
    "Version",
    "delete_subscriber",
    "derived",
    "fact",
    "identity",
    "measure",
    "metadata",
    "open_engine",
    "prepare_sqlite",
    "record",
    "redeliver",
    "replay",
    "subscribe",
    "subscription",
    "who_wants",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"clarion.{module}"), name)
    raise AttributeError(f"module 'clarion' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
