"""Creating once, however often the request is sent."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from clarion.testing import FrozenClock
from orchest.app import create_app
from orchest.models import KeptAnswer, Project
from orchest.platform import Platform
from orchest.site import Site
from tests.orchest.api.calling import BASE, count, refused, types

KEY = {"idempotency-key": "4f1e"}


@pytest.fixture
def database(on_both: str) -> str:
    return on_both


def create(client: TestClient, name: str, **headers: str) -> Any:
    return client.post("/api/projects", json={"name": name}, headers={**KEY, **headers})


def test_the_same_request_twice_is_done_once(client: TestClient, platform: Platform) -> None:
    first, second = create(client, "one"), create(client, "one")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert types(platform) == ["project:created"]
    assert len(list(platform.site.projects.iterdir())) == 1


def test_another_body_under_the_same_key(client: TestClient, platform: Platform) -> None:
    create(client, "one")
    answer = create(client, "two")
    assert refused(answer) == ["Idempotency-Key"]
    assert answer.json()["errors"][0]["location"] == "header"
    assert count(platform, Project) == 1


def test_another_key_is_another_request(client: TestClient, platform: Platform) -> None:
    create(client, "one")
    create(client, "one", **{"idempotency-key": "other"})
    assert count(platform, Project) == 2


def test_a_request_that_failed_may_be_sent_again(
    client: TestClient, platform: Platform, tmp_path: Path
) -> None:
    body = {"name": "one", "path": str(tmp_path / "later")}
    refused(client.post("/api/projects", json=body, headers=KEY))
    (tmp_path / "later").mkdir()
    assert client.post("/api/projects", json=body, headers=KEY).status_code == 201


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
def test_keys_that_are_none(client: TestClient, platform: Platform, key: str) -> None:
    answer = client.post("/api/projects", json={"name": "x"}, headers={"idempotency-key": key.encode()})  # type: ignore[dict-item]
    assert refused(answer) == ["Idempotency-Key"]
    assert count(platform, Project) == 0


def test_the_same_request_at_the_same_moment(client: TestClient, platform: Platform) -> None:
    answers: list[Any] = []
    together = threading.Barrier(6)

    def send() -> None:
        together.wait(10)
        answers.append(create(client, "one"))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["uuid"] for answer in answers}) == 1
    assert types(platform) == ["project:created"]


def test_answers_are_forgotten_after_a_day(platform: Platform) -> None:
    clock = FrozenClock()
    platform.site = Site(BASE, platform.site.data, clock)
    with TestClient(create_app(platform, workers=False), base_url=BASE) as client:
        first = create(client, "one")
        clock.now += timedelta(days=1)
        second = create(client, "one", **{"idempotency-key": "new"})
        assert second.status_code == 201
        assert second.json()["uuid"] != first.json()["uuid"]
    assert count(platform, KeptAnswer) == 1
