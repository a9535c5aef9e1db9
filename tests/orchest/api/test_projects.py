"""Projects over HTTP."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from orchest.platform import Platform
from tests.orchest.api.calling import NOBODY, NOTIFICATIONS, made, refused, types


def test_created_in_a_directory_of_its_own(client: TestClient, platform: Platform) -> None:
    project = made(client, "/api/projects", {"name": "Größe & Co", "env_variables": {"A": "b"}})
    directory = Path(project["path"])
    assert directory.is_dir()
    assert directory.parent == platform.site.projects
    assert directory.name == f"gr-e-co-{project['uuid'][:8]}"
    assert project["url"] == f"http://127.0.0.1:8470/projects/{project['uuid']}"
    assert project["created"].endswith("Z")
    assert client.get(f"/api/projects/{project['uuid']}").json() == project
    assert types(platform) == ["project:created"]


def test_created_in_an_existing_directory(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    project = made(client, "/api/projects", {"name": "one", "path": str(tmp_path / "link")})
    assert project["path"] == str(tmp_path / "mine")


@pytest.mark.parametrize("path", ["mine", "mine/inner", "."])
def test_two_projects_share_no_files(
    client: TestClient, platform: Platform, tmp_path: Path, path: str
) -> None:
    (tmp_path / "area" / "mine" / "inner").mkdir(parents=True)
    made(client, "/api/projects", {"name": "one", "path": str(tmp_path / "area" / "mine")})
    refused(client.post("/api/projects", json={"name": "two", "path": str(tmp_path / "area" / path)}), 409)
    assert types(platform) == ["project:created"]


def test_the_platforms_own_files_are_no_project(client: TestClient, platform: Platform) -> None:
    platform.site.runs.mkdir(parents=True)
    for path in (platform.site.data, platform.site.runs, platform.site.data.parent):
        assert refused(client.post("/api/projects", json={"name": "x", "path": str(path)})) == ["/path"]


def test_updated_with_a_change_list(client: TestClient, platform: Platform) -> None:
    project = made(client, "/api/projects", {"name": "one", "env_variables": {"A": "1", "B": "2"}})
    path = f"/api/projects/{project['uuid']}"
    answer = client.patch(path, json={"name": "two", "env_variables": {"A": "3", "C": "4"}})
    assert answer.json() == {**project, "name": "two", "env_variables": {"A": "3", "C": "4"}}
    event = client.get(f"{NOTIFICATIONS}/events").json()["items"][0]
    told = client.get(f"{NOTIFICATIONS}/events/{event['uuid']}").json()["notification"]
    hidden = "[redacted]"
    assert told["project"]["update"]["changes"] == [
        {"type": "UPDATED", "changed_object": "NAME", "old_value": "one", "new_value": "two"},
        {
            "type": "UPDATED",
            "changed_object": "ENVIRONMENT_VARIABLE",
            "old_value": {"A": hidden},
            "new_value": {"A": hidden},
        },
        {"type": "DELETED", "changed_object": "ENVIRONMENT_VARIABLE", "old_value": {"B": hidden}},
        {"type": "CREATED", "changed_object": "ENVIRONMENT_VARIABLE", "new_value": {"C": hidden}},
    ]


def test_no_change_is_no_event(client: TestClient, platform: Platform) -> None:
    project = made(client, "/api/projects", {"name": "one", "env_variables": {"A": "1"}})
    path = f"/api/projects/{project['uuid']}"
    for body in ({}, {"name": "one"}, {"name": None}, {"env_variables": {"A": "1"}}):
        assert client.patch(path, json=body).json() == project
    assert types(platform) == ["project:created"]


def test_deleted_with_the_directory_the_platform_made(client: TestClient, platform: Platform) -> None:
    project = made(client, "/api/projects", {"name": "one"})
    (Path(project["path"]) / "file").write_text("x")
    assert client.delete(f"/api/projects/{project['uuid']}").status_code == 204
    assert not Path(project["path"]).exists()
    refused(client.get(f"/api/projects/{project['uuid']}"), 404)
    refused(client.delete(f"/api/projects/{project['uuid']}"), 404)
    assert types(platform) == ["project:created", "project:deleted"]


def test_deleted_without_the_users_own_directory(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    project = made(client, "/api/projects", {"name": "one", "path": str(tmp_path / "mine")})
    client.delete(f"/api/projects/{project['uuid']}")
    assert (tmp_path / "mine" / "file").read_text() == "x"


def test_events_outlive_the_project(client: TestClient) -> None:
    project = made(client, "/api/projects", {"name": "one"})
    client.delete(f"/api/projects/{project['uuid']}")
    events = client.get(f"{NOTIFICATIONS}/events", params={"project_uuid": project["uuid"]}).json()["items"]
    assert [event["type"] for event in events] == ["project:deleted", "project:created"]
    assert client.get(f"{NOTIFICATIONS}/events/{events[0]['uuid']}").status_code == 200


def test_a_project_that_is_not_there(client: TestClient) -> None:
    refused(client.patch(f"/api/projects/{NOBODY}", json={"name": "x"}), 404)
    refused(client.delete(f"/api/projects/{NOBODY}"), 404)
    refused(client.get(f"/api/projects/{NOBODY}/pipelines"), 404)
    refused(client.post(f"/api/projects/{NOBODY}/pipelines", json={"name": "x"}), 404)
