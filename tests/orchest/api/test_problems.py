"""Every error is a problem that says what was wrong, and names the field where there is one."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from clarion.errors import ConfigurationError
from orchest.api import projects as routes
from orchest.app import create_app
from orchest.models import Project
from orchest.platform import Platform
from tests.orchest.api.calling import BASE, NOBODY, count, made, refused


def test_unknown_route(client: TestClient) -> None:
    answer = client.get("/api/nothing")
    assert refused(answer, 404) == []
    assert "/api/nothing" in answer.json()["detail"]


def test_wrong_method_names_every_allowed_one(client: TestClient) -> None:
    answer = client.put("/api/projects")
    refused(answer, 405)
    assert answer.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["/name"]),
        ({"name": ""}, ["/name"]),
        ({"name": "   "}, ["/name"]),
        ({"name": "a\nb"}, ["/name"]),
        ({"name": 7}, ["/name"]),
        ({"name": "x" * 256}, ["/name"]),
        ({"name": "x", "colour": "red"}, ["/colour"]),
        ({"name": "x", "env_variables": {"1A": "x"}}, ["/env_variables/1A/[key]"]),
        ({"name": "x", "env_variables": {"A": 1}}, ["/env_variables/A"]),
        ({"name": "x", "path": "relative"}, ["/path"]),
        ({"name": "x", "path": "/no/such/directory"}, ["/path"]),
        ({"name": "x", "path": "/etc/hostname"}, ["/path"]),
        ({"name": "x", "path": "/"}, ["/path"]),
        ({"name": "x", "path": "/tmp/\0"}, [""]),
        ([], [""]),
    ],
)
def test_bad_bodies_name_the_field(
    client: TestClient, platform: Platform, body: Any, fields: list[str]
) -> None:
    assert refused(client.post("/api/projects", json=body)) == fields
    assert count(platform, Project) == 0


def test_a_body_that_is_not_json(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/api/projects", content=b'{"name": ', headers=headers)
    refused(answer)
    assert "not JSON" in answer.json()["detail"]
    refused(client.post("/api/projects", content=b'{"name": "\xff"}', headers=headers), 400)
    refused(client.post("/api/projects", content=b'{"name": NaN}', headers=headers))
    refused(client.post("/api/projects", content=b"[" * 100_000, headers=headers), 400)


def test_a_body_without_its_type_is_not_read(client: TestClient, platform: Platform) -> None:
    """A form of a foreign page can send any text, but not as application/json."""
    answer = client.post("/api/projects", content=b'{"name": "x"}', headers={"content-type": "text/plain"})
    refused(answer)
    assert count(platform, Project) == 0


def test_a_body_that_is_too_large(client: TestClient) -> None:
    refused(client.post("/api/projects", json={"name": "x" * (9 * 1024 * 1024)}), 413)
    headers = {"content-type": "application/json"}
    pieces = (b"x" * 1024 * 1024 for _ in range(9))  # sent without saying how long it is
    refused(client.post("/api/projects", content=pieces, headers=headers), 413)


@pytest.mark.parametrize("identifier", ["1", "x" * 36, NOBODY + "0", "%00"])
def test_identifiers_that_are_none(client: TestClient, identifier: str) -> None:
    assert refused(client.get(f"/api/projects/{identifier}")) == ["project_uuid"]


def test_nobody_is_there(client: TestClient) -> None:
    answer = client.get(f"/api/projects/{NOBODY}")
    refused(answer, 404)
    assert NOBODY in answer.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (lambda: ConfigurationError("secret detail"), 500),
        (lambda: RuntimeError("secret detail"), 500),
        (lambda: OperationalError("secret detail", None, Exception()), 503),
    ],
)
def test_faults_of_ours_tell_no_details(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], status: int
) -> None:
    def fail(*_: Any) -> Any:
        raise error()

    monkeypatch.setattr(routes.projects, "find_project", fail)
    app = create_app(platform, workers=False)
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        answer = client.get(f"/api/projects/{NOBODY}")
    refused(answer, status)
    assert "secret" not in answer.text


def test_what_a_constraint_refuses_is_a_conflict(client: TestClient, platform: Platform) -> None:
    """Two requests at once: both find the path free, the database takes one."""
    first = made(client, "/api/projects", {"name": "one"})

    def check_nothing(*_: Any) -> None:
        """As if the other request had not committed yet."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes.projects, "check_apart", check_nothing)
        patch.setattr(routes.projects, "given_directory", lambda *_: first["path"])
        patch.setattr(routes, "remove_if_empty", check_nothing)
        patch.setattr(routes.projects, "own_directory", lambda *_: __import__("pathlib").Path(first["path"]))
        refused(client.post("/api/projects", json={"name": "two"}), 409)
    assert count(platform, Project) == 1
