"""The API against its own description: whatever is sent, no 5xx and no answer that is not documented."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from orchest.api.security import Access
from orchest.app import create_app
from orchest.platform import Platform
from tests.orchest.api.calling import NOTIFICATIONS, made

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
STEP = "11111111-8bf7-4587-b3ae-06f7ee5ccb8a"
DEFINITION = {
    "uuid": "6b1c5931-8bf7-4587-b3ae-06f7ee5ccb8a",
    "name": "pipeline",
    "steps": {STEP: {"uuid": STEP, "title": "load", "file_path": "load.py", "incoming_connections": []}},
}
EXAMPLES = 5
"""Of each operation, twice: as they come, and for things there are."""


@pytest.fixture
def present(client: TestClient) -> dict[str, Any]:
    """Path parameters of things that exist."""
    project = made(client, "/api/projects", {"name": "one"})
    base = f"/api/projects/{project['uuid']}"
    pipeline = made(client, f"{base}/pipelines", {"definition": DEFINITION})
    environment = made(client, f"{base}/environments", {"name": "environment"})
    made(client, f"{base}/environments/{environment['uuid']}/builds", {})
    made(client, f"{base}/pipelines/{pipeline['uuid']}/session", {})
    job = made(
        client, f"{base}/jobs", {"name": "job", "pipeline_uuid": pipeline["uuid"], "schedule": "@hourly"}
    )
    client.post(f"{base}/jobs/{job['uuid']}/confirm")
    client.post(f"{base}/jobs/{job['uuid']}/trigger")
    run = client.get(f"{base}/runs").json()["items"][0]
    cron_run = client.get(f"{base}/jobs/{job['uuid']}/cron-runs").json()["items"][0]
    webhook = made(
        client,
        f"{NOTIFICATIONS}/subscribers/webhooks",
        {"name": "hook", "url": "http://127.0.0.1:9/", "subscriptions": [{"event_type": "*"}]},
    )
    client.patch(f"/api/projects/{project['uuid']}", json={"name": "two"})
    events = client.get(f"{NOTIFICATIONS}/events").json()["items"]
    return {
        "project_uuid": project["uuid"],
        "pipeline_uuid": pipeline["uuid"],
        "environment_uuid": environment["uuid"],
        "image_tag": 1,
        "job_uuid": job["uuid"],
        "run_uuid": run["uuid"],
        "cron_run_uuid": cron_run["uuid"],
        "step_uuid": STEP,
        "subscriber_uuid": webhook["uuid"],
        "event_uuid": events[0]["uuid"],
        "delivery_id": 1,
        "event_type": "project:created",
    }


@pytest.mark.timeout(300)  # 15 s of work, but a busy machine may take its time
def test_no_5xx_and_no_undocumented_answer(platform: Platform, present: dict[str, Any]) -> None:
    app = create_app(platform, Access(hosts=frozenset({"testserver"})), workers=False)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    operations.sort(
        key=lambda one: one.method.upper() == "DELETE"
    )  # last, or there is nothing left to ask for
    assert len(operations) > 25
    answered = {one.label: attack(one.as_strategy(), present) for one in operations}
    read = {label: statuses for label, statuses in answered.items() if label.startswith("GET")}
    assert [label for label, statuses in read.items() if 200 not in statuses and "service" not in label] == []


def attack(cases: Any, present: dict[str, Any]) -> set[int]:
    """Send what ``cases`` generates; the statuses that were answered."""
    answered: set[int] = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def called(case: Case) -> None:
        answered.add(case.call_and_validate(checks=CHECKS).status_code)
        if case.path_parameters:
            mine = {name: value for name, value in present.items() if name in case.path_parameters}
            if "/cron-runs/" in case.path:
                mine["run_uuid"] = present["cron_run_uuid"]
            case.path_parameters.update(mine)
            answered.add(case.call_and_validate(checks=CHECKS).status_code)

    called()
    return answered


def test_every_operation_says_what_it_does(client: TestClient, platform: Platform) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["tags"], where
            assert operation.get("description") or operation.get("summary"), where
            assert {"422", "403"} <= operation["responses"].keys(), where
            for status, answer in operation["responses"].items():
                kinds = list(answer.get("content", {}))
                assert status[0] == "2" or status == "503" or kinds == ["application/problem+json"], where
