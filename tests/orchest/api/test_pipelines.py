"""Pipelines over HTTP: definitions kept whole, refused with their places, and nothing half-written."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from orchest.analytics import Event
from orchest.api import pipelines as routes
from orchest.models import Pipeline
from orchest.platform import Platform
from tests.orchest.api.calling import NOBODY, NOTIFICATIONS, count, made, refused, types

UUID = "6b1c5931-8bf7-4587-b3ae-06f7ee5ccb8a"
LOAD, FIT = "11111111-8bf7-4587-b3ae-06f7ee5ccb8a", "22222222-8bf7-4587-b3ae-06f7ee5ccb8a"


def document(**more: Any) -> dict[str, Any]:
    return {
        "uuid": UUID,
        "name": "wine",
        "version": "1.2.2",
        "steps": {
            LOAD: {"uuid": LOAD, "title": "load", "file_path": "load.py", "incoming_connections": []},
            FIT: {
                "uuid": FIT,
                "title": "fit",
                "file_path": "fit.ipynb",
                "incoming_connections": [LOAD],
                "meta_data": {"position": [1, 2], "hidden": False},
                "from_a_newer_editor": {"colour": "red"},
            },
        },
        "unknown": [1, {"kept": None}],
        **more,
    }


class Pipelines:
    """The pipelines of a project, over HTTP."""

    def __init__(self, client: TestClient, project: dict[str, Any]) -> None:
        self.client = client
        self.project = project
        self.path = f"/api/projects/{project['uuid']}/pipelines"
        self.directory = Path(project["path"])

    def create(self, **body: Any) -> Any:
        return self.client.post(self.path, json=body)

    def save(self, definition: dict[str, Any]) -> Any:
        return self.client.put(f"{self.path}/{UUID}/definition", json={"definition": definition})

    def definition(self) -> Any:
        return self.client.get(f"{self.path}/{UUID}/definition").json()

    def files(self) -> list[str]:
        return sorted(
            str(one.relative_to(self.directory)) for one in self.directory.rglob("*") if one.is_file()
        )

    def changes(self) -> Any:
        """Of the newest event."""
        event = self.client.get(f"{NOTIFICATIONS}/events").json()["items"][0]
        told = self.client.get(f"{NOTIFICATIONS}/events/{event['uuid']}").json()["notification"]
        return told["project"]["pipeline"]["update"]["changes"]


@pytest.fixture
def pipelines(client: TestClient) -> Pipelines:
    return Pipelines(client, made(client, "/api/projects", {"name": "one"}))


def test_an_empty_pipeline(pipelines: Pipelines, platform: Platform) -> None:
    answer = pipelines.create(name="My first", env_variables={"A": "b"})
    pipeline = answer.json()
    assert answer.status_code == 201
    assert pipeline["path"] == "my-first.orchest"
    assert pipeline["url"].endswith(f"/projects/{pipelines.project['uuid']}/pipelines/{pipeline['uuid']}")
    assert json.loads((pipelines.directory / "my-first.orchest").read_text())["uuid"] == pipeline["uuid"]
    assert pipelines.client.get(f"{pipelines.path}/{pipeline['uuid']}").json() == pipeline
    assert pipelines.client.get(pipelines.path).json()["items"] == [pipeline]
    assert types(platform) == ["project:created", "project:pipeline:created"]


def test_unknown_keys_are_kept(pipelines: Pipelines) -> None:
    assert pipelines.create(definition=document(), path="sub/wine.orchest").status_code == 201
    assert pipelines.definition() == document()
    assert json.loads((pipelines.directory / "sub" / "wine.orchest").read_text()) == document()


def test_problems_name_the_step_and_the_place(pipelines: Pipelines, platform: Platform) -> None:
    broken = document()
    broken["steps"][FIT] |= {"file_path": "../fit.py", "incoming_connections": [NOBODY]}
    answer = pipelines.create(definition=broken)
    assert refused(answer) == [
        f"/definition/steps/{FIT}/file_path",
        f"/definition/steps/{FIT}/incoming_connections/0",
    ]
    assert all(f"step 'fit' ({FIT})" in error["message"] for error in answer.json()["errors"])
    assert count(platform, Pipeline) == 0
    assert pipelines.files() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "/name"),
        ({"name": "other", "definition": document()}, "/name"),
        ({"name": "x", "path": "../x.orchest"}, "/path"),
        ({"name": "x", "path": "/tmp/x.orchest"}, "/path"),
        ({"name": "x", "path": "x.py"}, "/path"),
        ({"name": "x", "path": "a//x.orchest"}, "/path"),
        ({"name": "x", "path": "./x.orchest"}, "/path"),
        ({"name": "x", "path": "a\\x.orchest"}, "/path"),
        ({"name": "x", "path": ".orchest"}, "/path"),
        ({"name": "x", "path": "out/x.orchest"}, "/path"),
        ({"name": "x", "path": "y" * 300 + ".orchest"}, "/path"),
        ({"name": "x", "path": "file.txt/x.orchest"}, "/path"),
        ({"definition": {}}, "/definition/uuid"),
    ],
)
def test_bad_input_writes_nothing(
    pipelines: Pipelines, platform: Platform, tmp_path: Path, body: dict[str, Any], field: str
) -> None:
    (tmp_path / "outside").mkdir()
    (pipelines.directory / "out").symlink_to(tmp_path / "outside")
    (pipelines.directory / "file.txt").write_text("x")
    assert field in refused(pipelines.create(**body))
    assert count(platform, Pipeline) == 0
    assert pipelines.files() == ["file.txt"]
    assert list((tmp_path / "outside").iterdir()) == []
    assert types(platform) == ["project:created"]


@pytest.mark.parametrize("depth", [200, 400, 900])
def test_what_lies_too_deep_is_refused(pipelines: Pipelines, depth: int) -> None:
    body = json.dumps({"definition": document(deep="DEEP")}).replace('"DEEP"', "[" * depth + "]" * depth)
    headers = {"content-type": "application/json"}
    refused(pipelines.client.post(pipelines.path, content=body, headers=headers))
    assert pipelines.files() == []


def test_one_file_one_pipeline(pipelines: Pipelines, platform: Platform) -> None:
    pipelines.create(definition=document(), path="wine.orchest")
    refused(pipelines.create(definition=document(), path="other.orchest"), 409)
    refused(pipelines.create(name="other", path="wine.orchest"), 409)
    (pipelines.directory / "there.orchest").write_text("precious")
    answer = pipelines.create(name="other", path="there.orchest")
    refused(answer, 409)
    assert "import" in answer.json()["detail"]
    assert (pipelines.directory / "there.orchest").read_text() == "precious"
    assert pipelines.files() == ["there.orchest", "wine.orchest"]
    assert count(platform, Pipeline) == 1


def test_creating_once(pipelines: Pipelines) -> None:
    answers = [
        pipelines.client.post(pipelines.path, json={"name": "x"}, headers={"idempotency-key": "k"}).json()
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert pipelines.files() == ["x.orchest"]


def test_importing_a_file_as_it_is(pipelines: Pipelines) -> None:
    text = json.dumps(document(), separators=(",", ":"))
    (pipelines.directory / "pipeline.orchest").write_text(text)
    path = f"{pipelines.path}/import"
    pipeline = made(pipelines.client, path, {"path": "pipeline.orchest"})
    assert (pipeline["uuid"], pipeline["name"]) == (UUID, "wine")
    assert pipelines.definition() == document()
    assert (pipelines.directory / "pipeline.orchest").read_text() == text
    refused(pipelines.client.post(path, json={"path": "pipeline.orchest"}), 409)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (None, "/path"),
        ("{", "/definition"),
        ('{"uuid": 1, "uuid": 2}', "/definition"),
        (json.dumps(document(steps={LOAD: {"title": "x"}})), f"/definition/steps/{LOAD}/file_path"),
    ],
)
def test_a_file_that_cannot_be_imported(
    pipelines: Pipelines, platform: Platform, content: str | None, field: str
) -> None:
    if content is not None:
        (pipelines.directory / "pipeline.orchest").write_text(content)
    answer = pipelines.client.post(f"{pipelines.path}/import", json={"path": "pipeline.orchest"})
    assert field in refused(answer)
    assert count(platform, Pipeline) == 0


def test_saving(pipelines: Pipelines, platform: Platform) -> None:
    pipelines.create(definition=document(), path="wine.orchest")
    changed = document(name="red wine", parameters={"k": 3})
    assert pipelines.save(changed).json()["name"] == "red wine"
    assert pipelines.definition() == changed
    assert json.loads((pipelines.directory / "wine.orchest").read_text()) == changed
    assert types(platform)[-1] == "project:pipeline:updated"
    assert pipelines.changes() == [
        {"type": "UPDATED", "changed_object": "NAME", "old_value": "wine", "new_value": "red wine"},
        {"type": "UPDATED", "changed_object": "DEFINITION"},
    ]
    assert pipelines.save(changed).status_code == 200
    assert types(platform).count("project:pipeline:updated") == 1


def test_saving_is_captured_when_it_was_done(pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Original: sent whether or not it succeeded."""
    sent: list[Any] = []
    monkeypatch.setattr(routes, "send_event", lambda _app, event: sent.append(event))
    pipelines.create(definition=document(), path="wine.orchest")
    refused(pipelines.save(document(uuid=NOBODY)))
    assert sent == []
    pipelines.save(document(name="new"))
    assert sent == [Event.PROJECT_PIPELINE_SAVED]


