"""The published browser client in a real Chromium against the real relay: what it sends is stored."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from clarion.api.analytics import analytics_router
from clarion.database import Base, open_engine
from clarion.outbox import Capture
from tests.clarion.telemetry_sample import an_analytics, switched_on

CLIENT = Path(__file__).resolve().parents[3] / "src/clarion/web/static/telemetry.js"
CHROMIUM = Path("/usr/bin/chromium")
PAGE = "<!doctype html><title>shop</title><script src='/telemetry.js'></script>"
POLICY = {"content-security-policy": "default-src 'self'; connect-src 'self'"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('browser') / 'shop.db'}")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def site(engine: Engine) -> Iterator[str]:
    """A shop with the relay, on a port the system picks."""
    from clarion.telemetry import utc_now

    analytics = an_analytics(engine, switched_on(engine, "http://127.0.0.1:9/"), clock=utc_now)
    app = FastAPI()
    app.include_router(analytics_router(analytics))
    app.get("/telemetry.js")(lambda: FileResponse(CLIENT, media_type="text/javascript"))
    app.get("/", response_class=HTMLResponse)(lambda: HTMLResponse(PAGE, headers=POLICY))
    app.get("/open", response_class=HTMLResponse)(lambda: HTMLResponse("<!doctype html><title>other</title>"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def page(site: str) -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("needs Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright drives Chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        tab = chromium.new_page()
        tab.goto(site)
        yield tab
        chromium.close()


TRACK = """(count) => {
  window.client ??= ClarionTelemetry.createTelemetry({ consent: true });
  for (let n = 0; n < count; n++) {
    window.client.track("shop-window:opened", { name: "cart", articles: n, client: "1.2" });
  }
}"""


def stored(engine: Engine, at_least: int) -> list[dict[str, Any]]:
    """What is stored once there is enough of it; a page does not wait for its beacon, so the test does."""
    deadline = time.monotonic() + 15
    while True:
        with Session(engine.execution_options(read_only=True)) as session:
            found = session.scalars(select(Capture).order_by(Capture.id)).all()
        if len(found) >= at_least or time.monotonic() > deadline:
            return [capture.telemetry["event_properties"] for capture in found]
        time.sleep(0.02)


def test_a_full_batch_and_a_beacon_are_stored(page: Any, site: str, engine: Engine) -> None:
    with page.expect_response("**/analytics") as answer:
        page.evaluate(TRACK, 20)
    assert (answer.value.status, answer.value.json()) == (200, {"accepted": 20, "refused": 0})
    page.evaluate(TRACK, 3)
    page.goto(f"{site}/telemetry.js")  # leaving hands the rest to a beacon
    sent = stored(engine, 23)
    assert len(sent) == 23
    assert {one["name"] for one in sent} == {"cart"}
    assert {one["articles"] for one in sent} == {"0", "1", "2-5", "6-10", "11-50"}


def test_a_page_of_another_origin_is_refused(page: Any, site: str, engine: Engine) -> None:
    before = len(stored(engine, 0))
    page.goto(site)
    post = """async ([url, mode]) => {
      const properties = { name: "cart", articles: 1, client: null };
      const body = JSON.stringify({ event: "shop-window:opened", properties });
      return (await fetch(url, { method: "POST", mode, body })).type;
    }"""
    assert page.evaluate(post, [f"{site}/analytics", "same-origin"]) == "basic"
    assert len(stored(engine, before + 1)) == before + 1
    page.goto(site.replace("127.0.0.1", "localhost") + "/open")
    with page.expect_response("**/analytics") as answer:
        assert page.evaluate(post, [f"{site}/analytics", "no-cors"]) == "opaque"
    assert answer.value.status == 403
    assert len(stored(engine, 0)) == before + 1
