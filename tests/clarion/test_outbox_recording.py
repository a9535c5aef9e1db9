"""`record` in the sessions applications really have: savepoints, scoped, bound by class, asynchronous."""

from asyncio import current_task
from typing import Any

import pytest
from sqlalchemy import Engine, func, make_url, select
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from clarion.database import Base, prepare_sqlite
from clarion.errors import InvalidEvent
from clarion.events import Event
from clarion.outbox import Delivery, Recording, record
from tests.clarion.plain import NOW, add_plain
from tests.clarion.sample import ABOUT_ORDER, OrderEvent


class Nudges:
    """Counts how often it was called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1

    def info(self) -> dict[str, Recording]:
        return Recording(clock=lambda: NOW, nudge=self).info()


@pytest.fixture
def nudges(engine: Engine) -> Nudges:
    """Of the sessions of a database with one subscriber."""
    with Session(engine) as session:
        add_plain(session, "http://127.0.0.1:1/", "*")
    return Nudges()


def placed(verb: str = "placed") -> OrderEvent:
    return OrderEvent(verb, **ABOUT_ORDER)


def told(engine: Engine) -> tuple[int, int]:
    """How many events and deliveries there are."""
    with Session(engine) as session:
        return tuple(session.scalar(select(func.count()).select_from(of)) or 0 for of in (Event, Delivery))  # type: ignore[return-value]


def test_the_nudge_waits_for_the_outermost_commit(engine: Engine, nudges: Nudges) -> None:
    with Session(engine, info=nudges.info()) as session:
        with session.begin_nested(), session.begin_nested():
            record(session, placed())
        assert nudges.count == 0
        session.commit()
    assert (nudges.count, told(engine)) == (1, (1, 1))


def test_a_savepoint_that_is_rolled_back_takes_no_nudge_along(engine: Engine, nudges: Nudges) -> None:
    with Session(engine, info=nudges.info()) as session:
        record(session, placed())
        with session.begin_nested() as savepoint:
            record(session, placed())
            savepoint.rollback()
        session.commit()
    assert (nudges.count, told(engine)) == (1, (1, 1))


def test_what_is_rolled_back_is_not_nudged_for_later(engine: Engine, nudges: Nudges) -> None:
    with Session(engine, info=nudges.info()) as session:
        record(session, placed())
        session.rollback()
        session.execute(select(1))
        session.commit()
    assert (nudges.count, told(engine)) == (0, (0, 0))


def test_a_nudge_that_fails_does_not_make_the_commit_fail(engine: Engine, nudges: Nudges) -> None:
    def fail() -> None:
        raise RuntimeError("no broker")

    with Session(engine, info=Recording(clock=lambda: NOW, nudge=fail).info()) as session:
        for _ in range(2):
            record(session, placed())
            session.commit()
    assert told(engine) == (2, 2)


def test_an_event_that_cannot_be_written_leaves_those_before_it_told(engine: Engine, nudges: Nudges) -> None:
    odd = OrderEvent("updated", **ABOUT_ORDER, order_changes=[{"x": object()}])
    with Session(engine, info=nudges.info()) as session:
        with pytest.raises(InvalidEvent, match="JSON"):
            record(session, placed(), odd, placed())
        session.commit()
    assert (nudges.count, told(engine)) == (1, (1, 1))


def test_one_event_is_not_recorded_twice_at_once(engine: Engine, nudges: Nudges) -> None:
    event = placed()
    with Session(engine, info=nudges.info()) as session:
        with pytest.raises(InvalidEvent, match="twice"):
            record(session, event, placed(), event)
        session.commit()
    assert told(engine) == (0, 0)


def test_a_scoped_session(engine: Engine, nudges: Nudges) -> None:
    session = scoped_session(sessionmaker(engine, info=nudges.info()))
    record(session, placed())
    session.commit()
    session.remove()
    assert (nudges.count, told(engine)) == (1, (1, 1))


def test_a_session_bound_by_class(engine: Engine, nudges: Nudges) -> None:
    with sessionmaker(binds={Base: engine}, info=nudges.info())() as session:
        record(session, placed("failed"))  # with a derived value that fails
        session.commit()
    assert (nudges.count, told(engine)) == (1, (1, 1))


@pytest.mark.parametrize("scoped", [False, True])
async def test_asynchronous_sessions(engine: Engine, nudges: Nudges, scoped: bool) -> None:
    url = make_url(str(engine.url.render_as_string(hide_password=False)))
    sqlite = url.get_backend_name() == "sqlite"
    target = create_async_engine(url.set(drivername="sqlite+aiosqlite") if sqlite else url)
    if sqlite:
        prepare_sqlite(target.sync_engine)
    factory: Any = async_sessionmaker(target, info=nudges.info())
    made: Any = async_scoped_session(factory, current_task) if scoped else factory()
    try:
        await record(made, placed())
        async with made.begin_nested():
            await record(made, placed("failed"))
        assert nudges.count == 0
        await made.commit()
        await record(made, placed())
        await made.rollback()
    finally:
        await (made.remove() if scoped else made.close())
        await target.dispose()
    assert (nudges.count, told(engine)) == (1, (2, 2))
