"""Setting analytics up: the backend, what goes along with every event, and the hidden subscriber."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from clarion.addresses import parse_url
from clarion.deliverees.analytics import AnalyticsSubscriber
from clarion.deliverees.backends import backend_named
from clarion.envelope import AppProperties, SystemProperties, render
from clarion.errors import ConfigurationError
from clarion.subscriptions import EVERYWHERE, Subscription
from clarion.telemetry import TelemetryState


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """Where telemetry goes: a backend's name, its URL without a path of the format's own, and a write key."""

    url: str
    write_key: str = field(repr=False)
    backend: str = "posthog"


def configure(
    session: Session,
    settings: BackendSettings,
    app: AppProperties,
    system: SystemProperties,
    now: datetime,
) -> TelemetryState:
    """Make telemetry ready to be switched on: its state, and the subscriber of all types.

    Called at each start; keeps id, key and the administrator's word. Nothing is sent before the notice was
    shown (`telemetry.show_notice`).

    Raises:
        ConfigurationError: an unknown backend, no write key, or a property that is not of its type.
        InvalidAddress: a URL that could never be called.
    """
    backend_named(settings.backend)
    parse_url(settings.url)
    if not 1 <= len(settings.write_key) <= 64 or not settings.write_key.isascii():
        raise ConfigurationError("the analytics write key must be 1 to 64 ASCII characters")
    said: dict[str, Any] = {
        "backend": settings.backend,
        "url": settings.url,
        "write_key": settings.write_key,
        "app": render(app),
        "system": render(system),
    }
    state = the_state(session, said, now)
    for name, value in said.items():
        setattr(state, name, value)
    if session.scalar(select(AnalyticsSubscriber.id).limit(1)) is None:
        everything = Subscription(pattern="*", scope=EVERYWHERE)
        session.add(AnalyticsSubscriber(created_at=now, state=state, subscriptions=[everything]))
        session.flush()
    session.flush()
    return state


def the_state(session: Session, said: dict[str, Any], now: datetime) -> TelemetryState:
    """The one row, made if need be and locked: processes that start at once configure one after the other."""
    locked = select(TelemetryState).where(TelemetryState.id == 1).with_for_update()
    if (state := session.scalars(locked).one_or_none()) is not None:
        return state
    try:
        with session.begin_nested():
            session.add(TelemetryState(renewed_at=now, **said))
    except IntegrityError:  # another process was faster
        pass
    return session.scalars(locked).one()
