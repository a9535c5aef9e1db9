"""Engines: what runs relays. An engine decides who calls the relay and when, and nothing else.

- `embedded`: a thread of the application, no other process and no broker
- `process`: ``clarion relay``, a process of its own beside the application
- `celery`: tasks on any number of machines

Whatever wakes a relay (a nudge in the process, NOTIFY, a changed file, a Celery task) may be lost: a
relay also looks once a second, and Celery's beat every few.
"""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from clarion.database import normalise_url, open_engine
from clarion.errors import ConfigurationError

GRACE = 20.0
"""Seconds an engine that stops lets the requests in flight go on."""

CONNECT_TIMEOUT = 5
"""Seconds to reach PostgreSQL; without a limit a lost network would hold a relay for minutes."""

POSTGRESQL_OPTIONS: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}
"""libpq settings by which a connection to a machine that is gone fails within 30 s instead of hours."""


def open_relay_engine(url: str | URL) -> Engine:
    """The database as a relay uses it: it survives a lost connection by itself, so none is tested first."""
    target = normalise_url(url)
    if target.get_backend_name() != "postgresql":
        return open_engine(target, durable=False)
    require("psycopg", "postgres")
    return open_engine(target, pool_pre_ping=False, connect_args=dict(POSTGRESQL_OPTIONS))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's event loop where it is installed (a third more deliveries a second), else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def relax_gc() -> None:
    """Look for garbage cycles seldom, and never among what was there at the start.

    A relay or a collector makes thousands of short-lived objects a second and hardly a cycle; looking for
    them took a third of a relay's time. For processes of our own only: an application's garbage is its own
    business.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def require(module: str, extra: str) -> None:
    """Raises ConfigurationError, which names the extra to install, unless ``module`` can be imported."""
    try:
        __import__(module)
    except ImportError as error:
        raise ConfigurationError(f"{module} is not installed: pip install 'clarion[{extra}]'") from error


__all__ = ["CONNECT_TIMEOUT", "GRACE", "loop_factory", "open_relay_engine", "relax_gc", "require"]
