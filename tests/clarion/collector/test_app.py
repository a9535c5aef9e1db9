"""A collector process as its clients meet it: what it answers, keeps, refuses, survives and never stores."""

import asyncio
import base64
import gzip
import hashlib
import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from clarion.collector import edge
from clarion.collector.decode import Undecodable
from tests.clarion.collector.conftest import Service, until
from tests.clarion.collector.sample import CREATED, FAILED, KEY, PROJECT, batch, event, properties

V0 = ["/batch", "/batch/", "/capture/", "/e/", "/i/v0/e/", "/track/"]
SEGMENT = ["/v1/batch", "/v1/import"]


def stored_bytes(service: Service) -> bytes:
    """Everything the process has written anywhere, after a clean stop."""
    service.settle()
    service.stop()
    files = [path.read_bytes() for path in service.data.rglob("*") if path.is_file()]
    return b"\n".join([*files, service.errors.read_bytes()])


@pytest.mark.parametrize("path", V0)
def test_every_posthog_path_answers_200_with_json(shared: Service, path: str) -> None:
    answer = shared.http.post(path, json=batch(event(CREATED, path)))
    assert (answer.status_code, answer.json()) == (200, {"status": "Ok"})
    assert answer.headers["content-type"] == "application/json"
    assert len(shared.export(path)) == 1


@pytest.mark.parametrize("path", SEGMENT)
def test_segment_answers_success(shared: Service, path: str) -> None:
    message = {
        "type": "track",
        "event": CREATED,
        "anonymousId": path,
        "messageId": f"node-next-1-{uuid.uuid4()}",
        "properties": properties(),
    }
    answer = shared.http.post(path, json={"batch": [message, message]}, auth=(KEY, ""))
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert len(shared.export(path)) == 1


