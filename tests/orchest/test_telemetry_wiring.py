"""Telemetry in the platform as a whole: told of first, sent by one process of many, off at once, and seen."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select
from starlette.testclient import TestClient

import clarion
from clarion.addresses import EgressPolicy
from clarion.analytics.configuring import BackendSettings, configure
from clarion.consent import NOTICE
from clarion.envelope import AppProperties, Deployment, SystemProperties
from clarion.errors import ConfigurationError
from clarion.outbox import Capture
from clarion.telemetry import TelemetryState
from clarion.testing import LOOPBACK, FrozenClock, Received, Receiver, drain
from orchest import heartbeat, telemetry
from orchest.app import create_app, workers_of
from orchest.events import View
from orchest.heartbeat import EVERY, TTL, Heartbeat
from orchest.models import Setting
from orchest.platform import Platform, open_platform
from orchest.settings import Settings, read_settings
from orchest.site import Limits, Site
from orchest.web.pages import HERE, VIEWS
from tests.orchest.serving import running

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BASE = "http://127.0.0.1:8470"
VIEWED = {"event": "view:loaded", "properties": {"name": "projects"}}
OURS = UUID("8d5f0e5c-0f5f-4c58-9d35-3a8f7c1f0b11")

Opened = Callable[[], Platform]


@pytest.fixture(autouse=True)
def nobody_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    for name in ("DO_NOT_TRACK", "TELEMETRY_DEBUG", "TELEMETRY_UUID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOW)


@pytest.fixture
def opened(orchest_engine: Engine, tmp_path: Path, clock: FrozenClock) -> Iterator[Opened]:
    """Opens platforms on one database, as processes of one installation would."""
    url, made = orchest_engine.url.render_as_string(hide_password=False), []

    def open_one() -> Platform:
        site = Site(BASE, tmp_path, clock=clock, limits=Limits(3, 20, 1))
        made.append(open_platform(site, url, EgressPolicy.of(LOOPBACK)))
        return made[-1]

    yield open_one
    for platform in made:
        platform.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """The analytics backend; it answers 204, which is to be asked again, and so keeps what waits."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def platform(opened: Opened, receiver: Receiver) -> Platform:
    """A platform that sends to ``receiver``; its notice was given."""
    platform = opened()
    telemetry.set_up(platform, settings(receiver))
    assert telemetry.give_notice(platform, lambda _: None)
    return platform


@pytest.fixture
def client(platform: Platform) -> Iterator[TestClient]:
    with TestClient(create_app(platform, workers=False), base_url=BASE) as client:
        yield client


def settings(receiver: Receiver, **more: Any) -> Settings:
    return Settings(telemetry_url=receiver.url, telemetry_write_key="ck_test", **more)


def captured(platform: Platform) -> list[Capture]:
    with platform.readers() as session:
        return list(session.scalars(select(Capture).order_by(Capture.id)))


def beats(platform: Platform) -> list[bool]:
    """What each heartbeat so far said of use."""
    return [
        one.telemetry["event_properties"]["active"]
        for one in captured(platform)
        if one.type == "heartbeat-trigger"
    ]


def wire(received: Received) -> list[dict[str, Any]]:
    batch: list[dict[str, Any]] = json.loads(received.body)["batch"]
    return batch


# the notice


def test_nothing_is_recorded_or_sent_before_the_notice(
    opened: Opened, receiver: Receiver, clock: FrozenClock
) -> None:
    platform, said = opened(), []
    telemetry.set_up(platform, settings(receiver))
    with TestClient(create_app(platform, workers=False), base_url=BASE) as client:
        assert client.post("/analytics", json=VIEWED).json() == {"accepted": 0, "refused": 0}
        assert not Heartbeat(platform).look()
        assert captured(platform) == []

        def say(text: str) -> None:
            drain(platform.engine, clock=clock)
            said.append((text, len(captured(platform)), len(receiver.received)))

        assert telemetry.give_notice(platform, say)
        assert said == [(NOTICE, 0, 0)]
        assert not telemetry.give_notice(platform, say)
        assert not telemetry.give_notice(opened(), say)
        assert len(said) == 1
        assert client.post("/analytics", json=VIEWED).json() == {"accepted": 1, "refused": 0}
    drain(platform.engine, clock=clock)
    [event] = wire(receiver.received[0])
    assert event["event"] == "view:loaded"
    assert event["properties"]["app_properties"] == {
        "version": clarion.__version__,
        "dev": False,
        "cloud": False,
        "max_interactive_runs_parallelism": "2-5",
        "max_job_runs_parallelism": "11-50",
        "max_builds_parallelism": "1",
    }


