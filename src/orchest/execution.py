"""Executes one pipeline run in a process of its own, which outlives whoever started it.

``python -m orchest.execution`` reads what it is to do (`Order`, as JSON) from its standard input. It takes
the run over from the supervisor that claimed it, says every few seconds that it lives, writes down what
becomes of the steps, and ends the run. So the platform may be restarted while runs go on. If this process
dies, the kernel ends the steps it started, and a supervisor fails the run and clears up.

No transaction is open while steps run.
"""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clarion.addresses import EgressPolicy
from clarion.database import normalise_url
from clarion.engines.listening import Notifier
from clarion.errors import ClarionError
from clarion.observe import log
from orchest import claims, runs
from orchest.definition import parse
from orchest.executor import Run, RunSpec, StepResult
from orchest.models import Pipeline, PipelineRun, Status
from orchest.owners import BEAT, new_owner
from orchest.platform import Platform, open_platform
from orchest.sessions import service_addresses
from orchest.site import Limits, Site

LOOK = 0.5
"""Seconds between two looks whether the run was aborted."""
TRIES = 120
"""How often what happened is written until the database takes it, once a second."""
Result = TypeVar("Result")


class Order(BaseModel):
    """Which run is to be executed, and where the platform is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    owner: str
    """The supervisor that has claimed it."""
    database_url: str
    base_url: str
    data: Path
    limits: Mapping[str, int]

    @classmethod
    def of(cls, platform: Platform, run: str, owner: str) -> "Order":
        site = platform.site
        return cls(
            run=run,
            owner=owner,
            database_url=platform.engine.url.render_as_string(hide_password=False),
            base_url=site.base_url,
            data=site.data.resolve(),
            limits=asdict(site.limits),
        )

    def platform(self) -> Platform:
        site = Site(self.base_url, self.data, limits=Limits(**self.limits))
        return open_platform(site, self.database_url, EgressPolicy())


@dataclass
class Execution:
    """One run while it is executed by this thread. Also what its executor tells of its steps."""

    platform: Platform
    run: str
    owner: str
    _beat_at: float = 0.0

    def execute(self) -> None:
        """Execute and end the run; return when nothing of it is left."""
        try:
            with self.platform.readers() as session:
                spec = specification(session, self.platform.site, self.run, self.lost)
            run = Run(spec, self)
        except (ClarionError, OSError) as error:
            self.end(Status.FAILURE, f"could not be started: {error}", {})
            return
        result = run.execute()
        self.end(result.status, result.reason, result.steps)

    def end(self, to: Status, reason: str | None, results: Mapping[str, StepResult]) -> None:
        site = self.platform.site

        def end(session: Session) -> bool:
            return runs.end_run(session, site, self.run, to, reason, owner=self.owner, results=results)

        if not self.insist(end) and self.deleted():
            shutil.rmtree(site.runs / self.run, ignore_errors=True)

    def deleted(self) -> bool:
        with self.platform.readers() as session:
            return session.get(PipelineRun, self.run) is None

    def lost(self) -> str | None:
        """Why to stop: the run was aborted, deleted, or given up for dead. Also says that we live."""
        try:
            with self.platform.readers() as session:
                if not claims.still_owned(session, self.run, self.owner):
                    return "aborted by the user"
            if time.monotonic() >= self._beat_at:
                with self.platform.sessions.begin() as session:
                    claims.beat(session, self.run, self.owner, self.platform.site.clock())
                self._beat_at = time.monotonic() + BEAT.total_seconds()
        except SQLAlchemyError as error:
            log.warning("the database does not answer a run", run=self.run, error=type(error).__name__)
        return None

    def step_started(self, step_uuid: str) -> None:
        now = self.platform.site.clock()
        self.insist(lambda session: runs.step_started(session, self.run, self.owner, step_uuid, now))

    def step_finished(
        self, step_uuid: str, status: Status, exit_code: int | None, reason: str | None
    ) -> None:
        now, result = self.platform.site.clock(), StepResult(status, exit_code, reason)
        self.insist(lambda session: runs.step_ended(session, self.run, self.owner, step_uuid, result, now))

    def insist(self, change: Callable[[Session], Result]) -> Result:
        """Carry out ``change`` in a transaction, again while the database does not answer.

        Raises:
            SQLAlchemyError: it did not answer for two minutes.
        """
        for tried in range(1, TRIES + 1):
            try:
                with self.platform.sessions.begin() as session:
                    return change(session)
            except SQLAlchemyError as error:
                if tried == TRIES:
                    raise
                log.warning("the database does not take what happened", error=type(error).__name__)
                time.sleep(1.0)
        raise AssertionError


def specification(
    session: Session, site: Site, run_uuid: str, poll: Callable[[], str | None] | None = None
) -> RunSpec:
    """What the executor must know of a run.

    Raises:
        InvalidInput: it cannot be executed.
        Conflict: an environment of its steps has not been built.
    """
    run = session.get_one(PipelineRun, run_uuid)
    definition = parse(run.definition)
    chosen = frozenset(step.step_uuid for step in run.steps)
    given, live = run.env_variables, runs.session_of(session, run)
    if live is not None:
        given = {**service_addresses(live), **given}
    if run.job is not None:
        root, path = run.job.snapshot_path or run.project.path, run.job.pipeline_path
    else:
        pipeline = session.get(Pipeline, (run.project_uuid, run.pipeline_uuid))
        root, path = run.project.path, pipeline.path if pipeline is not None else ""
    return RunSpec(
        definition=definition,
        project_dir=Path(root),
        pipeline_dir=(Path(root) / path).parent if path else None,
        run_dir=site.runs / run.uuid,
        environments=runs.check_environments(session, run.project_uuid, definition, chosen),
        pipeline_parameters=run.parameters.get(runs.PIPELINE, {}),
        step_parameters={key: given for key, given in run.parameters.items() if key != runs.PIPELINE},
        env_variables=variables(given),
        only=chosen if run.is_interactive else None,
        data_dir=None if run.session_uuid is None else site.sessions / run.session_uuid / "data",
        poll=poll,
        poll_interval=LOOK,
    )


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """What of a project's variables its steps get: ours are ours, whoever set them before we said so."""
    return {name: value for name, value in given.items() if not name.startswith("ORCHEST_")}


class Waker(Notifier):
    """Wakes the relays of other processes; here there is none."""

    def start(self) -> None:
        """There is nothing to start: it begins with the first nudge."""

    def stop(self) -> None:
        self.close()


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    order = Order.model_validate_json(sys.stdin.read())
    platform = order.platform()
    if normalise_url(order.database_url).get_backend_name() == "postgresql":
        platform.relay = Waker(order.database_url)  # on SQLite a relay sees that the file was written
    owner = new_owner()
    execution = Execution(platform, order.run, owner)
    try:
        now = platform.site.clock()
        if not execution.insist(
            lambda session: claims.take_over(session, order.run, order.owner, owner, now)
        ):
            return 0  # aborted before it began
        execution.execute()
    finally:
        if platform.relay is not None:
            platform.relay.stop()
        platform.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
