import json
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from clarion.deliverees.webhook import Webhook, WebhookDeliveree
from clarion.errors import InvalidAddress, InvalidInput, InvalidSecret, InvalidSubscriber, Reason
from clarion.formats import FORM, JSON
from clarion.messages import Failure, Message, Response
from clarion.outcomes import Dead, Delivered, Retry
from clarion.signing import new_secret, verify
from clarion.subscriptions import Subscriber

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
SECRET = new_secret()
MESSAGE = Message(UUID(int=9), "project:created", NOW, 1, 2, '{"project": {}}')
DELIVEREE = WebhookDeliveree(
    uuid=UUID(int=1), name="hook", secrets=(SECRET,), url="https://example.com/hook", timeout=7
)


def judge(status, **headers):
    answer = Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, b"", 0.1)
    (outcome,) = DELIVEREE.judge([MESSAGE], answer, NOW)
    return outcome


def test_the_request_is_the_format_s_body_signed_for_this_attempt():
    request = DELIVEREE.request([MESSAGE], NOW)
    assert (request.method, request.url, request.timeout) == ("POST", "https://example.com/hook", 7)
    assert request.verify_tls
    assert json.loads(request.body)["data"] == {"project": {}}
    verify([SECRET], request.headers, request.body, NOW)
    assert request.headers["webhook-attempt"] == "2"


def test_format_content_type_and_tls_are_its_own():
    deliveree = replace(DELIVEREE, format="orchest", content_type=FORM, verify_ssl=False)
    request = deliveree.request([MESSAGE], NOW)
    assert not request.verify_tls
    assert request.headers["content-type"] == FORM
    assert request.body.startswith(b"delivered_for=")
    assert b"verify_ssl%22%3A+false" in request.body


@pytest.mark.parametrize("count", [0, 2])
def test_one_message_a_request(count):
    assert DELIVEREE.batch == 1
    with pytest.raises(ValueError, match="one message"):
        DELIVEREE.request([MESSAGE] * count, NOW)


def test_secrets_are_not_shown():
    assert SECRET not in repr(DELIVEREE)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_delivered(status):
    assert judge(status) == Delivered()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (300, Reason.REDIRECT), (301, Reason.REDIRECT), (304, Reason.REDIRECT), (308, Reason.REDIRECT),
        (400, Reason.HTTP_4XX), (401, Reason.HTTP_4XX), (404, Reason.HTTP_4XX), (499, Reason.HTTP_4XX),
        (429, Reason.THROTTLED), (500, Reason.HTTP_5XX), (503, Reason.HTTP_5XX), (599, Reason.HTTP_5XX),
        (101, Reason.PROTOCOL), (600, Reason.PROTOCOL), (999, Reason.PROTOCOL),
    ],
)  # fmt: skip
def test_what_is_tried_again(status, reason):
    outcome = judge(status)
    assert isinstance(outcome, Retry)
    assert outcome.reason is reason
    assert str(status) in outcome.detail


def test_410_is_dead():
    assert judge(410) == Dead(Reason.GONE, "The receiver answered 410 Gone: it wants no more.")


def test_a_redirect_says_where_to_and_what_to_do():
    assert (
        "to https://new.example/: redirects are never followed"
        in judge(301, location="https://new.example/").detail
    )


def test_retry_after_is_heard_from_429_and_503_alone():
    assert judge(429, retry_after="120").after == 120
    assert judge(503, retry_after="Tue, 24 Nov 2026 09:01:00 GMT").after == 60
    assert judge(503, retry_after="whenever").after is None
    assert judge(500, retry_after="120").after is None


@given(st.sampled_from(Reason), st.text())
def test_no_answer_is_tried_again_even_when_blocked(reason, message):
    assert list(DELIVEREE.judge([MESSAGE], Failure(reason, message, 0.1), NOW)) == [Retry(reason, message)]


def webhook(**changes):
    return Webhook(**({"name": "hook", "url": "https://example.com/hook", "created_at": NOW} | changes))


