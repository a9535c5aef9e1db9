"""The worker that hosts interactive sessions: a thread a session, and in it the processes of its services."""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from clarion.errors import ClarionError
from clarion.observe import log
from orchest import sessions
from orchest.children import GRACE, Child, describe_exit, reap
from orchest.crews import Crew, insisting
from orchest.definition import parse
from orchest.environments import find_environment, interpreter_of
from orchest.failures import forget_failure, keep_failure, kept_failures
from orchest.models import InteractiveSession, Pipeline, SessionStatus
from orchest.owners import BEAT
from orchest.platform import Platform
from orchest.services import (
    Prepared,
    ServiceFailed,
    answers,
    environment_in,
    ordered,
    pick_ports,
    prepare,
)
from orchest.sessions import Hosted

POLL = 0.5
"""Seconds between two looks at the rows, when nothing wakes before."""
LOOK = 0.05
"""Seconds between two tries to connect to a service that is starting."""
SETTLED = 0.3
"""Seconds a service without ports must live to count as started."""
READY_WITHIN = 60.0
"""Seconds a service may take until all its ports answer."""
HOST_GONE = "the process that hosted it has ended"
MOST_CRASHES = 3
"""How often a service that ends by itself is started again before its session fails."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what. Times are in seconds."""

    ready_within: float = READY_WITHIN
    settled: float = SETTLED
    poll: float = POLL
    grace: float = GRACE


class SessionLost(Exception):
    """The session is to stop, is gone, or is another host's."""


@dataclass
class Service:
    """A service that runs."""

    prepared: Prepared
    log: Path
    record: Path
    child: Child
    restarts: int = 0
    """How many of the restarts that were asked for have been done."""
    crashes: int = field(default=0)


