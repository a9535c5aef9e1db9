"""`claim` and `settle`: lease due deliveries, and write what came of them if the lease is still ours.

Both work on plain values in batches, and hold no transaction open in between. On PostgreSQL each is one
statement; on SQLite, where only one writer exists at a time, a short transaction.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, inspect, select, update
from sqlalchemy.orm import Session

from clarion import retry
from clarion.database import SQLITE_FORMAT, bind_time, read_time
from clarion.errors import Reason
from clarion.messages import Answer, Failure, Message, Response
from clarion.observe import counters, log
from clarion.outbox.tables import CANCELLED, DEAD, DELIVERED, PENDING, Delivery
from clarion.outcomes import Dead, Delivered, Outcome, Retry
from clarion.subscriptions import Deliveree, Subscriber

LEASE = timedelta(seconds=60)
"""Longer than the longest request may take (30 s) and what it waits before and after."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours to attempt until its lease ends. ``tried`` counts this round's attempts."""

    id: int
    subscriber_id: int
    token: UUID
    tried: int
    message: Message


@dataclass(frozen=True, slots=True)
class Recipient:
    """A subscriber as the relay needs it: plain values, detached from any session."""

    deliveree: Deliveree
    schedule: retry.Schedule


@dataclass(frozen=True, slots=True)
class Claim:
    """What one call of `claim` leased. ``last`` is where the next call should go on (``after``)."""

    deliveries: list[Claimed] = field(default_factory=list)
    recipients: dict[int, Recipient] = field(default_factory=dict)
    last: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What came of one attempt. ``due_at`` is when to try again; None ends a `Retry` as dead."""

    claimed: Claimed
    started_at: datetime
    outcome: Outcome
    answer: Answer
    due_at: datetime | None = None

    @property
    def state(self) -> str:
        match self.outcome:
            case Delivered():
                return DELIVERED
            case Retry() if self.due_at is not None:
                return PENDING
            case Retry() | Dead():
                return DEAD


def claim(
    engine: Engine,
    now: datetime,
    *,
    limit: int = 200,
    room: int = 16,
    rooms: Mapping[int, int] | None = None,
    after: int = 0,
    lease: timedelta = LEASE,
) -> Claim:
    """Lease up to ``limit`` due deliveries, fair over subscribers; committed when it returns.

    No subscriber gets more than its entry in ``rooms`` (by subscriber id), or ``room`` without one, so a
    slow one cannot fill the batch. Subscribers are visited by id, beginning behind ``after``; those of
    disabled subscribers wait. Deliveries whose subscriber is gone are cancelled here.
    """
    token = uuid4()
    parameters = {
        "now": now,
        "until": now + lease,
        "token": token,
        "limit": limit,
        "room": room,
        "rooms": json.dumps({str(key): value for key, value in (rooms or {}).items()}),
        "after": after,
    }
    postgresql = engine.dialect.name == "postgresql"
    rows = claim_postgresql(engine, parameters) if postgresql else claim_sqlite(engine, parameters)
    if not rows:
        return Claim()
    claimed = [read_row(row, token) for row in rows]
    recipients = load_recipients(engine, {c.subscriber_id for c in claimed})
    orphans = [c for c in claimed if c.subscriber_id not in recipients]
    if orphans:
        settle_orphans(engine, orphans, now)
    kept = [c for c in claimed if c.subscriber_id in recipients]
    return Claim(kept, recipients, max(c.subscriber_id for c in claimed))


def read_row(row: Sequence[Any], token: UUID) -> Claimed:
    delivery, subscriber, attempts, tried, uuid, type, occurred_at, sequence, notification, telemetry = row
    message = Message(
        uuid=uuid if isinstance(uuid, UUID) else UUID(uuid),
        type=type,
        occurred_at=read_time(occurred_at),
        sequence=sequence,
        attempt=attempts + 1,
        notification=notification,
        telemetry=telemetry,
    )
    return Claimed(delivery, subscriber, token, tried, message)


CLAIMED_COLUMNS = """
    d.id, d.subscriber_id, d.attempts, d.attempts - d.round, COALESCE(e.uuid, c.uuid),
    COALESCE(e.type, c.type), COALESCE(e.occurred_at, c.occurred_at), e.sequence,
    CAST(e.notification AS TEXT), CAST(COALESCE(e.telemetry, c.telemetry) AS TEXT)
