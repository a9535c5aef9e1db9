"""What every deliveree promises. A kind of subscriber that is mapped without an entry here fails."""

import json
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.deliverees.analytics import AnalyticsDeliveree, AnalyticsSubscriber
from clarion.deliverees.webhook import Webhook
from clarion.errors import Reason
from clarion.formats import FORM, JSON
from clarion.messages import Answer, Failure, Message, Response
from clarion.outcomes import Dead, Delivered, Retry
from clarion.subscriptions import Deliveree, Subscriber
from clarion.telemetry import TelemetryState
from clarion.testing import DelivereeContract

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def a_webhook(**changes: Any) -> Webhook:
    return Webhook(name="hook", url="https://example.com/hook", created_at=NOW, **changes)


def an_analytics_subscriber(backend: str) -> AnalyticsSubscriber:
    state = TelemetryState(
        installation=UUID(int=7),
        key=b"k" * 32,
        renewed_at=NOW,
        backend=backend,
        url="https://collector.example.com",
        write_key="ck_public",
        app={},
        system={},
    )
    return AnalyticsSubscriber(created_at=NOW, state=state)


MAKERS: dict[str, Callable[[], Subscriber]] = {
    "webhook": a_webhook,
    "webhook, orchest as JSON": lambda: a_webhook(format="orchest", content_type=JSON),
    "webhook, orchest as a form": lambda: a_webhook(format="orchest", content_type=FORM),
    "analytics, posthog": lambda: an_analytics_subscriber("posthog"),
    "analytics, posthog-v1": lambda: an_analytics_subscriber("posthog-v1"),
    "analytics, segment": lambda: an_analytics_subscriber("segment"),
}
"""One subscriber for each way of telling; names begin with the kind."""


@pytest.fixture(params=list(MAKERS))
def deliveree(request: pytest.FixtureRequest) -> Deliveree:
    return MAKERS[request.param]().deliveree()


def messages(count: int, attempt: int = 1) -> list[Message]:
    return [
        Message(
            uuid=UUID(int=number + 1),
            type="contract:tried",
            occurred_at=NOW,
            sequence=number + 1,
            attempt=attempt,
            notification=json.dumps({"type": "contract:tried", "project": {"uuid": "p", "name": "é"}}),
            telemetry=json.dumps({"event_properties": {"type": "contract:tried"}, "derived_properties": {}}),
        )
        for number in range(count)
    ]


def test_every_kind_of_clarion_s_own_is_held_to_this_contract() -> None:
    kinds = {
        mapper.polymorphic_identity
        for mapper in Subscriber.__mapper__.self_and_descendants
        if mapper.polymorphic_identity and mapper.class_.__module__.startswith("clarion.")
    }
    assert kinds <= {name.partition(",")[0] for name in MAKERS}


def test_it_is_a_frozen_plain_value_that_shows_no_secret(deliveree: Deliveree) -> None:
    assert is_dataclass(deliveree)
    name = fields(deliveree)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(deliveree, name, None)
    assert "whsec_" not in repr(deliveree)
    assert hash(deliveree) == hash(replace(deliveree))


class TestPublicContract(DelivereeContract):
    """The suite that authors of other kinds run."""

    @pytest.fixture(autouse=True)
    def _made(self, deliveree: Deliveree) -> None:
        self.deliveree = deliveree

    def make(self) -> Deliveree:
        return self.deliveree

    def lasting(self, body: bytes) -> Any:
        if not isinstance(self.deliveree, AnalyticsDeliveree):
            return body
        return re.sub(rb'"(sent_at|sentAt)":"[0-9TZ:.-]{24}"', b"", body)


ANSWERS: st.SearchStrategy[Answer] = st.one_of(
    st.builds(Failure, st.sampled_from(Reason), st.text(), st.floats(0, 30)),
    st.builds(
        Response,
        st.integers(100, 999),
        st.dictionaries(st.sampled_from(["retry-after", "location", "content-type"]), st.text()),
        st.binary(max_size=200),
        st.floats(0, 30),
        st.booleans(),
    ),
)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
@given(answer=ANSWERS, count=st.integers(1, 3))
def test_whatever_is_answered_each_message_gets_one_outcome(
    maker: Callable[[], Subscriber], answer: Answer, count: int
) -> None:
    deliveree = maker().deliveree()
    told = messages(min(count, deliveree.batch))
    outcomes = deliveree.judge(told, answer, NOW)
    assert len(outcomes) == len(told)
    for outcome in outcomes:
        assert isinstance(outcome, Delivered | Retry | Dead)
        if isinstance(answer, Failure):
            assert not isinstance(outcome, Delivered)
            assert outcome.reason is answer.reason
        elif not 200 <= answer.status < 300:
            assert not isinstance(outcome, Delivered)
        if isinstance(outcome, Retry) and outcome.after is not None:
            assert 0 <= outcome.after <= 86400


def test_a_plain_success_is_delivered_and_a_server_error_is_tried_again(deliveree: Deliveree) -> None:
    told = messages(1)
    assert list(deliveree.judge(told, Response(200, {}, b"{}", 0.1), NOW)) == [Delivered()]
    (outcome,) = deliveree.judge(told, Response(500, {}, b"", 0.1), NOW)
    assert isinstance(outcome, Retry)