def test_what_a_segment_client_measures_of_itself_is_taken_and_dropped(shared: Service) -> None:
    before = shared.ask("events")["events"]
    series = {"series": [{"type": "Counter", "metric": "analytics_js.invoke", "value": 1, "tags": {}}]}
    headers = {"content-type": "text/plain", "origin": "https://shop.example"}
    answer = shared.http.post("/v1/m", content=json.dumps(series), headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert shared.ask("events")["events"] == before


def test_a_batch_may_be_as_large_as_rudderstack_s_clients_send_it(service: Service) -> None:
    context = {"traits": "x" * 30_000}
    message = {"type": "track", "event": CREATED, "anonymousId": "large", "context": context}
    messages = [message | {"messageId": str(n), "properties": properties()} for n in range(132)]
    body = json.dumps({"batch": messages}).encode()
    assert 4_000_000 < len(body) < 4 * 1024 * 1024
    answer = service.http.post("/v1/batch", content=body, auth=(KEY, ""))
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert len(service.export("large")) == 132


def test_a_list_a_single_event_and_a_get_are_taken_too(service: Service) -> None:
    single = event() | {"api_key": KEY}
    data = base64.b64encode(json.dumps(event() | {"token": KEY}).encode()).decode()
    assert service.http.post("/e/", json=[single, event() | {"api_key": KEY}]).status_code == 200
    assert service.http.post("/capture", json=event() | {"$token": KEY}).status_code == 200
    assert service.http.get("/e/", params={"data": data}).status_code == 200
    assert len(service.export("installation-1")) == 4


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"api_key": "unknown-key-of-nobody", "batch": [event()]}, 401),
        ({"batch": [event()]}, 401),
        ({"api_key": KEY, "batch": [event() | {"token": "another-key"}]}, 401),
        ({"api_key": KEY, "batch": []}, 400),
        ({"api_key": KEY, "batch": "x"}, 400),
        ({"api_key": KEY, "distinct_id": "a", "properties": {}}, 400),
        ({"api_key": KEY, "event": CREATED, "properties": {}}, 400),
        ("text", 400),
    ],
)
def test_refusals(shared: Service, body: Any, status: int) -> None:
    before = shared.ask("events")["events"]
    answer = shared.http.post("/batch/", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/plain")
    assert shared.ask("events")["events"] == before


def test_v1_errors_are_json_and_encodings_it_does_not_know_415(shared: Service) -> None:
    answer = shared.http.post("/i/v1/analytics/events", json={"batch": [event()]})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    headers = {"Authorization": f"Bearer {KEY}", "Content-Encoding": "compress"}
    assert shared.http.post("/i/v1/analytics/events", content=b"x", headers=headers).status_code == 415


def test_v1_gives_a_verdict_for_each_event(shared: Service) -> None:
    good, bad, nobody = event(), event(CREATED, note="x"), event() | {"distinct_id": "anonymous"}
    headers = {"Authorization": f"Bearer {KEY}", "PostHog-Sdk-Info": "posthog-python/7.91.1"}
    answer = shared.http.post(
        "/i/v1/analytics/events", json={"batch": [good, bad, nobody, "junk"]}, headers=headers
    )
    results = answer.json()["results"]
    assert results[good["uuid"]] == {"result": "ok"}
    assert results[bad["uuid"]] == {"result": "drop", "details": "unknown property"}
    assert results[nobody["uuid"]]["result"] == "drop"
    assert len(results) == 3


def test_the_edge_lets_in_no_address_and_only_listed_headers() -> None:
    scope = {
        "type": "http",
        "path": "/batch",
        "client": ("203.0.113.7", 4711),
        "headers": [(b"user-agent", b"ada"), (b"cookie", b"ada"), (b"content-type", b"application/json")],
    }
    assert edge.narrowed(scope) == {
        "type": "http",
        "path": "/batch",
        "client": None,
        "headers": [(b"content-type", b"application/json")],
    }
    assert not edge.HEADERS & {b"user-agent", b"cookie", b"referer", b"x-forwarded-for", b"forwarded"}


def test_one_bad_event_never_fails_its_batch(service: Service) -> None:
    bad: list[Any] = [
        event(FAILED, trigger="nonsense"),
        event("no:such"),
        {"event": CREATED, "properties": properties()},
        {"distinct_id": "a"},
        "text",
        None,
        event() | {"properties": "x"},
        event(FAILED, step_count=10**30),
    ]
    answer = service.http.post("/batch/", json={"api_key": KEY, "batch": [*bad, event()]})
    assert (answer.status_code, answer.json()["quarantined"]) == (200, 8)
    assert len(service.export("installation-1")) == 1
    raw = json.dumps(batch(event(), event(FAILED, step_count=float("nan")))).encode()
    assert service.http.post("/batch/", content=raw).json()["quarantined"] == 1


def test_what_is_sent_twice_is_kept_once_and_counted(service: Service) -> None:
    one = event()
    assert [service.send(one, one).status_code, service.send(one).status_code] == [200, 200]
    assert len(service.export("installation-1")) == 1
    assert {"name": "duplicate", "label": "", "count": 2} in service.ask("counters")["counters"]


def test_time_is_corrected_by_what_the_client_thinks_it_is(service: Service) -> None:
    sent = batch(event() | {"timestamp": "2020-01-01T00:00:00Z"}) | {"sent_at": "2020-01-01T00:00:10Z"}
    assert service.http.post("/batch/", json=sent).status_code == 200
    (one,) = service.export("installation-1")
    from datetime import datetime

    moments = [datetime.fromisoformat(one[name]) for name in ("occurred_at", "received_at")]
    assert (moments[1] - moments[0]).total_seconds() == pytest.approx(10, abs=0.01)


def test_side_requests_of_browsers_are_answered(shared: Service) -> None:
    preflight = shared.http.options(
        "/batch/", headers={"Origin": "https://o.example", "Access-Control-Request-Headers": "content-type"}
    )
    assert preflight.headers["access-control-allow-origin"] == "https://o.example"
    assert preflight.headers["access-control-allow-headers"] == "content-type"
    assert shared.http.get(f"/array/{KEY}/config").json()["sessionRecording"] is False
    assert shared.http.get(f"/array/{KEY}/config.js").status_code == 200
    assert shared.http.post("/flags/?v=2", json={"token": KEY}).json()["featureFlags"] == {}
    assert shared.http.get("/static/recorder.js").headers["content-type"].startswith("application/javascript")
    missing = shared.http.get("/nowhere")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


def test_too_large_is_413_whether_announced_or_not(shared: Service) -> None:
    body = b" " * (21 * 1024 * 1024)
    assert shared.http.post("/batch/", content=body).status_code == 413
    assert shared.http.post("/batch/", content=iter([body])).status_code == 413
    bomb = gzip.compress(b" " * (80 * 1024 * 1024))
    assert shared.http.post("/batch/", content=bomb).status_code == 413
    assert shared.send(event()).status_code == 200


def test_a_big_batch_is_taken(service: Service) -> None:
    body = gzip.compress(json.dumps(batch(*(event(FAILED) for _ in range(8000)))).encode())
    assert service.http.post("/batch/", content=body).json() == {"status": "Ok"}
    assert len(service.export("installation-1")) == 8000


async def test_a_body_that_never_comes_is_given_up() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("never")

    with pytest.raises(Undecodable) as refused:
        await edge.body_of(receive, 100, seconds=0.01)
    assert refused.value.status == 408


def test_health_readiness_and_metrics(service: Service) -> None:
    service.send(event())
    service.settle()
    assert service.http.get("/healthz").json() == {"status": "ok"}
    assert service.http.get("/readyz").json() == {"status": "ready"}
    text = service.http.get("/metrics").text
    assert 'collector_requests_total{format="v0",status="200"} 1' in text
    assert "collector_events_loaded_total 1" in text


def test_killed_at_any_moment_nothing_acknowledged_is_lost(service: Service) -> None:
    acknowledged: list[str] = []

    def send(client: httpx.Client, ends: threading.Event) -> None:
        while not ends.is_set():
            one = event()
            try:
                if client.post("/batch/", json=batch(one)).status_code == 200:
                    acknowledged.append(one["uuid"])
            except httpx.TransportError:
                return

    for round_ in range(4):
        before, ends = len(acknowledged), threading.Event()
        with httpx.Client(base_url=service.url) as client:
            threads = [threading.Thread(target=send, args=(client, ends)) for _ in range(4)]
            for thread in threads:
                thread.start()
            until(lambda: len(acknowledged) > before + 60 * (round_ + 1))  # noqa: B023
            service.kill()
            ends.set()
            for thread in threads:
                thread.join()
        service.start()
    service.settle()
    found: dict[str, Any] = {}
    for start in range(0, len(acknowledged), 1000):
        asked = {"project": PROJECT, "ids": acknowledged[start : start + 1000]}
        found |= service.http.post("/api/arrivals", json=asked, headers=service.bearer).json()["arrived"]
    assert len(acknowledged) > 240
    assert set(found) == set(acknowledged)


def test_a_clean_stop_ends_open_tails_and_keeps_everything(service: Service) -> None:
    with httpx.stream(
        "GET", f"{service.url}/api/live", params={"project": PROJECT}, headers=service.bearer
    ) as tail:
        assert tail.status_code == 200
        service.send(event())
        started = time.monotonic()
        service.stop()
        assert time.monotonic() - started < 10
    assert list((service.data / "journal").iterdir()) == []
    service.start()
    assert len(service.export("installation-1")) == 1


def test_the_live_tail_shows_what_is_kept_within_a_second(service: Service) -> None:
    wanted = {"project": PROJECT, "event": FAILED, "installation": "me", "version": "1.2.0"}
    with httpx.stream(
        "GET", f"{service.url}/api/live", params=wanted, headers=service.bearer, timeout=10
    ) as tail:
        lines = tail.iter_lines()
        assert next(lines) == ": watching"
        service.send(event(CREATED, "me"), event(FAILED, "other"), event(FAILED, "me", note="refused"))
        started = time.monotonic()
        service.send(event(FAILED, "me"))
        shown = [next(lines) for _ in range(3)]
        assert time.monotonic() - started < 1
    assert shown[1] == "event: event"
    data = json.loads(shown[2].removeprefix("data: "))
    assert data["event"] == FAILED
    assert data["properties"] == {k: v for k, v in properties(FAILED).items() if not k.startswith("$")}


def test_a_live_tail_is_in_the_audit_log_while_it_is_open_and_counted_when_it_ends(service: Service) -> None:
    wanted = {"project": PROJECT, "installation": "me"}
    with httpx.stream(
        "GET", f"{service.url}/api/live", params=wanted, headers=service.bearer, timeout=10
    ) as tail:
        lines = tail.iter_lines()
        assert next(lines) == ": watching"
        opened = service.ask("audit")["looks"][-1]
        service.send(event(CREATED, "me"), event(FAILED, "me"), event(FAILED, "other"))
        assert [next(lines) for _ in range(5)].count("event: event") == 2
    ended = until(lambda: next((one for one in service.ask("audit")["looks"] if one["events"] == 2), None))
    assert (opened["what"], opened["who"], opened["events"]) == ("live", "default", None)
    assert (ended["id"], ended["event"], ended["version"]) == (opened["id"], "", "")
    assert "me" != ended["installation"] == service.export("me")[0]["installation"]


def test_addresses_agents_and_cookies_are_never_stored(tmp_path: Path) -> None:
    service = Service(tmp_path / "data")
    marks = {
        "User-Agent": "agent-of-ada/1.0",
        "Referer": "https://ada.example.org/notebook",
        "Cookie": "session=cookie-of-ada",
        "X-Forwarded-For": "203.0.113.77",
        "Forwarded": "for=203.0.113.78",
        "X-Real-IP": "203.0.113.79",
    }
    peer = httpx.Client(base_url=service.url, transport=httpx.HTTPTransport(local_address="127.0.0.42"))
    with peer:
        named = event() | {"ip": "203.0.113.80", "$set": {"email": "ada@example.org"}}
        named["properties"]["$ip"] = "203.0.113.81"
        for body in (named, event("no:such")):
            assert peer.post("/batch/", json=batch(body), headers=marks).status_code == 200
        peer.post("/batch/", content=b"nonsense", headers=marks)
        peer.post("/batch/", json={"batch": [event()]}, headers=marks)
        message = {"type": "track", "event": CREATED, "userId": "u", "properties": properties()}
        context = {"ip": "203.0.113.82", "userAgent": "agent-of-ada/1.0", "page": {"url": marks["Referer"]}}
        peer.post("/v1/track", json=message | {"context": context}, auth=(KEY, ""), headers=marks)
    assert "direct:event.ip" in service.stripped()
    text = stored_bytes(service)
    for mark in (b"ada", b"203.0.113", b"127.0.0.42", b"cookie-of", b"installation-1"):
        assert mark not in text


def test_the_quarantine_never_holds_a_value_or_a_rare_name(tmp_path: Path) -> None:
    service = Service(tmp_path / "data")
    secret = "Zz9SentinelQ7"
    service.send(
        event(CREATED, note=secret),
        event(CREATED, **{secret: 1}),
        event(FAILED, trigger=secret),
        event(secret),
        event(CREATED, secret, project=secret),
        event() | {"properties": {secret: {secret: [secret]}}},
        event() | {"uuid": secret},
        event() | {"properties": properties() | {"$lib": secret, "$lib_version": secret}},
    )
    shown = json.dumps([service.ask(path) for path in ("quarantine", "counters", "events", "verdict")])
    assert service.quarantined() >= 6
    text = stored_bytes(service) + shown.encode()
    digests = [hashlib.new(name, secret.encode()).hexdigest() for name in ("sha1", "sha256", "md5")]
    forms = [
        secret,
        secret.lower(),
        secret.upper(),
        secret[::-1],
        secret.encode().hex(),
        secret[:8],
        *digests,
    ]
    forms += [base64.b64encode(b"x" * pad + secret.encode())[4:-4].decode() for pad in (0, 1, 2)]
    for form in forms:
        assert form.encode() not in text, form


def test_a_name_is_shown_once_five_installations_use_it(service: Service) -> None:
    for number in range(4):
        service.send(event(CREATED, f"installation-{number}", new_field=1))
    assert all("new_field" not in shape["path"] for shape in service.ask("quarantine")["shapes"])
    service.kill()
    service.start()
    service.send(event(CREATED, "installation-9", new_field=1))
    paths = {shape["path"] for shape in service.ask("quarantine")["shapes"]}
    assert "event_properties.new_field" in paths


def test_erasure_is_proved_and_leaves_no_byte(tmp_path: Path) -> None:
    service = Service(tmp_path / "data")
    mark = "a" * 8 + "facade99" * 3
    service.send(event(CREATED, "gone", project=mark), event(FAILED, "gone", trigger="bad"), event())
    service.settle()
    assert any(b"facade99" in path.read_bytes() for path in service.data.iterdir() if path.is_file())
    asked = {"project": PROJECT, "installation": "gone"}
    answer = service.http.post("/api/installations/erase", json=asked, headers=service.bearer)
    assert answer.json() == {"events": 1, "shapes": 1, "left": 0}
    assert len(service.export("installation-1")) == 1
    assert b"facade99" not in stored_bytes(service)
