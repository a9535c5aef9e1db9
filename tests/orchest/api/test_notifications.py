"""Who is told of what, over HTTP: the original's interface, with its faults shut out."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from sqlalchemy import select
from standardwebhooks.webhooks import Webhook as Verifier
from starlette.testclient import TestClient

from clarion.addresses import EgressPolicy
from clarion.outbox import record
from clarion.signing import verify_hex
from clarion.subscriptions import Subscriber
from clarion.testing import Receiver, Reply, drain
from orchest.events import OneOffJobEvent, about_one_off_job
from orchest.models import Job, JobStatus
from orchest.platform import Platform
from orchest.subscribers import SUBSCRIBABLE, Wanted
from tests.orchest.api.calling import NOBODY, NOTIFICATIONS, add_analytics, count, made, refused

SUBSCRIBERS = f"{NOTIFICATIONS}/subscribers"
WEBHOOKS = f"{SUBSCRIBERS}/webhooks"
PING_BEFORE = f"{WEBHOOKS}/pre-creation-test-ping-delivery"


@pytest.fixture
def database(on_both: str) -> str:
    return on_both


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def project(client: TestClient) -> Any:
    return made(client, "/api/projects", {"name": "one"})


def webhook(receiver: Receiver, *wants: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "hook", "url": receiver.url, "subscriptions": list(wants), **more}


def add_job(platform: Platform, project_uuid: str) -> str:
    """A job that is there, without going through its own interface."""
    with platform.sessions.begin() as session:
        job = Job(
            project_uuid=project_uuid,
            pipeline_uuid=NOBODY,
            name="job",
            pipeline_name="pipeline",
            status=JobStatus.DRAFT,
            definition={"uuid": NOBODY, "name": "pipeline"},
            created=platform.site.clock(),
        )
        session.add(job)
        session.flush()
        return job.uuid


def fail_job(platform: Platform, uuid: str) -> None:
    with platform.sessions.begin() as session:
        job = session.get_one(Job, uuid)
        record(session, OneOffJobEvent("failed", **about_one_off_job(job, platform.site.links)))


def test_subscribable_events(client: TestClient) -> None:
    events = client.get(f"{NOTIFICATIONS}/subscribable-events").json()["events"]
    assert len(events) == len(SUBSCRIBABLE) == 58
    assert all(event.keys() == {"name", "description", "optional_filters"} for event in events)
    assert all(event["description"] for event in events)
    filters = {event["name"]: event["optional_filters"] for event in events}
    project, job = ["project_uuid"], ["project_uuid", "job_uuid"]
    assert filters["jupyter:image-build:failed"] == []
    assert filters["project:created"] == [project]
    assert filters["project:environment:image-build:failed"] == [project]
    assert filters["project:pipeline:updated"] == [project, ["project_uuid", "pipeline_uuid"]]
    assert filters["project:one-off-job:failed"] == [project, job]
    assert filters["project:cron-job:run:pipeline-run:deleted"] == [project, job]
    assert not {"debug-ping", "view:loaded", "project:pipeline:saved"} & filters.keys()


def test_the_secret_is_shown_once(client: TestClient, receiver: Receiver) -> None:
    created = made(client, WEBHOOKS, webhook(receiver, {"event_type": "project:created"}))
    secret = created.pop("secret")
    assert secret.startswith("whsec_")
    path = f"{SUBSCRIBERS}/{created['uuid']}"
    assert client.get(path).json() == created
    assert client.put(f"{WEBHOOKS}/{created['uuid']}", json=webhook(receiver)).status_code == 200
    for answer in (client.get(path), client.get(SUBSCRIBERS), client.post(f"{path}/disable")):
        assert secret not in answer.text


def test_what_a_webhook_is_by_default(client: TestClient, receiver: Receiver) -> None:
    created = made(client, WEBHOOKS, {"name": " hook ", "url": receiver.url})
    assert (
        created
        | {
            "type": "webhook",
            "name": "hook",
            "verify_ssl": True,
            "content_type": "application/json",
            "format": "orchest",
            "enabled": True,
            "subscriptions": [],
        }
        == created
    )


def test_listed_without_and_shown_with_subscriptions(client: TestClient, receiver: Receiver) -> None:
    wants = [{"event_type": "project:created"}, {"event_type": "*:failed"}]
    uuids = [made(client, WEBHOOKS, webhook(receiver, *wants, name=name))["uuid"] for name in "ab"]
    listed = client.get(SUBSCRIBERS, params={"limit": 1}).json()
    assert [one["uuid"] for one in listed["subscribers"]] == uuids[1:]
    assert "subscriptions" not in listed["subscribers"][0]
    rest = client.get(SUBSCRIBERS, params={"cursor": listed["next"]}).json()
    assert [one["uuid"] for one in rest["subscribers"]] == uuids[:1]
    shown = client.get(f"{SUBSCRIBERS}/{uuids[0]}").json()["subscriptions"]
    assert [one["event_type"] for one in shown] == ["project:created", "*:failed"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"url": "ftp://a.example/"}, ["/url"]),
        ({"url": "http://10.0.0.1/"}, ["/url"]),
        ({"url": "http://169.254.169.254/latest/meta-data"}, ["/url"]),
        ({"url": "http://user:password@a.example/"}, ["/url"]),
        ({"url": "x"}, ["/url"]),
        ({"url": ""}, ["/url"]),
        ({"name": ""}, ["/name"]),
        ({"secret": ""}, ["/secret"]),
        ({"secret": "  "}, ["/secret"]),
        ({"secret": "short", "format": "standard"}, ["/secret"]),
        ({"format": "none"}, ["/format"]),
        ({"content_type": "text/plain"}, ["/content_type"]),
        ({"content_type": "application/x-www-form-urlencoded", "format": "standard"}, ["/content_type"]),
        ({"verify_ssl": "yes"}, ["/verify_ssl"]),
        ({"subscriptions": [{"event_type": "project:exploded"}]}, ["/subscriptions/0"]),
        ({"subscriptions": [{"event_type": "pro*"}]}, ["/subscriptions/0"]),
        ({"subscriptions": [{"event_type": "debug-ping"}]}, ["/subscriptions/0"]),
        ({"subscriptions": [{"event_type": "view:loaded"}]}, ["/subscriptions/0"]),
        ({"subscriptions": [{"event_type": "*"}, {}]}, ["/subscriptions/1/event_type"]),
        ({"owner": "project/1"}, ["/owner"]),
    ],
)
def test_bad_webhooks_are_refused_whole(
    client: TestClient, platform: Platform, receiver: Receiver, body: dict[str, Any], fields: list[str]
) -> None:
    assert refused(client.post(WEBHOOKS, json={**webhook(receiver), **body})) == fields
    assert count(platform, Subscriber) == 0


def test_filters_that_can_never_match(
    client: TestClient, platform: Platform, receiver: Receiver, project: Any
) -> None:
    """Original: accepted, and never told of anything."""
    other = made(client, "/api/projects", {"name": "two"})
    job = add_job(platform, project["uuid"])
    wants = [
        {"event_type": "project:created", "project_uuid": NOBODY},
        {"event_type": "project:created", "project_uuid": project["uuid"], "job_uuid": job},
        {"event_type": "jupyter:image-build:failed", "project_uuid": project["uuid"]},
        {"event_type": "project:one-off-job:failed", "job_uuid": job},
        {"event_type": "project:one-off-job:failed", "project_uuid": other["uuid"], "job_uuid": job},
        {"event_type": "project:pipeline:updated", "project_uuid": project["uuid"], "pipeline_uuid": NOBODY},
        {
            "event_type": "*",
            "project_uuid": project["uuid"],
            "pipeline_uuid": NOBODY,
            "job_uuid": job,
        },
    ]
    good = {"event_type": "project:one-off-job:failed", "project_uuid": project["uuid"], "job_uuid": job}
    answer = client.post(WEBHOOKS, json=webhook(receiver, good, *wants))
    assert refused(answer) == [f"/subscriptions/{n}" for n in range(1, len(wants) + 1)]
    said = [error["message"] for error in answer.json()["errors"]]
    assert "no project" in said[0]
    assert "its events lie in project/..." in said[1]
    assert "no job" in said[4]
    assert count(platform, Subscriber) == 0


def test_a_job_filter_tells_of_that_job_only(
    client: TestClient, platform: Platform, receiver: Receiver, project: Any
) -> None:
    """Original: every other job of the project too."""
    mine, other = add_job(platform, project["uuid"]), add_job(platform, project["uuid"])
    want = {"event_type": "project:one-off-job:failed", "project_uuid": project["uuid"], "job_uuid": mine}
    made(client, WEBHOOKS, webhook(receiver, want))
    fail_job(platform, other)
    fail_job(platform, mine)
    assert drain(platform.engine) == 1
    (received,) = receiver.received
    assert json.loads(received.body)["event"]["project"]["job"]["uuid"] == mine


def test_an_event_is_told_once_however_many_subscriptions_match(
    client: TestClient, platform: Platform, receiver: Receiver
) -> None:
    wants = [{"event_type": kind} for kind in ("project:created", "project:*", "*:created", "*", "*")]
    shown = made(client, WEBHOOKS, webhook(receiver, *wants))
    assert len(shown["subscriptions"]) == 4
    made(client, "/api/projects", {"name": "one"})
    assert drain(platform.engine) == 1


def test_the_originals_body_and_headers(client: TestClient, platform: Platform, receiver: Receiver) -> None:
    created = made(
        client, WEBHOOKS, webhook(receiver, {"event_type": "project:created"}, secret="old secret")
    )
    project = made(client, "/api/projects", {"name": "one"})
    drain(platform.engine)
    (received,) = receiver.received
    body = json.loads(received.body)
    assert body["delivered_for"] == {
        "uuid": created["uuid"],
        "type": "webhook",
        "name": "hook",
        "verify_ssl": True,
        "content_type": "application/json",
    }
    assert body["event"]["project"]["url"] == project["url"]
    assert client.get(project["url"]).status_code == 200
    assert received.headers["x-orchest-event"] == "project:created"
    assert received.headers["x-orchest-delivery"] == body["event"]["uuid"]
    verify_hex("old secret", received.headers["x-hub-signature"], received.body)


def test_form_encoded(client: TestClient, platform: Platform, receiver: Receiver) -> None:
    form = "application/x-www-form-urlencoded"
    made(client, WEBHOOKS, webhook(receiver, {"event_type": "*"}, content_type=form))
    made(client, "/api/projects", {"name": "one"})
    drain(platform.engine)
    (received,) = receiver.received
    assert received.headers["content-type"] == form
    fields = parse_qs(received.body.decode())
    assert json.loads(fields["event"][0])["type"] == "project:created"
    assert json.loads(fields["delivered_for"][0])["name"] == "hook"


def test_the_standard_format_verifies(client: TestClient, platform: Platform, receiver: Receiver) -> None:
    created = made(client, WEBHOOKS, webhook(receiver, {"event_type": "*"}, format="standard"))
    made(client, "/api/projects", {"name": "one"})
    drain(platform.engine)
    (received,) = receiver.received
    body = Verifier(created["secret"]).verify(received.body, dict(received.headers))
    assert body["type"] == "project:created"


def test_changing_a_webhook(client: TestClient, platform: Platform, receiver: Receiver) -> None:
    body = webhook(receiver, {"event_type": "project:created"}, secret="first", format="orchest")
    uuid = made(client, WEBHOOKS, body)["uuid"]
    changed = webhook(receiver, {"event_type": "project:updated"}, name="new", verify_ssl=False)
    answer = client.put(f"{WEBHOOKS}/{uuid}", json=changed).json()
    assert (answer["name"], answer["verify_ssl"]) == ("new", False)
    assert [one["event_type"] for one in answer["subscriptions"]] == ["project:updated"]
    with platform.readers() as session:
        assert session.scalars(select(Subscriber)).one().secret == "first"  # type: ignore[attr-defined]
    bad = {**changed, "name": "bad", "subscriptions": [{"event_type": "nothing"}]}
    assert refused(client.put(f"{WEBHOOKS}/{uuid}", json=bad)) == ["/subscriptions/0"]
    assert client.get(f"{SUBSCRIBERS}/{uuid}").json() == answer
    client.put(f"{WEBHOOKS}/{uuid}", json={**changed, "secret": "second"})
    with platform.readers() as session:
        assert session.scalars(select(Subscriber)).one().secret == "second"  # type: ignore[attr-defined]
    refused(client.put(f"{WEBHOOKS}/{NOBODY}", json=changed), 404)


def test_changing_keeps_the_format(client: TestClient, receiver: Receiver) -> None:
    """The original's clients know no formats."""
    uuid = made(client, WEBHOOKS, webhook(receiver, format="standard"))["uuid"]
    assert client.put(f"{WEBHOOKS}/{uuid}", json=webhook(receiver)).json()["format"] == "standard"


