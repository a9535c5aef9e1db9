"""`settle`: write what came of attempts, in batches, where the lease is still ours."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, IntegrityError

from clarion.database import bind_time
from clarion.errors import Reason
from clarion.messages import Failure, Response
from clarion.observe import counters, log
from clarion.outbox.leases import Settlement
from clarion.outbox.tables import PENDING
from clarion.outcomes import Delivered

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

# SQLite gets a batch in two statements too: each step of a statement gives up the interpreter lock, and the
# loop that sends meanwhile is slow to give it back.
ATTEMPTS_SQLITE = """
INSERT INTO attempts (delivery_id, number, started_at, duration_ms, outcome, status, reason, detail,
  headers, body, truncated)
SELECT r.column1, r.column3, r.column4, r.column5, r.column6, r.column7, r.column8, r.column9,
  r.column10, r.column11, r.column12
FROM (VALUES {rows}) r JOIN deliveries d ON d.id = r.column1 AND d.lease_token = r.column2
"""

SETTLE_SQLITE = """
UPDATE deliveries SET state = r.column3, due_at = COALESCE(r.column4, due_at), lease_token = NULL,
  attempts = r.column5, finished_at = r.column6
FROM (VALUES {rows}) r WHERE id = r.column1 AND lease_token = r.column2
"""

MOST_ROWS = 500
"""Rows a statement on SQLite may have: it takes 32,766 parameters (https://sqlite.org/limits.html)."""


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """A connection on which each statement is a transaction of its own: no BEGIN, no COMMIT to wait for."""
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


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
        else settle_sqlite(engine, rows, bind_time(now, "sqlite"))
    )
    if lost := len(rows) - settled:
        counters.add("leases_lost", amount=lost)
        log.warning("leases were lost before they could be settled", count=lost)
    return settled


UNWRITABLE = (
    DataError,
    IntegrityError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    ValueError,
    TypeError,
    OverflowError,
)
"""What a database or its driver says of a value it cannot hold, as opposed to not answering."""


def settle_apart(engine: Engine, settlements: Sequence[Settlement], now: datetime) -> int:
    """Settle one by one what `settle` could not write together; a verdict never waits for an odd answer.

    Where an answer is what cannot be written, its outcome is kept and the answer is not.
    """
    settled = 0
    for settlement in settlements:
        try:
            settled += settle(engine, [settlement], now)
        except UNWRITABLE as error:
            log.warning("an answer cannot be stored", error=type(error).__name__)
            answer = Failure(Reason.INTERNAL, "the answer cannot be stored", 0.0)
            settled += settle(engine, [replace(settlement, answer=answer)], now)
    return settled


def settle_postgresql(engine: Engine, rows: list[dict[str, Any]]) -> int:
    with autocommit(engine) as connection:
        return len(connection.exec_driver_sql(SETTLE_POSTGRESQL, {"rows": to_json(rows).decode()}).all())


def settle_sqlite(engine: Engine, rows: list[dict[str, Any]], now: str) -> int:
    settled = 0
    with engine.begin() as connection, closing(connection.connection.cursor()) as cursor:
        for start in range(0, len(rows), MOST_ROWS):
            attempts: list[Any] = []
            states: list[Any] = []
            for row in rows[start : start + MOST_ROWS]:
                held = (row["id"], row["token"].hex)
                started_at = bind_time(row["started_at"], "sqlite")
                due_at = None if row["due_at"] is None else bind_time(row["due_at"], "sqlite")
                finished_at = None if row["finished_at"] is None else now
                headers = None if row["headers"] is None else to_json(row["headers"]).decode()
                body = None if row["body"] is None else bytes.fromhex(row["body"])
                attempts += held
                attempts += (row["number"], started_at, row["duration_ms"], row["outcome"], row["status"])
                attempts += (row["reason"], row["detail"], headers, body, row["truncated"])
                states += (*held, row["state"], due_at, row["number"], finished_at)
            cursor.execute(with_rows(ATTEMPTS_SQLITE, len(attempts) // 12, 12), attempts)
            settled += cursor.execute(with_rows(SETTLE_SQLITE, len(states) // 6, 6), states).rowcount
    return settled


@lru_cache(maxsize=256)
def with_rows(statement: str, count: int, columns: int) -> str:
    """The statement for so many rows of parameters."""
    row = f"({', '.join('?' * columns)})"
    return statement.format(rows=", ".join([row] * count))


def settlement_row(settlement: Settlement, now: datetime) -> dict[str, Any]:
    """One settlement's columns."""
    claimed, answer, outcome = settlement.claimed, settlement.answer, settlement.outcome
    pending = settlement.state == PENDING
    row: dict[str, Any] = {
        "id": claimed.id,
        "token": claimed.token,
        "state": settlement.state,
        "due_at": settlement.due_at if pending else None,
        "finished_at": None if pending else now,
        "number": claimed.message.attempt,
        "started_at": settlement.started_at,
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
            "headers": {clean(name): clean(value) for name, value in answer.headers.items()},
            "body": answer.body.hex() if answer.body else None,
            "truncated": answer.truncated,
        }
    return row


def clean(text: str) -> str:
    """Text from outside as every database can hold it: no NUL, no half surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
