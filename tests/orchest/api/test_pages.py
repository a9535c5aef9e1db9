"""The pages: what notifications lead to, and what they must never show or run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from clarion.testing import Receiver, Reply, drain
from orchest.links import PAGES
from orchest.models import Job, Pipeline, PipelineRun, Project
from orchest.platform import Platform
from tests.orchest.api.calling import NOBODY, NOTIFICATIONS, made
from tests.orchest.world import World

EVIL = "<script>alert('x')</script>"


@pytest.fixture
def database(on_both: str) -> str:
    return on_both


@pytest.fixture
def world(platform: Platform) -> World:
    """One of everything, committed."""
    with platform.sessions.begin() as session:
        world = World.in_session(session)
        session.flush()
        session.expunge_all()
    return world


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def links_of(text: str) -> set[str]:
    return set(re.findall(r'href="(/[^"]*)"', text))


def test_every_page_there_is_can_be_reached_from_the_first(
    client: TestClient, platform: Platform, world: World, receiver: Receiver
) -> None:
    """Follow every link; each leads to a page, and all pages that events lead to are among them."""
    made(
        client,
        f"{NOTIFICATIONS}/subscribers/webhooks",
        {"name": "hook", "url": receiver.url, "subscriptions": [{"event_type": "*"}]},
    )
    made(client, "/api/projects", {"name": "another"})
    drain(platform.engine)
    seen: set[str] = set()
    waiting = {"/"}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        answer = client.get(path)
        assert answer.status_code == 200, path
        if answer.headers["content-type"].startswith("text/html"):
            waiting |= links_of(answer.text) - seen
    patterns = [*PAGES.values(), "/events/{event}", "/deliveries/{delivery}", "/subscribers/{subscriber}"]
    patterns.append("/telemetry")
    for pattern in patterns:
        expression = re.compile(re.sub(r"\{\w+\}", "[^/]+", pattern))
        assert any(expression.fullmatch(path) for path in seen), pattern


def test_nothing_foreign_is_loaded(client: TestClient, world: World) -> None:
    text = client.get("/").text
    assert re.findall(r'(?:src|href)="(?!/|data:,|#)', text) == []
    assert client.get("/static/site.css").status_code == 200
    assert client.get("/static/live.js").status_code == 200


def test_names_are_text(client: TestClient, platform: Platform) -> None:
    project = made(client, "/api/projects", {"name": EVIL, "env_variables": {"A": EVIL}})
    pipeline = made(client, f"/api/projects/{project['uuid']}/pipelines", {"name": EVIL})
    hook = made(
        client, f"{NOTIFICATIONS}/subscribers/webhooks", {"name": EVIL, "url": "http://127.0.0.1:9/<b>"}
    )
    event = client.get(f"{NOTIFICATIONS}/events").json()["items"][0]
    paths = [
        "/",
        f"/projects/{project['uuid']}",
        f"/projects/{project['uuid']}/pipelines/{pipeline['uuid']}",
        f"/events/{event['uuid']}",
        "/events",
        "/subscribers",
        f"/subscribers/{hook['uuid']}",
    ]
    for path in paths:
        text = client.get(path).text
        assert EVIL not in text, path
        assert "alert(" in text, path


def test_answers_of_receivers_are_text(client: TestClient, platform: Platform, receiver: Receiver) -> None:
    receiver.reply = lambda _: Reply(500, (("x-evil", EVIL),), EVIL.encode())
    body = {"name": "hook", "url": receiver.url, "subscriptions": [{"event_type": "*"}]}
    made(client, f"{NOTIFICATIONS}/subscribers/webhooks", body)
    made(client, "/api/projects", {"name": "one"})
    drain(platform.engine)
    text = client.get("/deliveries/1").text
    assert EVIL not in text
    assert text.count("alert(") == 2


def change(platform: Platform, act: Any) -> None:
    with platform.sessions.begin() as session:
        act(session)


def run_path(world: World, run: PipelineRun) -> str:
    return f"/projects/{run.project_uuid}/jobs/{run.job_uuid}/runs/{run.uuid}"


def test_a_run_shows_its_logs_and_hides_secrets(
    client: TestClient, platform: Platform, world: World, tmp_path: Path
) -> None:
    run = world.job_run
    step = next(iter(run.definition["steps"]))
    log = tmp_path / "run" / "steps" / step / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("early\n" * 20_000 + "the last line <b>")

    def act(session: Session) -> None:
        row = session.get_one(PipelineRun, run.uuid)
        row.run_path = str(tmp_path / "run")
        row.parameters = {"pipeline_parameters": {"k": 31, "api_key": "hush"}}

    change(platform, act)
    text = client.get(run_path(world, run)).text
    assert "the last line &lt;b&gt;" in text
    assert len(text) < 100_000
    assert "k=31" in text
    assert "hush" not in text


def test_environment_variables_that_look_secret_are_hidden(client: TestClient) -> None:
    variables = {"API_TOKEN": "hush", "REGION": "eu-north"}
    project = made(client, "/api/projects", {"name": "one", "env_variables": variables})
    text = client.get(f"/projects/{project['uuid']}").text
    assert "hush" not in text
    assert "eu-north" in text


def test_what_was_deleted_tells_what_happened_to_it(client: TestClient) -> None:
    project = made(client, "/api/projects", {"name": "one"})
    client.delete(f"/api/projects/{project['uuid']}")
    answer = client.get(f"/projects/{project['uuid']}")
    assert answer.status_code == 404
    assert "Project one was deleted" in answer.text
    assert client.get(f"/projects/{NOBODY}").status_code == 404


def test_a_thing_of_another_project_is_not_there(
    client: TestClient, platform: Platform, world: World
) -> None:
    other = made(client, "/api/projects", {"name": "two"})["uuid"]
    run = world.job_run
    for path in (
        f"/projects/{other}/jobs/{run.job_uuid}",
        f"/projects/{other}/jobs/{run.job_uuid}/runs/{run.uuid}",
        f"/projects/{other}/pipelines/{run.pipeline_uuid}",
        f"/projects/{run.project_uuid}/jobs/{NOBODY}/runs/{run.uuid}",
        f"/projects/{run.project_uuid}/pipelines/{run.pipeline_uuid}/runs/{run.uuid}",
    ):
        assert client.get(path).status_code == 404, path


def test_a_definition_that_cannot_be_read_any_more(
    client: TestClient, platform: Platform, world: World
) -> None:
    run = world.job_run

    def act(session: Session) -> None:
        session.get_one(PipelineRun, run.uuid).definition = {"steps": 7}
        session.get_one(Job, run.job_uuid).definition = {"steps": 7}
        session.get_one(Pipeline, (run.project_uuid, run.pipeline_uuid)).definition = {"steps": 7}

    change(platform, act)
    for path in (
        run_path(world, run),
        f"/projects/{run.project_uuid}/jobs/{run.job_uuid}",
        f"/projects/{run.project_uuid}/pipelines/{run.pipeline_uuid}",
    ):
        assert client.get(path).status_code == 200, path


def test_delivering_again_and_pinging_from_a_page(
    client: TestClient, platform: Platform, receiver: Receiver
) -> None:
    body = {"name": "hook", "url": receiver.url, "subscriptions": [{"event_type": "*"}]}
    uuid = made(client, f"{NOTIFICATIONS}/subscribers/webhooks", body)["uuid"]
    made(client, "/api/projects", {"name": "one"})
    drain(platform.engine)
    answer = client.post("/deliveries/1/redeliver")
    assert (answer.status_code, answer.headers["location"]) == (303, "/deliveries/1")
    assert drain(platform.engine) == 1
    assert "answered with 204" in client.post(f"/subscribers/{uuid}/ping").text
    receiver.reply = lambda _: Reply(404)
    assert "was not delivered" in client.post(f"/subscribers/{uuid}/ping").text


def test_a_subscriber_is_deleted_by_who_was_asked(client: TestClient, receiver: Receiver) -> None:
    body = {"name": "<b>hook", "url": receiver.url, "subscriptions": [{"event_type": "*"}]}
    uuid = made(client, f"{NOTIFICATIONS}/subscribers/webhooks", body)["uuid"]
    path = f"/subscribers/{uuid}/delete"
    assert f'action="{path}"' in client.get(f"/subscribers/{uuid}").text
    asked = client.get(path).text
    assert "<h1>Delete &lt;b&gt;hook?</h1>" in asked
    assert f'method="post" action="{path}"' in asked
    assert client.get(f"/subscribers/{uuid}").status_code == 200  # to ask is not to delete
    answer = client.post(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/subscribers")
    assert client.get(path).status_code == client.post(path).status_code == 404


def test_deliveries_by_state(client: TestClient) -> None:
    assert client.get("/deliveries?state=dead").status_code == 200
    assert client.get("/deliveries?state=lost").status_code == 422


def test_an_empty_platform_says_how_to_begin(client: TestClient, platform: Platform) -> None:
    assert "POST /api/projects" in client.get("/").text
    with platform.readers() as session:
        assert session.query(Project).count() == 0
