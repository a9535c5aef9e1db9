"""Interactive sessions and their services over HTTP."""

import urllib.request
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from orchest.hosting import Hosts, Patience
from orchest.pipelines import new_definition
from orchest.platform import Platform
from tests.orchest.api.calling import NOBODY, made, refused, types
from tests.orchest.api.working import wait_for, working
from tests.orchest.building import eventually

QUICK = Patience(ready_within=20, settled=0.1, poll=0.1, grace=1.0)
WEB = {"command": "python3 -m http.server", "args": "--bind 127.0.0.1 $PORT", "ports": [8080]}
FAMILY = "project:pipeline:interactive-session:"


@pytest.fixture
def pipeline(client: TestClient) -> str:
    """The path of a pipeline with a service."""
    project = made(client, "/api/projects", {"name": "project"})["uuid"]
    definition = {**new_definition("pipeline").document, "services": {"web": WEB}}
    root = f"/api/projects/{project}/pipelines"
    return f"{root}/{made(client, root, {'definition': definition})['uuid']}"


def verbs(platform: Platform) -> list[str]:
    return [told.removeprefix(FAMILY) for told in types(platform) if told.startswith(FAMILY)]


def gone(client: TestClient, path: str) -> None:
    eventually(lambda: client.get(path).status_code == 404, f"{path} is gone")


def test_a_session_is_started_used_restarted_and_stopped(
    client: TestClient, platform: Platform, pipeline: str
) -> None:
    path = f"{pipeline}/session"
    with working(platform, Hosts(platform, QUICK)):
        launching = made(client, path, {})
        assert launching["status"] == "LAUNCHING"
        assert [service["name"] for service in launching["services"]] == ["web"]
        live = wait_for(client, path, status="RUNNING")
        [web] = live["services"]
        port = web["ports"]["8080"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            assert answer.status == 200
        log = client.get(f"{path}/services/web/log").json()
        assert "GET / HTTP" in log["text"]
        asked = client.post(f"{path}/services/web/restart")
        assert (asked.status_code, asked.json()["restarts"]) == (202, 1)
        eventually(lambda: verbs(platform)[-1] == "service-restarted", "the restart is told")
        [again] = client.get(path).json()["services"]
        assert again["pid"] != web["pid"]
        assert again["ports"] == web["ports"]
        assert client.delete(path).status_code == 204
        gone(client, path)
    assert verbs(platform) == ["started", "succeeded", "service-restarted", "stopped"]


def test_the_sessions_of_a_project_are_listed(client: TestClient, pipeline: str) -> None:
    live = made(client, f"{pipeline}/session", {})
    project = pipeline.rsplit("/", 2)[0]
    assert client.get(f"{project}/sessions").json() == {"items": [live], "next": None}
    refused(client.get(f"/api/projects/{NOBODY}/sessions"), 404)


def test_a_second_session_is_refused_unless_it_is_the_same_request(
    client: TestClient, platform: Platform, pipeline: str
) -> None:
    path, key = f"{pipeline}/session", {"Idempotency-Key": "k"}
    first = client.post(path, json={}, headers=key)
    assert client.post(path, json={}, headers=key).json() == first.json()
    refused(client.post(path, json={}), 409)
    assert verbs(platform) == ["started"]


@pytest.mark.parametrize(
    ("method", "below"),
    [("GET", ""), ("DELETE", ""), ("POST", "/services/web/restart"), ("GET", "/services/web/log")],
)
def test_without_a_session_there_is_nothing(
    client: TestClient, pipeline: str, method: str, below: str
) -> None:
    refused(client.request(method, f"{pipeline}/session{below}"), 404)


def test_a_service_is_restarted_only_while_the_session_runs(client: TestClient, pipeline: str) -> None:
    path = f"{pipeline}/session"
    made(client, path, {})
    refused(client.post(f"{path}/services/web/restart"), 409)
    refused(client.post(f"{path}/services/other/restart"), 404)
    refused(client.get(f"{path}/services/other/log"), 404)
    assert refused(client.get(f"{path}/services/a%00b/log")) == ["name"]  # PostgreSQL has no such text
    assert client.get(f"{path}/services/web/log").json()["text"] == ""


def test_a_body_with_anything_in_it_is_refused(client: TestClient, pipeline: str) -> None:
    assert refused(client.post(f"{pipeline}/session", json={"image": "x"})) == ["/image"]


@pytest.mark.parametrize("what", ["pipeline", "project"])
def test_deleting_ends_the_session_innermost_first(
    client: TestClient, platform: Platform, pipeline: str, what: str
) -> None:
    with working(platform, Hosts(platform, QUICK)):
        made(client, f"{pipeline}/session", {})
        wait_for(client, f"{pipeline}/session", status="RUNNING")
        run: Any = made(client, f"{pipeline}/runs", {})
        path = pipeline if what == "pipeline" else pipeline.rsplit("/", 2)[0]
        assert client.delete(path).status_code == 204
    assert run["status"] == "PENDING"
    ends = [FAMILY + "pipeline-run:cancelled", FAMILY + "stopped", "project:pipeline:deleted"]
    assert types(platform)[-4:][: -1 if what == "project" else None][-3:] == ends


def test_why_a_session_failed_can_be_asked(client: TestClient, platform: Platform) -> None:
    project = made(client, "/api/projects", {"name": "project"})["uuid"]
    services = {"a": {"command": "sh -c", "args": "'echo no luck; exit 3'"}}
    definition = {**new_definition("pipeline").document, "services": services}
    root = f"/api/projects/{project}/pipelines"
    path = f"{root}/{made(client, root, {'definition': definition})['uuid']}/session"
    assert client.get(f"{path}/last-failure").json() is None
    unsettled = replace(QUICK, settled=20)  # however slowly it starts, it ends before it counts as started
    with working(platform, Hosts(platform, unsettled)):
        made(client, path, {})
        gone(client, path)
    failure = client.get(f"{path}/last-failure").json()
    assert failure["reason"] == "service 'a' ended with exit code 3"
    assert failure["logs"] == {"a": "no luck\n"}
    refused(client.get(f"{root}/{NOBODY}/session/last-failure"), 404)
