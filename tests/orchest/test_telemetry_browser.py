"""The platform's own pages in a real Chromium: which views were opened is stored, and nothing else."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sqlalchemy import select

from clarion.addresses import EgressPolicy
from clarion.outbox import Capture
from clarion.testing import LOOPBACK
from orchest import telemetry
from orchest.app import create_app
from orchest.platform import Platform, migrate, open_platform
from orchest.settings import Settings
from orchest.site import Site
from tests.orchest.building import eventually

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    for name in ("DO_NOT_TRACK", "TELEMETRY_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    url = f"sqlite:///{tmp_path / 'test.db'}"
    platform = open_platform(Site("http://127.0.0.1", tmp_path), url, EgressPolicy.of(LOOPBACK))
    migrate(platform)
    backend = {"telemetry_url": "http://127.0.0.1:9", "telemetry_write_key": "k"}
    telemetry.set_up(platform, Settings.model_validate(backend))
    telemetry.give_notice(platform, lambda _: None)
    yield platform
    platform.close()


@pytest.fixture
def address(platform: Platform) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(platform, workers=False), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("needs Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright drives Chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


def viewed(platform: Platform, type: str = "view:loaded", name: str = "name") -> list[str]:
    """What the browser told of one type."""
    with platform.readers() as session:
        found = session.scalars(select(Capture).where(Capture.type == type).order_by(Capture.id)).all()
        assert {key for one in found for key in one.telemetry["event_properties"]} <= {name}
        return [one.telemetry["event_properties"][name] for one in found]


def test_views_are_told_under_the_strict_policy(platform: Platform, address: str, chromium: Any) -> None:
    page, complaints = chromium.new_page(), []
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for path in ("/", "/events", "/subscribers"):
        page.goto(address + path)
    page.goto("about:blank")
    eventually(lambda: len(viewed(platform)) == 3, "the views are stored")
    assert sorted(viewed(platform)) == ["events", "notifications", "projects"]
    assert complaints == []


def test_alerts_and_questions_are_told_by_their_names(
    platform: Platform, address: str, chromium: Any
) -> None:
    """And nothing of what they say, or of whom: here a webhook that nobody answers, named after somebody."""
    page = chromium.new_page()
    hook = {
        "name": "ann@example.com",
        "url": "http://127.0.0.1:9/ann",
        "subscriptions": [{"event_type": "*"}],
    }
    uuid = page.request.post(f"{address}/api/notifications/subscribers/webhooks", data=hook).json()["uuid"]
    page.goto(f"{address}/subscribers/{uuid}")
    page.get_by_role("button", name="Send a ping").click()
    page.get_by_role("alert").get_by_text("The ping was not delivered.").wait_for()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name="Delete ann@example.com?").wait_for()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name="Subscribers").wait_for()
    page.goto("about:blank")
    eventually(lambda: len(viewed(platform)) == 4, "the views are stored")
    assert viewed(platform, "alert:shown", "dialog") == ["request-failed"]
    assert viewed(platform, "confirm:shown", "dialog") == ["delete-subscriber"]
    with platform.readers() as session:
        assert "ann" not in str([one.telemetry for one in session.scalars(select(Capture))])


def test_who_does_not_want_to_be_counted_is_not(platform: Platform, address: str, chromium: Any) -> None:
    objecting = chromium.new_context(extra_http_headers={"sec-gpc": "1"}).new_page()
    objecting.add_init_script("Object.defineProperty(navigator, 'globalPrivacyControl', {get: () => true})")
    objecting.goto(address)
    objecting.goto("about:blank")
    page = chromium.new_page()
    page.goto(f"{address}/events")
    page.goto("about:blank")
    eventually(lambda: viewed(platform) != [], "the view of the other is stored")
    assert viewed(platform) == ["events"]


def tab_to(page: Any, wanted: Any) -> None:
    """Press Tab until ``wanted`` has the focus, and shows it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if wanted.evaluate("one => one === document.activeElement"):
            assert wanted.evaluate("one => getComputedStyle(one).outlineStyle") != "none"
            return
    raise AssertionError("the keyboard does not reach it")


WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_what_is_sent_can_be_read_and_switched_without_script_by_keyboard(
    platform: Platform, address: str, chromium: Any
) -> None:
    sent = {"event": "view:loaded", "properties": {"name": "events"}}
    context = chromium.new_context(java_script_enabled=False)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    assert context.request.post(f"{address}/analytics", data=sent).json()["accepted"] == 1
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(f"{address}/telemetry")
        assert page.evaluate(WIDER) <= 0
    shown = json.loads(page.locator("#raw").text_content())
    said = context.request.get(f"{address}/api/telemetry/preview").json()
    assert shown | {"sent_at": said["sent_at"]} == said  # it is later by now
    tab_to(page, page.locator("#raw"))
    tab_to(page, page.get_by_role("button", name="Switch off"))
    page.keyboard.press("Enter")
    page.get_by_text("it was switched off").wait_for()
    tab_to(page, page.get_by_role("combobox", name="Show"))
    page.keyboard.type("project:created")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="An example").wait_for()
    assert '"event":"project:created"' in page.locator("#raw").text_content().replace(" ", "")
    tab_to(page, page.get_by_role("button", name="Switch on"))
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Switch off").wait_for()
    assert viewed(platform) == []
    assert [url for url in asked if not url.startswith((f"{address}/", "data:,"))] == []
