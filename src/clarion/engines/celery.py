"""Celery: tasks drain the outbox on any number of machines, over RabbitMQ or Redis.

    app = make_celery("amqp://...", "postgresql://...", EgressPolicy())      in a module of yours
    Recording(nudge=CeleryNudge(app))                                        where you record
    celery --app yours worker --queues deliveries --beat                     on each machine (beat on one)

The database holds the truth and the broker only wakes: a task carries nothing, so a message that is lost,
late or doubled costs at most the seconds until beat sends the next, and there is never one message a
webhook. A worker process that gets a task claims what is due and keeps at it until nothing is; who holds
a delivery is decided by the claim. A killed worker's deliveries are due again when their leases end.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery import Celery, signals
from sqlalchemy.engine import URL

from clarion.egress import Egress, EgressPolicy
from clarion.engines import GRACE, loop_factory, open_relay_engine
from clarion.engines.listening import BackgroundNudge
from clarion.observe import counters, log
from clarion.outbox import LEASE
from clarion.outbox.recording import utc_now
from clarion.relay import NORMAL, Limits, Relay

QUEUE = "deliveries"
TASK = "clarion.deliver"

BEAT = 5.0
"""Seconds between the tasks that beat sends: the safety net under lost nudges, and how soon retries run."""

EXPIRES = 30.0
"""Seconds after which a task that no worker took is dropped; the next one does the same."""

PATIENCE = 0.05
"""Seconds a task waits for its drain. One that takes longer goes on beside the tasks that follow, so that
a receiver that hangs keeps no worker process from looking again."""

ANSWERS_WITHIN = 30.0
"""Seconds in which the relay's thread must take a task's request: it may be waiting for the database."""

BROKER_TIMEOUT = 2.0
"""Seconds a nudge waits for the broker, in its own thread."""

GAP = 0.01
"""Seconds between two tasks that one process sends: what is committed meanwhile shares the next one."""


@dataclass(frozen=True)
class Delivering:
    """How the relays of a Celery application deliver."""

    url: str | URL
    policy: EgressPolicy
    clock: Callable[[], datetime] = utc_now
    limits: Limits = NORMAL
    lease: timedelta = LEASE
    grace: float = GRACE


def make_celery(
    broker_url: str,
    database_url: str | URL,
    policy: EgressPolicy,
    *,
    clock: Callable[[], datetime] = utc_now,
    limits: Limits = NORMAL,
    lease: timedelta = LEASE,
    grace: float = GRACE,
    beat: float = BEAT,
    queue: str = QUEUE,
    name: str = "clarion",
) -> Celery:
    """A Celery application with one task, `TASK`, on ``queue``, and beat sending it every ``beat`` seconds.

    No result backend, late acknowledgement, one task prefetched. A worker started with ``--beat`` keeps
    the schedule in memory: it has no state worth a file.
    """
    app = Celery(name, broker=broker_url, set_as_current=False)
    app.conf.update(settings_for(TASK, broker_url, queue, beat))
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
    drainer = Drainer(Delivering(database_url, policy, clock, limits, lease, grace))

    @app.task(name=TASK, shared=False, acks_late=True, reject_on_worker_lost=True, ignore_result=True)  # type: ignore[untyped-decorator]
    def deliver() -> None:
        drainer.drain()

    signals.worker_process_shutdown.connect(drainer.on_shutdown, weak=False)
    signals.worker_shutdown.connect(drainer.on_shutdown, weak=False)
    return app


def settings_for(task: str, broker_url: str, queue: str, beat: float) -> dict[str, Any]:
    """Of an application with one ``task``: beat sends it every ``beat`` seconds, and it has no result."""
    options = {"queue": queue, "expires": EXPIRES}
    return {
        "task_default_queue": queue,
        "task_ignore_result": True,
        "worker_prefetch_multiplier": 1,
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": BROKER_TIMEOUT,
        "broker_transport_options": transport_options(broker_url),
        "broker_connection_max_retries": None,
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_schedule": {task: {"task": task, "schedule": beat, "options": options}},
    }


def transport_options(broker_url: str) -> dict[str, Any]:
    """Bounded waits for a broker that is away; on Redis also a visibility longer than any task."""
    if broker_url.startswith(("redis", "rediss", "sentinel")):
        return {
            "visibility_timeout": 60,
            "socket_connect_timeout": BROKER_TIMEOUT,
            "socket_keepalive": True,
        }
    return {"confirm_publish": True}


class Drainer:
    """One worker process's relay, in a thread of its own that the first task begins."""

    def __init__(self, delivering: Delivering) -> None:
        self.delivering = delivering
        self._lock = threading.Lock()
        self._process = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._work: Work | None = None

    def drain(self) -> None:
        """Have everything that is due claimed and sent; waits `PATIENCE` seconds for it at most.

        Raises:
            ClarionError: the relay cannot run here; says what is missing.
            SQLAlchemyError: the database does not answer; the next task tries again.
        """
        loop, work = self._started()
        done = asyncio.run_coroutine_threadsafe(work.look(), loop)
        done.result(ANSWERS_WITHIN)

    def on_shutdown(self, **_: Any) -> None:
        """Claim nothing more and let what is in flight end, ``grace`` seconds at most."""
        thread, loop, stop = self._thread, self._loop, self._stop
        if thread is None or loop is None or stop is None or self._process != os.getpid():
            return
        loop.call_soon_threadsafe(stop.set)
        thread.join(self.delivering.grace + 5)

    def _started(self) -> "tuple[asyncio.AbstractEventLoop, Work]":
        with self._lock:
            if self._process != os.getpid() or self._thread is None or not self._thread.is_alive():
                begun: threading.Event = threading.Event()
                errors: list[BaseException] = []
                self._thread = threading.Thread(
                    target=self._run, args=(begun, errors), name="clarion-celery", daemon=True
                )
                self._process = os.getpid()
                self._thread.start()
                begun.wait()
                if errors:
                    raise errors[0]
            assert self._loop is not None
            assert self._work is not None
            return self._loop, self._work

    def _run(self, begun: threading.Event, errors: list[BaseException]) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._serve(begun))
        except BaseException as error:
            errors.append(error)
            if begun.is_set():
                raise
        finally:
            begun.set()

    async def _serve(self, begun: threading.Event) -> None:
        d = self.delivering
        engine = open_relay_engine(d.url)
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with Egress(d.policy) as egress:
                relay = Relay(engine, egress, clock=d.clock, limits=d.limits, lease=d.lease)
                self._work = work = Work(relay, self._stop, d.grace)
                begun.set()
                await self._stop.wait()
                await work.end()
        finally:
            engine.dispose()