def test_deleting(client: TestClient, platform: Platform, receiver: Receiver) -> None:
    uuid = made(client, WEBHOOKS, webhook(receiver, {"event_type": "*"}))["uuid"]
    made(client, "/api/projects", {"name": "one"})
    assert client.delete(f"{SUBSCRIBERS}/{uuid}").status_code == 204
    refused(client.get(f"{SUBSCRIBERS}/{uuid}"), 404)
    refused(client.delete(f"{SUBSCRIBERS}/{uuid}"), 404)
    assert drain(platform.engine) == 0
    (delivery,) = client.get(f"{NOTIFICATIONS}/deliveries").json()["items"]
    assert (delivery["state"], delivery["subscriber_uuid"]) == ("cancelled", None)


def test_disabled_misses_what_happens_and_keeps_what_waits(
    client: TestClient, platform: Platform, receiver: Receiver
) -> None:
    uuid = made(client, WEBHOOKS, webhook(receiver, {"event_type": "*"}))["uuid"]
    made(client, "/api/projects", {"name": "waits"})
    assert client.post(f"{SUBSCRIBERS}/{uuid}/disable").json()["enabled"] is False
    made(client, "/api/projects", {"name": "missed"})
    assert drain(platform.engine) == 0
    assert client.post(f"{SUBSCRIBERS}/{uuid}/enable").json()["enabled"] is True
    assert drain(platform.engine) == 1
    assert json.loads(receiver.received[0].body)["event"]["project"]["name"] == "waits"