def test_saving_what_is_wrong_changes_nothing(pipelines: Pipelines, platform: Platform) -> None:
    pipelines.create(definition=document(), path="wine.orchest")
    before = (pipelines.directory / "wine.orchest").read_text()
    assert refused(pipelines.save(document(uuid=NOBODY))) == ["/definition/uuid"]
    assert refused(pipelines.save(document(steps=[]))) == ["/definition/steps"]
    circle = document()
    circle["steps"][LOAD]["incoming_connections"] = [FIT]
    assert refused(pipelines.save(circle)) == ["/definition/steps"]
    assert (pipelines.directory / "wine.orchest").read_text() == before
    assert pipelines.definition() == document()
    assert pipelines.files() == ["wine.orchest"]
    assert "project:pipeline:updated" not in types(platform)


def test_a_file_that_cannot_be_written_stops_the_saving(pipelines: Pipelines, platform: Platform) -> None:
    pipelines.create(definition=document(), path="sub/wine.orchest")
    (pipelines.directory / "sub" / "wine.orchest").unlink()
    (pipelines.directory / "sub").rmdir()
    (pipelines.directory / "sub").write_text("a file where the directory was")
    assert refused(pipelines.save(document(name="new"))) == ["/path"]
    assert pipelines.definition() == document()
    assert "project:pipeline:updated" not in types(platform)


