"""Supervisors and executors as processes: restarts, kills, limits. Real steps, real kills, both databases."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, update

from orchest import claims
from orchest.celery import RunsNudge, Supervising, make_celery
from orchest.executor.processes import identify
from orchest.models import PipelineRun
from orchest.owners import LAPSE
from orchest.site import Site
from orchest.supervisor import Supervisor, sweep
from tests.clarion.engines.brokers import REDIS
from tests.orchest.building import eventually, uuid_of
from tests.orchest.running import Running, running

WAITS = "import os, time\nwhile not os.path.exists('{flag}'):\n    time.sleep(0.02)\nprint('done')"
FAMILY = "project:one-off-job"


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """The file for which steps wait."""
    return tmp_path / "flag"


@pytest.fixture
def site(orchest_engine: Engine, database_url: str, tmp_path: Path) -> Iterator[Running]:
    """A platform without workers: each test starts its own."""
    with running(database_url, tmp_path / "data", workers=False) as site:
        yield site


def waiting(site: Running, flag: Path, count: int = 1) -> tuple[str, str]:
    """A job whose runs wait for the flag: the project's address, and the job's."""
    step = {"code": WAITS.format(flag=flag)}
    project, pipeline = site.pipeline({"slow": step}, parameters={"x": 0})
    grid = {"pipeline_parameters": {"x": list(range(count))}}
    return f"/projects/{project}", f"/projects/{project}/jobs/{site.job(project, pipeline, strategy=grid)}"


def the_run(site: Running, project: str) -> Any:
    """The only run, once its step runs."""
    page = site.get(f"{project}/runs")
    path = f"{project}/runs/{page['items'][0]['uuid']}"
    return site.until(path, lambda run: run["steps"][0]["status"] == "STARTED")


def executor(site: Running, run: str) -> int:
    """The process that executes a run."""
    entry = json.loads((site.platform.site.runs / run / "executor.json").read_text())
    pid: int = entry["process"]["pid"]
    return pid


SUPERVISOR = """
import sys
from pathlib import Path
from clarion.addresses import EgressPolicy
from orchest.platform import open_platform
from orchest.site import Site
from orchest.supervisor import Supervisor
site = Site("http://here", Path(sys.argv[2]))
platform = open_platform(site, sys.argv[1], EgressPolicy())
supervisor = Supervisor(platform)
supervisor.start()
supervisor._thread.join()
"""


def test_runs_go_on_when_their_supervisor_is_killed_and_end_by_themselves(
    site: Running, flag: Path, database_url: str, tmp_path: Path
) -> None:
    project, job = waiting(site, flag)
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, database_url, str(tmp_path / "data")])
    try:
        run = the_run(site, project)
    finally:
        supervisor.kill()
        supervisor.wait()
    after = Supervisor(site.platform)
    after.look()  # the next one leaves it alone
    assert site.get(f"{project}/runs/{run['uuid']}")["status"] == "STARTED"

    flag.touch()

    assert site.ended(job)["status"] == "SUCCESS"
    log = site.get(f"{project}/runs/{run['uuid']}/steps/{uuid_of('slow')}/log")
    assert log["text"] == "done\n"
    assert site.told(f"{FAMILY}%")[-2:] == [f"{FAMILY}:pipeline-run:succeeded", f"{FAMILY}:succeeded"]


def test_a_killed_executor_leaves_no_run_started_and_no_step_running(site: Running, flag: Path) -> None:
    project, job = waiting(site, flag)
    supervisor = Supervisor(site.platform)
    supervisor.start()
    try:
        run = the_run(site, project)
        record = next((site.platform.site.runs / run["uuid"]).glob("steps/*/process.json"))
        step = json.loads(record.read_text())["process"]["pid"]
        os.kill(executor(site, run["uuid"]), signal.SIGKILL)
        assert site.ended(job)["status"] == "FAILURE"
    finally:
        supervisor.stop()
    failed = site.get(f"{project}/runs/{run['uuid']}")
    assert failed["reason"] == "the process that executed it has ended"
    assert (failed["steps"][0]["status"], failed["steps"][0]["reason"]) == ("FAILURE", failed["reason"])
    eventually(lambda: identify(step) is None, "the step was killed")
    assert site.told(f"{FAMILY}%")[-2:] == [f"{FAMILY}:pipeline-run:failed", f"{FAMILY}:failed"]


def test_a_run_whose_executor_is_silent_is_failed_and_its_executor_killed(site: Running, flag: Path) -> None:
    project, _ = waiting(site, flag)
    supervisor = Supervisor(site.platform)
    supervisor.look()
    run = the_run(site, project)
    pid = executor(site, run["uuid"])
    os.kill(pid, signal.SIGSTOP)  # as if it hung
    long_ago = site.platform.site.clock() - LAPSE - timedelta(seconds=1)
    with site.platform.sessions.begin() as session:
        session.execute(update(PipelineRun).values(heartbeat=long_ago))
    supervisor.look()
    failed = site.get(f"{project}/runs/{run['uuid']}")
    assert failed["status"] == "FAILURE"
    assert "not been heard of" in failed["reason"]
    eventually(lambda: identify(pid) is None, "the executor was killed")


def test_a_run_claimed_by_a_supervisor_that_died_before_it_launched_it_is_failed(
    site: Running, flag: Path
) -> None:
    _, job = waiting(site, flag)
    child = subprocess.run(
        [sys.executable, "-c", "from orchest.owners import new_owner; print(new_owner())"],
        capture_output=True,
        text=True,
        check=True,
    )
    with site.platform.sessions.begin() as session:
        assert claims.claim_run(session, site.platform.site, child.stdout.strip(), interactive=False)
    Supervisor(site.platform).look()
    assert site.get(job)["status"] == "FAILURE"


def test_an_executor_that_cannot_begin_fails_its_run_at_once(
    site: Running, flag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, job = waiting(site, flag)
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # so its interpreter does not start
    supervisor = Supervisor(site.platform)
    supervisor.look()
    failed = site.ended(job)
    assert failed["status"] == "FAILURE"
    reason = site.get(f"{project}/runs")["items"][0]["reason"]
    assert "before it had begun" in reason


def test_two_supervisors_share_the_work_within_the_limit(site: Running, flag: Path) -> None:
    project, job = waiting(site, flag, count=5)
    supervisors = [Supervisor(site.platform), Supervisor(site.platform)]
    for supervisor in supervisors:
        supervisor.start()
    try:
        two = {"status": "STARTED"}
        site.until(f"{project}/runs", lambda page: len(page["items"]) == 2, params=two)
        flag.touch()
        assert site.ended(job)["status"] == "SUCCESS"
    finally:
        for supervisor in supervisors:
            supervisor.stop()
    told = site.told(f"{FAMILY}:pipeline-run%")
    under_way = most = 0
    for kind in told:
        under_way += {"started": 1, "succeeded": -1}.get(kind.rsplit(":", 1)[1], 0)
        most = max(most, under_way)
    assert most == 2
    assert told.count(f"{FAMILY}:pipeline-run:started") == told.count(f"{FAMILY}:pipeline-run:succeeded") == 5


def test_a_deleted_run_is_killed_and_its_files_go(site: Running, flag: Path) -> None:
    project, job = waiting(site, flag)
    Supervisor(site.platform).look()
    run = the_run(site, project)
    site.call("DELETE", job, 204)
    directory = site.platform.site.runs / run["uuid"]
    eventually(lambda: not directory.exists(), "its files are gone")
    assert not list(site.platform.site.jobs.iterdir())
    assert site.told(f"{FAMILY}%")[-4:] == [
        f"{FAMILY}:pipeline-run:cancelled",
        f"{FAMILY}:cancelled",
        f"{FAMILY}:pipeline-run:deleted",
        f"{FAMILY}:deleted",
    ]


def test_the_sweep_removes_what_belongs_to_nothing_and_only_that(
    site: Running, flag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, job = waiting(site, flag)
    platform = site.platform
    kept = platform.site.jobs / job.rsplit("/", 1)[1]
    left = [platform.site.jobs / "nobody", platform.site.runs / "nobody"]
    for directory in left:
        directory.mkdir(parents=True)
    sweep(platform)
    assert all(directory.exists() for directory in left)  # someone may be about to say whose they are
    monkeypatch.setattr("orchest.supervisor.OLD", -1.0)
    sweep(platform)
    assert not any(directory.exists() for directory in left)
    assert kept.exists()


def test_celery_workers_run_runs_with_the_same_code(
    site: Running, flag: Path, tmp_path: Path, database_url: str
) -> None:
    flag.touch()
    _, job = waiting(site, flag)
    supervising = Supervising(Site("http://here", tmp_path / "data"), database_url)
    try:
        supervising.look()
        assert site.ended(job)["status"] == "SUCCESS"
    finally:
        supervising.close()


WORKER = """
import sys
from pathlib import Path
from orchest.celery import make_celery
from orchest.site import Site
app = make_celery(sys.argv[3], Site("http://here", Path(sys.argv[2])), sys.argv[1], queue=sys.argv[4])
options = ["--pool=solo", "--loglevel=error", "--without-gossip", "--without-mingle", "--without-heartbeat"]
app.worker_main(["worker", "--queues", sys.argv[4], *options])
"""


def test_a_celery_worker_is_nudged_and_runs_a_job(
    site: Running, flag: Path, tmp_path: Path, database_url: str
) -> None:
    broker, queue = REDIS, f"runs-{uuid4().hex[:8]}"
    celery = make_celery(broker, site.platform.site, database_url, queue=queue)
    nudge = RunsNudge(celery)
    site.platform.workers.append(nudge)
    flag.touch()
    command = [sys.executable, "-c", WORKER, database_url, str(tmp_path / "data"), broker, queue]
    worker = subprocess.Popen(command)
    try:
        _, job = waiting(site, flag)
        assert site.ended(job)["status"] == "SUCCESS"
    finally:
        worker.terminate()
        assert worker.wait(20) is not None
        nudge.close()
        celery.close()
