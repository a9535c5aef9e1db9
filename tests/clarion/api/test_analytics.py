"""The browser's relay: what it takes, what it refuses and how, and that nothing is ever a 500."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.testclient import TestClient

from clarion.api.analytics import MAX_BODY, MOST_DROPPED, TokenBuckets, analytics_router, preview_router
from clarion.losses import losses
from clarion.observe import counters
from clarion.outbox import Capture
from clarion.testing import FrozenClock, Receiver, drain
from tests.clarion.telemetry_sample import NOW, an_analytics, switched_on

GOOD = {"name": "cart", "articles": 3, "client": "1.2"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOW)


@pytest.fixture
def analytics(engine: Engine, clock: FrozenClock) -> Any:
    return an_analytics(engine, switched_on(engine, "http://127.0.0.1:9/"), clock=clock)


@pytest.fixture
def client(analytics: Any) -> Any:
    app = FastAPI()
    app.include_router(analytics_router(analytics, buckets=TokenBuckets(rate=1, burst=40)))
    app.include_router(preview_router(analytics))
    with TestClient(app) as client:
        yield client


def post(client: Any, body: Any, **headers: str) -> Any:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    return client.post(
        "/analytics", content=text, headers=JSON | {k.replace("_", "-"): v for k, v in headers.items()}
    )


def lost(engine: Engine) -> dict[str, int]:
    with Session(engine) as session:
        return losses(session)


def stored(engine: Engine) -> list[Any]:
    with Session(engine) as session:
        return [
            c.telemetry["event_properties"] for c in session.scalars(select(Capture).order_by(Capture.id))
        ]


def event(**changes: Any) -> dict[str, Any]:
    return {"event": "shop-window:opened", "properties": GOOD} | changes


def is_problem(answer: Any, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["type"]) == (status, "about:blank")
    assert body["title"]
    assert body["detail"]


def test_one_event_is_stored_before_the_answer(client: Any, engine: Engine) -> None:
    answer = post(client, event())
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "refused": 0})
    assert stored(engine) == [{"name": "cart", "articles": "2-5", "client": "1.2"}]


@pytest.mark.parametrize(
    "kind", ["text/plain", "text/plain;charset=UTF-8", "application/json; charset=utf-8"]
)
@pytest.mark.parametrize("path", ["/analytics", "/moments"])
def test_a_beacon_s_batch_is_taken(client: Any, engine: Engine, kind: str, path: str) -> None:
    body = {"events": [event(id=str(uuid4())), event(id=str(uuid4()))], "sent_at": "2026-01-01T00:00:00Z"}
    answer = client.post(path, content=json.dumps(body), headers={"content-type": kind})
    assert answer.json() == {"accepted": 2, "refused": 0}
    assert len(stored(engine)) == 2


def test_a_router_serves_starlette_too(analytics: Any) -> None:
    app = Starlette(routes=analytics_router(analytics).routes)
    with TestClient(app) as client:
        assert post(client, event()).json() == {"accepted": 1, "refused": 0}


def test_the_same_id_again_is_one_event(client: Any, engine: Engine) -> None:
    body = {"events": [event(id=str(uuid4()))]}
    assert post(client, body).json() == post(client, body).json() == {"accepted": 1, "refused": 0}
    assert len(stored(engine)) == 1


def test_when_it_happened_is_corrected_by_the_browser_s_clock(client: Any, engine: Engine) -> None:
    hour_ahead = "2026-01-01T01:00:00Z"
    body = {"events": [event(occurred_at="2026-01-01T00:59:30Z")], "sent_at": hour_ahead}
    assert post(client, body).status_code == 200
    far = {"events": [event(occurred_at="1970-01-01T00:00:00Z"), event(occurred_at="9999-12-31T23:59:59Z")]}
    assert post(client, far).status_code == 200
    with Session(engine) as session:
        times = session.scalars(select(Capture.occurred_at).order_by(Capture.id)).all()
    assert times == [NOW - timedelta(seconds=30), NOW - timedelta(days=1), NOW]


def test_one_bad_event_does_not_fail_its_batch(client: Any, engine: Engine) -> None:
    body = {
        "events": [event(), event(properties=GOOD | {"file": "secret.txt"}), event(event="shop-heartbeat")]
    }
    assert post(client, body).json() == {"accepted": 1, "refused": 2}
    assert len(stored(engine)) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("", 400),
        (b"\xff\xfe", 400),
        ("[]", 400),
        ("null", 400),
        ('"text"', 400),
        ({"events": []}, 400),
        ({"events": {}}, 400),
        ({"events": [1]}, 400),
        ('{"event": "shop-window:opened", "properties": {"articles": NaN}}', 400),
        ("[" * 50_000, 400),
        ('{"a":' * 9_000, 400),
        (event(event="shop-heartbeat", properties={"active": True}), 403),
        (event(event="shop:opened", properties={}), 403),
        ({"events": [event()] * 101}, 413),
        (" " * (MAX_BODY + 1), 413),
        (event(event="no:such"), 422),
        (event(event=7), 422),
        (event(event=None), 422),
        (event(properties=[]), 422),
        (event(properties=None), 422),
        (event(properties={}), 422),
        (event(properties=GOOD | {"path": "/home/ada"}), 422),
        (event(properties=GOOD | {"articles": "three"}), 422),
        (event(properties=GOOD | {"articles": True}), 422),
        (event(properties=GOOD | {"articles": -1}), 422),
        (event(properties=GOOD | {"articles": 2.5}), 422),
        (event(properties=GOOD | {"articles": {"a": {"b": 1}}}), 422),
        (event(properties=GOOD | {"client": "ada's laptop"}), 422),
    ],
)
def test_refusals_are_problems(client: Any, engine: Engine, body: Any, status: int) -> None:
    answer = post(client, body)
    is_problem(answer, status)
    assert "ada" not in answer.text
    assert stored(engine) == []


@pytest.mark.parametrize(
    ("sent", "label"),
    [
        (event(event="no:such"), "event 422 unknown event"),
        (event(event="shop-heartbeat", properties={"active": True}), "event 403 event of a server"),
        (event(properties=[]), "event 422 no properties"),
        (event(properties={}), "event 422 missing property"),
        (event(properties=GOOD | {"path": "/home/ada"}), "event 422 unknown property"),
        (event(properties={"path": "/home/ada"}), "event 422 unknown property"),
        (event(properties=GOOD | {"articles": "three"}), "event 422 wrong value"),
    ],
)
def test_refused_events_are_counted_by_what_was_wrong(client: Any, sent: Any, label: str) -> None:
    before = counters.value("telemetry_relay", label)
    assert post(client, {"events": [sent, event(), sent]}).json() == {"accepted": 1, "refused": 2}
    assert counters.value("telemetry_relay", label) == before + 2


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/xml"},
        {"content-type": ""},
        {"content-type": "multipart/form-data"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_another_kind_of_body_is_415(client: Any, headers: dict[str, str]) -> None:
    is_problem(client.post("/analytics", content=json.dumps(event()), headers=headers), 415)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://testserver"}, 200),
        ({"sec_fetch_site": "same-origin", "origin": "http://testserver"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site", "origin": "http://other.testserver"}, 403),
        ({"origin": "http://testserver.evil.example"}, 403),
    ],
)
def test_only_pages_of_this_origin_send(client: Any, headers: dict[str, str], status: int) -> None:
    answer = post(client, event(), **headers)
    assert answer.status_code == status
    if status == 403:
        is_problem(answer, 403)


def test_an_origin_can_be_allowed(analytics: Any) -> None:
    app = FastAPI()
    app.include_router(analytics_router(analytics, origins=["https://app.example"]))
    with TestClient(app) as client:
        answer = post(client, event(), origin="https://app.example", sec_fetch_site="cross-site")
        assert answer.status_code == 200


def test_a_client_that_calls_too_often_waits(client: Any, clock: FrozenClock) -> None:
    answers = [post(client, event()).status_code for _ in range(41)]
    assert answers == [200] * 40 + [429]
    answer = post(client, event())
    is_problem(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1
    clock.advance(seconds=2)
    assert post(client, event()).status_code == 200


def test_buckets_keep_a_bounded_number_of_clients_apart() -> None:
    buckets = TokenBuckets(rate=1, burst=2, clients=3)
    assert [buckets.wait("a", NOW) for _ in range(3)] == [0, 0, 1]
    assert buckets.wait("b", NOW) == 0
    assert buckets.wait("a", NOW + timedelta(seconds=0.5)) == pytest.approx(0.5)
    assert buckets.wait("a", NOW - timedelta(hours=1)) > 0  # a clock set back gives nothing
    for name in "cdef":
        buckets.wait(name, NOW)
    assert len(buckets._buckets) == 3


def test_by_itself_a_client_may_call_ten_times_a_second_and_a_hundred_times_at_once() -> None:
    buckets = TokenBuckets()
    assert [buckets.wait("a", NOW) for _ in range(100)] == [0] * 100
    assert buckets.wait("a", NOW) == pytest.approx(0.1)
    assert [buckets.wait("a", NOW + timedelta(seconds=1)) for _ in range(11)] == [0] * 10 + [0.1]


@pytest.mark.parametrize("header", ["sec_gpc", "dnt"])
def test_who_does_not_want_to_be_counted_is_not(client: Any, engine: Engine, header: str) -> None:
    answer = post(client, event(), **{header: "1"})
    assert (answer.status_code, answer.json()["accepted"]) == (200, 0)
    assert stored(engine) == []
    assert post(client, event(), **{header: "0"}).json()["accepted"] == 1


def test_off_is_accepted_without_effect(analytics: Any, client: Any, engine: Engine) -> None:
    analytics.telemetry.environ = {"TELEMETRY_DISABLED": "1"}
    answer = post(client, event())
    assert (answer.status_code, answer.json()) == (200, {"accepted": 0, "refused": 0})
    is_problem(post(client, "{"), 400)
    assert stored(engine) == []


def test_debugging_prints_what_browsers_send(
    analytics: Any, client: Any, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    analytics.telemetry.environ = {"TELEMETRY_DEBUG": "1"}
    answer = post(client, event())
    assert (answer.status_code, answer.json()) == (200, {"accepted": 0, "refused": 0})
    [printed] = json.loads(capsys.readouterr().err)["batch"]
    assert printed["event"] == "shop-window:opened"
    assert stored(engine) == []


def test_what_cannot_be_stored_is_to_be_sent_again(client: Any, engine: Engine) -> None:
    with Session(engine) as session:
        session.execute(text("ALTER TABLE captures RENAME TO away"))
        session.commit()
        answer = post(client, event())
        session.execute(text("ALTER TABLE away RENAME TO captures"))
        session.commit()
    is_problem(answer, 503)
    assert answer.headers["retry-after"]
    assert post(client, event()).json()["accepted"] == 1


def test_nothing_goes_upstream_inside_the_request(engine: Engine) -> None:
    with Receiver() as receiver:
        analytics = an_analytics(engine, switched_on(engine, receiver.url))
        app = FastAPI()
        app.include_router(analytics_router(analytics))
        with TestClient(app) as client:
            assert post(client, event()).status_code == 200
        assert receiver.received == []


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        VALUES.map(json.dumps),
        st.binary(max_size=60),
        st.builds(
            lambda e, p, i, t: json.dumps(
                {"events": [{"event": e, "properties": p, "id": i, "occurred_at": t}]}
            ),
            st.sampled_from(["shop-window:opened", "shop-heartbeat", "shop:opened", "x"]) | VALUES,
            st.fixed_dictionaries({"name": VALUES, "articles": VALUES, "client": VALUES}) | VALUES,
            VALUES,
            VALUES,
        ),
    )
)
def test_no_input_is_a_server_error(analytics: Any, body: Any) -> None:
    app = FastAPI()
    app.include_router(analytics_router(analytics))
    with TestClient(app) as client:
        answer = post(client, body)
    assert answer.status_code in (200, 400, 403, 413, 422), answer.text
    with Session(analytics.engine) as session:
        assert session.scalar(select(func.count()).select_from(Capture)) is not None


def test_preview_is_what_is_sent(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    with Receiver() as receiver:
        analytics = an_analytics(engine, switched_on(engine, receiver.url))
        app = FastAPI()
        app.include_router(analytics_router(analytics))
        app.include_router(preview_router(analytics))
        with TestClient(app) as client:
            is_problem(client.get("/api/telemetry/preview"), 404)
            is_problem(client.get("/api/telemetry/preview?type=no:such"), 404)
            for _ in range(3):
                post(client, event())
            shown = client.get("/api/telemetry/preview").content
            one = client.get("/api/telemetry/preview?type=shop:order:placed").json()
        drain(engine, clock=FrozenClock(NOW))
        assert receiver.received[0].body == shown
    assert one["batch"][0]["properties"]["event_properties"]["shop"]["order"]["uuid"] == "0" * 32


def test_what_a_browser_lost_is_counted_with_its_batch(client: Any, engine: Engine) -> None:
    assert post(client, {"events": [event()], "dropped": 7}).json() == {"accepted": 1, "refused": 0}
    assert lost(engine) == {"browser_dropped": 7}
    assert post(client, {"events": [event()], "dropped": 10**9}).status_code == 200
    assert lost(engine) == {"browser_dropped": 7 + MOST_DROPPED}
    for nonsense in (-1, 0, True, 1.5, "9", None, [9], {"n": 9}):
        assert post(client, {"events": [event()], "dropped": nonsense}).status_code == 200
    assert lost(engine) == {"browser_dropped": 7 + MOST_DROPPED}


def test_what_is_refused_is_counted_and_only_while_it_is_on(
    client: Any, engine: Engine, analytics: Any
) -> None:
    assert post(client, event(event="no:such")).status_code == 422
    assert post(client, event(properties={})).status_code == 422
    assert lost(engine) == {"schema_reject": 2}
    analytics.telemetry.environ = {"TELEMETRY_DISABLED": "1"}
    assert post(client, {"events": [event(event="no:such")], "dropped": 3}).status_code == 200
    assert lost(engine) == {"schema_reject": 2}
