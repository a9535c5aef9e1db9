"""A backup is one file, and a collector started on it has everything that was answered."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from clarion.collector.service import Collector, Settings
from clarion.errors import Forbidden
from tests.clarion.collector.sample import CREATED, FAILED, PROJECT, event
from tests.clarion.collector.test_queries import BEARER, Running, post, running, settings

__all__ = ["settings"]


async def fetched(collector: Running) -> bytes:
    answer = await collector.http.post("/api/backup", headers=BEARER)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-tar")
    assert list(collector.app.collector.settings.data.glob("backup-*")) == []
    return answer.content


def unpacked(content: bytes, where: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(where, filter="data")
    return where


@pytest.fixture
def administrated(settings: Settings) -> Settings:
    return replace(settings, administrators=frozenset({"ada"}))


async def test_a_collector_started_on_a_backup_knows_everything(
    administrated: Settings, tmp_path: Path
) -> None:
    async with running(administrated) as collector:
        await collector.send(event(CREATED, "mine"), event(FAILED, "mine", trigger="nonsense"))
        await post(collector, "views/ours", {"page": "/live", "query": ""}, "PUT")
        [shape] = (await collector.ask("quarantine")).json()["shapes"]
        key = {name: shape[name] for name in ("event", "path", "problem", "type", "size", "library")}
        await post(collector, "quarantine/resolve", {"project": PROJECT, **key, "how": "ignore"})
        content = await fetched(collector)
        await collector.send(event(CREATED, "later"))  # the collector goes on, the backup does not
        looks = (await collector.ask("audit")).json()["looks"]
        assert [look["what"] for look in looks] == ["backup", "ignore"]
        assert (await collector.ask("events")).json()["events"][0]["events"] == 2
    again = replace(administrated, data=unpacked(content, tmp_path / "restored"))
    async with running(again) as collector:
        found = (await collector.ask("events")).json()["events"]
        assert [(row["event"], row["events"]) for row in found] == [(CREATED, 1)]
        mine = {"project": PROJECT, "installation": "mine"}
        assert len((await post(collector, "installations/export", mine)).json()["events"]) == 1
        assert (await collector.ask("quarantine")).json() == {"shapes": []}
        assert len((await collector.ask("quarantine?ignored=true")).json()["shapes"]) == 1
        assert [one["name"] for one in (await collector.ask("views")).json()["views"]] == ["ours"]
        looks = (await collector.ask("audit")).json()["looks"]
        assert [look["what"] for look in looks] == ["export", "backup", "ignore"]


async def test_what_is_in_the_journal_only_is_in_the_backup(
    administrated: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Collector, "flush", lambda _: False)  # as with a store that is too slow
    async with running(administrated) as collector:
        await collector.send(event(CREATED, "mine"))
        content = await fetched(collector)
    monkeypatch.undo()
    again = replace(administrated, data=unpacked(content, tmp_path / "restored"))
    async with running(again) as collector:
        assert (await collector.ask("events")).json()["events"][0]["events"] == 1


async def test_a_backup_holds_the_secret_so_it_is_for_administrators(settings: Settings) -> None:
    async with running(settings) as collector:
        answer = await collector.http.post("/api/backup", headers=BEARER)
        assert answer.status_code == Forbidden.status
        assert (await collector.http.post("/api/backup")).status_code == 401


async def test_a_backup_that_nobody_fetched_to_the_end_goes_at_the_next_start(settings: Settings) -> None:
    settings.data.mkdir()
    left = settings.data / "backup-x.tar"
    left.write_bytes(b"half")
    async with running(settings):
        assert not left.exists()