def test_debugging_prints_what_the_platform_records(
    opened: Opened, receiver: Receiver, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    platform = opened()
    telemetry.set_up(platform, settings(receiver))
    telemetry.give_notice(platform, lambda _: None)
    monkeypatch.setenv("TELEMETRY_DEBUG", "1")
    with TestClient(create_app(platform, workers=False), base_url=BASE) as client:
        assert client.post("/api/projects", json={"name": "private-name"}).status_code == 201
    [event] = json.loads(capsys.readouterr().err)["batch"]
    assert event["event"] == "project:created"
    assert "private-name" not in json.dumps(event)
    drain(platform.engine, clock=clock)
    assert receiver.received == []


def test_no_notice_where_telemetry_is_off_anyhow(
    opened: Opened, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = opened()
    telemetry.set_up(platform, Settings())
    assert not telemetry.give_notice(platform, pytest.fail)  # nothing is configured
    telemetry.set_up(platform, settings(receiver))
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert not telemetry.give_notice(platform, pytest.fail)
    monkeypatch.delenv("DO_NOT_TRACK")
    assert telemetry.give_notice(platform, lambda _: None)


def test_without_configuration_nothing_is_stored(opened: Opened) -> None:
    platform = opened()
    telemetry.set_up(platform, Settings())
    with TestClient(create_app(platform, workers=False), base_url=BASE) as client:
        assert client.post("/analytics", json=VIEWED).json()["accepted"] == 0
        assert client.get("/api/telemetry").json()["why"] == "no analytics backend is configured"
        assert client.patch("/api/telemetry", json={"enabled": True}).status_code == 404
        assert not Heartbeat(platform).look()
    with platform.readers() as session:
        for table in (TelemetryState, Capture, Setting):
            assert session.scalar(select(table).limit(1)) is None


def test_a_stored_backend_stays_and_learns_what_the_application_is(
    opened: Opened, clock: FrozenClock
) -> None:
    platform = opened()
    with platform.sessions.begin() as session:
        stored = BackendSettings("http://127.0.0.1:9", "k")
        configure(session, stored, AppProperties(), SystemProperties(), clock())
    telemetry.set_up(platform, Settings(cloud=True, gpu=True, deployment=Deployment.CONTAINER))
    with platform.readers() as session:
        state = session.get_one(TelemetryState, 1)
        assert (state.url, state.app["cloud"], state.app["version"]) == (
            "http://127.0.0.1:9",
            True,
            clarion.__version__,
        )
        assert state.system["gpu_enabled_instance"] is True
        assert state.system["deployment"] == "container"


def test_settings_come_from_variables(monkeypatch: pytest.MonkeyPatch, opened: Opened) -> None:
    monkeypatch.setenv("ORCHEST_TELEMETRY_URL", "https://telemetry.example.com")
    with pytest.raises(ConfigurationError, match="ORCHEST_TELEMETRY_WRITE_KEY"):
        telemetry.set_up(opened(), read_settings())
    monkeypatch.setenv("ORCHEST_TELEMETRY_WRITE_KEY", "secret-key")
    read = read_settings()
    assert "secret-key" not in repr(read)
    assert telemetry.backend_of(read) == BackendSettings("https://telemetry.example.com", "secret-key")
    monkeypatch.setenv("ORCHEST_DEPLOYMENT", "the cellar")
    with pytest.raises(ConfigurationError, match="ORCHEST_DEPLOYMENT"):
        read_settings()


# the relay and the preview


@pytest.mark.parametrize("path", ["/analytics", "/moments"])
def test_what_browsers_send_is_stored(client: TestClient, platform: Platform, path: str) -> None:
    headers = {"origin": BASE, "sec-fetch-site": "same-origin"}
    assert client.post(path, json=VIEWED, headers=headers).json() == {"accepted": 1, "refused": 0}
    beacon = json.dumps({"events": [VIEWED]})
    answer = client.post(path, content=beacon, headers={**headers, "content-type": "text/plain"})
    assert answer.json() == {"accepted": 1, "refused": 0}
    assert [one.type for one in captured(platform)] == ["view:loaded"] * 2


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (403, VIEWED, {"origin": "http://evil.example"}),
        (403, VIEWED, {"sec-fetch-site": "cross-site"}),
        (403, {"event": "heartbeat-trigger", "properties": {"active": True}}, {}),
        (403, {"event": "project:created", "properties": {}}, {}),
        (422, {"event": "view:loaded", "properties": {"name": "projects", "path": "/home/ann"}}, {}),
        (422, {"event": "view:loaded", "properties": {}}, {}),
        (422, {"event": "no:such"}, {}),
        (400, [VIEWED], {}),
        (415, VIEWED, {"content-type": "application/xml"}),
    ],
)
def test_what_else_is_sent_is_refused(
    client: TestClient, platform: Platform, status: int, body: Any, headers: dict[str, str]
) -> None:
    sent = {"content-type": "application/json", **headers}
    answer = client.post("/analytics", content=json.dumps(body), headers=sent)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert "ann" not in answer.text
    assert captured(platform) == []


