"""From `record` to a received POST, on real databases and over real HTTP."""

import json

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from clarion.outbox import Attempt, Delivery, Recording, record
from clarion.testing import FrozenClock, Receiver, Reply, drain
from tests.clarion.plain import add_plain
from tests.clarion.sample import ABOUT_ORDER, OrderEvent


def test_a_committed_event_is_received_once(engine: Engine) -> None:
    clock = FrozenClock()
    with Receiver() as receiver, Session(engine, info=Recording(clock).info()) as session:
        add_plain(session, receiver.url, "shop:order:*", "*:placed")
        record(session, OrderEvent("placed", **ABOUT_ORDER))
        if engine.dialect.name == "postgresql":  # on SQLite the relay waits for the open transaction
            assert drain(engine, clock=clock) == 0
        session.commit()
        assert drain(engine, clock=clock) == 1
        assert drain(engine, clock=clock) == 0
        [request] = receiver.received
        payload = json.loads(request.body)
        assert payload["type"] == "shop:order:placed"
        assert payload["shop"]["order"]["number"] == 7
        delivery = session.scalars(select(Delivery)).one()
        assert (delivery.state, delivery.attempts, delivery.lease_token) == ("delivered", 1, None)
        attempt = session.scalars(select(Attempt)).one()
        assert (attempt.status, attempt.outcome, attempt.number) == (204, "delivered", 1)


def test_a_rolled_back_event_never_happened(engine: Engine) -> None:
    with Receiver() as receiver, Session(engine) as session:
        add_plain(session, receiver.url, "*")
        record(session, OrderEvent("placed", **ABOUT_ORDER))
        session.rollback()
        assert drain(engine) == 0
        assert session.scalar(select(func.count()).select_from(OrderEvent.__table__)) == 0


def test_a_failed_attempt_is_made_again_when_it_is_due_and_dies_in_the_end(engine: Engine) -> None:
    clock = FrozenClock()
    sessions = sessionmaker(engine, info=Recording(clock).info())
    with Receiver(lambda _: Reply(500)) as receiver, sessions() as session:
        add_plain(session, receiver.url, "*", retry_schedule=[0, 5, 10])
        record(session, OrderEvent("placed", **ABOUT_ORDER))
        session.commit()
        made = []
        for _ in range(6):
            made.append(drain(engine, clock=clock))
            clock.advance(seconds=5.1)
        assert made == [1, 1, 0, 1, 0, 0]
        ids = {request.headers["webhook-id"] for request in receiver.received}
        assert len(ids) == 1
        assert session.scalars(select(Delivery)).one().state == "dead"
