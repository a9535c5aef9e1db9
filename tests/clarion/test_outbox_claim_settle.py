"""`claim` and `settle` on both databases: leases, fairness, lost leases, odd answers, and query plans."""

import json
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic_core import to_json
from sqlalchemy import Engine, func, insert, select, text, update
from sqlalchemy import event as listen
from sqlalchemy.orm import Session

from clarion.database import Base, open_engine
from clarion.errors import Reason
from clarion.messages import Failure, Response
from clarion.observe import counters
from clarion.outbox import (
    LEASE,
    UNWRITABLE,
    Attempt,
    Claimed,
    Delivery,
    Recording,
    Settlement,
    cancel_deliveries,
    claim,
    delete_subscriber,
    record,
    release,
    settle,
    settle_apart,
)
from clarion.outbox.leasing import CLAIM_POSTGRESQL
from clarion.outbox.recording import event_statements
from clarion.outbox.settling import SETTLE_POSTGRESQL, settlement_row
from clarion.outcomes import Dead, Delivered, Outcome, Retry
from clarion.subscriptions import Subscriber, who_wants
from tests.clarion.plain import NOW, Plain, PlainDeliveree, add_plain
from tests.clarion.sample import ABOUT_ORDER, OrderEvent

ANSWER = Response(200, {"x": "y"}, b"ok", 0.01)


def place(engine: Engine, count: int = 1) -> None:
    with Session(engine, info=Recording(clock=lambda: NOW).info()) as session:
        record(session, *(OrderEvent("placed", **ABOUT_ORDER | {"order_number": n}) for n in range(count)))
        session.commit()


def add(engine: Engine, **values: Any) -> int:
    with Session(engine) as session:
        return add_plain(session, "http://127.0.0.1:1/", "shop:order:*", **values).id


def settled(one: Claimed, outcome: Outcome, answer: Any = ANSWER, **values: Any) -> Settlement:
    return Settlement(one, NOW, outcome, answer, **values)


def delivery(engine: Engine) -> Delivery:
    with Session(engine) as session:
        return session.scalars(select(Delivery)).one()


def test_a_claim_leases_what_is_due_and_nothing_twice(engine: Engine) -> None:
    add(engine)
    place(engine, 3)
    assert claim(engine, NOW - timedelta(seconds=1)).deliveries == []
    first = claim(engine, NOW)
    assert [c.message.attempt for c in first.deliveries] == [1, 1, 1]
    assert json.loads(first.deliveries[0].message.notification or "")["shop"]["order"]["number"] == 0
    assert claim(engine, NOW + LEASE - timedelta(microseconds=1)).deliveries == []
    again = claim(engine, NOW + LEASE)
    assert [c.id for c in again.deliveries] == [c.id for c in first.deliveries]
    assert again.deliveries[0].token != first.deliveries[0].token


def test_what_is_due_first_is_claimed_first(engine: Engine) -> None:
    add(engine)
    place(engine, 4)
    with Session(engine) as session, session.begin():
        first, *_, last = session.scalars(select(Delivery).order_by(Delivery.id))
        first.due_at, last.due_at = NOW + timedelta(seconds=1), NOW - timedelta(hours=1)
    found = claim(engine, NOW + timedelta(seconds=1)).deliveries
    assert [c.id for c in found] == [4, 2, 3, 1]


@pytest.mark.parametrize(
    ("limits", "claimed"),
    [
        ({"room": 4}, 10),  # nothing is known of the subscriber yet
        ({"rooms": {1: 20}, "limit": 13}, 20),  # others could have had the rest
        ({"rooms": {1: 20}}, 20),
        ({"rooms": {1: 0}}, 0),
        ({"rooms": {1: 100}}, 25),
    ],
)
def test_a_request_that_takes_several_is_filled_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], claimed: int
) -> None:
    monkeypatch.setattr(Plain, "deliveree", lambda self: PlainDeliveree(self.target, batch=10))
    assert add(engine) == 1
    place(engine, 25)
    found = claim(engine, NOW, **limits)
    assert [c.id for c in found.deliveries] == list(range(1, claimed + 1))
    assert len({c.token for c in found.deliveries}) <= 1


