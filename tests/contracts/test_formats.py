"""What every webhook format promises. A format that is registered without an entry here fails."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.errors import InvalidEvent, InvalidSecret
from clarion.formats import FORM, JSON, Addressee, Format, formats
from clarion.messages import Message
from clarion.signing import new_secret, verify, verify_hex
from clarion.testing import FormatContract

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
SECRET = new_secret()
PAYLOAD: dict[str, Any] = {
    "uuid": "e", "type": "project:created", "project": {"name": 'Zoë\'s "own" </script> & 50% +1 \u2028'},
}  # fmt: skip
MESSAGE = Message(
    uuid=UUID("0199b8a0-0000-7000-8000-000000000001"),
    type="project:created",
    occurred_at=NOW - timedelta(seconds=3),
    sequence=7,
    attempt=1,
    notification=json.dumps(PAYLOAD, ensure_ascii=False),
)


def standard_verifies(headers: dict[str, str], body: bytes, now: datetime) -> None:
    verify([SECRET], headers, body, now)


def orchest_verifies(headers: dict[str, str], body: bytes, now: datetime) -> None:
    verify_hex(SECRET, headers["X-Hub-Signature"], body)


VERIFIERS: dict[str, Callable[[dict[str, str], bytes, datetime], None]] = {
    "standard": standard_verifies,
    "orchest": orchest_verifies,
}

CASES = [(format, content_type) for format in formats() for content_type in format.content_types]


def addressee(content_type: str) -> Addressee:
    return Addressee(UUID(int=5), 'Ops "one" é', (SECRET, new_secret()), content_type, True)


def read(body: bytes, content_type: str) -> Any:
    if content_type == FORM:
        return {
            name: json.loads(value) for name, value in parse_qsl(body.decode("ascii"), strict_parsing=True)
        }
    assert content_type == JSON
    return json.loads(body)


class TestPublicContract(FormatContract):
    """The suite that authors of other formats run."""

    @pytest.fixture(autouse=True, params=formats(), ids=lambda format: format.name)
    def _made(self, request: pytest.FixtureRequest) -> None:
        self.format: Format = request.param

    def make(self) -> Format:
        return self.format

    def verifies(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        if self.format.name == "standard":
            verify([self.SECRET], headers, body, now)
        else:
            verify_hex(self.SECRET, headers["X-Hub-Signature"], body)


each_case = pytest.mark.parametrize(
    ("format", "content_type"), CASES, ids=[f"{format.name}-{content_type}" for format, content_type in CASES]
)


@each_case
def test_the_body_is_the_same_bytes_over_attempts(format: Format, content_type: str) -> None:
    bodies = {format.body(replace(MESSAGE, attempt=n), addressee(content_type)) for n in (1, 2, 10)}
    assert len(bodies) == 1


@each_case
def test_the_body_holds_the_frozen_notification(format: Format, content_type: str) -> None:
    body = format.body(MESSAGE, addressee(content_type))
    assert PAYLOAD in read(body, content_type).values()


@each_case
def test_every_attempt_is_signed_so_that_it_verifies(format: Format, content_type: str) -> None:
    body = format.body(MESSAGE, addressee(content_type))
    for attempt, now in [(1, NOW), (4, NOW + timedelta(hours=3))]:
        headers = format.headers(replace(MESSAGE, attempt=attempt), addressee(content_type), body, now)
        VERIFIERS[format.name](headers, body, now)
        with pytest.raises(Exception, match="sign"):
            VERIFIERS[format.name](headers, body + b" ", now)


@each_case
def test_headers_can_be_sent_and_name_what_they_carry(format: Format, content_type: str) -> None:
    headers = format.headers(MESSAGE, addressee(content_type), b"{}", NOW)
    lowered = {name.lower(): value for name, value in headers.items()}
    assert len(lowered) == len(headers)
    assert lowered["content-type"].split(";")[0] == content_type
    assert lowered["user-agent"].startswith("Clarion-Webhooks/")
    for name, value in headers.items():
        assert name.isascii()
        assert value.isascii()
        assert value.isprintable()
    assert not {"host", "content-length", "transfer-encoding"} & set(lowered)


@each_case
def test_the_identity_of_a_message_is_constant_over_attempts(format: Format, content_type: str) -> None:
    first, later = (
        format.headers(replace(MESSAGE, attempt=n), addressee(content_type), b"{}", NOW + timedelta(hours=n))
        for n in (1, 5)
    )
    same = {name for name in first if first[name] == later[name]}
    identity = {value for name, value in first.items() if name in same}
    assert {MESSAGE.id, str(MESSAGE.uuid)} & identity


@each_case
def test_a_message_without_notification_is_refused(format: Format, content_type: str) -> None:
    with pytest.raises(InvalidEvent, match="no notification"):
        format.body(replace(MESSAGE, notification=None), addressee(content_type))


@each_case
def test_an_empty_secret_is_refused(format: Format, content_type: str) -> None:
    format.check_secret(SECRET)
    with pytest.raises(InvalidSecret):
        format.check_secret("")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)


@each_case
@given(
    payload=st.dictionaries(st.text(st.characters(codec="utf-8")), JSON_VALUES, min_size=1),
    type=st.text(),
    at=st.datetimes(timezones=st.just(UTC)),
    sequence=st.none() | st.integers(1, 2**63),
    ascii=st.booleans(),
)
def test_any_payload_is_carried_as_it_is(
    format: Format,
    content_type: str,
    payload: Any,
    type: str,
    at: datetime,
    sequence: int | None,
    ascii: bool,
) -> None:
    message = replace(
        MESSAGE,
        notification=json.dumps(payload, ensure_ascii=ascii), type=type, occurred_at=at, sequence=sequence,
    )  # fmt: skip
    body = read(format.body(message, addressee(content_type)), content_type)
    assert payload in body.values()


def test_no_secret_is_shown() -> None:
    assert SECRET not in repr(addressee(JSON))
