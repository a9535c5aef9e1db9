"""Retention deletes what is finished and old, and nothing that is pending."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from clarion import retention
from clarion.events import Event
from clarion.outbox import Attempt, Delivery, Recording, record
from clarion.retention import Kept, Pruned, prune
from clarion.testing import FrozenClock, Receiver, Reply, drain
from tests.clarion.plain import add_plain
from tests.clarion.sample import ABOUT_ORDER, ABOUT_SHOP, OrderEvent, ShopEvent


def left(engine: Engine) -> tuple[int, int, int]:
    """How many events, deliveries and attempts there are."""
    with Session(engine) as session:
        counts = [
            session.scalar(select(func.count()).select_from(t)) for t in (Event.__table__, Delivery, Attempt)
        ]
        return (counts[0] or 0, counts[1] or 0, counts[2] or 0)


def test_what_is_old_and_finished_goes_in_batches(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    clock = FrozenClock()
    with (
        Receiver(lambda r: Reply(204 if b"placed" in r.body else 500)) as receiver,
        Session(engine, info=Recording(clock).info()) as session,
    ):
        add_plain(session, receiver.url, "*:placed", "*:opened")
        record(session, *(OrderEvent("placed", **ABOUT_ORDER) for _ in range(5)))
        record(session, ShopEvent("opened", **ABOUT_SHOP), ShopEvent("closed", **ABOUT_SHOP))
        session.commit()
        drain(engine, clock=clock)
    assert left(engine) == (7, 6, 6)
    kept = Kept(deliveries=timedelta(days=30), events=timedelta(days=60))
    assert prune(engine, clock.advance(days=29), kept) == Pruned()
    assert prune(engine, clock.advance(days=2), kept) == Pruned(deliveries=5)
    assert left(engine) == (7, 1, 1)
    assert prune(engine, clock.advance(days=30), kept) == Pruned(events=6)
    assert left(engine) == (1, 1, 1)  # still pending, however old
    assert prune(engine, clock(), Kept(None, None, None)) == Pruned()
