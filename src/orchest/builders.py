"""The worker that carries out builds, one thread each, and clears up after the dead."""

import shutil
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clarion.observe import log
from orchest import builds
from orchest.building import Bounds, BuildFailed, Building, BuildLost, clear_after, remove_image
from orchest.builds import JUPYTER, Assignment
from orchest.models import (
    Environment,
    EnvironmentImageBuild,
    InteractiveSession,
    JupyterImageBuild,
    PipelineRun,
    Status,
)
from orchest.owners import BEAT, new_owner
from orchest.platform import Platform

POLL = 1.0
"""Seconds between two looks for builds, when nothing nudges."""
SWEEP = 60.0
"""Seconds between two looks for images nobody uses any more."""
SLACK = timedelta(minutes=1)
"""How long the end of a build may take to be seen by those who look which image to use."""
TRIES = 60
"""How often the end of a build is written until the database takes it, once a second."""


class Builders:
    """A `Worker`. One a process; several processes share the work through the rows."""

    def __init__(self, platform: Platform, bounds: Bounds | None = None) -> None:
        self.platform = platform
        self.owner = new_owner()
        self.bounds = bounds or Bounds()
        self._active: dict[Building, threading.Thread] = {}
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._beat_at = self._sweep_at = 0.0
        self._thread = threading.Thread(target=self._loop, name="builders", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        self._woken.set()
        with self._lock:
            for building in self._active:
                building.woken.set()

    def stop(self) -> None:
        """End. Builds under way fail: what they have done so far cannot be taken over."""
        self._stopped.set()
        self.nudge()
        self._thread.join()
        with self._lock:
            threads = list(self._active.values())
        for thread in threads:
            thread.join()

    def _loop(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                self.look()
            except (SQLAlchemyError, OSError) as error:
                log.error("looking for builds failed; trying again", exc_info=error)
            self._woken.wait(POLL)

    def look(self) -> None:
        """Once: beat, fail orphans, take builds, sweep what is left over."""
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + BEAT.total_seconds()
            self._beat()
        if self._work():
            self._take()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP
            sweep(self.platform)

    def _mine(self) -> list[Assignment]:
        with self._lock:
            return [building.taken for building in self._active]

    def _beat(self) -> None:
        if mine := self._mine():
            with self.platform.sessions.begin() as session:
                builds.beat(session, self.platform.site.clock(), self.owner, mine)

    def _work(self) -> bool:
        """Whether there is something to take or to fail: asked first, for it costs no writer's place."""
        with self.platform.readers() as session:
            return builds.wants_builder(session, self.platform.site, self.owner)

    def _take(self) -> None:
        with self.platform.sessions.begin() as session:
            left = builds.fail_orphans(session, self.platform.site, self.owner)
            taken = builds.claim_builds(session, self.platform.site, self.owner)
        for directory in left:
            clear_after(directory)
        for one in taken:
            self._start(one)

    def _start(self, taken: Assignment) -> None:
        building = Building(taken, lambda: self._still_ours(taken), self.bounds)
        thread = threading.Thread(
            target=self._build, args=(building,), name=f"build {taken.uuid}", daemon=True
        )
        with self._lock:
            self._active[building] = thread
        thread.start()

    def _still_ours(self, taken: Assignment) -> bool:
        if self._stopped.is_set():
            raise BuildFailed("the platform was stopped while it was built")
        try:
            with self.platform.readers() as session:
                return builds.still_owned(session, taken, self.owner)
        except SQLAlchemyError as error:
            log.warning("the database does not answer a build", error=type(error).__name__)
            return True

    def _build(self, building: Building) -> None:
        image: Path | None = None
        reason: str | None = None
        try:
            image = building.run()
        except BuildFailed as error:
            reason = str(error)
        except BuildLost:
            reason = "it was cancelled"  # the row says so already; this changes nothing
        except Exception as error:
            log.error("a build failed in a way it should not", exc_info=error)
            reason = f"the platform failed: {type(error).__name__}"
        try:
            self._finish(building.taken, image, reason)
        finally:
            with self._lock:
                del self._active[building]
            self._woken.set()

    def _finish(self, taken: Assignment, image: Path | None, reason: str | None) -> None:
        def finish(session: Session) -> bool:
            return builds.finish_build(
                session, self.platform.site, taken, self.owner, image=image, reason=reason
            )

        if not insisting(self.platform, finish):
            remove_image(taken.directory)
        if image is not None:
            sweep(self.platform)


def insisting(platform: Platform, change: Callable[[Session], bool]) -> bool:
    """Carry out ``change`` in a transaction, again while the database does not answer.

    Raises:
        SQLAlchemyError: it did not answer for a minute.
    """
    for tried in range(1, TRIES + 1):
        try:
            with platform.sessions.begin() as session:
                return change(session)
        except SQLAlchemyError as error:
            if tried == TRIES:
                raise
            log.warning("the database does not take what happened", error=type(error).__name__)
            time.sleep(1.0)
    raise AssertionError


def sweep(platform: Platform) -> None:
    """Remove images that were replaced and that nothing uses, and the directories of deleted environments."""
    root = platform.site.environments
    present = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    with platform.readers() as session:
        replaced = unused_images(session)
        known = set(session.scalars(select(Environment.uuid)))
    for directory in present:
        if directory.name != JUPYTER and directory.name not in known:
            for build in directory.iterdir():
                clear_after(build)
            shutil.rmtree(directory, ignore_errors=True)
    for path in replaced:
        if path.exists():
            shutil.rmtree(path, ignore_errors=True)


def unused_images(session: Session) -> list[Path]:
    """The images of successful builds that a newer one replaced before anything under way began."""
    images: list[str | None] = []
    query = (
        select(EnvironmentImageBuild, Environment.project_uuid)
        .join(Environment)
        .where(EnvironmentImageBuild.status == Status.SUCCESS)
        .order_by(EnvironmentImageBuild.environment_uuid, EnvironmentImageBuild.image_tag.desc())
    )
    newer: EnvironmentImageBuild | None = None
    for build, project_uuid in session.execute(query):
        replaced = newer is not None and newer.environment_uuid == build.environment_uuid
        if newer is not None and replaced and not used_before(session, project_uuid, newer):
            images.append(build.image_path)
        newer = build
    of_jupyter = select(JupyterImageBuild.image_path).where(JupyterImageBuild.status == Status.SUCCESS)
    images += session.scalars(of_jupyter.order_by(JupyterImageBuild.image_tag.desc()).offset(1))
    return [Path(path) for path in images if path is not None]


def used_before(session: Session, project_uuid: str, newer: EnvironmentImageBuild) -> bool:
    """Whether a run or a session of the project may have begun before ``newer`` was there."""
    assert newer.finished is not None
    until = newer.finished + SLACK
    running = select(PipelineRun.uuid).where(
        PipelineRun.project_uuid == project_uuid,
        PipelineRun.status == Status.STARTED,
        PipelineRun.started <= until,
    )
    live = select(InteractiveSession.uuid).where(
        InteractiveSession.project_uuid == project_uuid, InteractiveSession.requested <= until
    )
    return any(session.scalar(query.limit(1)) is not None for query in (running, live))