def test_ping_before_creation(client: TestClient, platform: Platform, receiver: Receiver) -> None:
    answer = client.post(PING_BEFORE, json=webhook(receiver, secret="mine"))
    assert answer.json() | {"delivered": True, "status": 204, "reason": None} == answer.json()
    (received,) = receiver.received
    assert received.headers["x-orchest-event"] == "debug-ping"
    verify_hex("mine", received.headers["x-hub-signature"], received.body)
    assert json.loads(received.body)["event"]["type"] == "debug-ping"
    assert count(platform, Subscriber) == 0


def test_ping_of_one_that_exists(client: TestClient, receiver: Receiver) -> None:
    created = made(client, WEBHOOKS, webhook(receiver, format="standard"))
    path = f"{SUBSCRIBERS}/test-ping-delivery/{created['uuid']}"
    assert client.post(path).json()["delivered"] is True
    (received,) = receiver.received
    assert Verifier(created["secret"]).verify(received.body, dict(received.headers))["type"] == "debug-ping"
    refused(client.get(path), 405)  # original: a GET
    refused(client.post(f"{SUBSCRIBERS}/test-ping-delivery/{NOBODY}"), 404)


def test_a_ping_that_fails_says_why(client: TestClient, receiver: Receiver) -> None:
    receiver.reply = lambda _: Reply(503, body=b"later")
    answer = client.post(PING_BEFORE, json=webhook(receiver)).json()
    assert (answer["delivered"], answer["status"], answer["reason"]) == (False, 503, "http_5xx")
    assert "503" in answer["detail"]
    closed = client.post(PING_BEFORE, json={"name": "x", "url": "http://127.0.0.1:9/"}).json()
    assert (closed["delivered"], closed["status"], closed["reason"]) == (False, None, "connect")


