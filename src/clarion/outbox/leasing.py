"""`claim`: lease due deliveries, in batches, fair over subscribers.

No transaction stays open: on PostgreSQL a claim is one statement, on SQLite a few that take no lock until
something was found.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4

from pydantic_core import from_json
from sqlalchemy import Connection, Engine, inspect, select, update
from sqlalchemy.orm import Session

from clarion import retry
from clarion.database import bind_time, read_time
from clarion.errors import ClarionError, Reason
from clarion.messages import Failure, Message
from clarion.observe import log
from clarion.outbox.leases import LEASE, Claim, Claimed, Recipient, Settlement
from clarion.outbox.settling import autocommit, settle
from clarion.outbox.tables import CANCELLED, Delivery
from clarion.outcomes import Retry
from clarion.subscriptions import Subscriber


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
    slow one cannot fill the batch. Subscribers are visited by id, beginning behind ``after`` and going on
    from the front; those of disabled subscribers wait. Deliveries whose subscriber is gone are cancelled
    here, and those whose subscriber this program cannot tell, because its row makes no deliveree, are put off
    by the schedule. What is due first comes first. Where ``limit`` or ``room`` cut off a request that takes
    several deliveries, it is filled up beyond them.
    """
    rooms = rooms or {}
    token = uuid4()
    parameters = {
        "now": now,
        "until": now + lease,
        "token": token,
        "limit": limit,
        "room": room,
        "rooms": rooms_text(rooms),
        "after": after,
    }
    lease_rows = claim_postgresql if engine.dialect.name == "postgresql" else claim_sqlite
    rows = lease_rows(engine, parameters)
    if not rows:
        return Claim()
    claimed = [read_row(row, token) for row in rows]
    recipients, broken, silenced = load_recipients(engine, {c.subscriber_id for c in claimed})
    if cut := cut_off(claimed, recipients, room, rooms, len(rows) >= limit):
        rest = {"rooms": rooms_text(cut), "room": 0, "limit": sum(cut.values()), "after": 0}
        claimed += [read_row(row, token) for row in lease_rows(engine, parameters | rest)]
    if silenced:
        withdraw(engine, silenced)
    unfit = [c for c in claimed if c.subscriber_id not in recipients and c.subscriber_id not in silenced]
    if unfit:
        end_unfit(engine, unfit, broken, now)
    kept = [c for c in claimed if c.subscriber_id in recipients]
    return Claim(kept, recipients, last_of(claimed, after) if len(rows) >= limit else 0)


def rooms_text(rooms: Mapping[int, int]) -> str:
    return json.dumps({str(key): value for key, value in rooms.items()})


def cut_off(
    claimed: Sequence[Claimed],
    recipients: Mapping[int, Recipient],
    room: int,
    rooms: Mapping[int, int],
    limited: bool,
) -> dict[int, int]:
    """How many deliveries a subscriber's last request lacks because the claim ended, by its id."""
    lacking = {}
    for id, recipient in recipients.items():
        if recipient.batch > 1:
            count = sum(c.subscriber_id == id for c in claimed)
            if count % recipient.batch and (limited or count == rooms.get(id, room)):
                lacking[id] = recipient.batch - count % recipient.batch
    return lacking


