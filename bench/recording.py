"""`record` against raw SQL: one business row, one event of 1.3 kB and two deliveries a transaction.

The raw limit sends the same rows, rendered beforehand, through the bare driver in the fewest statements its
database takes. Both run in turns, so that a noisy machine disturbs both.
"""

import json
import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
from sqlalchemy import make_url, text
from sqlalchemy.orm import sessionmaker

from bench.worlds import World, account
from clarion.database import sortable
from clarion.outbox import Recording, record
from clarion.subscriptions import patterns_of

TRANSACTIONS = 400
ROUNDS = 5

EVENT = "INSERT INTO events (uuid, type, kind, scope, occurred_at, notification) VALUES "
DELIVERIES = """INSERT INTO deliveries (event_sequence, subscriber_id, due_at)
SELECT {sequence}, s.id, {now} FROM {source}subscribers s WHERE s.enabled AND s.id IN
(SELECT subscriber_id FROM subscriptions WHERE pattern {patterns})"""


def run(world: World) -> dict[str, float]:
    world.webhooks("http://127.0.0.1:9/a", "http://127.0.0.1:9/b")
    ours, raw = ours_with(world), RAW[world.name](world)
    rates: dict[str, list[float]] = {"ours": [], "raw": []}
    number = 0
    for turn in range(ROUNDS + 1):
        for name, once in (("ours", ours), ("raw", raw)):
            started = time.perf_counter()
            for _ in range(TRANSACTIONS):
                number += 1
                once(number)
            if turn:  # the first round warms up
                rates[name].append(TRANSACTIONS / (time.perf_counter() - started))
    ours_rate, raw_rate = statistics.median(rates["ours"]), statistics.median(rates["raw"])
    return {
        "record.per_second": ours_rate,
        "record.raw_per_second": raw_rate,
        "record.ratio_to_raw": ours_rate / raw_rate,
    }


def ours_with(world: World) -> Callable[[int], None]:
    sessions = sessionmaker(world.engine, info=Recording().info())
    business = text("INSERT INTO business (id, name) VALUES (:id, :name)")

    def once(number: int) -> None:
        with sessions() as session:
            session.execute(business, {"id": number, "name": f"Account {number}"})
            record(session, account(number))
            session.commit()

    return once


def rendered() -> str:
    event = account(1)
    event.uuid, event.occurred_at = uuid.uuid4(), datetime.now(UTC)
    return json.dumps(event.to_notification_payload())


def raw_postgresql(world: World) -> Callable[[int], None]:
    connection = psycopg.connect(make_url(world.url).set(drivername="postgresql").render_as_string(False))
    statement = (
        f"WITH e AS ({EVENT} (%s, 'account:changed', 'account', %s, %s, %s) RETURNING sequence), "
        f"d AS ({DELIVERIES.format(sequence='e.sequence', now='now()', source='e, ', patterns='= ANY(%s)')} "
        "RETURNING 1) SELECT count(*) FROM d"
    )
    payload, patterns = rendered(), list(patterns_of("account:changed"))

    def once(number: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO business VALUES (%s, %s)", (number, f"Account {number}"))
            scope = f"account/{uuid.UUID(int=number)}"
            cursor.execute(statement, (uuid.uuid4(), scope, datetime.now(UTC), payload, patterns))
        connection.commit()

    return once


def raw_sqlite(world: World) -> Callable[[int], None]:
    connection = sqlite3.connect(make_url(world.url).database or "", isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    event = f"{EVENT} (?, 'account:changed', 'account', ?, ?, ?)"
    match = "IN (SELECT value FROM json_each(?))"
    told = DELIVERIES.format(sequence="?", now="?", source="", patterns=match)
    payload, patterns = rendered(), json.dumps(patterns_of("account:changed"))

    def once(number: int) -> None:
        now = sortable(datetime.now(UTC))
        cursor = connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("INSERT INTO business VALUES (?, ?)", (number, f"Account {number}"))
        scope = f"account/{uuid.UUID(int=number)}"
        cursor.execute(event, (uuid.uuid4().hex, scope, now, payload))
        cursor.execute(told, (cursor.lastrowid, now, patterns))
        cursor.execute("COMMIT")

    return once


RAW = {"postgresql": raw_postgresql, "sqlite": raw_sqlite}
