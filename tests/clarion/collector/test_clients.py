"""The official clients, unchanged, against a real collector: Python, Node and two browsers' in Chromium.

The JavaScript clients are installed by npm from ``js/package-lock.json`` on first use; without npm, or
without Chromium at ``/usr/bin/chromium``, their tests are skipped and say so.
"""

import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import npm
from tests.clarion.collector.conftest import Service, until
from tests.clarion.collector.sample import CREATED, FAILED, KEY, properties

JS = Path(__file__).parent / "js"
WHO = "0d9c1e5e-6d0f-4b7e-8a53-9b1d2c3e4f50"
FIRST_INSTALLS = pytest.mark.timeout(300)
"""For the tests that may have to fetch the clients first."""
SWITCHES = ("$process_person_profile", "$geoip_disable")


def kept(name: str = CREATED) -> dict[str, Any]:
    """What must be left of the properties: all that was declared, nothing that was added."""
    return {key: value for key, value in properties(name).items() if key not in SWITCHES}


def check(service: Service, *names: str, library: str) -> None:
    """The events arrived once, whole, clean, and nothing was quarantined."""
    found = service.export(WHO)
    assert sorted(one["event"] for one in found) == sorted(names)
    assert all(one["properties"] == kept(one["event"]) for one in found)
    assert {one["library"] for one in found} == {library}
    assert service.quarantined() == 0, service.ask("quarantine")


@pytest.mark.parametrize("gzip", [False, True])
def test_posthog_python_v0(service: Service, gzip: bool) -> None:
    import posthog

    failures: list[object] = []
    client = posthog.Posthog(
        KEY, host=service.url, gzip=gzip, max_retries=0, on_error=lambda error, _: failures.append(error)
    )
    client.capture(CREATED, distinct_id=WHO, properties=properties())
    client.capture(FAILED, distinct_id=WHO, properties=properties(FAILED))
    client.shutdown()
    assert not failures
    check(service, CREATED, FAILED, library="posthog-python")
    assert "posthog-python:$lib" in service.stripped()


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate", "zstd"])
def test_posthog_python_v1(service: Service, compression: str) -> None:
    import posthog

    failures: list[object] = []
    client = posthog.Posthog(
        KEY,
        host=service.url,
        capture_mode="v1",
        capture_compression=compression,
        max_retries=0,
        on_error=lambda error, _: failures.append(error),
    )
    client.capture(CREATED, distinct_id=WHO, properties=properties())
    client.capture(FAILED, distinct_id=WHO, properties=properties(FAILED))
    client.shutdown()
    assert not failures
    check(service, CREATED, FAILED, library="posthog-python")


def test_segment_python(service: Service) -> None:
    from segment.analytics.client import Client

    failures: list[object] = []
    client = Client(
        KEY, host=service.url, gzip=True, max_retries=0, on_error=lambda error, _: failures.append(error)
    )
    client.track(anonymous_id=WHO, event=CREATED, properties=properties(), context={"ip": "203.0.113.9"})
    client.track(anonymous_id=WHO, event=FAILED, properties=properties(FAILED))
    client.flush()
    client.join()
    assert not failures
    check(service, CREATED, FAILED, library="segment-python")
    assert "segment-python:context.ip" in service.stripped()


def test_rudder_python(service: Service) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own deprecations
        from rudderstack.analytics.client import Client

    failures: list[object] = []
    client = Client(KEY, host=service.url, max_retries=0, on_error=lambda error, _: failures.append(error))
    client.track(user_id=WHO, event=CREATED, properties=properties())
    client.track(user_id=WHO, event=FAILED, properties=properties(FAILED))
    client.flush()
    client.join()
    assert not failures
    check(service, CREATED, FAILED, library="segment-python")  # the name this fork still sends