def last_of(claimed: Sequence[Claimed], after: int) -> int:
    """The subscriber that was visited last, by a claim that began behind ``after``."""
    visited = {c.subscriber_id for c in claimed}
    return max({id for id in visited if id <= after} or visited)


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
# look-up a subscriber, not one a delivery; `before` goes on from the front, so that a round that begins in
# the middle is whole. LATERAL takes each one's oldest due, LIMIT stops the hopping.
CLAIM_POSTGRESQL = f"""
WITH RECURSIVE active AS (
  (SELECT subscriber_id FROM deliveries WHERE state = 'pending' AND subscriber_id > %(after)s
   ORDER BY subscriber_id LIMIT 1)
  UNION ALL
  SELECT (SELECT n.subscriber_id FROM deliveries n
          WHERE n.state = 'pending' AND n.subscriber_id > a.subscriber_id
          ORDER BY n.subscriber_id LIMIT 1)
  FROM active a WHERE a.subscriber_id IS NOT NULL
), before AS (
  (SELECT subscriber_id FROM deliveries WHERE state = 'pending' AND subscriber_id <= %(after)s
   ORDER BY subscriber_id LIMIT 1)
  UNION ALL
  SELECT (SELECT n.subscriber_id FROM deliveries n
          WHERE n.state = 'pending' AND n.subscriber_id > b.subscriber_id AND n.subscriber_id <= %(after)s
          ORDER BY n.subscriber_id LIMIT 1)
  FROM before b WHERE b.subscriber_id IS NOT NULL
), picked AS MATERIALIZED (
  SELECT due.id, due.due_at FROM (SELECT * FROM active UNION ALL SELECT * FROM before) a CROSS JOIN LATERAL (
    SELECT p.id, p.due_at FROM deliveries p
    WHERE p.state = 'pending' AND p.subscriber_id = a.subscriber_id AND p.due_at <= %(now)s
      AND NOT EXISTS (SELECT FROM subscribers s WHERE s.id = a.subscriber_id AND NOT s.enabled)
    ORDER BY p.due_at, p.id
    LIMIT COALESCE((%(rooms)s::jsonb ->> a.subscriber_id::text)::int, %(room)s)
    FOR UPDATE SKIP LOCKED
  ) due LIMIT %(limit)s
), leased AS (
  UPDATE deliveries d SET lease_token = %(token)s, due_at = %(until)s
  FROM picked WHERE d.id = picked.id RETURNING d.*, picked.due_at AS was_due
)
SELECT {CLAIMED_COLUMNS} FROM leased d
LEFT JOIN events e ON e.sequence = d.event_sequence
LEFT JOIN captures c ON c.id = d.capture_id
ORDER BY d.was_due, d.id
"""  # noqa: S608

ACTIVE_SQLITE = """
SELECT s.subscriber_id FROM (
  WITH RECURSIVE active(subscriber_id) AS (
    SELECT min(subscriber_id) FROM deliveries WHERE state = 'pending' AND subscriber_id > :after
    UNION ALL
    SELECT (SELECT min(n.subscriber_id) FROM deliveries n
            WHERE n.state = 'pending' AND n.subscriber_id > a.subscriber_id)
    FROM active a WHERE a.subscriber_id <= :upto
  ) SELECT subscriber_id FROM active WHERE subscriber_id <= :upto
) s WHERE NOT EXISTS (SELECT 1 FROM subscribers x WHERE x.id = s.subscriber_id AND NOT x.enabled)
AND EXISTS (SELECT 1 FROM deliveries d
            WHERE d.state = 'pending' AND d.subscriber_id = s.subscriber_id AND d.due_at <= :now)
"""

# What may be many rows comes as one, in JSON: each step of a statement gives up the interpreter lock, and the
# loop that sends meanwhile is slow to give it back.
PICK_SQLITE = """
SELECT json_group_array(id) FROM (
  SELECT id FROM deliveries WHERE state = 'pending' AND subscriber_id = ? AND due_at <= ?
  ORDER BY due_at, id LIMIT ?)
"""

LEASE_SQLITE = """
UPDATE deliveries SET lease_token = :token, due_at = :until
WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'pending' AND due_at <= :now
"""

READ_SQLITE = f"""
SELECT json_group_array(json_array({CLAIMED_COLUMNS})) FROM deliveries d
LEFT JOIN events e ON e.sequence = d.event_sequence
LEFT JOIN captures c ON c.id = d.capture_id
WHERE d.id IN (SELECT value FROM json_each(:ids)) AND d.lease_token = :token
"""  # noqa: S608


