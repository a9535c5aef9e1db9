"""The pages in a real Chromium and over HTTP: who is let in, what they show, whom they ask."""

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from clarion.collector.access import COOKIE
from clarion.collector.ingest import stamp
from clarion.collector.records import Event, Shape, line
from clarion.collector.store import DuckDBStore
from tests.clarion.collector.conftest import Service
from tests.clarion.collector.sample import CREATED, FAILED, GUEST, PROJECT, TOKEN, event

HOSTILE = "<img src=x onerror=alert(1)>'\"{{7*7}}"
PAGES = {
    "": CREATED,
    f"/events/{FAILED}": "event_properties.trigger",
    "/installations": "What they run on",
    "/installation": "Erase everything",
    "/versions": "Days to half of the installations",
    f"/journeys?step={CREATED}&step={FAILED}": "Who comes back",
    "/quarantine": "unknown property",
    "/live": "Events as they are stored",
    "/operation": "How late they arrive",
    "/sql?sql=SELECT+1": "One SELECT",
    "/saved": "Everybody who may look",
    "/looks": "Audit log",
}
BLOCKED = re.compile(
    r"analytics|telemetry|collect|track|posthog|segment|pixel|beacon|stats|metric|banner|/ads?[/.-]", re.I
)
"""Words that the lists of ad blockers (EasyPrivacy, uBlock) match in paths."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A collector that has kept, refused and counted something.

    Ingest would redact hostile names; here they are in the store, as if it had not.
    """
    data = tmp_path_factory.mktemp("filled") / "data"
    data.mkdir()
    store = DuckDBStore(data / "events.duckdb")
    store.load(1, segment(data / "1.ndjson"))
    store.close()
    service = Service(data)
    people = range(7)
    service.send(*(event(CREATED, f"i{n}") for n in people), *(event(FAILED, f"i{n}") for n in range(6)))
    service.send(*(event(FAILED, f"i{n}", **{HOSTILE: 1}) for n in people))
    service.send(*(event(HOSTILE, f"i{n}") for n in people))
    service.settle()
    yield service
    service.stop()


def segment(path: Path) -> Path:
    """Journal lines in which every text is hostile, from enough installations to be shown."""
    at = stamp(datetime.now(UTC) + timedelta(hours=1))  # received last of all
    words = dict.fromkeys(("event", "library", "library_version", "app_version"), HOSTILE)
    shape = dict.fromkeys(("path", "problem", "type", "size"), HOSTILE)
    with path.open("wb") as file:
        for n in range(6):
            who = {"project": PROJECT, "installation": str(uuid.UUID(int=n)), "received_at": at}
            key = str(uuid.UUID(int=n))
            kept = {"key": key, "occurred_at": at, "schema_version": 3, "schema_hash": HOSTILE}
            payload = {"event_properties": {HOSTILE: HOSTILE, "trigger": HOSTILE}}
            file.write(line(Event(**words, **who, **kept, properties=payload)))
            declared = {**words, **who, **kept, "event": FAILED, "key": str(uuid.UUID(int=100 + n))}
            file.write(line(Event(**declared, properties=payload)))
            file.write(line(Shape(**words, **who, **shape)))
    return path


@pytest.fixture
def tab(filled: Service, browser: Any) -> Iterator[Any]:
    """A tab of a fresh browser profile; nothing may fail in it, and it may ask nobody else."""
    context = browser.new_context()
    asked: list[str] = []
    faults: list[str] = []
    made = context.new_page()
    made.on("request", lambda request: asked.append(request.url))
    made.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("dialog", lambda dialog: faults.append(f"a script ran: {dialog.message}"))
    yield made
    context.close()
    assert faults == []
    assert [url for url in asked if not url.startswith((f"{filled.url}/", "data:,"))] == []
    assert [url for url in asked if BLOCKED.search(url.removeprefix(filled.url).partition("?")[0])] == []


def login(tab: Any, service: Service) -> Any:
    tab.goto(service.url)
    tab.get_by_label("Access token").fill(TOKEN)
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/ui")
    return tab


