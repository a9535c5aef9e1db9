"""The worker that starts pipeline runs, each in a process of its own, and clears up after the dead.

Any number of supervisors, in the application or as Celery tasks, share the work through the rows. One that
ends leaves the runs it started going; whichever looks next watches them.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from clarion.errors import Conflict
from clarion.observe import log
from orchest import claims
from orchest.batches import UNFINISHED
from orchest.children import inherited_variables
from orchest.execution import Order
from orchest.executor import Executor, executor_state, reap_orphans
from orchest.executor.processes import Identity
from orchest.models import Job, PipelineRun, Status
from orchest.owners import BEAT
from orchest.platform import Platform
from orchest.pollers import Poller
from orchest.retention import trim

POLL = 1.0
"""Seconds between two looks for runs, when nothing nudges."""
SWEEP = 60.0
"""Seconds between two looks for what was left over, and for runs to forget."""
OLD = 3600.0
"""Seconds after which a directory that belongs to nothing is one that a crash left behind."""


class Supervisor(Poller):
    """A `Poller`. One a process; several processes share the work through the rows.

    Stopped, it takes no more runs. Those under way go on, each in its own process, until they end.
    """

    kind = "supervisor"
    poll = POLL

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self._sweep_at = 0.0
        self._trusting_at = 0.0
        self._ended = False

    def failed(self, error: Exception) -> None:
        """While the database was away no executor could say that it lives: give them time to."""
        super().failed(error)
        self._trusting_at = time.monotonic() + 2 * BEAT.total_seconds()

    def look(self) -> None:
        """Once: fail orphans, take runs up to the limits, and now and then sweep."""
        statuses = self._unfinished()
        if (Status.STARTED, True) in statuses or (Status.STARTED, False) in statuses:
            self._fail_orphans()
        for interactive in (True, False):
            if (Status.PENDING, interactive) in statuses:
                self._take(interactive)
        if self._ended or time.monotonic() >= self._sweep_at:
            self._ended = False
            trim(self.platform)
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP
            sweep(self.platform)

    def _unfinished(self) -> set[tuple[Status, bool]]:
        """What there is of unfinished runs: asked first, for it costs no writer's place."""
        interactive = PipelineRun.job_uuid.is_(None)
        query = select(PipelineRun.status, interactive).where(PipelineRun.status.in_(UNFINISHED)).distinct()
        with self.platform.readers() as session:
            return {(row[0], bool(row[1])) for row in session.execute(query)}

    def _fail_orphans(self) -> None:
        site = self.platform.site
        with self.platform.readers() as session:
            found = claims.orphans(session, site.clock(), silent=time.monotonic() >= self._trusting_at)
        for uuid, owner, reason in found:
            with self.platform.sessions.begin() as session:
                failed = claims.fail_orphan(session, site, uuid, owner, reason)
            if failed:
                log.warning("a run was orphaned", run=uuid, why=reason)
                end_executor(site.runs / uuid)
                self._ended = True

    def _take(self, interactive: bool) -> None:
        while not self.stopped.is_set():
            with self.platform.sessions.begin() as session:
                uuid = claims.claim_run(session, self.platform.site, self.owner, interactive=interactive)
            if uuid is None:
                break
            self._launch(uuid)

    def _launch(self, uuid: str) -> None:
        order = Order.of(self.platform, uuid, self.owner)
        directory = self.platform.site.runs / uuid
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            process = launch(order, directory / "executor.log")
        except OSError as error:
            self._fail(uuid, f"could not be started: {error.strerror or error}")
            return
        threading.Thread(target=self._await_exit, args=(uuid, process), daemon=True).start()

    def _await_exit(self, uuid: str, process: "subprocess.Popen[bytes]") -> None:
        code = process.wait()
        if code != 0:
            log.error("the executor of a run failed; its executor.log says why", run=uuid, exit_code=code)
            with contextlib.suppress(SQLAlchemyError):  # then the run is found to be an orphan later
                self._fail(uuid, f"its executor ended with exit code {code} before it had begun")
        self._ended = True
        self.nudge()

    def _fail(self, uuid: str, reason: str) -> None:
        """Fail a run that is still ours, which it is until its executor has taken it over."""
        with self.platform.sessions.begin() as session:
            claims.fail_orphan(session, self.platform.site, uuid, self.owner, reason)


def launch(order: Order, output: Path) -> "subprocess.Popen[bytes]":
    """Start the executor of a run, in a session of its own: what ends us does not end it.

    The order goes through a pipe: it names the database with its password. Raises OSError.
    """
    variables = inherited_variables(os.environ) | {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PYTHON", "TELEMETRY_", "VIRTUAL"))
    }
    with output.open("ab") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchest.execution"],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # then its exit code says more
        pipe.write(order.model_dump_json().encode())
    return process


def end_executor(run_dir: Path) -> None:
    """Kill the executor of a failed run if it is there after all, and what its steps left running."""
    if executor_state(run_dir) is Executor.ALIVE:
        entry = json.loads((run_dir / "executor.json").read_text())["process"]
        if Identity(entry["pid"], entry["start"], entry["boot"]).alive() and entry["pid"] != os.getpid():
            os.kill(entry["pid"], signal.SIGKILL)
            for _ in range(200):
                if executor_state(run_dir) is not Executor.ALIVE:
                    break
                time.sleep(0.01)
    with contextlib.suppress(Conflict):
        reap_orphans(run_dir)


def sweep(platform: Platform) -> None:
    """Kill what dead executors of ended runs left running; remove directories of what is deleted."""
    site = platform.site
    for root, kind in ((site.runs, PipelineRun), (site.jobs, Job)):
        present = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
        for directory in present:
            if executor_state(directory) is Executor.GONE and not unfinished(platform, directory.name):
                reap_orphans(directory)
        with platform.readers() as session:
            known = set(session.scalars(select(kind.uuid)))
        for directory in present:
            if (
                directory.name not in known
                and executor_state(directory) is Executor.NONE
                and is_old(directory)
            ):
                shutil.rmtree(directory, ignore_errors=True)


def unfinished(platform: Platform, run_uuid: str) -> bool:
    with platform.readers() as session:
        run = session.get(PipelineRun, run_uuid)
        return run is not None and not run.status.final


def is_old(directory: Path) -> bool:
    """Whether nobody can be about to say whose it is."""
    try:
        return directory.stat().st_ctime < time.time() - OLD  # st_mtime is copied from the project
    except FileNotFoundError:
        return False
