"""Retention deletes what is finished and old, and nothing that is pending."""

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from clarion import anonymous, retention
from clarion.database import Base, open_engine
from clarion.events import Event
from clarion.outbox import Attempt, Delivery, Recording, record
from clarion.retention import Kept, Pruned, prune
from clarion.telemetry import purge
from clarion.testing import FrozenClock, Receiver, Reply, drain
from tests.clarion.plain import add_plain
from tests.clarion.sample import ABOUT_ORDER, ABOUT_SHOP, OrderEvent, ShopEvent
from tests.clarion.telemetry_sample import switched_on


def left(engine: Engine) -> tuple[int, int, int]:
    """How many events, deliveries and attempts there are."""
    with Session(engine) as session:
        counts = [
            session.scalar(select(func.count()).select_from(t)) for t in (Event.__table__, Delivery, Attempt)
        ]
        return (counts[0] or 0, counts[1] or 0, counts[2] or 0)


@pytest.mark.parametrize("length", [20, 20_000])
def test_what_is_deleted_is_gone_from_sqlite_s_file(tmp_path: Path, length: int) -> None:
    """Also where SQLite's own default would leave it, and of rows that fill pages of their own."""
    file, clock = tmp_path / "shop.db", FrozenClock()

    def careless() -> sqlite3.Connection:
        connection = sqlite3.connect(file, check_same_thread=False)
        connection.execute("PRAGMA secure_delete=OFF")
        return connection

    def kept(secret: str) -> bool:
        return any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir())

    engine = open_engine(f"sqlite:///{file}", creator=careless)
    Base.metadata.create_all(engine)
    telemetry = switched_on(engine, "http://127.0.0.1:9/")
    key = telemetry.key()
    assert key is not None
    pseudonym = anonymous.pseudonym(key, "order", "o1")
    with Session(engine, info=Recording(clock, telemetry_key=telemetry.key).info()) as session:
        note = "Ring twice. " * (length // 12) + "Anna Somebody"
        record(session, OrderEvent("placed", **ABOUT_ORDER, order_note=note))
        session.commit()
    engine.dispose()
    assert (kept(pseudonym), kept("Anna Somebody")) == (True, True)
    with Session(engine) as session, session.begin():
        assert purge(session) == 1
    engine.dispose()
    assert (kept(pseudonym), kept("Anna Somebody")) == (False, True)
    assert prune(engine, clock.advance(days=2), Kept(events=timedelta(days=1))).events == 1
    engine.dispose()
    assert not kept("Anna Somebody")


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