@pytest.fixture(scope="module")
def reader(filled: Service) -> Iterator[httpx.Client]:
    """A client that is logged in."""
    with httpx.Client(base_url=filled.url) as client:
        assert client.post("/ui/login", data={"token": TOKEN}).status_code == 303
        yield client


def test_every_page_opens_and_draws(tab: Any, filled: Service) -> None:
    login(tab, filled)
    for path, sign in PAGES.items():
        tab.goto(f"{filled.url}/ui{path}")
        tab.get_by_text(sign).first.wait_for()
        charts = tab.locator("[data-chart]")
        assert tab.locator("[data-chart] canvas").count() == charts.count()
        assert tab.locator("h1").count() == 1
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        tab.set_viewport_size({"width": 360, "height": 700})
        assert tab.evaluate(wider) <= 0, f"{path} does not fit a phone"
        tab.set_viewport_size({"width": 1280, "height": 900})
    assert tab.locator(".u-legend").count() == 0


def test_the_numbers_are_there_without_script(filled: Service, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = login(context.new_page(), filled)
    tab.get_by_text("The numbers").click()
    assert tab.get_by_role("cell", name="2026-11-20", exact=True).count() == 1
    context.close()


def test_everything_is_reached_and_used_with_the_keyboard(tab: Any, filled: Service) -> None:
    login(tab, filled)
    tab.goto(f"{filled.url}/ui/events/{FAILED}")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to content"
    seen: list[str] = []
    for _ in range(60):
        outlined = "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        name = tab.evaluate("document.activeElement.textContent.trim()")
        if tab.evaluate("document.activeElement === document.body"):
            break
        assert tab.evaluate(outlined), f"{name} does not show that it has the focus"
        seen.append(name)
        tab.keyboard.press("Tab")
    for wanted in ("Events", "Live", "Log out", "Show", "The numbers", "Show the last five", "As CSV"):
        assert wanted in seen
    assert any("event_properties.trigger" in name for name in seen)
    everything = ("a[href]", "button", "select", "input:not([type=hidden])", "summary")
    assert len(seen) >= tab.locator(", ".join(f"{one}:visible" for one in everything)).count()
    tab.get_by_role("button", name="Show the last five").press("Enter")
    tab.get_by_text("does not conform").first.wait_for()
    assert tab.locator("details.payload").count() == 5


def test_hostile_names_are_text(tab: Any, filled: Service, reader: httpx.Client) -> None:
    login(tab, filled)
    shown = {
        "": 1,
        "/versions": 1,
        "/quarantine": 4,
        "/operation": 2,
        f"/live?event={HOSTILE}&installation={HOSTILE}&version={HOSTILE}": 0,
        f"/events/{FAILED}": 1,
    }
    for path, times in shown.items():
        tab.goto(f"{filled.url}/ui{path}")
        assert tab.get_by_text(HOSTILE).count() >= times, path
        assert tab.locator("img, main script").count() == 0
    tab.get_by_role("button", name="Show the last five").click()
    tab.locator("details.payload").first.wait_for()
    tab.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    assert tab.locator("details.payload code", has_text="onerror=alert").count() >= 10
    assert tab.locator("img, main script").count() == 0
    tab.goto(f"{filled.url}/ui/live?installation={HOSTILE}")
    assert tab.get_by_label("Installation").input_value() == HOSTILE


@pytest.mark.parametrize(
    "path", [f"/ui/events/{HOSTILE}", f"/ui?project={HOSTILE}&days={HOSTILE}", f"/ui/journeys?step={HOSTILE}"]
)
def test_what_is_asked_is_never_said_back_as_markup(reader: httpx.Client, path: str) -> None:
    answer = reader.get(path)
    assert answer.status_code in (404, 422)
    assert "<img" not in answer.text


def test_the_live_tail_follows_filters_and_pauses(tab: Any, filled: Service) -> None:
    login(tab, filled)
    tab.goto(f"{filled.url}/ui/live?event={FAILED}")
    tab.get_by_text("0 seen.").wait_for()
    filled.send(event(CREATED, "live"), event(FAILED, "live"))
    tab.get_by_text("1 seen.").wait_for()
    assert tab.locator("tbody tr").count() == 1
    assert FAILED in tab.locator("tbody tr").inner_text()
    tab.locator("tbody summary").click()
    assert '"trigger": "cron"' in tab.locator("tbody pre").inner_text()
    tab.get_by_role("button", name="Pause").press("Space")
    filled.send(event(FAILED, "live"))
    tab.get_by_text("2 seen, 1 held back.").wait_for()
    assert tab.locator("tbody tr").count() == 1
    tab.get_by_role("button", name="Go on").press("Enter")
    assert tab.locator("tbody tr").count() == 2


def test_only_a_token_opens_the_pages(filled: Service) -> None:
    with httpx.Client(base_url=filled.url) as client:
        for path in PAGES:
            answer = client.get(f"/ui{path}")
            assert (answer.status_code, answer.headers["location"]) == (303, "/ui/login")
        assert client.post(f"/ui/events/{FAILED}/recent").status_code == 303
        assert client.get("/ui/nowhere").status_code == 404
        assert PROJECT not in client.get("/ui/nowhere").text
        wrong = client.post("/ui/login", data={"token": "wrong"})
        assert wrong.status_code == 401
        assert "not an access token" in wrong.text
        assert client.post("/ui/login", content=b"x" * 5000).status_code == 413
        assert client.get("/ui", headers={"Cookie": f"{COOKIE}=made-up"}).status_code == 303


def test_a_session_reads_the_api_and_changes_nothing(filled: Service) -> None:
    with httpx.Client(base_url=filled.url) as client:
        set_cookie = client.post("/ui/login", data={"token": TOKEN}).headers["set-cookie"]
        assert "HttpOnly" in set_cookie
        assert "SameSite=strict" in set_cookie
        file = client.get("/api/series", params={"project": PROJECT, "format": "csv"})
        assert file.headers["content-type"].startswith("text/csv")
        asked = {"project": PROJECT, "installation": "i1"}
        assert client.post("/api/installations/export", json=asked).status_code == 401
        assert client.post("/api/installations/erase", json=asked).status_code == 401
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert client.get("/api/projects", headers=foreign).status_code == 401
        assert client.post(f"/ui/events/{FAILED}/recent", headers=foreign).status_code == 303
        assert client.post("/ui/login", data={"token": TOKEN}, headers=foreign).status_code == 403
        assert client.post("/ui/logout").status_code == 303
        assert client.get("/ui").status_code == 303


def test_a_look_at_an_event_is_written_down_and_a_page_alone_is_none(
    filled: Service, reader: httpx.Client
) -> None:
    def looks() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = filled.ask("audit")["looks"]
        return [one for one in found if one["what"] == "recent"]

    before = len(looks())
    page = reader.get(f"/ui/events/{CREATED}")
    assert "installation " not in page.text
    assert len(looks()) == before
    shown = reader.post(f"/ui/events/{CREATED}/recent?project={PROJECT}&days=400")
    assert shown.status_code == 200
    newest = looks()[0]
    assert (len(looks()), newest["who"], newest["event"], newest["events"]) == (
        before + 1,
        "default",
        CREATED,
        5,
    )
    assert CREATED in reader.get("/ui/looks").text


def test_few_installations_are_never_counted(service: Service) -> None:
    service.send(*(event(FAILED, f"i{n}", step_count=n) for n in range(4)))
    service.settle()
    with httpx.Client(base_url=service.url) as client:
        client.post("/ui/login", data={"token": TOKEN})
        assert 'data-label="Installations"><span class="soft"' in client.get("/ui").text
        assert ">4<" not in client.get("/ui/installations").text
        charts = re.findall(r"data-chart='([^']*)'", client.get("/ui/installations").text)
        values = [value for one in charts for line in json.loads(one)["series"] for value in line["values"]]
        assert set(values) == {0, None}
        funnel = client.get(f"/ui/journeys?step={FAILED}&step={CREATED}").text
        assert 'data-label="Installations"><span class="soft"' in funnel


def test_pages_allow_no_inline_code_no_framing_and_no_copy(reader: httpx.Client) -> None:
    for path in ("/ui", "/ui/login", "/ui/nowhere"):
        headers = reader.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
    assert reader.get("/ui/static/uplot.js").headers["content-type"].startswith("text/javascript")
    assert reader.get("/ui/static/../site.py").status_code == 404
    assert reader.get("/ui/static/%2e%2e/site.py").status_code == 404


def test_a_project_nobody_has_is_not_found(reader: httpx.Client) -> None:
    answer = reader.get("/ui", params={"project": "nobodys"})
    assert answer.status_code == 404
    assert "write key" in answer.text


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A collector that has refused two shapes, each from six installations."""
    service = Service(tmp_path_factory.mktemp("refusing") / "data")
    people = range(6)
    service.send(*(event(FAILED, f"i{n}") for n in people))
    service.send(*(event(FAILED, f"i{n}", trigger="nonsense") for n in people))
    service.send(*(event(FAILED, f"i{n}", step_count="many") for n in people))
    service.settle()
    yield service
    service.stop()


def test_what_was_refused_is_resolved_on_its_page(browser: Any, refusing: Service) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = login(context.new_page(), refusing)
    tab.goto(f"{refusing.url}/ui/quarantine?days=400")
    shapes = tab.locator("tbody tr")
    assert shapes.count() == 2
    trigger = shapes.filter(has_text="event_properties.trigger")
    trigger.get_by_text("Declare it").click()
    assert "event_properties.trigger" in trigger.locator("pre").inner_text()
    trigger.get_by_role("button", name="Ignore").click()
    assert shapes.count() == 1
    assert "event_properties.step_count" in shapes.inner_text()
    tab.get_by_role("link", name="ignored").click()
    assert "event_properties.trigger" in shapes.inner_text()
    tab.get_by_role("button", name="Reopen").click()
    tab.get_by_role("link", name="open", exact=True).click()
    assert shapes.count() == 2
    shapes.filter(has_text="step_count").get_by_role("button", name="Purge").click()
    assert shapes.count() == 1
    tab.goto(f"{refusing.url}/ui/looks")
    log = [row.inner_text() for row in tab.locator("tbody tr").all()]
    assert [what for row in log for what in ("purge", "reopen", "ignore") if what in row] == [
        "purge",
        "reopen",
        "ignore",
    ]
    assert "event_properties.step_count" in log[0]
    context.close()


def test_a_view_is_saved_opened_and_deleted(tab: Any, filled: Service) -> None:
    login(tab, filled)
    tab.goto(f"{filled.url}/ui/versions?project={PROJECT}&days=90&by=week")
    tab.get_by_text("Save this view").press("Enter")
    tab.get_by_label("Name").fill("Our <b>versions")
    with tab.expect_navigation():
        tab.keyboard.press("Enter")
    tab.get_by_role("link", name="Saved").click()
    tab.get_by_role("link", name="Our <b>versions").click()
    assert tab.get_by_role("link", name="by week").get_attribute("aria-current") == "true"
    assert tab.get_by_label("Last").input_value() == "90"
    tab.goto(f"{filled.url}/ui/saved")
    tab.get_by_role("button", name="Delete").click()
    tab.get_by_text("None yet").wait_for()


def test_sql_is_asked_on_its_page_by_administrators(tab: Any, filled: Service) -> None:
    login(tab, filled)
    tab.goto(f"{filled.url}/ui/sql?days=400")
    tab.get_by_label("Statement").fill(f"SELECT max(event) AS n FROM events WHERE event = '{CREATED}'")
    tab.get_by_role("button", name="Run").press("Enter")
    tab.get_by_text("1 row").wait_for()
    assert tab.locator("main > .card td").inner_text() == CREATED
    assert "SELECT max" in tab.get_by_label("Statement").input_value()


def test_nobody_else_asks_sql(filled: Service) -> None:
    with httpx.Client(base_url=filled.url) as client:
        client.post("/ui/login", data={"token": GUEST})
        page = client.get("/ui/sql?sql=SELECT+1").text
        assert "--administrator guest" in page
        assert "<textarea" not in page
        answer = client.post("/ui/sql/run", data={"sql": "SELECT 1"})
        assert answer.status_code == 403
        assert "administrator" in answer.text
    asked = {"project": PROJECT, "sql": "SELECT 1"}
    answer = filled.http.post("/api/sql", json=asked, headers={"Authorization": f"Bearer {GUEST}"})
    assert answer.status_code == 403


def test_a_refused_statement_says_why(reader: httpx.Client) -> None:
    answer = reader.post("/ui/sql/run", data={"sql": "SELECT * FROM read_text('<img src=x>')"})
    assert answer.status_code == 422
    assert "table function may not be asked" in answer.text
    assert "<img" not in answer.text


def test_an_installation_is_exported_and_erased_on_its_page(service: Service) -> None:
    service.send(event(CREATED, "mine"), event(FAILED, "mine"), event(CREATED, "other"))
    with httpx.Client(base_url=service.url) as client:
        client.post("/ui/login", data={"token": TOKEN})
        whose = {"installation": "mine"}
        file = client.post("/ui/installation/export", data=whose | {"format": "csv"})
        assert file.headers["content-disposition"] == 'attachment; filename="installation.csv"'
        assert len(file.text.splitlines()) == 3
        assert len(client.post("/ui/installation/export", data=whose).json()["events"]) == 2
        unsure = client.post("/ui/installation/erase", data=whose)
        assert (unsure.status_code, "you are sure" in unsure.text) == (422, True)
        erased = client.post("/ui/installation/erase", data=whose | {"sure": "yes"})
        assert "Erased: 2 events and 0 refused values. Left of it: 0." in erased.text
        assert client.post("/ui/installation/export", data=whose).json() == {"events": []}
        assert client.post("/ui/installation/export", data={"installation": " "}).status_code == 422


FORMS = [
    "quarantine/resolve",
    "saved/save",
    "saved/delete",
    "sql/run",
    "installation/export",
    "installation/erase",
]


@pytest.mark.parametrize("path", FORMS)
def test_no_form_is_taken_from_a_stranger_or_another_site(
    filled: Service, reader: httpx.Client, path: str
) -> None:
    given = {"installation": "i1", "sure": "yes", "how": "purge", "sql": "SELECT 1", "name": "x"}
    with httpx.Client(base_url=filled.url) as stranger:
        answer = stranger.post(f"/ui/{path}", data=given)
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/login")
    for site in ("cross-site", "same-site"):
        answer = reader.post(f"/ui/{path}", data=given, headers={"Sec-Fetch-Site": site})
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/login")
    assert reader.get(f"/ui/{path}").status_code == 405
    assert reader.post(f"/ui/{path}", content=b"x" * 70_000).status_code == 413
    assert reader.post(f"/ui/{path}", content=b"a=1&" * 60).status_code == 413


@pytest.mark.parametrize(
    ("path", "given", "status"),
    [
        ("quarantine/resolve", {"how": "ignore", "event": "no:such"}, 404),
        ("quarantine/resolve", {"how": "delete"}, 422),
        ("saved/save", {"name": "x", "page": "//example.org", "query": ""}, 422),
        ("saved/save", {"name": "", "page": "/live", "query": ""}, 422),
        ("saved/save", {"name": "x", "page": "/live", "query": "step=a&" * 60}, 422),
        ("saved/delete", {"name": "no such view"}, 404),
    ],
)
def test_bad_forms_are_answered_with_a_page(
    reader: httpx.Client, path: str, given: dict[str, str], status: int
) -> None:
    answer = reader.post(f"/ui/{path}", data=given)
    assert (answer.status_code, "<main" in answer.text) == (status, True)


def test_everybody_may_read_what_every_event_means(filled: Service, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"{filled.url}/catalogue")
    tab.get_by_text(FAILED, exact=True).click()
    about = tab.locator("details[open]").inner_text()
    for said in (
        "A run failed.",
        "jobs team",
        "2027-06-01",
        "Which triggers are used.",
        "cron, manual, other",
    ):
        assert said in about
    assert PROJECT not in tab.content()
    context.close()
    answer = filled.http.get("/catalogue")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert filled.http.post("/catalogue").status_code == 404