"""

# `active` hops from subscriber to subscriber through the index of pending deliveries, so it costs one
# look-up a subscriber, not one a delivery; LATERAL takes each one's oldest due, LIMIT stops the hopping.
CLAIM_POSTGRESQL = f"""
WITH RECURSIVE active AS (
  (SELECT subscriber_id FROM deliveries WHERE state = 'pending' AND subscriber_id > %(after)s
   ORDER BY subscriber_id LIMIT 1)
  UNION ALL
  SELECT (SELECT n.subscriber_id FROM deliveries n
          WHERE n.state = 'pending' AND n.subscriber_id > a.subscriber_id
          ORDER BY n.subscriber_id LIMIT 1)
  FROM active a WHERE a.subscriber_id IS NOT NULL
), picked AS MATERIALIZED (
  SELECT due.id FROM active a CROSS JOIN LATERAL (
    SELECT p.id FROM deliveries p
    WHERE p.state = 'pending' AND p.subscriber_id = a.subscriber_id AND p.due_at <= %(now)s
      AND NOT EXISTS (SELECT FROM subscribers s WHERE s.id = a.subscriber_id AND NOT s.enabled)
    ORDER BY p.due_at, p.id
    LIMIT COALESCE((%(rooms)s::jsonb ->> a.subscriber_id::text)::int, %(room)s)
    FOR UPDATE SKIP LOCKED
  ) due LIMIT %(limit)s
), leased AS (
  UPDATE deliveries d SET lease_token = %(token)s, due_at = %(until)s
  FROM picked WHERE d.id = picked.id RETURNING d.*
)
SELECT {CLAIMED_COLUMNS} FROM leased d
LEFT JOIN events e ON e.sequence = d.event_sequence
LEFT JOIN captures c ON c.id = d.capture_id
ORDER BY d.id
"""  # noqa: S608

SETTLE_POSTGRESQL = """
WITH r AS MATERIALIZED (
  SELECT * FROM json_to_recordset(%(rows)s::json) AS r(
    id bigint, token uuid, state text, due_at timestamptz, finished_at timestamptz, number int,
    started_at timestamptz, duration_ms int, outcome text, status int, reason text, detail text,
    headers json, body text, truncated boolean)
), settled AS (
  UPDATE deliveries d SET state = r.state, due_at = COALESCE(r.due_at, d.due_at), lease_token = NULL,
    attempts = r.number, finished_at = r.finished_at
  FROM r WHERE d.id = r.id AND d.lease_token = r.token RETURNING d.id
), kept AS (
  INSERT INTO attempts (delivery_id, number, started_at, duration_ms, outcome, status, reason, detail,
    headers, body, truncated)
  SELECT r.id, number, started_at, duration_ms, outcome, status, reason, detail, headers,
    decode(body, 'hex'), truncated
  FROM r JOIN settled USING (id)
)
SELECT id FROM settled
"""

ACTIVE_SQLITE = """
SELECT s.subscriber_id FROM (
  WITH RECURSIVE active(subscriber_id) AS (
    SELECT min(subscriber_id) FROM deliveries WHERE state = 'pending' AND subscriber_id > :after
    UNION ALL
    SELECT (SELECT min(n.subscriber_id) FROM deliveries n
            WHERE n.state = 'pending' AND n.subscriber_id > a.subscriber_id)
    FROM active a WHERE a.subscriber_id IS NOT NULL
  ) SELECT subscriber_id FROM active WHERE subscriber_id IS NOT NULL
) s WHERE NOT EXISTS (SELECT 1 FROM subscribers x WHERE x.id = s.subscriber_id AND NOT x.enabled)
"""

PICK_SQLITE = """
SELECT id FROM deliveries WHERE state = 'pending' AND subscriber_id = ? AND due_at <= ?
ORDER BY due_at, id LIMIT ?
"""

LEASE_SQLITE = """
UPDATE deliveries SET lease_token = ?, due_at = ? WHERE id IN (SELECT value FROM json_each(?))
"""

READ_SQLITE = f"""
SELECT {CLAIMED_COLUMNS} FROM deliveries d
LEFT JOIN events e ON e.sequence = d.event_sequence
LEFT JOIN captures c ON c.id = d.capture_id
WHERE d.id IN (SELECT value FROM json_each(?)) ORDER BY d.id
"""  # noqa: S608

SETTLE_SQLITE = """
UPDATE deliveries SET state = :state, due_at = COALESCE(:due_at, due_at), lease_token = NULL,
  attempts = :number, finished_at = :finished_at
