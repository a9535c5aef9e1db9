"""Sessions as a state machine: whatever happens in whatever order, a transition is legal and told of once."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from clarion.database import Base as ClarionBase
from clarion.errors import Conflict, NotFound
from clarion.events import Event
from clarion.testing import FrozenClock
from orchest import runs, sessions
from orchest.events import SessionEvent
from orchest.models import Base, InteractiveSession, PipelineRun, SessionStatus, Status
from orchest.owners import LAPSE
from orchest.sessions import Hosted
from tests.orchest.installation import Installation

LEGAL: dict[str | None, set[str]] = {
    None: {"started"},
    "started": {"succeeded", "failed", "stopped"},
    "succeeded": {"service-restarted", "failed", "stopped"},
    "service-restarted": {"service-restarted", "failed", "stopped"},
    "failed": {"started"},
    "stopped": {"started"},
}
SESSION = "project:pipeline:interactive-session"
OWNERS = st.sampled_from(["one", "two"])
SELDOM = st.sampled_from([False, False, False, True])


class Sessions(RuleBasedStateMachine):
    """One pipeline, its sessions one after the other, two hosts, and users who stop, restart and run."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        root = Path(self.directory.name)
        self.clock = FrozenClock()
        self.here = Installation(f"sqlite:///{root / 'test.db'}", root / "files", clock=self.clock)
        ClarionBase.metadata.create_all(self.here.platform.engine)
        Base.metadata.create_all(self.here.platform.engine)
        self.taken: list[tuple[str, Hosted]] = []
        self.path = ("", "")

    def teardown(self) -> None:
        self.here.platform.close()
        self.directory.cleanup()

    @initialize(launched=st.booleans())
    def set_up(self, launched: bool) -> None:
        pipeline = self.here.pipeline(self.here.project(), {"a": {"command": "x"}})
        self.path = (pipeline.project_uuid, pipeline.uuid)
        self.start()
        self.claim("one")
        if launched:
            [(owner, one)] = self.taken
            assert self.here.change(lambda s: sessions.session_running(s, self.here.site, one, owner))

    def live(self) -> InteractiveSession | None:
        with self.here.platform.readers() as session:
            return session.get(InteractiveSession, self.path)

    @rule()
    def start(self) -> None:
        before = self.live()
        try:
            self.here.change(lambda s: sessions.start_session(s, self.here.site, *self.path))
        except Conflict:
            assert before is not None
        else:
            assert before is None

    @rule(owner=OWNERS)
    def begin(self, owner: str) -> None:
        """All at once, so that there mostly is a session in which something can happen."""
        if self.live() is None:
            self.start()
            self.claim(owner)
            one = self.taken[-1][1]
            assert self.here.change(lambda s: sessions.session_running(s, self.here.site, one, owner))

    @rule(how=st.sampled_from(["stop", "delete", "nothing"]))
    def end(self, how: str) -> None:
        if how == "stop":
            self.stop()
        elif how == "delete":
            self.delete_the_pipelines_session()

    def stop(self) -> None:
        before = self.live()
        try:
            self.here.change(lambda s: sessions.stop_session(s, self.here.site, *self.path))
        except NotFound:
            assert before is None
        else:
            after = self.live()
            assert after is None or after.status is SessionStatus.STOPPING
            assert before is not None
            assert (after is None) == (before.owner is None)

    @rule(owner=OWNERS)
    def claim(self, owner: str) -> None:
        before = self.live()
        taken = self.here.change(lambda s: sessions.claim_sessions(s, self.here.site, owner))
        assert bool(taken) == (before is not None and before.owner is None)
        self.taken += [(owner, one) for one in taken]

    def held(self, data: st.DataObject, as_other: bool) -> tuple[str, Hosted, SessionStatus | None]:
        """Someone, a session it has or had, and that session's state if it is that one's still."""
        owner, one = data.draw(st.sampled_from(self.taken[-2:]))
        owner = "nobody" if as_other else owner
        with self.here.platform.readers() as session:
            seen = sessions.look(session, one, owner)
        return owner, one, None if seen is None else seen.status

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), as_other=SELDOM)
    def all_services_run(self, data: st.DataObject, as_other: bool) -> None:
        owner, one, status = self.held(data, as_other)
        done = self.here.change(lambda s: sessions.session_running(s, self.here.site, one, owner))
        assert done == (status is SessionStatus.LAUNCHING)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), as_other=SELDOM, unasked=st.booleans())
    def service_restarted(self, data: st.DataObject, as_other: bool, unasked: bool) -> None:
        owner, one, status = self.held(data, as_other)
        active = self.active()
        done = self.here.change(
            lambda s: sessions.service_restarted(
                s, self.here.site, one, owner, "a", pid=1, exit_code=0, unasked=unasked
            )
        )
        assert done == (status is SessionStatus.RUNNING)
        if done:
            with self.here.platform.readers() as session:
                last = session.scalars(select(Event).order_by(Event.sequence.desc()).limit(1)).one()
                assert isinstance(last, SessionEvent)
                assert last.active_runs == active

    def active(self) -> bool:
        unfinished = PipelineRun.status.in_((Status.PENDING, Status.STARTED))
        return self.here.read(select(PipelineRun.uuid).where(unfinished).limit(1)) is not None

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), as_other=SELDOM, well=st.booleans())
    def host_ends(self, data: st.DataObject, as_other: bool, well: bool) -> None:
        owner, one, status = self.held(data, as_other)
        end = sessions.session_stopped if well else sessions.fail_session
        done = self.here.change(lambda s: end(s, self.here.site, one, owner))
        assert done == (status is not None)

    @rule()
    def run(self) -> None:
        live = self.live()
        try:
            self.here.change(lambda s: runs.create_interactive_run(s, self.here.site, *self.path))
        except Conflict:
            assert live is None or live.status is not SessionStatus.RUNNING
        else:
            assert live is not None
            assert live.status is SessionStatus.RUNNING

    @rule(well=st.booleans())
    def run_ends(self, well: bool) -> None:
        to = Status.SUCCESS if well else Status.ABORTED

        def act(session: Any) -> None:
            for uuid in session.scalars(select(PipelineRun.uuid)).all():
                runs.end_run(session, self.here.site, uuid, to)

        self.here.change(act)

    @rule(owner=OWNERS)
    def beat(self, owner: str) -> None:
        mine = [one for by, one in self.taken if by == owner]
        self.here.change(lambda s: sessions.beat(s, self.clock(), owner, mine))

    @rule(part=st.sampled_from([0.1, 0.6, 1.1]))
    def time_passes(self, part: float) -> None:
        self.clock.advance(seconds=LAPSE.total_seconds() * part)

    @rule()
    def fail_orphans(self) -> None:
        live = self.live()
        lapsed = live is not None and live.heartbeat is not None and live.heartbeat < self.clock() - LAPSE
        left = self.here.change(lambda s: sessions.fail_orphans(s, self.here.site, "three"))
        assert bool(left) == lapsed
        assert not (lapsed and self.live() is not None)

    def delete_the_pipelines_session(self) -> None:
        self.here.change(lambda s: sessions.end_session(s, self.here.site, *self.path))
        assert self.live() is None

    @invariant()
    def every_transition_is_legal_and_told_once(self) -> None:
        live = self.live()
        with self.here.platform.readers() as session:
            told = list(session.scalars(select(Event).order_by(Event.sequence)))
        verbs = [event.type.rsplit(":", 1)[1] for event in told if event.kind == SESSION]
        for before, after in zip([None, *verbs], verbs, strict=False):
            assert after in LEGAL[before], verbs
        match live.status if live is not None else None:
            case None:
                assert not verbs or verbs[-1] in ("failed", "stopped")
            case SessionStatus.LAUNCHING:
                assert verbs[-1] == "started"
            case SessionStatus.RUNNING:
                assert verbs[-1] in ("succeeded", "service-restarted")

    @invariant()
    def no_run_outlives_its_session(self) -> None:
        live = self.live()
        if live is None or live.status is SessionStatus.STOPPING:
            assert not self.active()


Sessions.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestSessions = pytest.mark.timeout(300)(Sessions.TestCase)
