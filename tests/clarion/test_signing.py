import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Oracle
from standardwebhooks import WebhookVerificationError

from clarion.errors import InvalidSecret, VerificationError
from clarion.signing import decode_secret, new_secret, sign, sign_hex, verify, verify_hex

NOW = datetime(2026, 11, 24, 9, 0, 0, 250_000, tzinfo=UTC)
OLD, NEW = new_secret(), new_secret()
BODY = '{"type":"a:b","data":{"name":"zoë \\u00fc"}}'.encode()


def headers(secrets=(NEW,), message_id="msg_1", at=NOW, body=BODY):
    timestamp, signature = sign(secrets, message_id, at, body)
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


def test_a_new_secret_holds_32_random_bytes():
    assert len(decode_secret(new_secret())) == 32
    assert new_secret() != new_secret()


def test_what_is_signed_here_verifies_here():
    verified = verify([NEW], headers(), BODY, NOW)
    assert verified.id == "msg_1"
    assert verified.sent_at == NOW.replace(microsecond=0)


def test_the_public_library_verifies_what_is_signed_here():
    now = datetime.now(UTC)  # the oracle reads its own clock
    signed = headers((NEW, OLD), at=now)
    for secret in (NEW, OLD):
        assert Oracle(secret).verify(BODY, signed)["type"] == "a:b"
    with pytest.raises(WebhookVerificationError):
        Oracle(new_secret()).verify(BODY, signed)


def test_what_the_public_library_signs_verifies_here():
    signature = Oracle(NEW).sign("msg_1", NOW, BODY.decode())
    received = headers() | {"webhook-signature": signature}
    assert verify([OLD, NEW], received, BODY, NOW).id == "msg_1"


def test_the_example_of_the_specification():
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    at = datetime.fromtimestamp(1614265330, UTC)
    timestamp, signature = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}')
    assert timestamp == "1614265330"
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_any_zone_signs_the_same_moment_and_a_naive_time_is_refused():
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    assert headers(at=east) == headers()
    with pytest.raises(ValueError, match="aware"):
        sign([NEW], "msg_1", NOW.replace(tzinfo=None), BODY)


def test_a_binary_body_and_any_header_case():
    body = b"\xff\xfe\x00"
    received = {name.title(): value for name, value in headers(body=body).items()}
    assert verify([NEW], received, body, NOW).id == "msg_1"


@pytest.mark.parametrize("seconds", [-300, -1, 0, 300])
def test_within_the_tolerance(seconds):
    at = NOW.replace(microsecond=0)
    verify([NEW], headers(at=at), BODY, at + timedelta(seconds=seconds))


@pytest.mark.parametrize(("seconds", "word"), [(301, "old"), (-301, "future")])
def test_outside_the_tolerance(seconds, word):
    at = NOW.replace(microsecond=0)
    with pytest.raises(VerificationError, match=word):
        verify([NEW], headers(at=at), BODY, at + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-id": "\udcff"},
        {"webhook-timestamp": "1e9"},
        {"webhook-timestamp": "1764000000.5"},
        {"webhook-timestamp": " 1795510800"},
        {"webhook-timestamp": "1" * 40},
        {"webhook-timestamp": "999999999999"},
        {"webhook-timestamp": "-5"},
        {"webhook-timestamp": "١٧٦٤"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,a,b,c"},
        {"webhook-signature": "v1,not base64 !"},
        {"webhook-signature": "v1,\udcff"},
        {"webhook-signature": "v2,AAAA"},
        {"webhook-signature": ",,, ,"},
        {"webhook-signature": b"v1,bytes"},
        {"webhook-signature": None},
    ],
)
def test_malformed_headers_are_a_verification_error(change):
    with pytest.raises(VerificationError):
        verify([NEW], headers() | change, BODY, NOW)


def test_odd_entries_beside_a_good_one_do_no_harm():
    good = headers()
    received = good | {"webhook-signature": f"v1 v1a,xyz v1,%% {good['webhook-signature']}  "}
    assert verify([NEW], received, BODY, NOW).id == "msg_1"


def test_a_changed_body_another_secret_and_no_secret():
    for secrets, body in [([NEW], BODY + b" "), ([OLD], BODY), ([], BODY)]:
        with pytest.raises(VerificationError, match="No signature"):
            verify(secrets, headers(), body, NOW)


@given(st.dictionaries(st.sampled_from(list(headers())), st.text(max_size=60)), st.binary(max_size=60))
def test_nothing_received_raises_anything_else(received, body):
    with pytest.raises(VerificationError):
        verify([NEW], received, body, NOW)


@given(st.text(max_size=80), st.text(max_size=80), st.binary(max_size=40))
def test_no_signature_text_raises_anything_else(signature, timestamp, body):
    for change in ({"webhook-signature": signature}, {"webhook-timestamp": timestamp + "x"}):
        with pytest.raises(VerificationError):
            verify([NEW], headers(body=body) | change, body, NOW)


@given(st.binary(min_size=24, max_size=64), st.binary(max_size=200), st.integers(0, 4_000_000_000))
def test_every_key_length_allowed_signs_and_verifies(key, body, seconds):
    secret = "whsec_" + base64.b64encode(key).decode()
    at = datetime.fromtimestamp(seconds, UTC)
    assert verify([secret], headers([secret], at=at, body=body), body, at).sent_at == at
    assert decode_secret(secret.rstrip("=")) == key  # padding may be left out


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_%%%%",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        base64.b64encode(b"x" * 32).decode(),
        "whsec_" + "é" * 40,
        "whsec_A",
    ],
)
def test_unusable_secrets_are_refused_without_being_repeated(secret):
    with pytest.raises(InvalidSecret) as caught:
        decode_secret(secret)
    rest = secret.removeprefix("whsec_")
    assert not rest or rest not in caught.value.message


def test_hex_signatures():
    assert sign_hex("key", b"The quick brown fox jumps over the lazy dog") == (
        "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
    )
    verify_hex("key", sign_hex("key", BODY), BODY)
    for secret, signature in [("other", sign_hex("key", BODY)), ("key", ""), ("key", "é\udcff")]:
        with pytest.raises(VerificationError):
            verify_hex(secret, signature, BODY)
