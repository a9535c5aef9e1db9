import hashlib
import hmac
import json
from datetime import UTC, datetime
from urllib.parse import parse_qs
from uuid import UUID

import pytest

from clarion.errors import InvalidSecret
from clarion.formats import FORM, JSON, Addressee
from clarion.formats.orchest import Orchest
from clarion.messages import Message

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
MESSAGE = Message(UUID(int=9), "project:created", NOW, 1, 2, '{"project": {"name": "a&b=c é"}}')
DELIVERED_FOR = {
    "uuid": "00000000-0000-0000-0000-000000000001",
    "type": "webhook",
    "name": "My é hook",
    "verify_ssl": False,
}


def to(content_type):
    return Addressee(UUID(int=1), "My é hook", ("any secret", "older"), content_type, False)


def test_json():
    body = json.loads(Orchest().body(MESSAGE, to(JSON)))
    assert body == {
        "delivered_for": DELIVERED_FOR | {"content_type": JSON},
        "event": {"project": {"name": "a&b=c é"}},
    }


def test_a_form_has_the_same_two_fields_as_json_texts():
    fields = parse_qs(Orchest().body(MESSAGE, to(FORM)).decode("ascii"), strict_parsing=True)
    assert set(fields) == {"delivered_for", "event"}
    assert json.loads(fields["delivered_for"][0]) == DELIVERED_FOR | {"content_type": FORM}
    assert fields["event"] == [MESSAGE.notification]


@pytest.mark.parametrize("content_type", [JSON, FORM])
def test_the_headers_an_existing_receiver_expects(content_type):
    body = Orchest().body(MESSAGE, to(content_type))
    headers = Orchest().headers(MESSAGE, to(content_type), body, NOW)
    assert headers["content-type"] == content_type
    assert headers["X-Orchest-Event"] == "project:created"
    assert headers["X-Orchest-Delivery"] == "00000000-0000-0000-0000-000000000009"
    assert headers["X-Hub-Signature"] == hmac.new(b"any secret", body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("secret", ["", "  "])
def test_an_empty_secret_is_refused(secret):
    with pytest.raises(InvalidSecret):
        Orchest().check_secret(secret)
    Orchest().check_secret("x")
