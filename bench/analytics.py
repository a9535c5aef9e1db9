"""What telemetry costs the platform: the browser's relay at a steady rate, and a `send_event` of its own.

On SQLite, with telemetry switched on and its notice seen. Each runs in a process of its own, as in an
application, and collects garbage as Python does: ``python -m bench.analytics serve URL``, or ``enqueue URL``.
Every answer of the relay is sent after the event's commit. Nothing delivers what is stored, and the requests
are made on the same machine.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from bench.latency import SECONDS, percentile
from bench.load import Answers, load, post
from bench.worlds import World, world
from clarion.analytics import Accepted, TelemetryData, attach
from clarion.analytics.capturing import Analytics
from clarion.analytics.configuring import BackendSettings, configure
from clarion.api.analytics import PATHS, analytics_router
from clarion.catalogue import EventType
from clarion.consent import RUNS_OF_MACHINES
from clarion.database import open_engine
from clarion.envelope import AppProperties, detect_system
from clarion.outbox.tables import Capture
from clarion.telemetry import show_notice
from orchest.analytics import Event, send_event
from orchest.events import CATALOGUE

SELF = (sys.executable, "-m", "bench.analytics")
RATE = 200
VISITORS = 40
"""Browsers that send in turn: five events a second each, half of what the relay allows one."""

CONNECTIONS = 16
SENT = 20_000
"""Calls of `send_event`; a hundred before them are not counted."""


def run() -> dict[str, float]:
    """Times of an answer in milliseconds, and of `send_event` without its insert in microseconds."""
    with world("sqlite") as made:
        switch_on(made.engine)
        answers = relayed(made)
        times = json.loads(subprocess.check_output([*SELF, "enqueue", made.url], env=environment()))
    return {
        "analytics.requests_per_s": answers.per_second,
        "analytics.refused": answers.refused,
        "analytics.p50_ms": answers.percentile(0.5),
        "analytics.p99_ms": answers.percentile(0.99),
        "analytics.enqueue_p50_us": percentile(times, 0.5),
        "analytics.enqueue_p99_us": percentile(times, 0.99),
    }


def switch_on(engine: Engine) -> None:
    now = datetime.now(UTC)
    with Session(engine) as session, session.begin():
        configure(
            session, BackendSettings("http://127.0.0.1:9/", "ck_bench"), AppProperties(), detect_system(), now
        )
        show_notice(session, now)


def environment() -> dict[str, str]:
    """This process's, without what says no: telemetry asks a real one each time, which has its price."""
    said = {*RUNS_OF_MACHINES, "TELEMETRY_DISABLED", "TELEMETRY_DEBUG", "DO_NOT_TRACK"}
    return {name: value for name, value in os.environ.items() if name not in said}


def properties(event_type: EventType) -> dict[str, Any]:
    example: dict[str, Any] = event_type.telemetry_example(datetime.now(UTC))["event_properties"]
    return example


def relayed(made: World) -> Answers:
    """Answers to browsers' events at a steady rate, each stored as an event of its own; warmed up first.

    One whose event waited longer than `PATIENCE` for SQLite's writer is a refusal, which browsers repeat.
    """
    seen = [(t.name, properties(t)) for t in CATALOGUE if t.source == "browser"]
    numbers = count()

    def request() -> bytes:
        number = next(numbers)
        name, given = seen[number % len(seen)]
        now = datetime.now(UTC).isoformat()
        event = {"id": str(uuid.uuid4()), "event": name, "properties": given, "occurred_at": now}
        body = json.dumps({"events": [event], "sent_at": now}).encode()
        return post(PATHS[0], body, f"x-visitor: {number % VISITORS}")

    def steady(seconds: float) -> Answers:
        return asyncio.run(load(port, request, connections=CONNECTIONS, seconds=seconds, rate=RATE))

    with serving(made.url) as port:
        warming, answers = steady(1), steady(SECONDS)
    with Session(made.engine) as session:
        stored = session.scalar(select(func.count()).select_from(Capture))
    taken = sum(len(each.times) - each.refused for each in (warming, answers))
    assert stored == taken, f"{stored} of {taken} are stored"
    return answers


@contextmanager
def serving(url: str) -> Iterator[int]:
    """The relay in a process of its own; gives its port."""
    with subprocess.Popen(
        [*SELF, "serve", url], stdout=subprocess.PIPE, text=True, env=environment()
    ) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def serve(url: str) -> None:
    app = FastAPI()
    analytics = Analytics(open_engine(url), types=CATALOGUE)
    app.include_router(analytics_router(analytics, session_of=visitor))
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listening])


def visitor(request: Request) -> str:
    return request.headers["x-visitor"]


class Uninserted(Analytics):
    """Does all that `Analytics` does for an event, but for the transaction that makes it rows."""

    def inserted(self, *_: object) -> int:
        return 1


def enqueued(engine: Engine) -> list[float]:
    """Microseconds of each `send_event` without its insert, of every type that is only captured, in turn."""
    app: dict[str, Any] = {}
    attach(app, Uninserted(engine, types=CATALOGUE))
    given = [(Event(t.name), TelemetryData(properties(t))) for t in CATALOGUE if t.captured]
    times = []
    for number in range(SENT + 100):
        event, data = given[number % len(given)]
        started = time.perf_counter_ns()
        result = send_event(app, event, data)
        times.append((time.perf_counter_ns() - started) / 1000)
        assert isinstance(result, Accepted), result
    return times[100:]


if __name__ == "__main__":
    command, url = sys.argv[1:]
    if command == "serve":
        serve(url)
    else:
        print(json.dumps(enqueued(open_engine(url))))
