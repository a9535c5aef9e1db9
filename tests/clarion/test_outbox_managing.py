"""What people do to deliveries by hand."""

from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from clarion.errors import Conflict
from clarion.messages import Response
from clarion.outbox import Delivery, Recording, Settlement, claim, record, redeliver, replay, settle
from clarion.outcomes import Delivered
from clarion.subscriptions import Subscriber
from tests.clarion.plain import NOW, add_plain
from tests.clarion.sample import ABOUT_ORDER, OrderEvent

RECORDING = Recording(clock=lambda: NOW).info()


def placed(**values: Any) -> OrderEvent:
    return OrderEvent("placed", **ABOUT_ORDER | values)


@pytest.mark.parametrize(
    ("owner", "there", "count"),
    [
        ("", "s1", 1),
        ("shop/s1", "s1", 1),
        ("shop/s1", "s10", 0),
        ("shop/s1", "S1", 0),
        ("shop/s_", "s1", 0),
        ("shop/%", "s1", 0),
    ],
)
def test_a_replay_tells_nothing_from_outside_of_the_owner(
    engine: Engine, owner: str, there: str, count: int
) -> None:
    with Session(engine) as session:
        event = placed(shop_uuid=there)
        record(session, event)
        subscriber = add_plain(session, "http://127.0.0.1:1/", "*")
        subscriber.owner = owner
        session.flush()
        assert replay(session, subscriber, [event.sequence], NOW) == count
        assert replay(session, subscriber, [event.sequence], NOW) == 0


def test_what_another_has_redelivered_meanwhile_is_left_to_the_relay(engine: Engine) -> None:
    with Session(engine, info=RECORDING) as session:
        add_plain(session, "http://127.0.0.1:1/", "*")
        record(session, placed())
        session.commit()
    [one] = claim(engine, NOW).deliveries
    settle(engine, [Settlement(one, NOW, Delivered(), Response(200, {}, b"", 0.01))], NOW)
    with Session(engine, expire_on_commit=False) as late:
        late.scalars(select(Delivery)).one()
        late.commit()
        with Session(engine) as session:
            redeliver(session, one.id, NOW)
            session.commit()
        [again] = claim(engine, NOW).deliveries
        with pytest.raises(Conflict, match="still pending"):
            redeliver(late, one.id, NOW)
        late.rollback()
    assert not claim(engine, NOW).deliveries  # the lease holds
    assert settle(engine, [Settlement(again, NOW, Delivered(), Response(200, {}, b"", 0.01))], NOW) == 1


def test_a_subscriber_that_is_gone_cannot_be_told_again(engine: Engine) -> None:
    with Session(engine, info=RECORDING) as session:
        add_plain(session, "http://127.0.0.1:1/", "*")
        record(session, placed())
        session.commit()
        [one] = claim(engine, NOW).deliveries
        settle(engine, [Settlement(one, NOW, Delivered(), Response(200, {}, b"", 0.01))], NOW)
        session.delete(session.scalars(select(Subscriber)).one())
        session.flush()
        with pytest.raises(Conflict, match="gone"):
            redeliver(session, one.id, NOW)
