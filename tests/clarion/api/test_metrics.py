"""``GET /metrics``: what waits, since when, what was attempted and what was lost, as Prometheus reads it."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from clarion.analytics import TelemetryData
from clarion.api.metrics import escaped, metrics_router
from clarion.outbox import record
from clarion.testing import FrozenClock, Receiver, Reply, drain
from tests.clarion.plain import Plain, add_plain
from tests.clarion.sample import ABOUT_SHOP, ShopEvent
from tests.clarion.telemetry_sample import NOW, an_analytics, recording, switched_on

LINE = re.compile(r'clarion_[a-z0-9_]+\{[a-z]+="(?:[^"\\\n]|\\.)*"\} [0-9.e+-]+')
PLAIN = Plain.__mapper__.polymorphic_identity


@pytest.fixture(autouse=True)
def meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOW)


@pytest.fixture
def client(engine: Engine, clock: FrozenClock) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(metrics_router(engine, clock))
    with TestClient(app) as client:
        yield client


def scrape(client: TestClient) -> dict[str, float]:
    answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    lines = answer.text.splitlines()
    declared = [line.split() for line in lines if line.startswith("#")]
    assert all(one[1] == "TYPE" and one[3] in ("gauge", "counter") for one in declared)
    assert len({one[2] for one in declared}) == len(declared)
    samples = [line for line in lines if not line.startswith("#")]
    assert [line for line in samples if not LINE.fullmatch(line)] == []
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in samples)}


def test_what_waits_by_kind_and_since_when(client: TestClient, engine: Engine, clock: FrozenClock) -> None:
    assert not any("pending" in name for name in scrape(client))
    with Receiver(lambda r: Reply(200 if r.path == "/batch/" else 500)) as receiver:
        telemetry = switched_on(engine, receiver.url)
        analytics = an_analytics(engine, telemetry, clock=clock)
        with Session(engine, info=recording(telemetry)) as session:
            add_plain(session, receiver.url, "*")
            record(session, ShopEvent("opened", **ABOUT_SHOP))
            session.commit()
        clock.advance(hours=2)
        assert analytics.send("shop-heartbeat", TelemetryData({"active": True}))
        clock.advance(hours=1)
        before = scrape(client)
        assert before['clarion_deliveries_pending{kind="analytics"}'] == 2
        assert before[f'clarion_deliveries_pending{{kind="{PLAIN}"}}'] == 1
        assert before['clarion_oldest_pending_seconds{kind="analytics"}'] == 3 * 3600
        attempts = drain(engine, clock=clock)
    after = scrape(client)
    assert after['clarion_deliveries_pending{kind="analytics"}'] == 0
    assert after['clarion_oldest_pending_seconds{kind="analytics"}'] == 0
    assert after[f'clarion_deliveries_pending{{kind="{PLAIN}"}}'] == 1
    assert after[f'clarion_oldest_pending_seconds{{kind="{PLAIN}"}}'] == 3 * 3600

    def attempted(outcome: str) -> float:
        name = f'clarion_attempts_total{{label="{outcome}"}}'
        return after[name] - before.get(name, 0)

    assert (attempted("delivered"), attempted("retry"), attempts) == (2, 1, 3)


def test_what_was_given_up_and_what_telemetry_lost(
    client: TestClient, engine: Engine, clock: FrozenClock
) -> None:
    with Receiver(lambda _: Reply(403)) as receiver:
        analytics = an_analytics(engine, switched_on(engine, receiver.url), clock=clock)
        assert analytics.send("shop-heartbeat", TelemetryData({"active": True}))
        assert not analytics.send("shop-heartbeat", TelemetryData({"active": "often"}))
        drain(engine, clock=clock)
    found = scrape(client)
    assert found['clarion_deliveries_dead{kind="analytics"}'] == 1
    assert found['clarion_telemetry_lost_total{reason="schema_reject"}'] == 1
    assert found['clarion_telemetry_refused_total{label="value"}'] >= 1


def test_a_label_cannot_break_out_of_its_quotes() -> None:
    assert escaped('a"b\\c\nd') == 'a\\"b\\\\c\\nd'
