"""A collector that expects a canary calls nothing green without a fresh one."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from clarion.collector.canary import PATIENCE
from clarion.collector.keys import WriteKey
from clarion.collector.service import Settings
from tests.clarion.collector.sample import KEY, PROJECT, TOKEN, batch, event
from tests.clarion.collector.test_queries import Running, running, settings  # noqa: F401

CANARY, CANARY_KEY = "canary", "ck_test_key_of_the_canary"


@pytest.fixture
def expecting(settings: Settings) -> Settings:  # noqa: F811
    keys = (WriteKey.of(PROJECT, KEY), WriteKey.of(CANARY, CANARY_KEY))
    return replace(settings, write_keys=keys, canary=CANARY)


async def verdict(collector: Running, project: str = PROJECT) -> dict[str, Any]:
    answer = await collector.ask(f"verdict?project={project}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def arrive(collector: Running) -> None:
    body = batch(event()) | {"api_key": CANARY_KEY}
    assert (await collector.http.post("/batch/", json=body)).status_code == 200


async def test_no_green_before_the_first_nor_26_hours_after_the_last(expecting: Settings) -> None:
    async with running(expecting) as collector:
        await collector.send(event())
        first = await verdict(collector)
        assert first["verdict"] == "red"
        assert first["canary"] == {
            "project": CANARY,
            "well": False,
            "last_seen": None,
            "said": "No canary has ever arrived.",
        }
        assert "green" in {one["verdict"] for one in first["events"]}  # what arrived is still judged
        await arrive(collector)
        fresh = await verdict(collector)
        assert (fresh["verdict"], fresh["canary"]["well"], fresh["canary"]["said"]) == ("green", True, "")
        assert fresh["canary"]["last_seen"] == "2026-11-20T12:00:00.000Z"
        collector.clock.now += PATIENCE
        assert (await verdict(collector))["verdict"] == "green"
        collector.clock.now += timedelta(seconds=1)
        late = await verdict(collector)
        assert (late["verdict"], late["canary"]["said"]) == ("red", "No canary for 26 hours.")
        assert (await verdict(collector, CANARY))["verdict"] == "red"
        await arrive(collector)
        assert (await verdict(collector))["verdict"] == "green"


async def test_the_pages_say_so_and_begin_with_another_project(expecting: Settings) -> None:
    async with running(expecting) as collector:
        await collector.send(event())
        await collector.ask("verdict")
        await collector.http.post("/ui/login", data={"token": TOKEN})
        page = (await collector.http.get("/ui")).text
        assert "No canary has ever arrived." in page
        assert page.index(f"<option selected>{PROJECT}") < page.index(f"<option>{CANARY}")
        await arrive(collector)
        await collector.ask("verdict")
        page = (await collector.http.get("/ui")).text
        assert "No canary" not in page
        assert ">anonymous</span>" in page


async def test_what_another_project_sends_is_no_canary(expecting: Settings) -> None:
    async with running(expecting) as collector:
        await collector.send(event())
        assert (await verdict(collector))["verdict"] == "red"


async def test_no_number_of_another_project_counts_it(expecting: Settings) -> None:
    async with running(expecting) as collector:
        await collector.send(event())
        before = [(await collector.ask(path)).json() for path in ("events", "installations", "versions")]
        for _ in range(3):
            await arrive(collector)
        after = [(await collector.ask(path)).json() for path in ("events", "installations", "versions")]
        assert after == before


async def test_who_expects_none_is_told_nothing_of_it(settings: Settings) -> None:  # noqa: F811
    async with running(settings) as collector:
        await collector.send(event())
        found = await verdict(collector)
        assert found["verdict"] == "green"
        assert "canary" not in found