def test_claims_at_the_same_time_share_what_is_due(engine: Engine) -> None:
    add(engine)
    place(engine, 200)
    found: list[list[int]] = []
    together = threading.Barrier(4)

    def work() -> None:
        together.wait(10)
        mine: list[int] = []
        while got := claim(engine, NOW, limit=7, room=7).deliveries:
            mine += [c.id for c in got]
        found.append(mine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    claimed = [id for mine in found for id in mine]
    assert len(claimed) == len(set(claimed))
    with Session(engine) as session:  # a claim may pass over what another holds for a moment, not lose it
        left = session.scalar(
            select(func.count()).where(Delivery.lease_token.is_(None)).select_from(Delivery)
        )
    assert len(claimed) + (left or 0) == 200
    assert len(claimed) > 0


def test_a_lost_lease_changes_nothing(engine: Engine) -> None:
    add(engine)
    place(engine)
    [slow] = claim(engine, NOW).deliveries
    later = NOW + LEASE
    [quick] = claim(engine, later).deliveries
    before = counters.value("leases_lost")
    assert settle(engine, [settled(slow, Dead(Reason.GONE, "no"))], later) == 0
    assert delivery(engine).state == "pending"
    assert settle(engine, [settled(quick, Delivered())], later) == 1
    assert settle(engine, [settled(slow, Retry(Reason.TIMEOUT, "t"), due_at=later)], later) == 0
    assert (delivery(engine).state, delivery(engine).attempts) == ("delivered", 1)
    assert counters.value("leases_lost") == before + 2
    with Session(engine) as session:
        assert [a.outcome for a in session.scalars(select(Attempt))] == ["delivered"]
    assert claim(engine, later + timedelta(days=9)).deliveries == []


def test_a_retry_is_due_when_it_was_set_and_then_it_is_the_next_attempt(engine: Engine) -> None:
    add(engine)
    place(engine)
    [one] = claim(engine, NOW).deliveries
    due = NOW + timedelta(seconds=30)
    assert settle(engine, [settled(one, Retry(Reason.HTTP_5XX, "503"), due_at=due)], NOW) == 1
    assert claim(engine, due - timedelta(milliseconds=1)).deliveries == []
    [again] = claim(engine, due).deliveries
    assert (again.message.attempt, again.tried, again.message.id) == (2, 1, one.message.id)


def test_a_batch_is_settled_row_by_row_verdicts(engine: Engine) -> None:
    add(engine)
    place(engine, 3)
    a, b, c = claim(engine, NOW).deliveries
    outcomes = [
        settled(a, Delivered()),
        settled(b, Dead(Reason.GONE, "gone"), Response(410, {}, b"\x00\xff", 0.2, truncated=True)),
        settled(c, Retry(Reason.DNS, "no such host \x00\ud800"), Failure(Reason.DNS, "m", 0.1)),
    ]
    assert settle(engine, outcomes, NOW) == 3
    with Session(engine) as session:
        rows = session.scalars(select(Delivery).order_by(Delivery.id)).all()
        assert [r.state for r in rows] == ["delivered", "dead", "dead"]  # a retry without a time is dead
        assert all(r.finished_at == NOW and r.lease_token is None for r in rows)
        attempts = session.scalars(select(Attempt).order_by(Attempt.delivery_id)).all()
        assert [(t.reason, t.status, t.body, t.truncated) for t in attempts] == [
            (None, 200, b"ok", False),
            ("gone", 410, b"\x00\xff", True),
            ("dns", None, None, False),
        ]
        assert attempts[2].detail == "no such host \ufffd?"


def test_an_answer_no_database_can_hold_costs_the_answer_and_not_the_verdict(engine: Engine) -> None:
    add(engine)
    place(engine, 2)
    a, b = claim(engine, NOW).deliveries
    odd = [settled(a, Delivered(), Response(2**70, {}, b"", 0.0)), settled(b, Delivered())]
    with pytest.raises(UNWRITABLE):
        settle(engine, odd, NOW)
    assert settle_apart(engine, odd, NOW) == 2
    with Session(engine) as session:
        assert list(session.scalars(select(Delivery.state))) == ["delivered", "delivered"]
        assert list(session.scalars(select(Attempt.status).order_by(Attempt.delivery_id))) == [None, 200]


def test_a_released_delivery_is_due_at_once(engine: Engine) -> None:
    add(engine)
    place(engine)
    claimed = claim(engine, NOW).deliveries
    release(engine, claimed, NOW)
    [again] = claim(engine, NOW).deliveries
    assert again.message.attempt == 1
    release(engine, claimed, NOW)  # a lease that is another's is not given up
    assert delivery(engine).lease_token == again.token


def test_a_claim_is_fair_and_goes_on_behind_the_last(engine: Engine) -> None:
    subscribers = [add(engine) for _ in range(4)]
    place(engine, 10)
    first = claim(engine, NOW, limit=5, room=2)
    assert [c.subscriber_id for c in first.deliveries].count(subscribers[0]) == 2
    assert first.last == subscribers[2]
    second = claim(engine, NOW, limit=5, room=2, after=first.last)
    by = [c.subscriber_id for c in second.deliveries]
    assert [by.count(subscriber) for subscriber in subscribers] == [2, 1, 0, 2]  # and on from the front
    assert second.last == subscribers[1]
    third = claim(engine, NOW, limit=9, room=2, after=second.last)
    assert len(third.deliveries) == 8
    assert third.last == 0  # every subscriber was looked at


def test_what_has_no_room_is_not_claimed(engine: Engine) -> None:
    full, half = add(engine), add(engine)
    place(engine, 10)
    found = claim(engine, NOW, room=4, rooms={full: 0, half: 3})
    assert [c.subscriber_id for c in found.deliveries] == [half] * 3


def test_deliveries_of_a_disabled_subscriber_wait(engine: Engine) -> None:
    id = add(engine)
    place(engine)
    set_enabled(engine, id, False)
    assert claim(engine, NOW).deliveries == []
    assert delivery(engine).state == "pending"
    set_enabled(engine, id, True)
    assert len(claim(engine, NOW).deliveries) == 1


def set_enabled(engine: Engine, id: int, enabled: bool) -> None:
    with engine.begin() as connection:
        connection.execute(update(Subscriber).where(Subscriber.id == id).values(enabled=enabled))


def test_cancelled_while_in_flight_stays_cancelled(engine: Engine) -> None:
    id = add(engine)
    place(engine)
    [one] = claim(engine, NOW).deliveries
    with Session(engine) as session:
        assert cancel_deliveries(session, id, NOW) == 1
        session.commit()
    assert settle(engine, [settled(one, Retry(Reason.TIMEOUT, "t"), due_at=NOW)], NOW) == 0
    assert delivery(engine).state == "cancelled"


def test_what_an_open_transaction_adds_for_a_deleted_subscriber_is_cancelled(engine: Engine) -> None:
    id = add(engine)
    with Session(engine, info=Recording(clock=lambda: NOW).info()) as recording:
        if engine.dialect.name == "postgresql":
            record(recording, OrderEvent("placed", **ABOUT_ORDER))
            remove(engine, id)
        else:  # SQLite has one writer; the same rows, in the order in which PostgreSQL lets them come
            record(recording, OrderEvent("placed", **ABOUT_ORDER))
            recording.execute(text("DELETE FROM subscribers"))
        recording.commit()
    assert delivery(engine).state == "pending"
    assert claim(engine, NOW).deliveries == []
    row = delivery(engine)
    assert (row.state, row.finished_at, row.attempts) == ("cancelled", NOW, 0)


def remove(engine: Engine, id: int) -> None:
    with Session(engine) as session:
        delete_subscriber(session, session.get_one(Subscriber, id), NOW)
        session.commit()


def test_a_subscriber_whose_row_is_faulty_does_not_hold_up_the_batch(engine: Engine) -> None:
    faulty, unknown, healthy = add(engine), add(engine), add(engine)
    place(engine)
    with engine.begin() as connection:
        connection.execute(update(Subscriber).where(Subscriber.id == faulty).values(retry_schedule=[-1.0]))
        connection.execute(text("UPDATE subscribers SET kind = 'pigeon' WHERE id = :id"), {"id": unknown})
    assert [c.subscriber_id for c in claim(engine, NOW).deliveries] == [healthy]
    with Session(engine) as session:
        states = {row.subscriber_id: row.state for row in session.scalars(select(Delivery))}
        assert states == {faulty: "pending", unknown: "pending", healthy: "pending"}
        details = session.scalars(select(Attempt.detail).order_by(Attempt.delivery_id)).all()
        reasons = set(session.scalars(select(Attempt.reason)))
    assert "cannot be told" in str(details[0])
    assert "retry schedule" in str(details[0])
    assert "'pigeon'" in str(details[1])
    assert reasons == {"internal"}
    later = NOW + timedelta(seconds=6)
    with engine.begin() as connection:  # mended
        connection.execute(
            update(Subscriber).where(Subscriber.id == faulty).values(retry_schedule=[0.0, 1.0])
        )
    assert [c.subscriber_id for c in claim(engine, later).deliveries] == [faulty]


class Statements:
    """Counts what reaches the driver."""

    def __init__(self, engine: Engine) -> None:
        self.seen: list[str] = []
        listen.listen(engine, "before_cursor_execute", lambda *a: self.seen.append(a[2]))


@pytest.mark.parametrize("wanted", ["shop:order:*", "shop:opened"], ids=["matching", "others"])
def test_recording_costs_as_many_statements_with_0_1_and_10000_subscribers(
    engine: Engine, wanted: str
) -> None:
    counts: list[int] = []
    told: list[int] = []
    statements = Statements(engine)
    for more in (0, 1, 9_999):
        add_many(engine, more, wanted)
        with Session(engine, info=Recording(clock=lambda: NOW).info()) as session:
            session.connection()
            statements.seen.clear()
            record(session, OrderEvent("placed", **ABOUT_ORDER))
            counts.append(len(statements.seen))
            told.append(session.scalar(select(func.count()).select_from(Delivery)) or 0)
            session.rollback()
    assert counts[0] == counts[1] == counts[2] <= 3
    assert counts[0] == (1 if engine.dialect.name == "postgresql" else 2)
    assert told == ([0, 1, 10_000] if wanted == "shop:order:*" else [0, 0, 0])


def add_many(engine: Engine, count: int, pattern: str) -> None:
    if not count:
        return
    with engine.begin() as connection:
        subscribers, subscriptions = (Base.metadata.tables[n] for n in ("subscribers", "subscriptions"))
        first = (connection.scalar(select(func.max(subscribers.c.id))) or 0) + 1
        ids = range(first, first + count)
        row = {"kind": "plain", "name": "n", "owner": "", "enabled": True, "reads": "notification"}
        connection.execute(
            insert(subscribers),
            [
                row | {"id": id, "uuid": uuid4(), "created_at": NOW, "target": "http://127.0.0.1:1/"}
                for id in ids
            ],
        )
        connection.execute(
            insert(subscriptions), [{"subscriber_id": id, "pattern": pattern, "scope": ""} for id in ids]
        )


# -- plans on PostgreSQL, over a table that is large

FINISHED, HANGING, OTHERS = 120_000, 10_000, 500


@pytest.fixture(scope="module")
def large(postgres_session_url: str) -> Iterator[Engine]:
    """120,000 deliveries done, 10,000 leased or due for subscriber 1 that hangs, 500 subscribers with one."""
    engine = open_engine(postgres_session_url)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    add_many(engine, 10_000, "shop:opened")
    with engine.begin() as connection:
        connection.execute(text("UPDATE subscriptions SET pattern = 'shop:closed' WHERE subscriber_id > 3"))
        connection.execute(
            text(
                "INSERT INTO events (uuid, type, kind, scope, occurred_at, notification)"
                " SELECT gen_random_uuid(), 'shop:opened', 'shop', 'shop/s', :now, '{\"n\": 1}'"
                " FROM generate_series(1, :n)"
            ),
            {"now": NOW, "n": FINISHED + HANGING + OTHERS},
        )
        connection.execute(
            text(
                "INSERT INTO deliveries (event_sequence, subscriber_id, due_at, state, finished_at, attempts)"
                " SELECT n, 1 + n % 3, :now, 'delivered', :now, 1 FROM generate_series(1, :done) n"
            ),
            {"now": NOW, "done": FINISHED},
        )
        connection.execute(
            text(
                "INSERT INTO deliveries (event_sequence, subscriber_id, due_at)"
                " SELECT :done + n, CASE WHEN n <= :hang THEN 1 ELSE 100 + n - :hang END, :now"
                " FROM generate_series(1, :all) n"
            ),
            {"now": NOW, "done": FINISHED, "hang": HANGING, "all": HANGING + OTHERS},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


def plan(engine: Engine, statement: str, parameters: Any, options: str = "") -> Any:
    with engine.connect() as connection, connection.begin() as transaction:
        found = connection.exec_driver_sql(
            f"EXPLAIN (FORMAT JSON{options}) {statement}", parameters
        ).scalar_one()
        transaction.rollback()
        return found[0]["Plan"]


def nodes(plan: Any) -> Iterator[Any]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def uses(plan: Any) -> set[str]:
    """The indexes a plan reads, and ``seq TABLE`` for each table it reads from end to end."""
    found = {str(node["Index Name"]) for node in nodes(plan) if "Index Name" in node}
    return found | {f"seq {node['Relation Name']}" for node in nodes(plan) if node["Node Type"] == "Seq Scan"}


def claim_parameters(**values: Any) -> dict[str, Any]:
    standard = {"now": NOW, "until": NOW + LEASE, "token": uuid4(), "limit": 200, "room": 16}
    return {**standard, "rooms": "{}", "after": 0, **values}


def test_plan_of_claim(large: Engine) -> None:
    used = uses(plan(large, CLAIM_POSTGRESQL, claim_parameters()))
    assert "ix_deliveries_due" in used
    assert not {name for name in used if name in {"seq deliveries", "seq events"}}


def test_a_claim_beside_ten_thousand_that_hang_reads_few_pages(large: Engine) -> None:
    """Counted in pages, not in time. The hanging subscriber's lane is full: none of its rows is looked at."""
    parameters = claim_parameters(rooms=json.dumps({"1": 0}))
    found = plan(large, CLAIM_POSTGRESQL, parameters, ", ANALYZE, BUFFERS, TIMING OFF")
    read = found["Shared Hit Blocks"] + found["Shared Read Blocks"]
    looked_at = max(n["Actual Rows"] * n["Actual Loops"] for n in nodes(found))
    assert found["Actual Rows"] == 200
    assert looked_at < 2_000
    assert read < 12_000, f"{read} pages for 200 deliveries"
    print(f"claim of 200 beside 10,000: {read} pages, at most {looked_at} rows at one step")


def test_plan_of_settle(large: Engine) -> None:
    one = claim(large, NOW, limit=1, room=1).deliveries
    rows = [settlement_row(settled(c, Delivered()), NOW) for c in one]
    used = uses(plan(large, SETTLE_POSTGRESQL, {"rows": to_json(rows).decode()}))
    release(large, one, NOW)
    assert "pk_deliveries" in used
    assert "seq deliveries" not in used


def test_plan_of_recording_and_of_who_wants(large: Engine) -> None:
    event = OrderEvent("placed", **ABOUT_ORDER)
    [statement] = event_statements(OrderEvent, "postgresql", "psycopg")
    row = dict.fromkeys(columns_of(statement)) | {
        "uuid": uuid4(),
        "type": "shop:opened",
        "kind": "shop",
        "scope": "shop/s1",
        "occurred_at": NOW,
        "notification": "{}",
        "patterns": ["shop:opened", "*", "shop:*", "*:opened"],
        "scopes": ["", "shop/s1"],
        "due_at": NOW,
        "with_telemetry": False,
    }
    used = uses(plan(large, statement, row))
    assert "ix_subscriptions_match" in used
    assert not {"seq subscriptions", "seq subscribers"} & used
    with Session(large) as session:
        seen = Statements(large)
        assert list(who_wants(session, event)) == []
        assert len(seen.seen) == 1


def columns_of(statement: str) -> list[str]:
    return re.findall(r"%\((\w+)\)s", statement)
