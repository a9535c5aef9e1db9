"""``clarion telemetry``: what it says, what it changes, and its exit statuses."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from clarion.analytics import TelemetryData
from clarion.cli import doctor
from clarion.cli.commands import app
from clarion.cli.telemetry import OFF
from clarion.consent import Why
from clarion.database import Base, open_engine
from clarion.losses import telemetry_types
from clarion.outbox import Capture
from clarion.telemetry import TelemetryState
from clarion.testing import FrozenClock, Received, Receiver, Reply, drain
from tests.clarion.telemetry_sample import NOW, TYPES, an_analytics, asking, events_in, switched_on

MODULES = "tests.clarion.sample,tests.clarion.telemetry_sample"
ALIVE = {"active": True}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'cli.db'}"
    monkeypatch.setenv("CLARION_DATABASE_URL", url)
    monkeypatch.setenv("CLARION_APP", MODULES)
    monkeypatch.setenv("CLARION_EGRESS_ALLOWED_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    engine = open_engine(url)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["telemetry", *arguments])
    assert result.exit_code == status, result.output
    return result.output


def send(engine: Engine, how_many: int) -> None:
    analytics = an_analytics(engine, asking(engine))
    for _ in range(how_many):
        assert analytics.send("shop-heartbeat", TelemetryData(ALIVE))


def captures(engine: Engine) -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(Capture)) or 0


def test_status_says_why_it_is_off(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Why.UNCONFIGURED.value in run("status", status=OFF)
    run("configure", "--url", "http://127.0.0.1:9", "--write-key", "ck_shop_key")
    assert Why.NOTICE.value in run("status", status=OFF)
    assert "No names, paths" in run("enable")
    report = json.loads(run("status", "--json"))
    assert (report["on"], report["url"], report["waiting"]) == (True, "http://127.0.0.1:9", 0)
    assert len(report["schema"]) == 64
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert Why.DO_NOT_TRACK.value in run("status", status=OFF)
    assert Why.DO_NOT_TRACK.value in run("enable", status=OFF)


def test_status_never_shows_the_key_or_the_write_key(engine: Engine) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    with Session(engine) as session:
        state = session.scalars(select(TelemetryState)).one()
    said = run("status") + run("status", "--json")
    assert state.key.hex() not in said
    assert state.write_key not in said
    assert str(state.installation) in said


def test_disable_deletes_what_waits_and_enable_shows_the_notice_again(engine: Engine) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    send(engine, 3)
    assert "deleted: 3" in run("disable")
    assert captures(engine) == 0
    assert Why.SETTING.value in run("status", status=OFF)
    assert "Telemetry is on." in run("enable")


def test_without_a_backend_nothing_can_be_enabled_but_disabling_is_no_error(engine: Engine) -> None:
    assert "not configured" in run("enable", status=1)
    assert "no analytics backend" in run("disable")
    assert "not configured" in run("verify", status=1)


def test_preview_prints_the_bytes_that_are_then_sent(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clarion.cli.telemetry.now", FrozenClock(NOW))
    with Receiver(lambda _: Reply(200)) as receiver:
        switched_on(engine, receiver.url)
        send(engine, 2)
        shown = run("preview").rstrip("\n").encode()
        drain(engine, clock=FrozenClock(NOW))
        assert receiver.received[0].body == shown
    assert '"shop:order:placed"' in run("preview", "shop:order:placed")
    assert "did you mean" in run("preview", "shop:order:place", status=1)
    assert "nothing waits" in run("preview", status=1)


def test_show_lists_every_property_with_its_purpose(engine: Engine) -> None:
    said = run("show", "--json")
    document: dict[str, Any] = json.loads(said)
    assert set(document["events"]) == {t.name for t in telemetry_types(TYPES)}
    one = run("show", "shop-window:opened")
    assert "What is looked at." in one
    assert (
        document["events"]["shop-window:opened"]["event_properties"]["articles"]["classification"] == "bucket"
    )
    rows = [row.split() for row in run("show", "shop:order:placed").splitlines()]
    order = {row[1]: row[2:] for row in rows if row[0] == "shop:order:placed"}
    assert order["type"][:3] == ["constant", "Its", "type."]
    assert order["schema_version"][0] == "constant"
    assert order["shop.order.uuid"][0] == "pseudonym"
    assert "shop-heartbeat" not in one


def test_log_shows_what_was_sent(engine: Engine) -> None:
    assert "nothing was sent yet" in run("log")
    with Receiver(lambda _: Reply(200)) as receiver:
        switched_on(engine, receiver.url)
        send(engine, 2)
        drain(engine, clock=FrozenClock(NOW))
    rows = json.loads(run("log", "-n", "1", "--json"))
    assert [row["type"] for row in rows] == ["shop-heartbeat"]
    assert rows[0]["telemetry"]["event_properties"] == ALIVE
    assert "delivered" in run("log")


def test_reset_id_and_purge_ask_first(engine: Engine) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    send(engine, 2)
    before = json.loads(run("status", "--json"))["installation"]
    result = CliRunner().invoke(app, ["telemetry", "reset-id"], input="n\n")
    assert result.exit_code == 1
    assert json.loads(run("status", "--json"))["installation"] == before
    assert "Deleted: 2" in run("purge", "--yes")
    run("reset-id", "--yes")
    assert json.loads(run("status", "--json"))["installation"] != before


@pytest.mark.parametrize("lost", [0, 1])
def test_verify_sends_one_of_each_and_says_what_arrived(engine: Engine, lost: int) -> None:
    def reply(request: Received) -> Reply:
        if request.path == "/batch/":
            return Reply(200, (), b'{"status":"Ok"}')
        assert request.headers["authorization"] == "Bearer look"
        ids = json.loads(request.body)["ids"]
        taken = {e["uuid"] for e in events_in([r for r in receiver.received if r.path == "/batch/"])[lost:]}
        arrived = {i: {"anonymous": True, "lag_seconds": 0.25} for i in ids if i in taken}
        return Reply(200, (), json.dumps({"arrived": arrived}).encode())

    with Receiver(reply) as receiver:
        switched_on(engine, receiver.url)
        arguments = ["verify", "--project", "shop", "--token", "look", "--patience", "1", "--json"]
        report = json.loads(run(*arguments, status=lost))
        sent = events_in([r for r in receiver.received if r.path == "/batch/"])
    assert (
        [r["type"] for r in report] == [e["event"] for e in sent] == [t.name for t in telemetry_types(TYPES)]
    )
    assert [r["well"] for r in report].count(False) == lost
    installation = json.loads(run("status", "--json"))["installation"]
    assert {e["distinct_id"] for e in sent} != {installation}


def test_verify_sends_nothing_while_it_is_off(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver(lambda _: Reply(200)) as receiver:
        switched_on(engine, receiver.url)
        monkeypatch.setenv("TELEMETRY_DISABLED", "1")
        run("verify", status=OFF)
        assert receiver.received == []


def test_verify_says_what_the_backend_refused(engine: Engine) -> None:
    with Receiver(lambda _: Reply(401)) as receiver:
        switched_on(engine, receiver.url)
        assert "answered 401" in run("verify", status=1)


def test_status_says_when_the_id_is_replaced_and_prune_replaces_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched_on(engine, "http://127.0.0.1:9/")  # at NOW, which is long ago
    before = json.loads(run("status", "--json"))
    assert before["id replaced"] == "2027-01-01T00:00:00Z"
    monkeypatch.setenv("CLARION_TELEMETRY_ROTATION_DAYS", "0")
    assert json.loads(run("status", "--json"))["id replaced"] is None
    assert "identity    no" in pruned()
    monkeypatch.setenv("CLARION_TELEMETRY_ROTATION_DAYS", "30")
    assert json.loads(run("status", "--json"))["id replaced"] == "2026-01-31T00:00:00Z"
    assert "identity    yes" in pruned()
    assert json.loads(run("status", "--json"))["installation"] != before["installation"]
    assert "identity    no" in pruned()
    monkeypatch.setenv("CLARION_TELEMETRY_ROTATION_DAYS", "-1")
    assert "CLARION_TELEMETRY_ROTATION_DAYS" in run("status", status=2)


def pruned() -> str:
    result = CliRunner().invoke(app, ["prune"])
    assert result.exit_code == 0, result.output
    return result.output


def test_prune_stores_the_report_and_status_counts_and_warns(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLARION_TELEMETRY_ROTATION_DAYS", "0")
    analytics = an_analytics(engine, asking(engine))
    switched_on(engine, "http://127.0.0.1:9/")
    assert "warning" not in run("status")
    assert not analytics.send("shop-heartbeat", TelemetryData({"active": "often"}))
    assert "1 schema_reject" in run("status")
    pruned()
    with Session(engine) as session:
        assert session.scalars(select(Capture.type)).all() == ["telemetry:events:lost"]
    assert "warning" not in run("status")  # it happened just now
    send(engine, 1)  # at NOW, which is long ago
    assert "telemetry has been waiting for" in json.loads(run("status", "--json"))["warning"]


def test_doctor_calls_it_a_fault_when_telemetry_waits_for_more_than_a_day(engine: Engine) -> None:
    switched_on(engine, "http://127.0.0.1:9/")
    send(engine, 1)
    assert [one.health for one in doctor.telemetry(engine, NOW + timedelta(hours=24))] == ["ok"]
    [_, found] = doctor.telemetry(engine, NOW + timedelta(hours=49))
    assert (found.what, found.health) == ("telemetry waits", "fault")
    assert "waiting for 49 hours" in found.said
