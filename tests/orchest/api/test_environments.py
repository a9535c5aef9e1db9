"""Environments and builds over HTTP."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from orchest.builders import Builders
from orchest.building import Bounds, Building
from orchest.builds import claim_builds
from orchest.platform import Platform
from tests.orchest.api.calling import NOBODY, made, refused, types
from tests.orchest.api.working import wait_for, working

NEW = {"name": "env", "base": "python-bare"}


@pytest.fixture
def project(client: TestClient) -> str:
    uuid: str = made(client, "/api/projects", {"name": "project"})["uuid"]
    return uuid


@pytest.fixture
def path(client: TestClient, project: str) -> str:
    """Of an environment."""
    root = f"/api/projects/{project}/environments"
    return f"{root}/{made(client, root, NEW)['uuid']}"


def test_an_environment_is_created_shown_and_listed(client: TestClient, project: str) -> None:
    root = f"/api/projects/{project}/environments"
    body = {**NEW, "language": "julia", "gpu_support": True, "setup_script": "true"}
    created = made(client, root, body)
    assert body.items() <= created.items()
    assert created["base_is_ours"]
    assert created["url"].endswith(f"/projects/{project}/environments/{created['uuid']}")
    assert client.get(f"{root}/{created['uuid']}").json() == created
    assert client.get(root).json() == {"items": [created], "next": None}


def test_creating_twice_with_one_key_is_done_once(
    client: TestClient, platform: Platform, project: str
) -> None:
    root, key = f"/api/projects/{project}/environments", {"Idempotency-Key": "k"}
    first, again = (client.post(root, json=NEW, headers=key) for _ in range(2))
    assert (again.status_code, again.json()) == (201, first.json())
    assert types(platform).count("project:environment:created") == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "e", "base": "nothing"}, "/base"),
        ({"name": "e", "language": "cobol"}, "/language"),
        ({"name": "e", "gpu_support": "yes"}, "/gpu_support"),
        ({"name": "e", "uuid": "1"}, "/uuid"),
        ({"name": "e", "image": "x"}, "/image"),
        ({"name": "e", "setup_script": "a\0b"}, ""),
    ],
)
def test_what_cannot_be_used_is_named(
    client: TestClient, project: str, body: dict[str, Any], field: str
) -> None:
    assert refused(client.post(f"/api/projects/{project}/environments", json=body)) == [field]


def test_an_environment_is_changed(client: TestClient, path: str) -> None:
    assert client.patch(path, json={"name": "other"}).json()["name"] == "other"
    assert refused(client.patch(path, json={"base": "nothing"})) == ["/base"]
    assert client.get(path).json()["base"] == NEW["base"]


def test_the_bases_are_listed(client: TestClient) -> None:
    names = [base["name"] for base in client.get("/api/environment-bases").json()]
    assert names == ["python", "python-shared", "python-bare", "python-notebook"]


@pytest.mark.parametrize("call", ["GET", "PATCH", "DELETE"])
def test_what_there_is_not_is_not_found(client: TestClient, project: str, call: str) -> None:
    for root in (project, NOBODY):
        path = f"/api/projects/{root}/environments/{NOBODY}"
        refused(client.request(call, path, json={} if call == "PATCH" else None), 404)
        refused(client.post(f"{path}/builds", json={}), 404)
        refused(client.get(f"{path}/builds/1/log"), 404)


def test_a_build_is_requested_watched_and_read(client: TestClient, platform: Platform, path: str) -> None:
    client.patch(path, json={"setup_script": "echo hello"})
    with working(platform, Builders(platform)):
        build = made(client, f"{path}/builds", {})
        assert (build["image_tag"], build["status"]) == (1, "PENDING")
        ended = wait_for(client, f"{path}/builds/1", status="SUCCESS")
    assert ended["started"].endswith("Z")
    assert ended["reason"] is None
    log = client.get(f"{path}/builds/1/log").json()
    assert "=== Running the set-up script\nhello\n" in log["text"]
    assert log["ended"]
    rest = client.get(f"{path}/builds/1/log", params={"offset": log["next_offset"]}).json()
    assert rest == {"text": "", "next_offset": log["next_offset"], "ended": True}
    assert client.get(f"{path}/builds").json()["items"] == [ended]


def test_a_log_is_empty_before_the_build_has_started(client: TestClient, path: str) -> None:
    made(client, f"{path}/builds", {})
    assert client.get(f"{path}/builds/1/log").json() == {"text": "", "next_offset": 0, "ended": False}


def test_a_build_is_cancelled_and_stays_so(client: TestClient, platform: Platform, path: str) -> None:
    client.patch(path, json={"setup_script": "sleep 60"})
    with working(platform, Builders(platform, Bounds(grace=0.5))):
        made(client, f"{path}/builds", {})
        wait_for(client, f"{path}/builds/1", status="STARTED")
        cancelled = client.post(f"{path}/builds/1/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "ABORTED")
        assert client.post(f"{path}/builds/1/cancel").json() == cancelled.json()
    assert [t for t in types(platform) if "image-build" in t] == [
        "project:environment:image-build:created",
        "project:environment:image-build:started",
        "project:environment:image-build:cancelled",
    ]


def test_jupyterlab_is_built(client: TestClient, platform: Platform) -> None:
    with working(platform, Builders(platform)):
        made(client, "/api/jupyter/builds", {"setup_script": "echo lab; false"})
        ended = wait_for(client, "/api/jupyter/builds/1", status="FAILURE")
    assert ended["reason"] == "the set-up script ended with exit code 1"
    assert "lab\n" in client.get("/api/jupyter/builds/1/log").json()["text"]
    assert client.get("/api/jupyter/builds").json()["items"] == [ended]
    made(client, "/api/jupyter/builds", {})
    assert client.post("/api/jupyter/builds/2/cancel").json()["status"] == "ABORTED"
    refused(client.get("/api/jupyter/builds/3"), 404)


def test_deleting_an_environment_ends_and_removes_all_of_it(
    client: TestClient, platform: Platform, path: str
) -> None:
    with working(platform, Builders(platform)):
        made(client, f"{path}/builds", {})
        wait_for(client, f"{path}/builds/1", status="SUCCESS")
        made(client, f"{path}/builds", {})
        assert client.delete(path).status_code == 204
    refused(client.get(path), 404)
    assert not (platform.site.environments / path.rsplit("/", 1)[1]).exists()
    assert types(platform)[-1] == "project:environment:deleted"


def test_a_build_that_begins_as_its_environment_is_deleted_leaves_no_files(
    client: TestClient, platform: Platform, path: str
) -> None:
    made(client, f"{path}/builds", {})
    builders = Builders(platform)
    with platform.sessions.begin() as session:
        (taken,) = claim_builds(session, platform.site, builders.owner)
    assert client.delete(path).status_code == 204
    building = Building(taken, lambda: False, builders.bounds)
    builders.carry_out(building)
    assert building.image.parent.parent.parent == platform.site.environments
    assert list(platform.site.environments.iterdir()) == []


def test_a_project_is_deleted_with_its_environments_innermost_first(
    client: TestClient, platform: Platform, project: str, path: str
) -> None:
    made(client, f"{path}/builds", {})
    assert client.delete(f"/api/projects/{project}").status_code == 204
    assert types(platform)[-3:] == [
        "project:environment:image-build:cancelled",
        "project:environment:deleted",
        "project:deleted",
    ]
