"""The page that shows telemetry: the bytes of the next request, what was sent, and the switch."""

import html
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from clarion.addresses import EgressPolicy
from clarion.consent import NOTICE
from clarion.deliverees.backends import BATCH
from clarion.outbox import Capture
from clarion.telemetry import ROTATION, TelemetryState, identify
from clarion.testing import LOOPBACK, FrozenClock, Receiver, Reply, drain
from orchest import telemetry
from orchest.app import create_app
from orchest.celery import Supervising
from orchest.platform import Platform, open_platform
from orchest.settings import Settings
from orchest.site import Site
from tests.orchest.api.calling import BASE, count, made, refused

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EVIL = "<script>alert(1)</script>&amp;"
EVENTS = "/api/notifications/events"
VIEWED = {"event": "view:loaded", "properties": {"name": "projects"}}
SWITCH = re.compile(r'action="/telemetry/(\w+)"')


@pytest.fixture
def database(on_both: str) -> str:
    return on_both


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOW)


@pytest.fixture
def platform(
    tmp_path: Path, database: str, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """A platform of which nobody objects to telemetry; no backend is configured."""
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    for name in ("DO_NOT_TRACK", "TELEMETRY_DEBUG", "TELEMETRY_UUID"):
        monkeypatch.delenv(name, raising=False)
    site = Site(BASE, tmp_path / "data", clock=clock)
    platform = open_platform(site, database, EgressPolicy.of(LOOPBACK))
    yield platform
    platform.close()


@pytest.fixture
def backend(platform: Platform) -> Iterator[Receiver]:
    """An analytics backend that takes everything, and is configured."""
    with Receiver(lambda _: Reply(200)) as receiver:
        telemetry.set_up(platform, Settings(telemetry_url=receiver.url, telemetry_write_key="ck_test"))
        yield receiver


@pytest.fixture
def told(platform: Platform, backend: Receiver) -> Receiver:
    """The backend, after the notice was given: telemetry is on."""
    assert telemetry.give_notice(platform, lambda _: None)
    return backend


def view(client: TestClient, many: int = 1) -> None:
    """A browser tells that a page was opened."""
    for start in range(0, many, 100):
        some = {"events": [VIEWED] * min(100, many - start)}
        assert client.post("/analytics", json=some).json()["accepted"] == len(some["events"])


def page(client: TestClient, path: str = "/telemetry", status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return answer.text


def raw(text: str) -> bytes | None:
    """The bytes that the page shows, as a browser has them."""
    found = re.search(r'id="raw">(.*?)</pre>', text, re.DOTALL)
    return None if found is None else html.unescape(found[1]).encode()


def laid_out(text: str, label: str) -> Any:
    found = re.search(rf'aria-label="{label}">(.*?)</pre>', text, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("part", ["application", "celery worker"])
def test_what_waits_is_deleted_by_a_part_that_starts_and_is_told_off(
    client: TestClient, platform: Platform, told: Receiver, database: str, monkeypatch: Any, part: str
) -> None:
    view(client, 2)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    if part == "application":
        create_app(platform)
    else:
        worker = Supervising(platform.site, database)
        worker.look()
        worker.close()
    with platform.readers() as session:
        assert session.scalars(select(Capture)).all() == []


# what is sent


def test_an_event_shows_side_by_side_what_subscribers_and_what_telemetry_are_sent(
    client: TestClient, told: Receiver, platform: Platform
) -> None:
    project = made(client, "/api/projects", {"name": "Annas project"})
    (event,) = client.get(EVENTS).json()["items"]
    api = client.get(f"{EVENTS}/{event['uuid']}").json()
    text = page(client, f"/events/{event['uuid']}")
    assert laid_out(text, "What subscribers are sent") == api["notification"]
    assert laid_out(text, "What telemetry sends") == api["telemetry"]
    assert api["telemetry"]["derived_properties"]["project"]["projects_count"] == 1
    assert not [one for one in ("Annas", project["uuid"]) if one in json.dumps(api["telemetry"])]
    drain(platform.engine)
    [sent] = json.loads(told.received[0].body)["batch"]
    assert {name: sent["properties"][name] for name in api["telemetry"]} == api["telemetry"]
    assert "telemetry" not in event  # of a list it would be a second payload for each


def test_of_an_event_while_telemetry_is_off_nothing_is_shown(client: TestClient) -> None:
    made(client, "/api/projects", {"name": "one"})
    (event,) = client.get(EVENTS).json()["items"]
    assert client.get(f"{EVENTS}/{event['uuid']}").json()["telemetry"] is None
    text = page(client, f"/events/{event['uuid']}")
    assert "Nothing: telemetry was off when this happened" in text
    assert 'aria-label="What telemetry sends"' not in text


def test_what_it_shows_is_what_is_sent(
    client: TestClient, platform: Platform, told: Receiver, clock: FrozenClock
) -> None:
    view(client, 2)
    clock.advance(hours=1)
    text = page(client)
    shown = raw(text)
    assert shown is not None
    assert f">{len(shown)} bytes<" in text
    assert laid_out(text, "Readable") == json.loads(shown)
    assert client.get("/api/telemetry/preview").content == shown
    drain(platform.engine, clock=clock)
    assert [one.body for one in told.received] == [shown]


def test_a_request_takes_so_many(client: TestClient, platform: Platform, told: Receiver) -> None:
    view(client, BATCH + 1)
    text = page(client)
    shown = raw(text)
    assert f"<dt>Events that wait</dt><dd>{BATCH + 1}</dd>" in text
    drain(platform.engine, clock=platform.site.clock)
    sent = [one.body for one in told.received]
    assert shown in sent
    assert sorted(len(json.loads(body)["batch"]) for body in sent) == [1, BATCH]
    assert len(json.loads(shown or b"")["batch"]) == BATCH


def test_what_was_sent_is_shown_afterwards(
    client: TestClient, platform: Platform, told: Receiver, clock: FrozenClock
) -> None:
    assert "Nothing was sent yet." in page(client)
    view(client)
    assert "Nothing was sent yet." in page(client)
    drain(platform.engine, clock=clock)
    text = page(client)
    with platform.readers() as session:
        content = session.scalars(select(Capture.telemetry)).one()
    assert laid_out(text, "What was sent of view:loaded") == content
    assert ">delivered</span>" in text
    assert raw(text) is None
    assert "Nothing waits." in text


def test_an_example_of_a_type(client: TestClient, told: Receiver) -> None:
    view(client)
    text = page(client, "/telemetry?type=project:created")
    shown = raw(text)
    assert shown == client.get("/api/telemetry/preview", params={"type": "project:created"}).content
    assert [one["event"] for one in json.loads(shown)["batch"]] == ["project:created"]
    assert "<option selected>project:created</option>" in text
    assert 'href="/api/telemetry/preview?type=project%3Acreated"' in text
    assert raw(page(client, "/telemetry?type=")) == client.get("/api/telemetry/preview").content


def test_no_such_type(client: TestClient, told: Receiver) -> None:
    text = page(client, f"/telemetry?type={EVIL}", 404)
    assert EVIL not in text
    assert "alert(1)" in text


# where it goes


def test_where_it_goes_and_since_when_it_waits(
    client: TestClient, platform: Platform, told: Receiver, clock: FrozenClock
) -> None:
    view(client)
    clock.advance(days=1)
    view(client)
    text = page(client)
    with platform.readers() as session:
        state = session.get_one(TelemetryState, 1)
    for name, value in {
        "Backend": "posthog",
        "Address": f"<code>{told.url}</code>",
        "Installation": f"<code>{state.installation}</code>",
        "Id and key are replaced": f"{NOW + ROTATION:%Y-%m-%d %H:%M:%S}",
        "Notice shown": "2026-03-01 12:00:00",
        "Events that wait": "2",
        "The oldest of them happened": "2026-03-01 12:00:00",
    }.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    assert html.escape(NOTICE, quote=False).strip() in text
    with platform.sessions.begin() as session:
        identify(session, UUID(int=7))
    text = page(client)
    assert f"<code>{UUID(int=7)}</code>" in text
    assert "never by themselves" in text


def test_everything_it_shows_is_text(client: TestClient, platform: Platform, told: Receiver) -> None:
    """Even what could only be there if somebody wrote into the database."""
    view(client)
    with platform.sessions.begin() as session:
        session.scalars(select(Capture)).one().telemetry = {"event_properties": {EVIL: EVIL}}
    drain(platform.engine, clock=platform.site.clock)
    assert told.received == []  # the last gate kept it
    view(client)
    with platform.sessions.begin() as session:
        state = session.get_one(TelemetryState, 1)
        state.write_key, state.url = EVIL, f"http://127.0.0.1:9/{EVIL}"
    text = page(client)
    assert EVIL not in text
    assert laid_out(text, "What was sent of view:loaded") == {"event_properties": {EVIL: EVIL}}
    shown = raw(text)
    assert shown == client.get("/api/telemetry/preview").content
    assert json.loads(shown)["api_key"] == EVIL


# the switch


@pytest.mark.parametrize(
    ("variable", "why"),
    [
        ("TELEMETRY_DISABLED", "TELEMETRY_DISABLED is set in the environment"),
        ("DO_NOT_TRACK", "DO_NOT_TRACK is set in the environment"),
        ("TELEMETRY_DEBUG", "TELEMETRY_DEBUG is set: events are printed, not sent"),
    ],
)
def test_the_environment_stands_above_the_switch(
    client: TestClient, told: Receiver, monkeypatch: pytest.MonkeyPatch, variable: str, why: str
) -> None:
    view(client)
    assert raw(page(client)) is not None
    monkeypatch.setenv(variable, "1")
    text = page(client)
    assert f"because {why}. What is switched here does not change that." in text
    assert raw(text) is None
    assert SWITCH.findall(text) == ["disable"]
    client.post("/telemetry/disable")
    assert SWITCH.findall(page(client)) == ["enable"]
    client.post("/telemetry/enable")
    text = page(client)
    assert f"because {why}." in text
    assert ">off</span>" in text


def test_switching_off_forgets_what_waits_and_on_sends_again(
    client: TestClient, platform: Platform, told: Receiver, clock: FrozenClock
) -> None:
    view(client)
    assert SWITCH.findall(page(client)) == ["disable"]
    answer = client.post("/telemetry/disable")
    assert (answer.status_code, answer.headers["location"]) == (303, "/telemetry")
    text = page(client)
    assert "because it was switched off." in text
    assert SWITCH.findall(text) == ["enable"]
    assert (raw(text), count(platform, Capture)) == (None, 0)
    assert client.post("/telemetry/enable").headers["location"] == "/telemetry"
    text = page(client)
    assert ">on</span>" in text
    assert SWITCH.findall(text) == ["disable"]
    view(client)
    drain(platform.engine, clock=clock)
    assert len(told.received) == 1


def test_who_is_told_by_the_page_can_say_yes_or_no(
    client: TestClient, platform: Platform, backend: Receiver
) -> None:
    text = page(client)
    assert "because the notice has not been shown yet." in text
    assert "The oldest" not in text
    assert SWITCH.findall(text) == ["enable", "disable"]
    page(client)  # to look is not to agree
    assert client.get("/api/telemetry").json()["notice_shown"] is None
    client.post("/telemetry/enable")
    shown = client.get("/api/telemetry").json()
    assert (shown["on"], shown["notice_shown"]) == (True, "2026-03-01T12:00:00Z")
    assert not telemetry.give_notice(platform, pytest.fail)


def test_who_switches_it_on_by_the_api_is_told_by_the_answer(
    client: TestClient, platform: Platform, backend: Receiver, clock: FrozenClock
) -> None:
    assert client.post("/analytics", json=VIEWED).json()["accepted"] == 0
    untold = client.patch("/api/telemetry", json={"installation": str(UUID(int=7))}).json()
    assert (untold["on"], untold["notice_shown"]) == (False, None)
    shown = client.patch("/api/telemetry", json={"enabled": True}).json()
    assert (shown["on"], shown["notice"]) == (True, NOTICE)
    assert shown["notice_shown"] == "2026-03-01T12:00:00Z"
    assert not telemetry.give_notice(platform, pytest.fail)
    view(client)
    drain(platform.engine, clock=clock)
    assert len(backend.received) == 1


def test_without_a_backend_it_says_how_to_name_one(client: TestClient, platform: Platform) -> None:
    text = page(client)
    assert "because no analytics backend is configured. To name one: <code>ORCHEST_TELEMETRY_URL" in text
    assert (SWITCH.findall(text), raw(text)) == ([], None)
    for switch in ("enable", "disable"):
        refused(client.post(f"/telemetry/{switch}"), 404)
    assert count(platform, TelemetryState) == 0
    example = raw(page(client, "/telemetry?type=view:loaded"))
    assert example == client.get("/api/telemetry/preview?type=view:loaded").content


def test_to_look_is_not_told(client: TestClient, platform: Platform, told: Receiver) -> None:
    """Or every look would change what is sent next."""
    assert "telemetry.js" in page(client, "/events")
    platform.usage.taken()
    text = page(client)
    assert "telemetry.js" not in text
    assert "view.js" not in text
    assert not platform.usage.taken()
    assert count(platform, Capture) == 0
