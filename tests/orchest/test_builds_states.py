"""Builds as a state machine: whatever happens in whatever order, a transition is legal and told of once."""

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from clarion.database import Base as ClarionBase
from clarion.events import Event
from clarion.testing import FrozenClock
from orchest import builds, environments
from orchest.builds import Assignment, Build
from orchest.events import EnvironmentImageBuildEvent, JupyterImageBuildEvent
from orchest.models import Base, Environment, EnvironmentImageBuild, JupyterImageBuild, Status
from orchest.owners import LAPSE
from orchest.site import Limits
from tests.orchest.installation import BARE, Installation

LEGAL = {
    None: {"created"},
    "created": {"started", "cancelled"},
    "started": {"succeeded", "failed", "cancelled"},
}
STATES = {
    "created": Status.PENDING,
    "started": Status.STARTED,
    "succeeded": Status.SUCCESS,
    "failed": Status.FAILURE,
    "cancelled": Status.ABORTED,
}
OWNERS = st.sampled_from(["one", "two"])
SELDOM = st.sampled_from([False, False, False, True])


class Builds(RuleBasedStateMachine):
    """Two environments and JupyterLab, two builders, and users who cancel, rebuild and delete."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        root = Path(self.directory.name)
        self.clock = FrozenClock()
        self.here = Installation(
            f"sqlite:///{root / 'test.db'}", root / "files", clock=self.clock, limits=Limits(builds=2)
        )
        ClarionBase.metadata.create_all(self.here.platform.engine)
        Base.metadata.create_all(self.here.platform.engine)
        self.taken: list[tuple[str, Assignment]] = []
        self.environments: list[str] = []
        self.project = ""

    def teardown(self) -> None:
        self.here.platform.close()
        self.directory.cleanup()

    @initialize()
    def set_up(self) -> None:
        self.project = self.here.project().uuid
        self.environments = [self.add(name) for name in ("a", "b")]
        self.request(0)
        self.request(1)
        self.request_jupyter()

    def add(self, name: str) -> str:
        made: Environment = self.here.change(
            lambda s: environments.create_environment(s, self.here.site, self.project, name=name, base=BARE)
        )
        return made.uuid

    @rule(which=st.integers(0, 1))
    def request(self, which: int) -> None:
        uuid = self.environments[which]
        made = self.here.change(
            lambda s: builds.request_build(s, self.here.site, s.get_one(Environment, uuid))
        )
        assert made.status is Status.PENDING

    @rule()
    def request_jupyter(self) -> None:
        self.here.change(lambda s: builds.request_jupyter_build(s, self.here.site, "true"))

    @rule(owner=OWNERS)
    def claim(self, owner: str) -> None:
        taken = self.here.change(lambda s: builds.claim_builds(s, self.here.site, owner))
        self.taken += [(owner, one) for one in taken]

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), well=st.booleans(), as_other=SELDOM)
    def finish(self, data: st.DataObject, well: bool, as_other: bool) -> None:
        """Also a second time, also when it was cancelled meanwhile, also by one who does not have it."""
        owner, one = data.draw(st.sampled_from(self.taken[-3:]))
        by = "nobody" if as_other else owner
        before = self.status(one)
        image, reason = (one.directory / "venv", None) if well else (None, "it failed")
        done = self.here.change(
            lambda s: builds.finish_build(s, self.here.site, one, by, image=image, reason=reason)
        )
        assert done == (before is Status.STARTED and not as_other)

    def status(self, one: Assignment) -> Status | None:
        status: Status | None = self.here.read(select(one.kind.status).where(one.kind.uuid == one.uuid))
        return status

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        _, one = data.draw(st.sampled_from(self.taken[-3:]))
        before = self.status(one)
        if before is not None:
            done = self.here.change(
                lambda s: builds.cancel_build(s, self.here.site, cast(Build, s.get_one(one.kind, one.uuid)))
            )
            assert done == (not before.final)

    @rule(owner=OWNERS)
    def beat(self, owner: str) -> None:
        mine = [one for by, one in self.taken if by == owner]
        self.here.change(lambda s: builds.beat(s, self.clock(), owner, mine))

    @rule(part=st.sampled_from([0.1, 0.6, 1.1]))
    def time_passes(self, part: float) -> None:
        self.clock.advance(seconds=LAPSE.total_seconds() * part)

    @rule()
    def fail_orphans(self) -> None:
        lapsed = self.clock() - LAPSE
        dead = [one for _, one in self.taken if self.lapsed(one, lapsed)]
        self.here.change(lambda s: builds.fail_orphans(s, self.here.site, "three"))
        assert {self.status(one) for one in dead} <= {Status.FAILURE}

    def lapsed(self, one: Assignment, before: Any) -> bool:
        query = select(one.kind.uuid).where(
            one.kind.uuid == one.uuid, one.kind.status == Status.STARTED, one.kind.heartbeat < before
        )
        return self.here.read(query) is not None

    @rule(which=st.integers(0, 1))
    def delete(self, which: int) -> None:
        uuid = self.environments[which]

        def act(session: Any) -> None:
            found = environments.find_environment(session, self.project, uuid, lock=True)
            environments.delete_environment(session, self.here.site, found)

        self.here.change(act)
        self.environments[which] = self.add("again")

    @invariant()
    def every_transition_is_legal_and_told_once(self) -> None:
        if not self.project:
            return
        told: dict[tuple[str, int], list[str]] = defaultdict(list)
        with self.here.platform.readers() as session:
            for event in session.scalars(select(Event).order_by(Event.sequence)):
                if isinstance(event, EnvironmentImageBuildEvent):
                    layer = event.notification["project"]["environment"]
                    key = (layer["uuid"], layer["image_build"]["image_tag"])
                elif isinstance(event, JupyterImageBuildEvent):
                    key = ("jupyter", event.notification["jupyter"]["image_build"]["image_tag"])
                else:
                    continue
                told[key].append(event.type.rsplit(":", 1)[1])
            rows: list[Build] = [
                *session.scalars(select(EnvironmentImageBuild)),
                *session.scalars(select(JupyterImageBuild)),
            ]
        for verbs in told.values():
            for before, after in zip([None, *verbs], verbs, strict=False):
                assert after in LEGAL.get(before, ()), verbs
        for row in rows:
            of = row.environment_uuid if isinstance(row, EnvironmentImageBuild) else "jupyter"
            assert STATES[told[of, row.image_tag][-1]] is row.status
        unfinished = [row for row in rows if not row.status.final]
        assert sum(row.status is Status.STARTED for row in unfinished) <= 2
        assert sum(isinstance(row, JupyterImageBuild) for row in unfinished) <= 1


Builds.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestBuilds = pytest.mark.timeout(300)(Builds.TestCase)