@pytest.fixture(scope="session")
def modules() -> Path:
    """The installed JavaScript clients."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm: install Node.js, and the tests fetch the clients with `npm ci`")
    with npm.installed(JS) as found:
        return found


def node(modules: Path, script: str, *arguments: str) -> None:
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script, "x", *arguments],
        cwd=modules.parent,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "NODE_PATH": str(modules)},
    )
    assert done.returncode == 0, done.stderr


POSTHOG_NODE = """
import { PostHog } from "posthog-node";
const [, , url, key, who, events] = process.argv;
const client = new PostHog(key, { host: url, fetchRetryCount: 0 });
let failed = 0;
client.on("error", () => { failed += 1; });
for (const [event, properties] of JSON.parse(events)) {
  client.capture({ distinctId: who, event, properties });
}
await client.shutdown();
process.exit(failed);
"""

SEGMENT_NODE = """
import { Analytics } from "@segment/analytics-node";
const [, , url, key, who, events] = process.argv;
const client = new Analytics({ writeKey: key, host: url, maxRetries: 0 });
let failed = 0;
client.on("error", () => { failed += 1; });
for (const [event, properties] of JSON.parse(events)) client.track({ anonymousId: who, event, properties });
await client.closeAndFlush();
process.exit(failed);
"""


@FIRST_INSTALLS
@pytest.mark.parametrize(
    ("script", "library"), [(POSTHOG_NODE, "posthog-node"), (SEGMENT_NODE, "segment-node")]
)
def test_node_clients(service: Service, modules: Path, script: str, library: str) -> None:
    events = json.dumps([[CREATED, properties()], [FAILED, properties(FAILED)]])
    node(modules, script, service.url, KEY, WHO, events)
    check(service, CREATED, FAILED, library=library)


POSTHOG_JS = """
import posthog from "/posthog-js/dist/module.no-external.js";
posthog.init(config.key, {
  api_host: config.url, bootstrap: { distinctID: config.who }, autocapture: false, capture_pageview: false,
  capture_pageleave: false, person_profiles: "never",
  opt_out_useragent_filter: true,  // or it takes headless Chromium for a robot
  persistence: "memory", request_batching: config.batching,
  loaded: (client) => {
    for (const [event, properties] of config.events) client.capture(event, properties);
    window.done = true;
  },
});
"""

POSTHOG_JS_LITE = """
import PostHog from "/posthog-js-lite/dist/index.mjs";
const client = new PostHog(config.key, {
  host: config.url, persistence: "memory", bootstrap: { distinctId: config.who, isIdentifiedId: true },
  flushAt: 100, captureMode: "json",
});
for (const [event, properties] of config.events) client.capture(event, properties);
await client.flush();
window.done = true;
"""

PAGE = """<!doctype html><title>Orchest of Ada</title>
<script type="importmap">{"imports": {"@posthog/core": "/@posthog/core/dist/index.mjs"}}</script>
<script>window.config = CONFIG; window.failures = [];
addEventListener("error", (e) => failures.push(String(e.message)));
addEventListener("unhandledrejection", (e) => failures.push(String(e.reason)));</script>
<script type="module">SCRIPT</script>"""


class Pages(http.server.SimpleHTTPRequestHandler):
    """The test page and the installed modules, from an origin that is not the collector's."""

    page = b""
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

    def do_GET(self) -> None:
        if self.path.startswith("/page"):
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(type(self).page)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def pages(modules: Path, page: str) -> Iterator[str]:
    handler = type("Handler", (Pages,), {"page": page.encode()})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(modules))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/page?token=secret-of-ada"
        server.shutdown()
        thread.join()


@FIRST_INSTALLS
@pytest.mark.parametrize(
    ("script", "library", "batching"),
    [
        (POSTHOG_JS, "posthog-js", True),
        (POSTHOG_JS, "posthog-js", False),
        (POSTHOG_JS_LITE, "posthog-js-lite", True),
    ],
)
def test_browser_clients(
    service: Service, modules: Path, browser: Any, script: str, library: str, batching: bool
) -> None:
    events = [[CREATED, properties()], [FAILED, properties(FAILED)]]
    config = {"key": KEY, "url": service.url, "who": WHO, "events": events, "batching": batching}
    page = PAGE.replace("SCRIPT", script).replace("CONFIG", json.dumps(config))
    with pages(modules, page) as address:
        tab = browser.new_page()
        tab.goto(address)
        tab.wait_for_function("window.done || window.failures.length", timeout=20_000)
        assert tab.evaluate("window.failures") == []
        until(lambda: len(service.export(WHO)) == 2)
        tab.close()
    check(service, CREATED, FAILED, library=library)
    assert not any(
        "secret-of-ada" in path.read_bytes().decode("latin-1") for path in service.data.rglob("*.*")
    )


def test_an_event_nobody_declared_is_a_drop_for_v1_and_no_retry(service: Service) -> None:
    name = str(uuid.uuid4())
    sent = {
        "created_at": "2026-11-20T10:00:00Z",
        "batch": [
            {
                "event": "not:declared",
                "uuid": name,
                "distinct_id": WHO,
                "timestamp": "2026-11-20T10:00:00Z",
                "properties": {},
            }
        ],
    }
    answer = service.http.post(
        "/i/v1/analytics/events", json=sent, headers={"Authorization": f"Bearer {KEY}"}
    )
    assert answer.status_code == 200
    assert answer.json() == {"results": {name: {"result": "drop", "details": "unknown event"}}}