class Hosting:
    """One hosted session. `run` blocks in the caller's thread, which must live until it returns."""

    def __init__(
        self, platform: Platform, taken: Hosted, owner: str, stopped: threading.Event, patience: Patience
    ) -> None:
        self.taken = taken
        self.woken = threading.Event()
        """Set it to make the session look at its row at once."""
        self._platform = platform
        self._owner = owner
        self._stopped = stopped
        self._patience = patience
        self._services: dict[str, Service] = {}

    def run(self) -> None:
        """Start the services, keep them running, and end them with the session. None is left afterwards."""
        reason: str | None = None
        try:
            self._launch()
            self._watch()
        except SessionLost:
            pass
        except ServiceFailed as error:
            reason = str(error)
        except Exception as error:
            log.error("a session failed in a way it should not", session=self.taken.uuid, exc_info=error)
            reason = f"the platform failed: {type(error).__name__}"
        finally:
            self._end_services()
        if reason is not None:
            keep_failure(self._platform.site, self.taken, reason, self._platform.site.clock())
        self._change(sessions.session_stopped if reason is None else sessions.fail_session)
        shutil.rmtree(self.taken.directory, ignore_errors=True)

    def _change(self, change: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        site, taken, owner = self._platform.site, self.taken, self._owner
        return insisting(
            self._platform, lambda session: change(session, site, taken, owner, *arguments, **more)
        )

    def _launch(self) -> None:
        self.taken.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        forget_failure(self._platform.site, self.taken.project_uuid, self.taken.pipeline_uuid)
        definition = parse(self.taken.definition)
        services = ordered(definition, self.taken.services)
        ports = pick_ports(services)
        for service in services:
            python = self._python(service.image)
            prepared = prepare(service, ports, given=self.taken.given, python=python)
            self._start(prepared)
            self._tell_started(prepared)
        if not self._change(sessions.session_running):
            raise SessionLost

    def _python(self, image: str) -> Path | None:
        uuid = environment_in(image)
        if uuid is None:
            return None
        try:
            with self._platform.readers() as session:
                return interpreter_of(session, find_environment(session, self.taken.project_uuid, uuid))
        except ClarionError as error:
            raise ServiceFailed(error.message) from error

    def _start(self, prepared: Prepared) -> None:
        number = self.taken.services.index(prepared.name)
        directory = self.taken.directory
        log_path, record = directory / f"{number}.log", directory / f"{number}.json"
        child = self._spawn(prepared, log_path, record)
        self._services[prepared.name] = Service(prepared, log_path, record, child)
        self._await_ready(self._services[prepared.name])

    def _spawn(self, prepared: Prepared, log_path: Path, record: Path) -> Child:
        try:
            return Child(
                prepared.command,
                cwd=self.taken.project_dir,
                variables=prepared.variables,
                log=log_path,
                record=record,
                exited=self.woken.set,
            )
        except (OSError, ValueError) as error:
            raise ServiceFailed(f"service {prepared.name!r} could not be started: {error}") from error

    def _await_ready(self, service: Service) -> None:
        """Until all ports answer; without ports, until it has lived for a moment."""
        name, ports = service.prepared.name, service.prepared.ports
        began = time.monotonic()
        look_at = began
        while service.child.running:
            now = time.monotonic()
            if answers(ports) if ports else now - began >= self._patience.settled:
                return
            if now - began >= self._patience.ready_within:
                raise ServiceFailed(
                    f"service {name!r} did not answer on its ports within {self._patience.ready_within:g} s"
                )
            if now >= look_at:
                look_at = now + self._patience.poll
                with contextlib.suppress(SQLAlchemyError):
                    self._seen()
            self.woken.wait(LOOK)
            self.woken.clear()
        raise ServiceFailed(f"service {name!r} {describe_exit(service.child.end(0))}")

    def _tell_started(self, prepared: Prepared) -> None:
        child = self._services[prepared.name].child
        self._change(
            lambda session, site, taken, _: sessions.service_started(
                session, site, taken, prepared.name, child.pid, dict(prepared.ports)
            )
        )

    def _seen(self) -> sessions.Seen:
        """What the row says now. Raises SessionLost when there is nothing left to do but to end."""
        if self._stopped.is_set():
            raise SessionLost
        with self._platform.readers() as session:
            seen = sessions.look(session, self.taken, self._owner)
        if seen is None or seen.status is SessionStatus.STOPPING:
            raise SessionLost
        return seen

    def _watch(self) -> None:
        while True:
            self.woken.wait(self._patience.poll)
            self.woken.clear()
            try:
                seen = self._seen()
            except SQLAlchemyError as error:
                log.warning("the database does not answer a session", error=type(error).__name__)
                continue
            for name, service in self._services.items():
                if not service.child.running:
                    self._crashed(service)
                elif seen.restarts[name] > service.restarts:
                    service.restarts = seen.restarts[name]  # those asked meanwhile are done with it
                    self._restart(service, unasked=False)

    def _crashed(self, service: Service) -> None:
        service.crashes += 1
        if service.crashes > MOST_CRASHES:
            raise ServiceFailed(
                f"service {service.prepared.name!r} {describe_exit(service.child.end(0))}, "
                f"after {MOST_CRASHES} restarts"
            )
        service.restarts += 1
        self._restart(service, unasked=True)

    def _restart(self, service: Service, *, unasked: bool) -> None:
        code = service.child.end(self._patience.grace)
        service.child = self._spawn(service.prepared, service.log, service.record)
        self._await_ready(service)
        if not self._change(
            sessions.service_restarted,
            service.prepared.name,
            pid=service.child.pid,
            exit_code=code,
            unasked=unasked,
        ):
            raise SessionLost

    def _end_services(self) -> None:
        for service in self._services.values():  # all at once, then wait for each
            if service.child.running:
                service.child.ask_to_end()
        for service in reversed(self._services.values()):
            service.child.end(self._patience.grace)


class Hosts(Crew[Hosting]):
    """A `Crew`. Ended, it stops the sessions hosted here: their services are processes of this one."""

    kind = "sessions"
    poll = POLL

    def __init__(self, platform: Platform, patience: Patience | None = None) -> None:
        super().__init__(platform)
        self.patience = patience or Patience()
        self._beat_at = 0.0
        self._swept = False

    def look(self) -> None:
        """Once: beat, end orphans, take sessions."""
        if not self._swept:
            sweep(self.platform)
            self._swept = True
        mine = [one.taken for one in self.under_way()]
        now = time.monotonic()
        if mine and now >= self._beat_at:
            self._beat_at = now + BEAT.total_seconds()
            with self.platform.sessions.begin() as session:
                sessions.beat(session, self.platform.site.clock(), self.owner, mine)
        with self.platform.readers() as session:
            wanted = sessions.wants_host(session, self.platform.site.clock(), self.owner)
        if wanted:  # asked first, for it costs no writer's place
            self._take()

    def _take(self) -> None:
        with self.platform.sessions.begin() as session:
            left = sessions.fail_orphans(session, self.platform.site, self.owner)
            taken = sessions.claim_sessions(session, self.platform.site, self.owner)
        for orphan, failed in left:
            if failed:
                keep_failure(self.platform.site, orphan, HOST_GONE, self.platform.site.clock())
            clear_after(orphan.directory)
        for one in taken:
            self.begin(Hosting(self.platform, one, self.owner, self.stopped, self.patience))

    def carry_out(self, task: Hosting) -> None:
        task.run()


def clear_after(directory: Path) -> list[int]:
    """End what a dead host's services left running, and remove the session's directory; the pids."""
    pids = [pid for record in sorted(directory.glob("*.json")) for pid in reap(record)]
    shutil.rmtree(directory, ignore_errors=True)
    return pids


def sweep(platform: Platform) -> None:
    """Clear up after sessions that were ended while their host was dead."""
    root = platform.site.sessions
    present = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    with platform.readers() as session:
        known = set(session.scalars(select(InteractiveSession.uuid)))
        left = [key for key in kept_failures(platform.site) if session.get(Pipeline, key) is None]
    for directory in present:
        if directory.name not in known:
            clear_after(directory)
    for project_uuid, pipeline_uuid in left:
        forget_failure(platform.site, project_uuid, pipeline_uuid)