WHERE id = :id AND lease_token = :token
"""

ATTEMPT_SQLITE = """
INSERT INTO attempts (delivery_id, number, started_at, duration_ms, outcome, status, reason, detail,
  headers, body, truncated)
VALUES (:id, :number, :started_at, :duration_ms, :outcome, :status, :reason, :detail, :headers, :body,
  :truncated)
"""


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """A connection on which each statement is a transaction of its own: no BEGIN, no COMMIT to wait for."""
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def claim_postgresql(engine: Engine, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
    with autocommit(engine) as connection:
        return connection.exec_driver_sql(CLAIM_POSTGRESQL, parameters).all()


def claim_sqlite(engine: Engine, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
    now = bind_time(parameters["now"], "sqlite")
    rooms: dict[str, int] = json.loads(parameters["rooms"])
    with engine.begin() as connection, closing(driver_cursor(connection)) as cursor:
        subscribers = cursor.execute(ACTIVE_SQLITE, {"after": parameters["after"]}).fetchall()
        picked: list[int] = []
        for (subscriber,) in subscribers:
            room = min(rooms.get(str(subscriber), parameters["room"]), parameters["limit"] - len(picked))
            if room > 0:
                picked += [row[0] for row in cursor.execute(PICK_SQLITE, (subscriber, now, room))]
            if len(picked) >= parameters["limit"]:
                break
        if not picked:
            return []
        ids = json.dumps(picked)
        until = bind_time(parameters["until"], "sqlite")
        cursor.execute(LEASE_SQLITE, (parameters["token"].hex, until, ids))
        rows: Sequence[Sequence[Any]] = cursor.execute(READ_SQLITE, (ids,)).fetchall()
        return rows


def driver_cursor(connection: Connection) -> Any:
    """The driver's own cursor: a claim or a settlement is hundreds of small statements on SQLite."""
    return connection.connection.cursor()


def load_recipients(engine: Engine, ids: set[int]) -> dict[int, Recipient]:
    """The subscribers of a claim that still exist, by id."""
    kinds = [str(kind) for kind in inspect(Subscriber).polymorphic_map]
    recipients: dict[int, Recipient] = {}
    with Session(engine.execution_options(read_only=True)) as session:
        query = select(Subscriber).where(Subscriber.id.in_(ids), Subscriber.kind.in_(kinds))
        for subscriber in session.scalars(query):
            waits = subscriber.retry_schedule
            schedule = retry.DEFAULT if waits is None else retry.Schedule.of(waits)
            recipients[subscriber.id] = Recipient(subscriber.deliveree(), schedule)
    return recipients


def settle_orphans(engine: Engine, orphans: Sequence[Claimed], now: datetime) -> None:
    """End the deliveries whose subscriber is gone (cancelled), or of a kind this program lacks (dead)."""
    with Session(engine.execution_options(read_only=True)) as session:
        ids = {c.subscriber_id for c in orphans}
        known = session.execute(select(Subscriber.id, Subscriber.kind).where(Subscriber.id.in_(ids)))
        unknown = {row.id: row.kind for row in known}
    gone = [c.id for c in orphans if c.subscriber_id not in unknown]
    with engine.begin() as connection:
        cancel_rows(connection, gone, orphans[0].token, now)
    settle(
        engine,
        [
            Settlement(
                c,
                now,
                Dead(Reason.INTERNAL, f"no deliveree for subscribers of kind {unknown[c.subscriber_id]!r}"),
                Failure(Reason.INTERNAL, "not sent", 0.0),
            )
            for c in orphans
            if c.subscriber_id in unknown
        ],
        now,
    )