def test_the_defaults_make_a_usable_webhook():
    deliveree = webhook().deliveree()
    assert deliveree == WebhookDeliveree(
        uuid=deliveree.uuid,
        name="hook",
        secrets=deliveree.secrets,
        content_type=JSON,
        verify_ssl=True,
        url="https://example.com/hook",
        format="standard",
        timeout=15.0,
    )
    request = deliveree.request([MESSAGE], NOW)
    verify(deliveree.secrets, request.headers, request.body, NOW)
    assert webhook().secret != webhook().secret


WRONG = [
    ({"url": None}, InvalidAddress),
    ({"url": 5}, InvalidAddress),
    ({"url": "example.com"}, InvalidAddress),
    ({"url": "https://user@example.com/"}, InvalidAddress),
    ({"url": "http://2130706433/"}, InvalidAddress),
    ({"secret": ""}, InvalidSecret),
    ({"secret": "  "}, InvalidSecret),
    ({"secret": None}, InvalidSecret),
    ({"secret": "short"}, InvalidSecret),
    ({"secret": "whsec_!!!"}, InvalidSecret),
    ({"secret": "a\nb", "format": "orchest"}, InvalidSecret),
    ({"secret": "a" * 256, "format": "orchest"}, InvalidSecret),
    ({"format": "nope"}, InvalidSubscriber),
    ({"format": None}, InvalidSubscriber),
    ({"content_type": FORM}, InvalidSubscriber),
    ({"content_type": "text/plain", "format": "orchest"}, InvalidSubscriber),
    ({"content_type": None}, InvalidSubscriber),
    ({"verify_ssl": "yes"}, InvalidSubscriber),
    ({"verify_ssl": None}, InvalidSubscriber),
    ({"timeout": 0.5}, InvalidSubscriber),
    ({"timeout": 31}, InvalidSubscriber),
    ({"timeout": True}, InvalidSubscriber),
    ({"timeout": "5"}, InvalidSubscriber),
    ({"timeout": float("nan")}, InvalidSubscriber),
    ({"name": ""}, InvalidSubscriber),
]


@pytest.mark.parametrize(("changes", "error"), WRONG, ids=[str(changes)[:40] for changes, _ in WRONG])
def test_what_no_delivery_could_use_is_refused(changes, error):
    with pytest.raises(error) as caught:
        webhook(**changes)
    assert isinstance(caught.value, InvalidInput)


def test_a_url_is_needed():
    with pytest.raises(InvalidAddress, match="has a URL"):
        Webhook(name="hook", created_at=NOW)


def test_any_secret_text_signs_the_original_format():
    own = webhook(format="orchest", secret="hunter2 and more", content_type=FORM)
    assert own.deliveree().secrets == ("hunter2 and more",)


def test_a_webhook_is_stored_and_read_back_as_one(engine: Engine):
    with Session(engine) as session:
        session.add(webhook(verify_ssl=False, timeout=3))
        session.commit()
    with Session(engine) as session:
        (stored,) = session.scalars(select(Subscriber)).all()
        assert isinstance(stored, Webhook)
        deliveree = stored.deliveree()
    assert (deliveree.url, deliveree.verify_ssl, deliveree.timeout) == (
        "https://example.com/hook",
        False,
        3.0,
    )


def test_a_change_that_does_not_go_together_is_refused_when_flushed(engine: Engine):
    with Session(engine) as session:
        stored = webhook()
        session.add(stored)
        session.commit()
        stored.content_type = FORM
        with pytest.raises(InvalidSubscriber, match="standard"):
            session.flush()
        session.rollback()
        stored.format, stored.content_type = "orchest", FORM
        session.commit()


def test_the_database_itself_refuses_half_a_webhook(engine: Engine):
    row = {
        "uuid": UUID(int=1),
        "kind": "webhook",
        "name": "half",
        "created_at": NOW,
        "url": "https://example.com/",
    }
    with engine.connect() as connection, pytest.raises(IntegrityError, match="ck_subscribers_webhook"):
        connection.execute(insert(Subscriber.__table__).values(**row))