class Work:
    """The drain of one process: there is one at most, and who asks while it runs makes it look again."""

    def __init__(self, relay: Relay, stop: asyncio.Event, grace: float) -> None:
        self.relay = relay
        self.stop = stop
        self.grace = grace
        self._task: asyncio.Task[None] | None = None
        self._again = False

    async def look(self) -> None:
        if self.stop.is_set():
            return
        if self._task is not None and not self._task.done():
            self._again = True
            self.relay.nudge()
            return
        self._task = task = asyncio.create_task(self._drain())
        task.add_done_callback(report)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        if done:
            task.result()

    async def end(self) -> None:
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _drain(self) -> None:
        self._again = True
        while self._again and not self.stop.is_set():
            self._again = False
            await self.relay.drain(stop=self.stop, grace=self.grace)


def report(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        counters.add("database_lost", "drain")
        log.warning("the outbox could not be drained; the next task tries again", error=type(error).__name__)


class CeleryNudge(BackgroundNudge):
    """Wakes a worker: ``Recording(nudge=CeleryNudge(app))``. A burst of commits sends one ``task``.

    The task is sent in a small thread, on a connection of its own and in bounded time: whoever commits
    never waits for the broker, and a broker that is away is tried again with backoff.
    """

    def __init__(self, app: Celery, *, task: str = TASK, gap: float = GAP) -> None:
        super().__init__("celery", gap=gap)
        self.app = app
        self.task = task
        self._connection: Any = None
        self._producer: Any = None

    def send(self) -> None:
        if self._producer is None:
            self._connection = self.app.connection_for_write(connect_timeout=BROKER_TIMEOUT, heartbeat=0)
            self._connection.ensure_connection(max_retries=1, timeout=BROKER_TIMEOUT)
            self._producer = self.app.amqp.Producer(self._connection, auto_declare=False)
        self.app.send_task(
            self.task,
            queue=self.app.conf.task_default_queue,
            expires=EXPIRES,
            ignore_result=True,
            producer=self._producer,
            retry=False,
        )

    def disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            try:
                connection.release()
            except Exception as error:
                log.debug("a broker connection did not close", error=type(error).__name__)
