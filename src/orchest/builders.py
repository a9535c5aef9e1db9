"""The worker that carries out builds, one thread each, and clears up after the dead."""

import shutil
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clarion.observe import log
from orchest import builds
from orchest.building import Bounds, BuildFailed, Building, BuildLost, clear_after, remove_image
from orchest.builds import JUPYTER, Assignment
from orchest.crews import Crew, insisting
from orchest.models import (
    Environment,
    EnvironmentImageBuild,
    InteractiveSession,
    JupyterImageBuild,
    PipelineRun,
    Status,
)
from orchest.owners import BEAT
from orchest.platform import Platform

POLL = 1.0
"""Seconds between two looks for builds, when nothing nudges."""
SWEEP = 60.0
"""Seconds between two looks for images nobody uses any more."""
SLACK = timedelta(minutes=1)
"""How long the end of a build may take to be seen by those who look which image to use."""


class Builders(Crew[Building]):
    """A `Crew`. Ended, it fails the builds under way: what they have done so far cannot be taken over."""

    kind = "builds"
    poll = POLL

    def __init__(self, platform: Platform, bounds: Bounds | None = None) -> None:
        super().__init__(platform)
        self.bounds = bounds or Bounds()
        self._beat_at = self._sweep_at = 0.0

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

    def _beat(self) -> None:
        if mine := [building.taken for building in self.under_way()]:
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
            self.begin(Building(one, partial(self._still_ours, one), self.bounds))

    def _still_ours(self, taken: Assignment) -> bool:
        if self.stopped.is_set():
            raise BuildFailed("the platform was stopped while it was built")
        try:
            with self.platform.readers() as session:
                return builds.still_owned(session, taken, self.owner)
        except SQLAlchemyError as error:
            log.warning("the database does not answer a build", error=type(error).__name__)
            return True

    def carry_out(self, task: Building) -> None:
        image: Path | None = None
        reason: str | None = None
        try:
            image = task.run()
        except BuildFailed as error:
            reason = str(error)
        except BuildLost:
            reason = "it was cancelled"  # the row says so already; this changes nothing
        except Exception as error:
            log.error("a build failed in a way it should not", exc_info=error)
            reason = f"the platform failed: {type(error).__name__}"
        self._finish(task.taken, image, reason)

    def _finish(self, taken: Assignment, image: Path | None, reason: str | None) -> None:
        def finish(session: Session) -> bool:
            return builds.finish_build(
                session, self.platform.site, taken, self.owner, image=image, reason=reason
            )

        counted = insisting(self.platform, finish)
        if not counted:
            remove_image(taken.directory)
        if image is not None or not counted:  # an older image, or all that an environment's deletion missed
            sweep(self.platform)


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