def test_pings_go_through_egress(client: TestClient, platform: Platform, receiver: Receiver) -> None:
    platform.policy = EgressPolicy()
    assert refused(client.post(PING_BEFORE, json=webhook(receiver))) == ["/url"]
    by_name = receiver.url.replace("127.0.0.1", "localhost")
    answer = client.post(PING_BEFORE, json={"name": "x", "url": by_name}).json()
    assert (answer["delivered"], answer["reason"]) == (False, "blocked")
    assert receiver.received == []


def test_no_transaction_is_open_while_a_ping_is_under_way(
    client: TestClient, platform: Platform, receiver: Receiver
) -> None:
    """While a receiver takes its time, others write."""
    written = threading.Event()
    uuid = made(client, WEBHOOKS, webhook(receiver))["uuid"]

    def reply(_: Any) -> Reply:
        made(client, "/api/projects", {"name": "meanwhile"})
        assert platform.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert platform.reading.pool.checkedout() == 0  # type: ignore[attr-defined]
        written.set()
        return Reply()

    receiver.reply = reply
    assert client.post(f"{SUBSCRIBERS}/test-ping-delivery/{uuid}").json()["delivered"] is True
    assert written.is_set()


def test_subscribed_to(client: TestClient, platform: Platform, receiver: Receiver, project: Any) -> None:
    job, other = add_job(platform, project["uuid"]), add_job(platform, project["uuid"])
    kind, inside = "project:one-off-job:failed", {"project_uuid": project["uuid"]}
    for name, want in {
        "everywhere": {"event_type": kind},
        "pattern": {"event_type": "*:failed"},
        "project": {"event_type": kind, **inside},
        "job": {"event_type": kind, **inside, "job_uuid": job},
        "another type": {"event_type": "project:created"},
    }.items():
        made(client, WEBHOOKS, webhook(receiver, want, name=name))

    def told(**filters: str) -> list[str]:
        answer = client.get(f"{SUBSCRIBERS}/subscribed-to/{kind}", params=filters)
        assert answer.status_code == 200, answer.text
        return [one["name"] for one in answer.json()["subscribers"]]

    assert told() == ["everywhere", "pattern"]
    assert told(**inside) == ["everywhere", "pattern", "project"]
    assert told(**inside, job_uuid=job) == ["everywhere", "pattern", "project", "job"]
    assert told(**inside, job_uuid=other) == ["everywhere", "pattern", "project"]
    refused(client.get(f"{SUBSCRIBERS}/subscribed-to/project:exploded"), 404)
    refused(client.get(f"{SUBSCRIBERS}/subscribed-to/{kind}", params={"job_uuid": job}))
    refused(client.get(f"{SUBSCRIBERS}/subscribed-to/project:created", params={**inside, "job_uuid": job}))


def test_the_analytics_subscriber_is_hidden(client: TestClient, platform: Platform) -> None:
    with platform.sessions.begin() as session:
        uuid = str(add_analytics(session, platform.site.clock()).uuid)
    assert client.get(SUBSCRIBERS).json()["subscribers"] == []
    for answer in (
        client.get(f"{SUBSCRIBERS}/{uuid}"),
        client.delete(f"{SUBSCRIBERS}/{uuid}"),
        client.post(f"{SUBSCRIBERS}/{uuid}/disable"),
        client.post(f"{SUBSCRIBERS}/test-ping-delivery/{uuid}"),
        client.put(f"{WEBHOOKS}/{uuid}", json={"name": "x", "url": "http://127.0.0.1:9/"}),
    ):
        refused(answer, 404)
    assert client.get("/subscribers").text.count(uuid) == 0
    assert count(platform, Subscriber) == 1


def test_a_scope_is_read_as_it_is_written() -> None:
    assert Wanted("*").scope == ""
    assert Wanted("*", "p", "j").scope == "project/p/job/j"
    assert Wanted("*", "p", None, "q").scope == "project/p/pipeline/q"
