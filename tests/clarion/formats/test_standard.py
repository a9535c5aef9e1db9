import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

from standardwebhooks import Webhook as Oracle

from clarion import __version__
from clarion.formats import Addressee
from clarion.formats.standard import Standard
from clarion.messages import Message
from clarion.signing import new_secret

OLD, NEW = new_secret(), new_secret()
TO = Addressee(UUID(int=1), "n", (NEW, OLD))


def message(**changes):
    values = {
        "uuid": UUID("0199b8a0-0000-7000-8000-000000000001"),
        "type": "project:created",
        "occurred_at": datetime(2026, 11, 24, 10, 0, 0, 5000, tzinfo=timezone(timedelta(hours=1))),
        "sequence": 12,
        "attempt": 3,
        "notification": '{"project": {"name":  "Zoë"}}',
    }
    return Message(**(values | changes))


def test_the_body_to_the_byte():
    assert Standard().body(message(), TO).decode() == (
        '{"type":"project:created","timestamp":"2026-11-24T09:00:00.005000Z","sequence":12,'
        '"data":{"project": {"name":  "Zoë"}}}'
    )


def test_no_sequence_is_no_field():
    assert "sequence" not in json.loads(Standard().body(message(sequence=None), TO))


def test_the_headers():
    now = datetime(2026, 11, 24, 9, 1, tzinfo=UTC)
    headers = Standard().headers(message(), TO, b"{}", now)
    signatures = headers.pop("webhook-signature").split(" ")
    assert [signature[:3] for signature in signatures] == ["v1,", "v1,"]
    assert headers == {
        "content-type": "application/json; charset=utf-8",
        "user-agent": f"Clarion-Webhooks/{__version__}",
        "webhook-id": "msg_0199b8a0000070008000000000000001",
        "webhook-timestamp": "1795510860",
        "webhook-attempt": "3",
    }


def test_the_public_library_verifies_it_with_the_new_and_the_old_secret():
    body = Standard().body(message(), TO)
    headers = Standard().headers(message(), TO, body, datetime.now(UTC))
    for secret in (NEW, OLD):
        assert Oracle(secret).verify(body, headers)["data"]["project"]["name"] == "Zoë"
