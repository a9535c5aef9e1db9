"""Three wire formats become the same arrivals; anything else is refused, never a crash."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.collector import wire
from clarion.collector.decode import Undecodable
from clarion.collector.wire import Unauthorized
from tests.clarion.collector.sample import CREATED, KEY, event

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def one(body: Any, **query: str) -> wire.Arrival:
    return wire.posthog_v0(body, query, NOW).arrivals[0]


@pytest.mark.parametrize(
    "given",
    [
        {"api_key": KEY, "batch": [event()]},
        {"token": f" {KEY} ", "batch": [event()]},
        [event() | {"$token": KEY}, event()],
        event() | {"api_key": KEY},
        event() | {"properties": {"token": KEY, "distinct_id": "x"}},
    ],
)
def test_the_key_is_found_wherever_a_client_puts_it(given: Any) -> None:
    assert wire.posthog_v0(given, {}, NOW).token == KEY


@pytest.mark.parametrize("token", ["", "x" * 65, "key\0", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused(token: str) -> None:
    with pytest.raises(Unauthorized):
        wire.posthog_v0({"api_key": token, "batch": [event()]}, {}, NOW)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a", "a"), (7, "7"), ("  a  ", "a"), ("x" * 300, "x" * 200), ({"a": 1}, "{'a': 1}"), (True, "True")],
)
def test_any_distinct_id_is_text_of_at_most_200(given: Any, expected: str) -> None:
    assert one(event() | {"api_key": KEY, "distinct_id": given}).distinct_id == expected


@pytest.mark.parametrize(
    ("change", "query", "expected"),
    [
        ({"timestamp": "2026-11-20T10:00:00Z"}, {}, NOW - timedelta(hours=2)),
        ({"timestamp": "2026-11-20T10:00:00+02:00"}, {}, NOW - timedelta(hours=4)),
        ({"timestamp": "2026-11-20T10:00:00"}, {}, NOW - timedelta(hours=2)),
        (
            {"timestamp": "2026-11-20T10:00:00Z"},
            {"sent_at": "2026-11-20T10:00:05Z"},
            NOW - timedelta(seconds=5),
        ),
        ({"timestamp": "2026-11-20T10:00:00Z"}, {"_": "1795168805000"}, NOW - timedelta(seconds=5)),
        ({"timestamp": "2030-01-01T00:00:00Z"}, {}, NOW + timedelta(hours=23)),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, {}, NOW),
        ({"timestamp": "1999-01-01T00:00:00Z"}, {}, datetime(2000, 1, 1, tzinfo=UTC)),
        ({"timestamp": None, "offset": 3000}, {}, NOW - timedelta(seconds=3)),
        ({"timestamp": "yesterday"}, {}, NOW),
        ({"timestamp": 12}, {"_": "²²²²²²²²²²²²²"}, NOW),
    ],
)
def test_when_it_happened(change: Any, query: dict[str, str], expected: datetime) -> None:
    assert one(event() | {"api_key": KEY} | change, **query).occurred_at == expected


def test_the_id_is_the_clients_or_a_fresh_one() -> None:
    assert one(event() | {"api_key": KEY, "uuid": "abc"}).id == "abc"
    first, second = (one(event() | {"api_key": KEY, "uuid": ""}).id for _ in range(2))
    assert first != second


def test_segment_reads_library_and_nothing_else_of_the_context() -> None:
    context = {"library": {"name": "analytics-python", "version": "2.4.0"}, "ip": "203.0.113.7", "ada": 1}
    message = {"event": CREATED, "userId": "u", "anonymousId": "a", "context": context, "messageId": "m"}
    arrival = wire.segment(message, "track", KEY, NOW).arrivals[0]
    assert (arrival.event, arrival.distinct_id, arrival.id) == (CREATED, "a", "m")
    assert (arrival.library, arrival.library_version) == ("segment-python", "2.4.0")
    assert set(arrival.dropped) == {"context.library", "context.ip", "context.*"}
    assert arrival.properties == {}


def test_segment_identify_carries_no_traits() -> None:
    arrival = wire.segment({"userId": "u", "traits": {"email": "a@b.c"}}, "identify", KEY, NOW).arrivals[0]
    assert (arrival.event, arrival.properties) == ("identify", {})


KEYS = """
    batch event distinct_id properties timestamp uuid offset token api_key sent_at
    type userId messageId context library name options sentAt writeKey
"""


# Found by the fuzzing below, kept here.
def test_a_type_that_is_no_text_is_only_a_broken_message() -> None:
    arrival = wire.segment({"batch": [{"type": [], "userId": "u"}]}, "batch", KEY, NOW).arrivals[0]
    assert arrival.problem == "missing event"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(KEYS.split()), children, max_size=4)
    ),
    max_leaves=25,
)


@given(json_values, st.dictionaries(st.sampled_from(["_", "sent_at", "token"]), st.text(max_size=20)))
def test_any_json_is_read_or_refused(body: Any, query: dict[str, str]) -> None:
    for read in (
        lambda: wire.posthog_v0(body, query, NOW),
        lambda: wire.posthog_v1(body, f"Bearer {KEY}", "x/y", "then", NOW)[0],
        lambda: wire.segment(body, "batch", KEY, NOW),
        lambda: wire.segment(body, "track", "", NOW),
    ):
        try:
            envelope = read()
        except (Undecodable, Unauthorized):
            continue
        assert envelope.arrivals
        assert all(arrival.occurred_at.tzinfo is UTC for arrival in envelope.arrivals)
