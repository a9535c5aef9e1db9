"""Jobs and runs over HTTP without workers: shapes, refusals, copies, logs, and one project's affairs."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from orchest import claims, runs
from orchest.executor import StepResult
from orchest.models import Job, PipelineRun, Status
from orchest.platform import Platform
from tests.orchest.building import uuid_of
from tests.orchest.running import Running

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def site(platform: Platform, client: TestClient) -> Running:
    """The platform of the API's tests, without workers."""
    return Running(platform, client)


@pytest.fixture
def pipeline(site: Running) -> tuple[str, str]:
    return site.pipeline({"a": {"code": "print('a')"}}, parameters={"x": 0, "password": "word"})


def the_run(site: Running, project: str) -> str:
    uuid: str = site.get(f"/projects/{project}/runs")["items"][0]["uuid"]
    return uuid


def execute(site: Running, run: str, log: str = "") -> None:
    """As an executor would."""
    platform = site.platform
    with platform.sessions.begin() as session:
        claims.start_run(session, platform.site, run, "me")
        results = {uuid_of("a"): StepResult(Status.SUCCESS, 0)}
        runs.end_run(session, platform.site, run, Status.SUCCESS, owner="me", results=results)
    file = platform.site.runs / run / "steps" / uuid_of("a") / "log.txt"
    file.parent.mkdir(parents=True)
    file.write_text(log)


def test_creating_a_job_twice_with_one_key_creates_one_and_leaves_one_copy(
    site: Running, pipeline: tuple[str, str]
) -> None:
    project, uuid = pipeline
    body = {"name": "j", "pipeline_uuid": uuid}
    headers = {"Idempotency-Key": "k"}
    first = site.call("POST", f"/projects/{project}/jobs", 201, json=body, headers=headers)
    again = site.call("POST", f"/projects/{project}/jobs", 201, json=body, headers=headers)
    assert first == again
    assert [path.name for path in site.platform.site.jobs.iterdir()] == [first["uuid"]]
    assert site.told("project:one-off-job%") == ["project:one-off-job:created"]


def test_a_job_runs_the_copy_not_what_has_become_of_it(site: Running, pipeline: tuple[str, str]) -> None:
    project, uuid = pipeline
    job = site.job(project, uuid)
    file = Path(site.get(f"/projects/{project}")["path"]) / "a.py"
    file.write_text("print('changed')")
    assert (site.platform.site.jobs / job / "a.py").read_text() == "print('a')"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"pipeline_uuid": NOBODY, "name": "j"}, 404, None),
        ({"name": " "}, 422, "/name"),
        ({"name": "j", "schedule": "x"}, 422, "/schedule"),
        ({"name": "j", "schedule": "0 4 * * *", "timezone": "x"}, 422, "/timezone"),
        (
            {"name": "j", "strategy": {"pipeline_parameters": {"y": [1]}}},
            422,
            "/strategy/pipeline_parameters/y",
        ),
        ({"name": "j", "next_scheduled_time": "2030-01-01T00:00:00"}, 422, "/next_scheduled_time"),
        ({"name": "j", "max_retained_pipeline_runs": -2}, 422, "/max_retained_pipeline_runs"),
        ({"name": "j", "env_variables": {"ORCHEST_X": "1"}}, 422, "/env_variables/ORCHEST_X"),
    ],
)
def test_a_job_that_cannot_be_is_refused_and_leaves_nothing(
    site: Running, pipeline: tuple[str, str], body: dict[str, Any], status: int, field: str | None
) -> None:
    project, uuid = pipeline
    problem = site.post(f"/projects/{project}/jobs", status, {"pipeline_uuid": uuid, **body})
    assert problem["status"] == status
    if field is not None:
        assert [error["field"] for error in problem["errors"]] == [field]
    jobs = site.platform.site.jobs
    assert not jobs.exists() or not list(jobs.iterdir())
    assert site.told("project:one-off-job%") == []


def test_null_takes_a_schedule_away_and_nothing_else(site: Running, pipeline: tuple[str, str]) -> None:
    project, uuid = pipeline
    job = f"/projects/{project}/jobs/" + site.job(project, uuid, confirm=False, schedule="0 4 * * *")
    assert site.call("PATCH", job, json={"name": "new"})["schedule"] == "0 4 * * *"
    changed = site.call(
        "PATCH", job, json={"schedule": None, "next_scheduled_time": "2030-01-01T01:00:00+01:00"}
    )
    assert (changed["schedule"], changed["next_scheduled_time"]) == (None, "2030-01-01T00:00:00Z")
    assert site.call("PATCH", job, json={"next_scheduled_time": None})["next_scheduled_time"] is None


def test_what_a_state_forbids_is_a_conflict(site: Running, pipeline: tuple[str, str]) -> None:
    project, uuid = pipeline
    job = f"/projects/{project}/jobs/" + site.job(project, uuid, confirm=False)
    for action in ("pause", "resume", "trigger", "abort"):
        site.post(f"{job}/{action}", 409)
    site.post(f"{job}/confirm")
    site.post(f"{job}/confirm", 409)
    site.call("PATCH", job, 409, json={"env_variables": {"A": "b"}})


