"""The whole platform at interactive work: an environment, a session with a service, runs of steps in both."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.orchest.building import uuid_of
from tests.orchest.running import Running, running

FAMILY = "project:pipeline:interactive-session:"
ENVIRONMENT = "5c0a5b4e-7d0e-4f1f-9a55-0d7d9b3f0d11"
SCRIPT = """
python - <<END
import site
from pathlib import Path
Path(site.getsitepackages()[0], "only_here.py").write_text("WORD = 'from the environment'")
END
"""
ASK = """
import os, sys, urllib.request
import only_here
print(sys.prefix)
print(only_here.WORD)
address = f"http://{os.environ['WEB_SERVICE_HOST']}:{os.environ['WEB_SERVICE_PORT_8080']}/word.txt"
print(urllib.request.urlopen(address, timeout=10).read().decode())
"""
WEB = {"command": "python3 -m http.server", "args": "--bind 127.0.0.1 $PORT", "ports": [8080]}


@pytest.fixture
def here(database_url: str, orchest_engine: Engine, tmp_path: Path) -> Iterator[Running]:
    with running(database_url, tmp_path / "data") as running_platform:
        yield running_platform


def environment(here: Running, project: str, **values: Any) -> str:
    """Create and build one; its path."""
    body = {"name": "env", "base": "python-bare", "uuid": ENVIRONMENT, **values}
    root = f"/projects/{project}/environments"
    path = f"{root}/{here.post(root, 201, body)['uuid']}"
    here.post(f"{path}/builds", 201, {})
    assert here.ended(f"{path}/builds/1")["status"] == "SUCCESS"
    return path


def session(here: Running, project: str, pipeline: str) -> str:
    path = f"/projects/{project}/pipelines/{pipeline}/session"
    here.post(path, 201, {})
    here.until(path, lambda live: live["status"] == "RUNNING")
    return path


def ended_run(here: Running, project: str, pipeline: str) -> Any:
    run = here.post(f"/projects/{project}/pipelines/{pipeline}/runs", 201, {})
    return here.ended(f"/projects/{project}/runs/{run['uuid']}")


def log_of(here: Running, project: str, run: Any, title: str) -> str:
    text: str = here.get(f"/projects/{project}/runs/{run['uuid']}/steps/{uuid_of(title)}/log")["text"]
    return text


def test_a_step_runs_in_its_environment_beside_the_sessions_services(here: Running) -> None:
    steps = {"ask": {"code": ASK, "environment": ENVIRONMENT}}
    project, pipeline = here.pipeline(steps, services={"web": WEB})
    directory = Path(here.get(f"/projects/{project}")["path"])
    (directory / "word.txt").write_text("from the service")
    environment(here, project, setup_script=SCRIPT)
    path = session(here, project, pipeline)
    run = ended_run(here, project, pipeline)
    log = log_of(here, project, run, "ask")
    assert run["status"] == "SUCCESS", log
    built = here.platform.site.environments / ENVIRONMENT / "1" / "venv"
    assert log == f"{built}\nfrom the environment\nfrom the service\n"
    here.call("DELETE", path, 204)
    assert [told.removeprefix(FAMILY) for told in here.told(FAMILY + "%")][:5] == [
        "started",
        "succeeded",
        "pipeline-run:created",
        "pipeline-run:started",
        "pipeline-run:succeeded",
    ]


def test_a_run_needs_an_environment_that_was_built(here: Running) -> None:
    project, pipeline = here.pipeline({"ask": {"code": "", "environment": ENVIRONMENT}})
    here.post(f"/projects/{project}/environments", 201, {"name": "env", "uuid": ENVIRONMENT})
    session(here, project, pipeline)
    refused = here.call("POST", f"/projects/{project}/pipelines/{pipeline}/runs", 409, json={})
    assert refused["detail"] == "environment 'env' has not been built; build it first"


def test_a_notebook_runs_in_an_environment_that_sees_the_platforms_packages(here: Running) -> None:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    notebook = {
        "cells": [{**cell, "source": "import sys, only_here; print(sys.prefix, only_here.WORD)"}],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    step = {"code": "", "file_path": "ask.ipynb", "environment": ENVIRONMENT}
    project, pipeline = here.pipeline({"ask": step})
    directory = Path(here.get(f"/projects/{project}")["path"])
    (directory / "ask.ipynb").write_text(json.dumps(notebook))
    environment(here, project, base="python-notebook", setup_script=SCRIPT)
    session(here, project, pipeline)
    run = ended_run(here, project, pipeline)
    log = log_of(here, project, run, "ask")
    assert run["status"] == "SUCCESS", log
    built = here.platform.site.environments / ENVIRONMENT / "1" / "venv"
    assert f"{built} from the environment\n" in log


def test_restarting_a_service_under_a_run_says_so(here: Running) -> None:
    """Original: active_runs was true when a run had ever existed, and the event never fired."""
    wait = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.05)"
    project, pipeline = here.pipeline({"wait": {"code": wait}}, services={"web": {"command": "sleep 60"}})
    path = session(here, project, pipeline)
    run = here.post(f"/projects/{project}/pipelines/{pipeline}/runs", 201, {})
    here.until(f"/projects/{project}/runs/{run['uuid']}", lambda shown: shown["status"] == "STARTED")
    restarted(here, path, 1)
    directory = Path(here.get(f"/projects/{project}")["path"])
    (directory / "go").touch()
    here.ended(f"/projects/{project}/runs/{run['uuid']}")
    restarted(here, path, 2)
    assert active_runs(here) == [True, False]


def restarted(here: Running, path: str, times: int) -> None:
    before = here.get(path)["services"][0]["pid"]
    here.post(f"{path}/services/web/restart", 202)
    here.until(path, lambda live: live["services"][0]["pid"] != before)
    assert len(here.told(FAMILY + "service-restarted")) == times


def active_runs(here: Running) -> list[bool]:
    query = text("SELECT active_runs FROM events WHERE type LIKE '%service-restarted' ORDER BY sequence")
    with here.platform.reading.connect() as connection:
        return [bool(value) for value in connection.scalars(query)]