def test_the_preview_is_what_is_sent(
    client: TestClient, platform: Platform, receiver: Receiver, clock: FrozenClock
) -> None:
    for _ in range(2):
        client.post("/analytics", json=VIEWED)
    shown = client.get("/api/telemetry/preview")
    assert shown.headers["content-type"] == "application/json"
    drain(platform.engine, clock=clock)
    assert receiver.received[0].body == shown.content


def test_examples_are_shown_before_anything_is_configured(opened: Opened) -> None:
    with TestClient(create_app(opened(), workers=False), base_url=BASE) as client:
        shown = client.get("/api/telemetry/preview", params={"type": "project:created"}).json()
        assert [one["event"] for one in shown["batch"]] == ["project:created"]
        assert client.get("/api/telemetry/preview").status_code == 404


# off, and under which id


def test_off_acts_at_once_and_everywhere(
    client: TestClient,
    platform: Platform,
    receiver: Receiver,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert client.post("/analytics", json=VIEWED).json()["accepted"] == 1
    assert "telemetry.js" in client.get("/").text
    monkeypatch.setenv("TELEMETRY_DISABLED", "1")
    answer = client.post("/analytics", json=VIEWED)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 0, "refused": 0})
    assert client.get("/api/telemetry").json()["on"] is False
    assert "telemetry.js" not in client.get("/").text
    assert not Heartbeat(platform).look()
    drain(platform.engine, clock=clock)
    assert (captured(platform), receiver.received) == ([], [])  # what waited is forgotten


def test_the_stored_word_acts_at_once(
    client: TestClient, platform: Platform, opened: Opened, receiver: Receiver, clock: FrozenClock
) -> None:
    client.post("/analytics", json=VIEWED)
    off = client.patch("/api/telemetry", json={"enabled": False}).json()
    assert (off["on"], off["why"], captured(platform)) == (False, "it was switched off", [])
    assert client.post("/analytics", json=VIEWED).json()["accepted"] == 0
    assert not Heartbeat(opened()).look()
    on = client.patch("/api/telemetry", json={"enabled": True}).json()
    assert (on["on"], on["enabled"], on["url"]) == (True, True, receiver.url)
    assert client.post("/analytics", json=VIEWED).json()["accepted"] == 1
    drain(platform.engine, clock=clock)
    assert len(receiver.received) == 1


