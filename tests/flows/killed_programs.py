"""The programs that `test_killed` kills: one that records, one that relays, one that is a Celery worker.

They are forked from a process that has imported everything (``forkserver``), so that a run has time for
many kills. Each is a process, and a session, of its own. What records sends telemetry too.
"""

import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import celery.apps.worker
import celery.bin.worker  # noqa: F401
import psycopg  # noqa: F401
import pycurl  # noqa: F401  (imported before the fork, for speed)
from celery import Celery
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import configure_mappers, sessionmaker

import tests.clarion.plain  # noqa: F401  (the subscriber kind)
from clarion.analytics import TelemetryData, enumeration, send_event
from clarion.consent import RUNS_OF_MACHINES
from clarion.database import open_engine
from clarion.egress import EgressPolicy
from clarion.engines.celery import CeleryNudge, make_celery
from clarion.engines.embedded import EmbeddedEngine
from clarion.engines.listening import Notifier
from clarion.engines.process import run_relay
from clarion.outbox import Recording, record
from clarion.telemetry import Telemetry
from clarion.testing import LOOPBACK
from tests.clarion.sample import ABOUT_ORDER, OrderEvent
from tests.clarion.telemetry_sample import TYPES

LEASE = timedelta(seconds=4)
"""Short, so that what a killed relay held is soon sent again; far above what one request here takes."""

PAUSE = 0.004
"""Seconds between transactions."""

ROLLED_BACK = "rolled-back-"
"""Orders that never happened begin with this."""

POLICY = EgressPolicy.of(LOOPBACK)

SENT = enumeration(TYPES)
ALIVE = TelemetryData({"active": True})

configure_mappers()


def begin(log: str, program: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """What runs in the new process: a session of its own, output into ``log``, then the program."""
    os.setsid()
    for name in (*RUNS_OF_MACHINES, "DO_NOT_TRACK", "TELEMETRY_DISABLED", "TELEMETRY_DEBUG"):
        os.environ.pop(name, None)
    with open(log, "ab", buffering=0) as output:  # noqa: PTH123
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    program(*arguments)


def record_embedded(url: str, accepted: str | None) -> None:
    """An application with the relay in a thread; without a file for what is accepted it only delivers."""
    with EmbeddedEngine(url, POLICY, lease=LEASE) as engine:
        if accepted is not None:
            place_orders(url, accepted, engine.nudge)
        else:
            threading.Event().wait()


def record_notifying(url: str, accepted: str) -> None:
    """An application beside relay processes."""
    place_orders(url, accepted, Notifier(url))


def record_for_celery(url: str, accepted: str, broker: str, queue: str) -> None:
    """An application whose deliveries Celery workers make."""
    place_orders(url, accepted, CeleryNudge(celery_app(url, broker, queue)))


def relay(url: str) -> None:
    """A relay process."""
    run_relay(url, POLICY, lease=LEASE)


def worker(url: str, broker: str, queue: str) -> None:
    """A Celery worker with two processes, and beat."""
    words = ["worker", "--queues", queue, "--concurrency", "2", "--beat", "--loglevel", "WARNING"]
    words += ["--without-gossip", "--without-mingle", "--hostname", f"{queue}@localhost"]
    celery_app(url, broker, queue).worker_main(words)


def celery_app(url: str, broker: str, queue: str) -> Celery:
    return make_celery(broker, url, POLICY, lease=LEASE, beat=1.0, queue=queue)


def place_orders(url: str, accepted: str, nudge: Callable[[], None]) -> None:
    """Place orders: a business row and its event in one transaction; every fifth is rolled back.

    And send an event of telemetry alone after each; its id goes into the file ``accepted`` if it was.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    engine = open_engine(url)
    recording = Recording(nudge=nudge, telemetry_key=Telemetry(engine).key)
    sessions = sessionmaker(engine, info=recording.info())
    told = os.open(accepted, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while not stop.wait(PAUSE):
        if result := send_event({"CLARION_DATABASE_URL": url}, SENT["SHOP_HEARTBEAT"], ALIVE):
            os.write(told, f"{result.id}\n".encode())  # type: ignore[union-attr]
        number += 1
        rolled_back = number % 5 == 0
        order = f"{ROLLED_BACK if rolled_back else ''}{uuid.uuid4()}"
        try:
            with sessions() as session:
                session.execute(text("INSERT INTO orders (uuid) VALUES (:uuid)"), {"uuid": order})
                about = ABOUT_ORDER | {"order_uuid": order, "order_number": number}
                record(session, OrderEvent("placed", **about))
                if rolled_back:
                    session.rollback()
                else:
                    session.commit()
        except DBAPIError:  # the database was killed: the application goes on with its next order
            stop.wait(0.05)
