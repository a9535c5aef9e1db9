"""Pipeline runs on any number of machines: Celery workers that supervise, queue ``runs``.

    app = make_celery("amqp://...", site, "postgresql://...")     in a module of yours
    celery --app yours worker --queues runs --beat                on each machine (beat on one)

The same `Supervisor` as in the application: a task carries nothing, it only says look now, and who
executes a run is decided in the database. Every machine needs the platform's data directory, shared. The
application on such a site runs without a supervisor of its own, and nudges with `RunsNudge`.
"""

import os
import threading

from celery import Celery, signals

from clarion.addresses import EgressPolicy
from clarion.engines.celery import CeleryNudge, settings_for
from orchest.platform import open_platform
from orchest.site import Site
from orchest.supervisor import Supervisor

QUEUE = "runs"
TASK = "orchest.supervise"
BEAT = 2.0
"""Seconds between the tasks that beat sends: the net under lost nudges, and how soon orphans are found."""


def make_celery(
    broker_url: str,
    site: Site,
    database_url: str,
    *,
    beat: float = BEAT,
    queue: str = QUEUE,
    name: str = "orchest",
) -> Celery:
    """A Celery application with one task, `TASK`, on ``queue``; beat sends it every ``beat`` seconds."""
    app = Celery(name, broker=broker_url, set_as_current=False)
    app.conf.update(settings_for(TASK, broker_url, queue, beat))
    supervising = Supervising(site, database_url)

    @app.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]
    def supervise() -> None:
        supervising.look()

    signals.worker_process_shutdown.connect(supervising.on_shutdown, weak=False)
    signals.worker_shutdown.connect(supervising.on_shutdown, weak=False)
    return app


class Supervising:
    """The supervisor of a worker process, made by its first task: a process may have been forked before."""

    def __init__(self, site: Site, database_url: str) -> None:
        self.site = site
        self.database_url = database_url
        self._lock = threading.Lock()
        self._process = 0
        self._supervisor: Supervisor | None = None

    def look(self) -> None:
        """Fail orphans, and start what waits up to the limits. Returns once it is started."""
        with self._lock:
            if self._supervisor is None or self._process != os.getpid():
                platform = open_platform(self.site, self.database_url, EgressPolicy())
                platform.analytics.telemetry.begin()
                self._supervisor, self._process = Supervisor(platform), os.getpid()
            self._supervisor.look()

    def close(self) -> None:
        """Give up the database's connections. Runs go on."""
        with self._lock:
            if self._supervisor is not None and self._process == os.getpid():
                self._supervisor.platform.close()
            self._supervisor = None

    def on_shutdown(self, **_: object) -> None:
        """The worker process ends."""
        self.close()


class RunsNudge(CeleryNudge):
    """Wakes a supervising worker; as a `Worker` of the application, for its `Platform.nudge`."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app, task=TASK)

    def start(self) -> None:
        """There is nothing to start: it begins with the first nudge."""

    def stop(self) -> None:
        self.close()
