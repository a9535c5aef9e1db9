"""The feature manual's functions: `register_event(my_event)`, and a ``register_<event_type>_event`` a type.

    with recording_in(session):
        register_event(ProjectEvent("created", **about_project(project, links)))
        register_project_created_event(**about_project(project, links))

They are derived from the catalogue: a type that is declared has its function. `clarion.record` is what they
call; new code of ours calls it itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from sqlalchemy.orm import Session

from clarion.catalogue import EventType
from clarion.errors import ConfigurationError
from clarion.events import Event
from clarion.outbox import record
from orchest.events.catalogue import CATALOGUE

SESSION: ContextVar[Session | None] = ContextVar("orchest_recording_session", default=None)


class Register(Protocol):
    """Record an event of one type: ``values`` are those of an ``about_*`` function."""

    def __call__(
        self, *, session: Session | None = None, occurred_at: datetime | None = None, **values: Any
    ) -> None: ...


@contextmanager
def recording_in(session: Session) -> Iterator[Session]:
    """Within it, what is registered belongs to the transaction of ``session``."""
    token = SESSION.set(session)
    try:
        yield session
    finally:
        SESSION.reset(token)


def register_event(my_event: Event, session: Session | None = None) -> None:
    """Record ``my_event`` in the transaction of ``session``, or of that of `recording_in`.

    Raises:
        ConfigurationError: there is neither.
    """
    session = session if session is not None else SESSION.get()
    if session is None:
        raise ConfigurationError(
            "which transaction does the event belong to? Pass session=..., or register it within "
            "`with recording_in(session):`"
        )
    record(session, my_event)


def function_name(event_type: str) -> str:
    """``project:cron-job:run:failed`` as ``register_project_cron_job_run_failed_event``."""
    return f"register_{event_type.replace(':', '_').replace('-', '_')}_event"


def register_type(
    event_type: EventType,
    *,
    session: Session | None = None,
    occurred_at: datetime | None = None,
    **values: Any,
) -> None:
    cls = event_type.cls
    assert issubclass(cls, Event)  # the catalogue's recorded types are
    register_event(cls(event_type.verb, occurred_at=occurred_at, **values), session)


FUNCTIONS: dict[str, Register] = {
    function_name(event_type.name): partial(register_type, event_type) for event_type in CATALOGUE.recorded
}


def __getattr__(name: str) -> Register:
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name in {function_name(t.name) for t in CATALOGUE}:
        raise AttributeError(f"{name}: the API does not record this type; send it with send_event")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *FUNCTIONS])
