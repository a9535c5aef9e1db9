"""What the engines' tests share: subscribers, orders, and waiting for what another thread does."""

import time
from collections.abc import Callable, Sequence

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from clarion.egress import EgressPolicy
from clarion.outbox import Delivery, Recording, record
from clarion.testing import LOOPBACK
from tests.clarion.plain import add_plain
from tests.clarion.sample import ABOUT_ORDER, OrderEvent

POLICY = EgressPolicy.of(LOOPBACK)
WITHIN = 20.0
"""Seconds any of this may take before the test fails."""


SCHEDULE = (0.0, *[0.2] * 19)


def add(engine: Engine, target: str, retry_schedule: Sequence[float] = SCHEDULE) -> None:
    with Session(engine) as session:
        add_plain(session, target, "shop:order:*", retry_schedule=list(retry_schedule))


def place(engine: Engine, nudge: Callable[[], None] | None = None, count: int = 1) -> None:
    """Place orders, each in a transaction of its own."""
    for number in range(count):
        with Session(engine, info=Recording(nudge=nudge).info()) as session:
            record(session, OrderEvent("placed", **ABOUT_ORDER | {"order_number": number}))
            session.commit()


def states(engine: Engine) -> list[str]:
    with Session(engine.execution_options(read_only=True)) as session:
        return list(session.scalars(select(Delivery.state).order_by(Delivery.id)))


def wait_until(condition: Callable[[], bool], seconds: float = WITHIN) -> None:
    """Look at a condition that no one can signal until it holds. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come about within {seconds} s")
        time.sleep(0.01)
