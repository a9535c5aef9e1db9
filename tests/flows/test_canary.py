"""The platform's canary, as people run it: a collector that expects it is red before, and green after."""

import json
from pathlib import Path

import pytest

from clarion.losses import telemetry_types
from orchest.events import CATALOGUE
from tests.clarion.cli_runs import clarion
from tests.clarion.collecting import a_collector

CANARY, TOKEN = "canary", "look-at-everything"
EVERY = len(telemetry_types(CATALOGUE))


def test_every_type_of_the_platform_arrives_without_a_marker_and_turns_the_verdict(tmp_path: Path) -> None:
    with a_collector(
        tmp_path, app="orchest.events", collector_token=TOKEN, collector_canary=CANARY
    ) as collector:
        collector.token = TOKEN
        keys = {
            project: clarion("collector", "keys", "issue", project, cwd=tmp_path).out.strip()
            for project in (CANARY, "orchest")
        }
        before = collector.ask("verdict", "orchest")
        assert (before["verdict"], before["canary"]["said"]) == ("red", "No canary has ever arrived.")

        def fly(key: str, status: int, **variables: str) -> str:
            ran = clarion(
                "telemetry",
                "canary",
                "--patience",
                "5",
                "--json",
                cwd=tmp_path,
                app="orchest.events",
                collector_url=collector.url,
                collector_token=TOKEN,
                canary_write_key=key,
                **variables,
            )
            assert ran.status == status, ran.all
            return ran.out

        told = json.loads(fly(keys[CANARY], 0))
        assert (told["well"], told["arrived"], told["missing"], told["traces"]) == (True, EVERY, [], [])
        kept = collector.export(told["installation"], CANARY)
        assert len(kept) == EVERY
        after = collector.ask("verdict", CANARY)
        assert (after["verdict"], after["canary"]["well"]) == ("green", True)
        assert {one["verdict"] for one in after["events"]} == {"green"}
        assert collector.ask("quarantine", CANARY) == {"shapes": []}
        assert collector.ask("events", "orchest")["events"] == []
        assert collector.ask("verdict", "orchest")["verdict"] == "unseen"
        assert json.loads(fly("ck_no_key_at_all", 1))["arrived"] == 0


def test_it_flies_not_where_telemetry_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    nowhere = ("--url", "http://127.0.0.1:9", "--write-key", "ck_canary", "--token", "look")
    ran = clarion("telemetry", "canary", *nowhere, cwd=tmp_path, app="orchest.events")
    assert (ran.status, ran.out) == (3, "")
    assert "DO_NOT_TRACK" in ran.err


@pytest.fixture(autouse=True)
def meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    for name in ("DO_NOT_TRACK", "TELEMETRY_DEBUG", "TELEMETRY_UUID"):
        monkeypatch.delenv(name, raising=False)
