"""Events, deliveries and attempts over HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from clarion.outbox import Delivery
from clarion.testing import Receiver, Reply, drain
from orchest.platform import Platform
from tests.orchest.api.calling import NOBODY, NOTIFICATIONS, add_analytics, made, refused

EVENTS, DELIVERIES = f"{NOTIFICATIONS}/events", f"{NOTIFICATIONS}/deliveries"


@pytest.fixture
def database(on_both: str) -> str:
    return on_both


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def subscriber(client: TestClient, receiver: Receiver) -> Any:
    body = {"name": "hook", "url": receiver.url, "subscriptions": [{"event_type": "*"}]}
    return made(client, f"{NOTIFICATIONS}/subscribers/webhooks", body)


def test_an_attempt_with_what_was_answered(
    client: TestClient, platform: Platform, receiver: Receiver, subscriber: Any
) -> None:
    receiver.reply = lambda _: Reply(500, (("x-why", "full"),), b"no disk \xff left")
    made(client, "/api/projects", {"name": "one"})
    drain(platform.engine)
    (listed,) = client.get(DELIVERIES).json()["items"]
    assert (listed["state"], listed["attempts"], listed["in_flight"]) == ("pending", 1, False)
    assert listed["due_at"] is not None
    assert (listed["subscriber_uuid"], listed["subscriber_name"]) == (subscriber["uuid"], "hook")
    shown = client.get(f"{DELIVERIES}/{listed['id']}").json()
    (attempt,) = shown.pop("tries")
    assert shown == listed
    assert (attempt["number"], attempt["outcome"], attempt["status"]) == (1, "retry", 500)
    assert attempt["reason"] == "http_5xx"
    assert attempt["headers"]["x-why"] == "full"
    assert attempt["body"] == "no disk � left"


def test_delivering_again(
    client: TestClient, platform: Platform, receiver: Receiver, subscriber: Any
) -> None:
    made(client, "/api/projects", {"name": "one"})
    (delivery,) = client.get(DELIVERIES).json()["items"]
    path = f"{DELIVERIES}/{delivery['id']}/redeliver"
    refused(client.post(path), 409)
    drain(platform.engine)
    again = client.post(path).json()
    assert (again["state"], again["attempts"], again["finished_at"]) == ("pending", 1, None)
    drain(platform.engine)
    first, second = receiver.received
    assert first.headers["x-orchest-delivery"] == second.headers["x-orchest-delivery"]
    assert [one["number"] for one in client.get(f"{DELIVERIES}/{delivery['id']}").json()["tries"]] == [1, 2]
    client.delete(f"{NOTIFICATIONS}/subscribers/{subscriber['uuid']}")
    refused(client.post(path), 409)
    refused(client.post(f"{DELIVERIES}/99/redeliver"), 404)


def test_filters(client: TestClient, platform: Platform, subscriber: Any) -> None:
    project = made(client, "/api/projects", {"name": "one"})
    drain(platform.engine)
    client.patch(f"/api/projects/{project['uuid']}", json={"name": "two"})

    def found(path: str, **parameters: str) -> list[str]:
        items = client.get(path, params=parameters).json()["items"]
        return [item.get("type") or item["event"]["type"] for item in items]

    assert found(DELIVERIES) == ["project:updated", "project:created"]
    assert found(DELIVERIES, state="pending") == ["project:updated"]
    assert found(DELIVERIES, state="delivered") == ["project:created"]
    assert found(DELIVERIES, type="*:updated") == ["project:updated"]
    assert found(DELIVERIES, subscriber_uuid=subscriber["uuid"]) == ["project:updated", "project:created"]
    assert found(DELIVERIES, subscriber_uuid=NOBODY) == []
    assert found(EVENTS, type="project:created") == ["project:created"]
    assert found(EVENTS, project_uuid=project["uuid"]) == ["project:updated", "project:created"]
    assert found(EVENTS, project_uuid=NOBODY) == []
    refused(client.get(DELIVERIES, params={"state": "lost"}))
    refused(client.get(EVENTS, params={"type": "project:exploded"}))


def test_an_event_with_who_was_told(client: TestClient, platform: Platform, subscriber: Any) -> None:
    project = made(client, "/api/projects", {"name": "one"})
    (event,) = client.get(EVENTS).json()["items"]
    shown = client.get(f"{EVENTS}/{event['uuid']}").json()
    assert shown["summary"] == "Project one was created"
    assert shown["notification"]["project"]["uuid"] == project["uuid"]
    assert [one["subscriber_uuid"] for one in shown["deliveries"]] == [subscriber["uuid"]]
    refused(client.get(f"{EVENTS}/{NOBODY}"), 404)


@pytest.mark.parametrize("identifier", ["0", "-1", "x", str(2**63), "1.5"])
def test_identifiers_that_are_none(client: TestClient, identifier: str) -> None:
    assert refused(client.get(f"{DELIVERIES}/{identifier}")) == ["delivery_id"]


def test_telemetry_is_not_shown_as_deliveries(client: TestClient, platform: Platform) -> None:
    """What goes to analytics is the telemetry pages' to show."""
    made(client, "/api/projects", {"name": "one"})
    sequence = client.get(EVENTS).json()["items"][0]["sequence"]
    now = platform.site.clock()
    with platform.sessions.begin() as session:
        analytics = add_analytics(session, now)
        delivery = Delivery(event_sequence=sequence, subscriber_id=analytics.id, due_at=now)
        session.add(delivery)
        session.flush()
        number = delivery.id
    assert client.get(DELIVERIES).json()["items"] == []
    refused(client.get(f"{DELIVERIES}/{number}"), 404)
    refused(client.post(f"{DELIVERIES}/{number}/redeliver"), 404)