def claim_postgresql(engine: Engine, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
    with autocommit(engine) as connection:
        return connection.exec_driver_sql(CLAIM_POSTGRESQL, parameters).all()


def claim_sqlite(engine: Engine, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
    """Look without a lock, so that an idle relay blocks no writer, and lease what is still due."""
    now = bind_time(parameters["now"], "sqlite")
    with driver_cursor(engine) as cursor:
        if not (picked := pick_sqlite(cursor, parameters, now)):
            return []
        lease = {
            "token": parameters["token"].hex,
            "until": bind_time(parameters["until"], "sqlite"),
            "ids": json.dumps(picked),
            "now": now,
        }
        cursor.execute(LEASE_SQLITE, lease)
        rows: list[list[Any]] = from_json(cursor.execute(READ_SQLITE, lease).fetchone()[0])
        place = {id: number for number, id in enumerate(picked)}
        return sorted(rows, key=lambda row: place[row[0]])


def pick_sqlite(cursor: Any, parameters: dict[str, Any], now: str) -> list[int]:
    rooms: dict[str, int] = json.loads(parameters["rooms"])
    limit: int = parameters["limit"]
    picked: list[int] = []
    for after, upto in ((parameters["after"], sys.maxsize), (0, parameters["after"])):
        if upto == 0 or len(picked) >= limit:
            break
        active = cursor.execute(ACTIVE_SQLITE, {"after": after, "upto": upto, "now": now}).fetchall()
        for (subscriber,) in active:
            room = min(rooms.get(str(subscriber), parameters["room"]), limit - len(picked))
            if room > 0:
                picked += from_json(cursor.execute(PICK_SQLITE, (subscriber, now, room)).fetchone()[0])
            if len(picked) >= limit:
                break
    return picked


@contextmanager
def driver_cursor(engine: Engine) -> Iterator[Any]:
    """The driver's own cursor, each statement a transaction: a claim on SQLite is many small statements."""
    connection = engine.raw_connection()
    try:
        with closing(connection.cursor()) as cursor:
            yield cursor
        connection.commit()  # for an engine that `prepare_sqlite` has not seen
    finally:
        connection.close()


def load_recipients(engine: Engine, ids: set[int]) -> tuple[dict[int, Recipient], dict[int, str], set[int]]:
    """The subscribers of a claim that still exist, by id; why some cannot be told; which are silenced."""
    recipients: dict[int, Recipient] = {}
    broken: dict[int, str] = {}
    silenced: set[int] = set()
    with Session(reading(engine)) as session:
        kinds: dict[str, list[int]] = {}
        for id, kind in session.execute(select(Subscriber.id, Subscriber.kind).where(Subscriber.id.in_(ids))):
            kinds.setdefault(kind, []).append(id)
        for kind, members in kinds.items():
            mapper = inspect(Subscriber).polymorphic_map.get(kind)
            if mapper is None:
                broken |= dict.fromkeys(members, f"no deliveree for subscribers of kind {kind!r}")
                continue
            # by its own class: all of a kind's columns come with the row
            for subscriber in session.scalars(select(mapper.class_).where(mapper.class_.id.in_(members))):
                try:
                    if subscriber.silenced():
                        silenced.add(subscriber.id)
                    else:
                        recipients[subscriber.id] = recipient(subscriber)
                except Exception as error:  # one faulty row must not hold up the others of its batch
                    said = error.message if isinstance(error, ClarionError) else type(error).__name__
                    broken[subscriber.id] = f"the subscriber cannot be told: {said}"
                    log.exception("a subscriber makes no deliveree", subscriber=subscriber.id)
    return recipients, broken, silenced


def withdraw(engine: Engine, silenced: set[int]) -> None:
    """Let the subscribers that may not be told now take back what is pending for them."""
    with Session(engine) as session, session.begin():
        for subscriber in session.scalars(select(Subscriber).where(Subscriber.id.in_(silenced))):
            subscriber.withdraw(session)


def recipient(subscriber: Subscriber) -> Recipient:
    deliveree = subscriber.deliveree()
    return Recipient(deliveree, subscriber.schedule(), max(int(deliveree.batch), 1), subscriber.grace)


@lru_cache(maxsize=8)
def reading(engine: Engine) -> Engine:
    """The engine for queries that need no transaction: on SQLite they then wait for no writer."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="AUTOCOMMIT")
    return engine.execution_options(read_only=True)


def end_unfit(engine: Engine, unfit: Sequence[Claimed], broken: Mapping[int, str], now: datetime) -> None:
    """Cancel the deliveries whose subscriber is gone; the others' subscriber is ``broken``: not now."""
    gone = [c.id for c in unfit if c.subscriber_id not in broken]
    if gone:
        with engine.begin() as connection:
            cancel_rows(connection, gone, unfit[0].token, now)
    faulty = [c for c in unfit if c.subscriber_id in broken]
    settle(engine, [postponed(c, broken[c.subscriber_id], now) for c in faulty], now)


def postponed(claimed: Claimed, why: str, now: datetime) -> Settlement:
    """An attempt that could not be made here. An operator can mend it, or another relay knows better."""
    outcome = Retry(Reason.INTERNAL, why)
    due_at = retry.next_attempt(claimed.tried + 1, outcome, now)
    return Settlement(claimed, now, outcome, Failure(Reason.INTERNAL, why, 0.0), due_at)


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
