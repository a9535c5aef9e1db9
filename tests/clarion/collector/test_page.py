"""The collector's page in a real Chromium: a token opens it, every view draws, nothing foreign is asked."""

from typing import Any

from tests.clarion.collector.conftest import Service
from tests.clarion.collector.sample import CREATED, FAILED, TOKEN, event


def test_the_page_shows_everything_and_asks_nobody_else(service: Service, browser: Any) -> None:
    service.send(*(event(CREATED, f"i{n}") for n in range(6)), event(FAILED, "i1"), event("no:such"))
    service.settle()
    asked: list[str] = []
    faults: list[str] = []
    tab = browser.new_page()
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto(service.url)
    tab.get_by_role("textbox", name="Token").fill(TOKEN)
    tab.keyboard.press("Enter")
    tab.get_by_role("cell", name=CREATED).wait_for()
    assert tab.locator(".badge").first.text_content() == "amber"
    for view, sign in (
        ("Properties", "event_properties.project"),
        ("Installations", "Versions by week"),
        ("Journeys", "Retention by week of first sight"),
        ("Quarantine", "unknown event"),
    ):
        tab.get_by_role("button", name=view, exact=True).click()
        tab.get_by_text(sign).first.wait_for()
    with tab.expect_response("**/api/live*"):
        tab.get_by_role("button", name="Live", exact=True).click()
    tab.get_by_text("Events appear here").wait_for()
    service.send(event(FAILED, "live-one"))
    tab.get_by_role("cell", name=FAILED).wait_for()
    tab.close()
    assert faults == []
    assert all(url.startswith(service.url) or url == "data:," for url in asked)


def test_a_wrong_token_opens_nothing(service: Service, browser: Any) -> None:
    tab = browser.new_page()
    tab.goto(service.url)
    tab.get_by_role("textbox", name="Token").fill("wrong")
    tab.keyboard.press("Enter")
    tab.get_by_text("not one of this collector").wait_for()
    assert tab.locator("table").count() == 0
    tab.close()


def test_the_page_allows_no_inline_code_and_no_framing(service: Service) -> None:
    policy = service.http.get("/").headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert service.http.get("/ui/page.js").headers["content-type"] == "text/javascript"
    assert service.http.get("/ui/other.js").status_code == 404