def test_updating(pipelines: Pipelines) -> None:
    pipelines.create(definition=document(), path="wine.orchest")
    body = {"name": "red", "path": "sub/red.orchest", "env_variables": {"A": "1"}}
    answer = pipelines.client.patch(f"{pipelines.path}/{UUID}", json=body)
    assert answer.json() | body == answer.json()
    assert pipelines.files() == ["sub/red.orchest"]
    assert json.loads((pipelines.directory / "sub/red.orchest").read_text()) == document(name="red")
    assert [change["changed_object"] for change in pipelines.changes()] == [
        "NAME",
        "PATH",
        "ENVIRONMENT_VARIABLE",
    ]


def test_updating_leaves_a_hand_written_file_alone(pipelines: Pipelines) -> None:
    pipelines.create(definition=document(), path="wine.orchest")
    (pipelines.directory / "wine.orchest").write_text("{ }")
    pipelines.client.patch(f"{pipelines.path}/{UUID}", json={"env_variables": {"A": "1"}})
    assert (pipelines.directory / "wine.orchest").read_text() == "{ }"


def test_moving_onto_another_file(pipelines: Pipelines, platform: Platform) -> None:
    pipelines.create(definition=document(), path="wine.orchest")
    pipelines.create(name="other", path="other.orchest")
    for path in ("other.orchest",):
        refused(pipelines.client.patch(f"{pipelines.path}/{UUID}", json={"path": path}), 409)
    assert refused(pipelines.client.patch(f"{pipelines.path}/{UUID}", json={"path": "../x.orchest"}))
    assert pipelines.files() == ["other.orchest", "wine.orchest"]
    assert "project:pipeline:updated" not in types(platform)


def test_deleting(pipelines: Pipelines, platform: Platform) -> None:
    pipelines.create(definition=document(), path="wine.orchest")
    assert pipelines.client.delete(f"{pipelines.path}/{UUID}").status_code == 204
    assert pipelines.files() == []
    refused(pipelines.client.get(f"{pipelines.path}/{UUID}"), 404)
    refused(pipelines.client.delete(f"{pipelines.path}/{UUID}"), 404)
    assert types(platform)[-1] == "project:pipeline:deleted"


def test_a_directory_where_the_file_was(pipelines: Pipelines, platform: Platform) -> None:
    pipelines.create(definition=document(), path="wine.orchest")
    (pipelines.directory / "wine.orchest").unlink()
    (pipelines.directory / "wine.orchest").mkdir()
    assert refused(pipelines.save(document(name="new"))) == ["/path"]
    assert pipelines.definition() == document()
    assert pipelines.client.delete(f"{pipelines.path}/{UUID}").status_code == 204
    assert types(platform)[-1] == "project:pipeline:deleted"


def test_what_is_no_file_is_not_imported(pipelines: Pipelines) -> None:
    os.mkfifo(pipelines.directory / "pipe.orchest")  # to open it would take until somebody writes
    assert refused(pipelines.client.post(f"{pipelines.path}/import", json={"path": "pipe.orchest"})) == [
        "/path"
    ]


def test_of_another_project(client: TestClient, pipelines: Pipelines) -> None:
    pipelines.create(definition=document(), path="wine.orchest")
    other = made(client, "/api/projects", {"name": "two"})
    refused(client.get(f"/api/projects/{other['uuid']}/pipelines/{UUID}"), 404)
    # the same file may be in two projects
    assert Pipelines(client, other).create(definition=document()).status_code == 201
