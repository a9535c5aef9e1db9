"""Setting analytics up: the backend, what goes along with every event, and the hidden subscriber."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
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
    state = session.get(TelemetryState, 1) or TelemetryState(renewed_at=now)
    state.backend, state.url, state.write_key = settings.backend, settings.url, settings.write_key
    state.app, state.system = render(app), render(system)
    session.add(state)
    session.flush()
    if session.scalar(select(AnalyticsSubscriber.id).limit(1)) is None:
        everything = Subscription(pattern="*", scope=EVERYWHERE)
        session.add(AnalyticsSubscriber(created_at=now, state=state, subscriptions=[everything]))
        session.flush()
    return state
