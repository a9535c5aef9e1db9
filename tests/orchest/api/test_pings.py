"""Pinging the analytics backend."""

from datetime import UTC, datetime

from starlette.testclient import TestClient

from clarion.outbox import Delivery
from clarion.telemetry import Telemetry
from orchest.collecting import switch_on
from orchest.platform import Platform
from tests.orchest.api.calling import count, types


def test_without_telemetry_there_is_nothing_to_ping(client: TestClient, platform: Platform) -> None:
    answer = client.post("/api/telemetry/ping")
    assert answer.status_code == 409
    assert "telemetry is off" in answer.json()["detail"]
    assert types(platform) == []


def test_a_ping_is_recorded_and_goes_the_way_of_all_telemetry(client: TestClient, platform: Platform) -> None:
    url = platform.engine.url.render_as_string(hide_password=False)
    telemetry = platform.analytics.telemetry
    Telemetry.__init__(telemetry, telemetry.reader, environ={})  # as in a platform that is no test run
    switch_on(url, platform.site.data, "http://127.0.0.1:9/", "write-key", datetime.now(UTC))
    assert telemetry.reader is not None
    telemetry.reader.forget()
    answer = client.post("/api/telemetry/ping")
    assert answer.status_code == 202, answer.text
    assert types(platform) == ["debug-ping"]
    assert count(platform, Delivery) == 1
