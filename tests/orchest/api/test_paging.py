"""Lists page by page: everything once, in order, whatever is added meanwhile."""

import base64
import json

import pytest
from starlette.testclient import TestClient

from tests.orchest.api.calling import NOBODY, NOTIFICATIONS, made, refused


@pytest.fixture
def database(on_both: str) -> str:
    return on_both


def names(client: TestClient, path: str, limit: int) -> list[list[str]]:
    """The names on each page."""
    pages, cursor = [], None
    while True:
        parameters = {"limit": limit, **({"cursor": cursor} if cursor else {})}
        page = client.get(path, params=parameters).json()
        pages.append([item["name"] for item in page["items"]])
        cursor = page["next"]
        if cursor is None:
            return pages


def test_pages_hold_everything_once(client: TestClient) -> None:
    for number in range(5):
        made(client, "/api/projects", {"name": f"p{number}"})
    assert names(client, "/api/projects", 2) == [["p4", "p3"], ["p2", "p1"], ["p0"]]
    assert names(client, "/api/projects", 5) == [["p4", "p3", "p2", "p1", "p0"]]


def test_what_is_added_meanwhile_moves_nothing(client: TestClient) -> None:
    for number in range(4):
        made(client, "/api/projects", {"name": f"p{number}"})
    first = client.get("/api/projects?limit=2").json()
    made(client, "/api/projects", {"name": "new"})
    second = client.get("/api/projects", params={"limit": 2, "cursor": first["next"]}).json()
    assert [item["name"] for item in second["items"]] == ["p1", "p0"]


def test_events_page_by_sequence(client: TestClient) -> None:
    for number in range(3):
        made(client, "/api/projects", {"name": f"p{number}"})
    path = f"{NOTIFICATIONS}/events"
    first = client.get(path, params={"limit": 2}).json()
    second = client.get(path, params={"limit": 2, "cursor": first["next"]}).json()
    assert [item["sequence"] for item in first["items"] + second["items"]] == [3, 2, 1]
    assert second["next"] is None


def test_a_cursor_of_another_list_or_of_nobody(client: TestClient) -> None:
    for number in range(3):
        made(client, "/api/projects", {"name": f"p{number}"})
    foreign = client.get(f"{NOTIFICATIONS}/events?limit=1").json()["next"]
    for cursor in (
        "",
        "x",
        "é",
        "W10",
        "WzEsMl0",
        "bnVsbA",
        foreign,
        "WzEwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMCwxXQ",
    ):
        assert refused(client.get("/api/projects", params={"cursor": cursor})) == ["cursor"], cursor
    for time in ("0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"):  # no such moments in UTC
        cursor = base64.urlsafe_b64encode(json.dumps([time, NOBODY]).encode()).decode()
        assert refused(client.get("/api/projects", params={"cursor": cursor})) == ["cursor"], time
    beyond = "WzEwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMF0"  # [10**23]: no database holds such a number
    assert refused(client.get(f"{NOTIFICATIONS}/events", params={"cursor": beyond})) == ["cursor"]


def test_limits(client: TestClient) -> None:
    for limit in ("0", "-1", "201", "x", ""):
        assert refused(client.get("/api/projects", params={"limit": limit})) == ["limit"]