def test_duplication_is_captured_after_the_copy_succeeded_and_not_when_it_failed(
    site: Running, pipeline: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, int]] = []

    def capture(_app: object, event: Any) -> None:
        with site.platform.readers() as session:
            sent.append((event.value, session.scalar(select(func.count()).select_from(Job)) or 0))

    monkeypatch.setattr("orchest.api.jobs.send_event", capture)
    project, uuid = pipeline
    for schedule in (None, "0 4 * * *"):
        job = site.job(project, uuid, confirm=False, schedule=schedule)
        copy = site.post(f"/projects/{project}/jobs/{job}/duplicate", 201, {})
        assert (copy["name"], copy["status"], copy["schedule"]) == ("Copy of job", "DRAFT", schedule)
        assert (site.platform.site.jobs / copy["uuid"] / "a.py").exists()
    site.post(f"/projects/{project}/jobs/{NOBODY}/duplicate", 404, {})
    assert sent == [("project:one-off-job:duplicated", 2), ("project:cron-job:duplicated", 4)]


def test_nothing_of_one_project_is_found_through_another(site: Running, pipeline: tuple[str, str]) -> None:
    project, uuid = pipeline
    job = site.job(project, uuid)
    run = the_run(site, project)
    execute(site, run, "secret\n")
    other = site.project("other")["uuid"]
    for path in (
        f"/jobs/{job}",
        f"/jobs/{job}/cron-runs",
        f"/runs/{run}",
        f"/runs/{run}/steps/{uuid_of('a')}/log",
    ):
        site.call("GET", f"/projects/{project}{path}")
        site.call("GET", f"/projects/{other}{path}", 404)
    for path in (f"/jobs/{job}", f"/runs/{run}"):
        site.call("DELETE", f"/projects/{other}{path}", 404)
    for path in (f"/jobs/{job}/abort", f"/runs/{run}/abort", f"/jobs/{job}/confirm"):
        site.post(f"/projects/{other}{path}", 404)
    assert site.get(f"/projects/{other}/runs", job_uuid=job)["items"] == []


def test_runs_are_listed_shown_redacted_and_deleted(site: Running, pipeline: tuple[str, str]) -> None:
    project, uuid = pipeline
    grid = {"pipeline_parameters": {"x": [1, 2], "password": ["private"]}}
    job = site.job(project, uuid, strategy=grid)
    page = site.get(f"/projects/{project}/runs", job_uuid=job, limit=1)
    assert [run["number"] for run in page["items"]] == [2]
    rest = site.get(f"/projects/{project}/runs", job_uuid=job, limit=1, cursor=page["next"])
    assert ([run["number"] for run in rest["items"]], rest["next"]) == ([1], None)
    first = rest["items"][0]
    assert first["parameters"] == {"pipeline": {"x": 1, "password": "[redacted]"}}
    assert first["url"].endswith(f"/projects/{project}/jobs/{job}/runs/{first['uuid']}")
    path = f"/projects/{project}/runs/{first['uuid']}"
    assert site.post(f"{path}/abort")["status"] == "ABORTED"
    assert site.post(f"{path}/abort")["steps"][0]["status"] == "ABORTED"
    site.call("DELETE", path, 204)
    site.call("GET", path, 404)
    assert site.told("%pipeline-run:%")[2:] == [
        "project:one-off-job:pipeline-run:cancelled",
        "project:one-off-job:pipeline-run:deleted",
    ]


def test_a_log_is_read_in_pieces_and_from_its_end(site: Running, pipeline: tuple[str, str]) -> None:
    project, uuid = pipeline
    site.job(project, uuid)
    run = the_run(site, project)
    log = f"/projects/{project}/runs/{run}/steps/{uuid_of('a')}/log"
    assert site.get(log) == {"text": "", "next_offset": 0, "ended": False}
    execute(site, run, "one\ntwo\nthree\n")
    assert site.get(log, limit=4) == {"text": "one\n", "next_offset": 4, "ended": True}
    assert site.get(log, offset=4)["text"] == "two\nthree\n"
    assert site.get(log, tail=8)["text"] == "three\n"
    site.call("GET", f"/projects/{project}/runs/{run}/steps/{NOBODY}/log", 404)
    site.call("GET", log, 422, params={"offset": -1})


def test_deleting_a_project_tells_of_its_jobs_and_runs(site: Running, pipeline: tuple[str, str]) -> None:
    project, uuid = pipeline
    job = site.job(project, uuid)
    before = len(site.told())
    site.call("DELETE", f"/projects/{project}", 204)
    family = "project:one-off-job"
    assert site.told()[before:][:4] == [
        f"{family}:pipeline-run:cancelled",
        f"{family}:cancelled",
        f"{family}:pipeline-run:deleted",
        f"{family}:deleted",
    ]
    assert site.told()[-1] == "project:deleted"
    assert not (site.platform.site.jobs / job).exists()
    with site.platform.readers() as session:
        assert session.scalar(select(func.count()).select_from(PipelineRun)) == 0
