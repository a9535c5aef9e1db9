"""`record` against raw SQL: one business row, one event of 1.3 kB and two deliveries a transaction.

Raw SQL is the same rows, rendered beforehand, in the fewest statements the database takes, sent by hand
through a session as `record` is given one: what one would write instead of it. The same is sent through the
bare driver under the same settings, which tells what the session itself costs. All run in turns, so that a
noisy machine disturbs all.
"""

import json
import re
import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
from sqlalchemy import make_url, text
from sqlalchemy.orm import sessionmaker

from bench.worlds import HISTORY, World, account
from clarion.database import bind_time
from clarion.outbox import Recording, record
from clarion.subscriptions import patterns_of

TRANSACTIONS = 400
ROUNDS = 5

BUSINESS = "INSERT INTO business (id, name) VALUES (:number, :name)"
EVENT = """INSERT INTO events (uuid, type, kind, scope, occurred_at, notification, account_uuid, account_name,
account_number, account_history)
VALUES (:uuid, 'account:changed', 'account', :scope, :now, :payload, :subject, :name, :number, :history)"""
DELIVERIES = """INSERT INTO deliveries (event_sequence, subscriber_id, due_at)
SELECT {sequence}, s.id, :now FROM {source}subscribers s WHERE s.enabled AND s.id IN
(SELECT subscriber_id FROM subscriptions WHERE pattern {patterns})"""
SQL = {
    "sqlite": [
        BUSINESS,
        EVENT,
        DELIVERIES.format(
            sequence=":sequence", source="", patterns="IN (SELECT value FROM json_each(:patterns))"
        ),
    ],
    "postgresql": [
        BUSINESS,
        f"WITH e AS ({EVENT} RETURNING sequence), d AS ("
        + DELIVERIES.format(sequence="e.sequence", source="e, ", patterns="= ANY(:patterns)")
        + " RETURNING 1) SELECT count(*) FROM d",
    ],
}


def run(world: World) -> dict[str, float]:
    world.webhooks("http://127.0.0.1:9/a", "http://127.0.0.1:9/b")
    contestants = {"ours": recorded(world), "raw": by_session(world), "driver": BY_DRIVER[world.name](world)}
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    number = 0
    for turn in range(ROUNDS + 1):
        for name, once in contestants.items():
            started = time.perf_counter()
            for _ in range(TRANSACTIONS):
                number += 1
                once(number)
            if turn:  # the first round warms up
                rates[name].append(TRANSACTIONS / (time.perf_counter() - started))
    median = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "record.per_second": median["ours"],
        "record.raw_per_second": median["raw"],
        "record.driver_per_second": median["driver"],
        "record.ratio_to_raw": median["ours"] / median["raw"],
        "record.ratio_to_driver": median["ours"] / median["driver"],
    }


def recorded(world: World) -> Callable[[int], None]:
    sessions = sessionmaker(world.engine, info=Recording().info())
    business = text(BUSINESS)

    def once(number: int) -> None:
        with sessions() as session:
            session.execute(business, {"number": number, "name": f"Account {number}"})
            record(session, account(number))
            session.commit()

    return once


def by_hand(world: World, sql: list[Any]) -> Callable[[Callable[..., Any], int], None]:
    """Sends the rows of one transaction with whatever executes ``sql``."""
    event = account(1)
    event.uuid, event.occurred_at = uuid.uuid4(), datetime.now(UTC)
    payload, history = json.dumps(event.to_notification_payload()), json.dumps(HISTORY)
    patterns: Any = list(patterns_of("account:changed"))
    sqlite = world.name == "sqlite"
    if sqlite:
        patterns = json.dumps(patterns)

    def send(execute: Callable[..., Any], number: int) -> None:
        name, subject, made = f"Account {number}", str(uuid.UUID(int=number)), uuid.uuid4()
        execute(sql[0], {"number": number, "name": name})
        values = {
            "uuid": made.hex if sqlite else made,
            "scope": f"account/{subject}",
            "now": bind_time(datetime.now(UTC), world.name),
            "payload": payload,
            "subject": subject,
            "name": name,
            "number": number,
            "history": history,
        }
        if not sqlite:
            execute(sql[1], values | {"patterns": patterns})
            return
        sequence = execute(sql[1], values).lastrowid
        execute(sql[2], {"sequence": sequence, "now": values["now"], "patterns": patterns})

    return send


def by_session(world: World) -> Callable[[int], None]:
    sessions = sessionmaker(world.engine)
    send = by_hand(world, [text(statement) for statement in SQL[world.name]])

    def once(number: int) -> None:
        with sessions() as session:
            send(session.execute, number)
            session.commit()

    return once


def by_psycopg(world: World) -> Callable[[int], None]:
    connection = psycopg.connect(make_url(world.url).set(drivername="postgresql").render_as_string(False))
    names = re.compile(r"(?<!\w):(\w+)")
    send = by_hand(world, [names.sub(r"%(\1)s", statement) for statement in SQL[world.name]])

    def once(number: int) -> None:
        with connection.cursor() as cursor:
            send(cursor.execute, number)
        connection.commit()

    return once


def by_sqlite3(world: World) -> Callable[[int], None]:
    connection = sqlite3.connect(make_url(world.url).database or "", isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    send = by_hand(world, SQL[world.name])

    def once(number: int) -> None:
        cursor = connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        send(cursor.execute, number)
        cursor.execute("COMMIT")

    return once


BY_DRIVER = {"postgresql": by_psycopg, "sqlite": by_sqlite3}