def cancel_rows(connection: Connection, ids: Sequence[int], token: UUID, now: datetime) -> None:
    connection.execute(
        update(Delivery)
        .where(Delivery.id.in_(ids), Delivery.lease_token == token)
        .values(state=CANCELLED, finished_at=now, lease_token=None)
    )


def release(engine: Engine, deliveries: Sequence[Claimed], now: datetime) -> None:
    """Give up leases before they end, so that another relay can have the deliveries at once."""
    with engine.begin() as connection:
        for token in {c.token for c in deliveries}:
            connection.execute(
                update(Delivery)
                .where(Delivery.id.in_([c.id for c in deliveries]), Delivery.lease_token == token)
                .values(lease_token=None, due_at=now)
            )


def settle(engine: Engine, settlements: Sequence[Settlement], now: datetime) -> int:
    """Write attempts and outcomes in one batch; returns how many counted.

    A settlement whose lease was lost (it ended, and another relay claimed the delivery) changes nothing:
    what that relay finds is what counts.
    """
    if not settlements:
        return 0
    rows = [settlement_row(s, now) for s in settlements]
    settled = (
        settle_postgresql(engine, rows)
        if engine.dialect.name == "postgresql"
        else settle_sqlite(engine, rows)
    )
    if lost := len(rows) - settled:
        counters.add("leases_lost", amount=lost)
        log.warning("leases were lost before they could be settled", count=lost)
    return settled


def settle_postgresql(engine: Engine, rows: list[dict[str, Any]]) -> int:
    with autocommit(engine) as connection:
        return len(connection.exec_driver_sql(SETTLE_POSTGRESQL, {"rows": json.dumps(rows)}).all())


def settle_sqlite(engine: Engine, rows: list[dict[str, Any]]) -> int:
    with engine.begin() as connection, closing(driver_cursor(connection)) as cursor:
        kept = []
        for row in rows:
            row["token"] = UUID(row["token"]).hex
            row["headers"] = None if row["headers"] is None else json.dumps(row["headers"])
            row["body"] = None if row["body"] is None else bytes.fromhex(row["body"])
            if cursor.execute(SETTLE_SQLITE, row).rowcount == 1:
                kept.append(row)
        cursor.executemany(ATTEMPT_SQLITE, kept)
        return len(kept)


def settlement_row(settlement: Settlement, now: datetime) -> dict[str, Any]:
    """One settlement as plain JSON values."""
    claimed, answer, outcome = settlement.claimed, settlement.answer, settlement.outcome
    pending = settlement.state == PENDING
    due_at = settlement.due_at if pending else None
    row: dict[str, Any] = {
        "id": claimed.id,
        "token": str(claimed.token),
        "state": settlement.state,
        "due_at": None if due_at is None else due_at.strftime(SQLITE_FORMAT),
        "finished_at": None if pending else now.strftime(SQLITE_FORMAT),
        "number": claimed.message.attempt,
        "started_at": settlement.started_at.strftime(SQLITE_FORMAT),
        "duration_ms": round(answer.elapsed * 1000),
        "outcome": type(outcome).__name__.lower(),
        "reason": None if isinstance(outcome, Delivered) else outcome.reason.value,
        "detail": None if isinstance(outcome, Delivered) else clean(outcome.detail),
        "status": None,
        "headers": None,
        "body": None,
        "truncated": False,
    }
    if isinstance(answer, Response):
        row |= {
            "status": answer.status,
            "headers": {name: clean(value) for name, value in answer.headers.items()},
            "body": answer.body.hex() if answer.body else None,
            "truncated": answer.truncated,
        }
    return row


def clean(text: str) -> str:
    """Text from outside as every database can hold it: no NUL, no half surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
