"""Jobs over HTTP, from end to end: real processes, real files, the example's pipeline."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from orchest.models import InteractiveSession, Pipeline, SessionStatus
from orchest.owners import new_owner
from tests.orchest.building import eventually, uuid_of
from tests.orchest.running import Running, running


@pytest.fixture
def site(orchest_engine: Engine, database_url: str, tmp_path: Path) -> Iterator[Running]:
    with running(database_url, tmp_path / "data") as site:
        yield site


def test_a_one_off_job_runs_the_example_for_each_combination_of_its_grid(site: Running) -> None:
    project, pipeline = site.example()
    grid = {"pipeline_parameters": {"k": [1, 5], "target": ["body_mass_g"]}}
    job = site.job(project, pipeline, strategy=grid)

    ended = site.ended(f"/projects/{project}/jobs/{job}")

    assert (ended["status"], ended["total_runs"]) == ("SUCCESS", 2)
    found = site.get(f"/projects/{project}/runs", job_uuid=job)["items"]
    assert sorted(run["parameters"]["pipeline"]["k"] for run in found) == [1, 5]
    assert {run["status"] for run in found} == {"SUCCESS"}
    shown = site.get(f"/projects/{project}/runs/{found[0]['uuid']}")
    assert [step["status"] for step in shown["steps"]] == ["SUCCESS"] * 5
    report = next(step for step in shown["steps"] if step["title"] == "Fit body mass")
    log = site.get(f"/projects/{project}/runs/{found[0]['uuid']}/steps/{report['step_uuid']}/log")
    assert "root mean square" in log["text"]
    assert log["ended"]
    told = site.told("project:one-off-job%")
    assert told[:4] == [
        "project:one-off-job:created",
        "project:one-off-job:updated",
        "project:one-off-job:pipeline-run:created",
        "project:one-off-job:pipeline-run:created",
    ]
    assert sorted(told[4:]) == sorted(
        [
            "project:one-off-job:started",
            *["project:one-off-job:pipeline-run:started"] * 2,
            *["project:one-off-job:pipeline-run:succeeded"] * 2,
            "project:one-off-job:succeeded",
        ]
    )
    assert told[-1] == "project:one-off-job:succeeded"
    assert told.index("project:one-off-job:started") < told.index("project:one-off-job:pipeline-run:started")


def test_a_parameter_that_makes_a_step_fail_fails_run_and_job(site: Running) -> None:
    project, pipeline = site.example()
    grid = {"pipeline_parameters": {"target": ["body_mass_g", "weight"]}}
    job = site.job(project, pipeline, strategy=grid)

    assert site.ended(f"/projects/{project}/jobs/{job}")["status"] == "FAILURE"

    failed = [payload for kind, payload in site.events("%pipeline-run:failed")]
    run = failed[0]["project"]["job"]["pipeline_run"]
    assert [step["title"] for step in run["failed_steps"]] == ["Fit body mass"]
    assert run["parameters"] == {"pipeline": {"target": "weight"}}
    shown = site.get(f"/projects/{project}/runs/{run['uuid']}")
    statuses = {step["title"]: step["status"] for step in shown["steps"]}
    assert (statuses["Fit body mass"], statuses["Report"]) == ("FAILURE", "ABORTED")
    assert site.told("project:one-off-job:%")[-1] == "project:one-off-job:failed"


def test_a_log_is_readable_while_the_step_runs_and_an_abort_kills_what_it_started(site: Running) -> None:
    code = "import subprocess, time\nprint('alive')\nsubprocess.Popen(['sleep', '600'])\ntime.sleep(600)"
    project, pipeline = site.pipeline({"slow": {"code": code}})
    job = site.job(project, pipeline)
    listed = site.until(
        f"/projects/{project}/runs", lambda page: page["items"] and page["items"][0]["started"]
    )
    run = f"/projects/{project}/runs/{listed['items'][0]['uuid']}"

    log = site.until(f"{run}/steps/{uuid_of('slow')}/log", lambda log: "alive" in log["text"])

    assert not log["ended"]
    again = site.get(f"{run}/steps/{uuid_of('slow')}/log", offset=log["next_offset"])
    assert (again["text"], again["next_offset"]) == ("", log["next_offset"])
    assert site.post(f"/projects/{project}/jobs/{job}/abort")["status"] == "ABORTED"
    shown = site.get(run)
    assert (shown["status"], shown["steps"][0]["status"]) == ("ABORTED", "ABORTED")
    directory = site.platform.site.runs / shown["uuid"]
    eventually(lambda: not (directory / "executor.json").exists(), "the executor ended")
    assert not list(directory.glob("steps/*/process.json"))
    assert site.told("project:one-off-job%")[-2:] == [
        "project:one-off-job:pipeline-run:cancelled",
        "project:one-off-job:cancelled",
    ]


def test_a_cron_job_with_a_schedule_of_seconds_runs_until_it_is_paused(site: Running) -> None:
    project, pipeline = site.pipeline({"quick": {"code": "print('ran')"}})
    job = f"/projects/{project}/jobs/" + site.job(project, pipeline, schedule="* * * * * *")
    ended = site.until(
        f"{job}/cron-runs", lambda page: any(run["status"] == "SUCCESS" for run in page["items"])
    )
    run = next(run for run in ended["items"] if run["status"] == "SUCCESS")
    assert run["scheduled"].endswith("Z")
    assert site.get(f"{job}/cron-runs/{run['uuid']}") == run
    (of_run,) = site.get(f"/projects/{project}/runs", cron_run_uuid=run["uuid"])["items"]
    assert (of_run["status"], of_run["number_in_run"]) == ("SUCCESS", 1)

    assert site.post(f"{job}/pause")["next_scheduled_time"] is None
    known = len(site.get(f"{job}/cron-runs")["items"])
    assert site.post(f"{job}/trigger")["total_cron_runs"] == known + 1
    assert site.get(f"{job}/cron-runs")["items"][0]["scheduled"] is None
    assert site.post(f"{job}/resume")["status"] == "STARTED"
    assert site.post(f"{job}/abort")["status"] == "ABORTED"
    site.call("DELETE", job, 204)

    family = "project:cron-job"
    told = site.told(f"{family}%")
    first = told.index(f"{family}:run:started")
    assert told[first + 1] == f"{family}:run:pipeline-run:created"
    assert f"{family}:run:succeeded" in told
    for verb in ("created", "updated", "started", "paused", "unpaused", "cancelled", "deleted"):
        assert told.count(f"{family}:{verb}") == 1


def test_an_interactive_run_of_some_steps_finds_what_earlier_runs_left_in_the_session(site: Running) -> None:
    hand = "import orchest\norchest.output(41, name='value')"
    take = "import orchest\nprint(orchest.get_inputs()['value'] + 1)"
    project, pipeline = site.pipeline({"hand": {"code": hand}, "take": {"code": take, "after": ["hand"]}})
    where = f"/projects/{project}/pipelines/{pipeline}/runs"
    assert "no session" in site.post(where, 409, {})["detail"]
    with site.platform.sessions.begin() as session:
        session.add(
            InteractiveSession(
                pipeline=session.get_one(Pipeline, (project, pipeline)),
                status=SessionStatus.RUNNING,
                definition={},
                requested=site.platform.site.clock(),
                owner=new_owner(),
                heartbeat=site.platform.site.clock(),
            )
        )
    first = site.post(where, 201, {"steps": [uuid_of("hand")]})
    assert site.ended(f"/projects/{project}/runs/{first['uuid']}")["status"] == "SUCCESS"
    second = site.post(where, 201, {"steps": [uuid_of("take")]})
    assert (second["number"], [step["title"] for step in second["steps"]]) == (2, ["take"])
    ended = site.ended(f"/projects/{project}/runs/{second['uuid']}")
    log = site.get(f"/projects/{project}/runs/{second['uuid']}/steps/{uuid_of('take')}/log")
    assert (ended["status"], log["text"]) == ("SUCCESS", "42\n")
    assert site.post(where, 422, {"steps": [uuid_of("other")]})["errors"][0]["field"] == "/steps/0"
    family = "project:pipeline:interactive-session:pipeline-run"
    assert site.told(f"{family}%") == [f"{family}:{verb}" for verb in ("created", "started", "succeeded")] * 2