def test_the_installation_s_id_can_be_given(
    client: TestClient,
    platform: Platform,
    receiver: Receiver,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.post("/analytics", json=VIEWED)
    given = client.patch("/api/telemetry", json={"installation": str(OURS)}).json()
    assert (given["installation"], captured(platform)) == (str(OURS), [])
    client.post("/analytics", json=VIEWED)
    drain(platform.engine, clock=clock)
    assert [one["distinct_id"] for one in wire(receiver.received[0])] == [str(OURS)]
    other = UUID(int=OURS.int + 1)
    monkeypatch.setenv("TELEMETRY_UUID", str(other))
    assert client.get("/api/telemetry").json()["installation"] == str(other)
    clock.advance(hours=1)
    drain(platform.engine, clock=clock)
    assert [one["distinct_id"] for one in wire(receiver.received[1])] == [str(other)]
    monkeypatch.setenv("TELEMETRY_UUID", "ann's laptop")
    with pytest.raises(ConfigurationError, match="TELEMETRY_UUID must be a UUID"):
        telemetry.set_up(platform, settings(receiver))
    clock.advance(hours=1)
    drain(platform.engine, clock=clock)
    assert not any(b"laptop" in one.body for one in receiver.received)


# the pages


def test_pages_say_which_view_they_are_and_stay_strict(client: TestClient) -> None:
    for path, view in (("/", "projects"), ("/events", "events"), ("/deliveries", "notifications")):
        page = client.get(path)
        assert re.findall(r'<script src="(\S+)"', page.text)[1:] == [
            "/static/telemetry.js",
            "/static/view.js",
        ]
        assert f'data-view="{view}"' in page.text
        assert "script-src 'self';" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
    for name in ("telemetry.js", "view.js"):
        answer = client.get(f"/static/{name}")
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (
            200,
            "text/javascript",
        )


def test_every_page_has_a_view() -> None:
    pages = {one.name for one in (HERE / "templates").glob("*.html") if "{% extends" in one.read_text()}
    assert pages - VIEWS.keys() == {"telemetry.html"}  # to look at what is sent is not told
    assert VIEWS.keys() < pages
    assert all(isinstance(view, View) for view in VIEWS.values())


# the heartbeat


def test_one_of_many_sends_the_heartbeat(platform: Platform, opened: Opened, clock: FrozenClock) -> None:
    workers = [Heartbeat(platform), *(Heartbeat(opened()) for _ in range(2))]
    for _ in range(2):
        assert sum(at_once(workers)) == 1
        clock.advance(seconds=EVERY.total_seconds() - 1)
        assert sum(at_once(workers)) == 0
        clock.advance(seconds=1)
    assert beats(platform) == [False, False]


def at_once(workers: list[Heartbeat]) -> list[bool]:
    """What each worker's look says, all at the same moment."""
    barrier, said = threading.Barrier(len(workers)), []

    def look(worker: Heartbeat) -> None:
        barrier.wait(10)
        said.append(worker.look())

    threads = [threading.Thread(target=look, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(said) == len(workers)
    return said


PROGRAM = """
import sys
from pathlib import Path
from clarion.addresses import EgressPolicy
from orchest.heartbeat import Heartbeat
from orchest.platform import open_platform
from orchest.site import Site
platform = open_platform(Site("http://127.0.0.1", Path(sys.argv[2])), sys.argv[1], EgressPolicy())
worker = Heartbeat(platform)
print("ready", flush=True)
sys.stdin.readline()
print(worker.look(), flush=True)
"""


def test_one_of_two_processes_sends_it(platform: Platform, orchest_engine: Engine, tmp_path: Path) -> None:
    url = orchest_engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", PROGRAM, url, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        assert [one.stdout.readline() if one.stdout else "" for one in both] == ["ready\n"] * 2
        for one in both:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        assert sorted(one.communicate(timeout=60)[0] for one in both) == ["False\n", "True\n"]
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert beats(platform) == [False]


def test_a_heartbeat_of_one_that_died_is_not_sent_twice(
    platform: Platform, opened: Opened, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(heartbeat, "note", die)
        with pytest.raises(KeyboardInterrupt):
            Heartbeat(platform).look()
    other = Heartbeat(opened())
    assert not other.look()  # its lease still holds
    clock.advance(seconds=TTL.total_seconds())
    assert other.look()
    assert not other.look()
    assert len(beats(platform)) == 1


def test_it_says_whether_the_platform_was_used_by_any_process(
    client: TestClient, platform: Platform, opened: Opened, clock: FrozenClock
) -> None:
    serving, sending = Heartbeat(platform), Heartbeat(opened())

    def after(*paths: str) -> bool:
        clock.advance(seconds=1)
        for path in paths:
            client.get(path)
        client.post("/api/projects", json={"name": "x"}, headers={"origin": "http://evil.example"})
        serving.look()  # it is not due
        clock.advance(seconds=EVERY.total_seconds())
        assert sending.look()
        return beats(platform)[-1]

    assert sending.look()
    assert not after()
    assert not after("/healthz", "/readyz", "/metrics", "/static/site.css", "/login", "/telemetry")
    assert after("/api/projects")
    assert not after()
    assert after("/")


def test_use_while_telemetry_is_off_is_not_remembered(
    client: TestClient, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Heartbeat(platform)
    monkeypatch.setenv("TELEMETRY_DISABLED", "1")
    client.get("/")
    worker.look()
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    assert worker.look()
    assert beats(platform) == [False]


def test_a_wrong_clock_does_not_silence_it(platform: Platform, clock: FrozenClock) -> None:
    clock.advance(days=400)
    assert Heartbeat(platform).look()
    clock.advance(days=-400)
    assert Heartbeat(platform).look()


def test_the_application_has_a_heartbeat(platform: Platform) -> None:
    assert sum(isinstance(one, Heartbeat) for one in workers_of(platform)) == 1


def test_the_platform_as_a_process_says_it_once_and_sends(tmp_path: Path, receiver: Receiver) -> None:
    variables = {
        "ORCHEST_TELEMETRY_URL": receiver.url,
        "ORCHEST_TELEMETRY_WRITE_KEY": "ck_test",
        "CLARION_EGRESS_ALLOWED_NETWORKS": "127.0.0.0/8",
        "TELEMETRY_DISABLED": "0",
    }
    with running(tmp_path, **variables) as started:
        assert "\n".join(started.said).startswith(NOTICE.strip())
        [sent, *_] = receiver.wait_for(1, 30)
        assert [one["event"] for one in wire(sent)] == ["heartbeat-trigger"]
    with running(tmp_path, **variables) as started:
        assert len(started.said) == 1
