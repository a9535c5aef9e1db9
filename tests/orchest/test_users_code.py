"""What the platform runs for a project gets nothing from the platform's own API, and changes nothing."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from orchest.client import Client
from tests.clarion.engines.brokers import REDIS
from tests.orchest import knocking
from tests.orchest.building import document, eventually
from tests.orchest.serving import running

pytestmark = pytest.mark.timeout(300)  # some 10 s of work, but a busy machine may take its time
SECRET = "nobody else's"
"""The name of the other project, which must not be told."""
OPEN = [["GET", "/healthz"], ["GET", "/readyz"]]
FINAL = {"SUCCESS", "FAILURE", "ABORTED"}


def project(client: Client, name: str) -> Any:
    return client.post("/api/projects", {"name": name})


def requests(mine: str, other: str) -> list[list[str]]:
    """What is tried: everything of one's own project and of another one, and what is not the API."""
    return [
        *OPEN,
        ["GET", "/api/projects"],
        ["GET", f"/api/projects/{mine}"],
        ["GET", f"/api/projects/{other}"],
        ["GET", "/api/notifications/events"],
        ["GET", "/openapi.json"],
        ["GET", "/metrics"],
        ["GET", "/"],
        ["GET", "/static/live.js"],
        ["GET", "/nothing"],
        ["POST", "/api/projects"],
        ["POST", "/analytics"],
        ["DELETE", f"/api/projects/{other}"],
    ]


def answered(out: Path) -> dict[str, list[list[Any]]]:
    """What a program of a project got, by the way it tried."""
    eventually(out.exists, f"{out.name} was written", 60)
    found: dict[str, list[list[Any]]] = json.loads(out.read_text())
    return found


def assert_refused(tries: list[list[Any]]) -> None:
    for method, path, status, body in tries:
        if [method, path] in OPEN:
            assert status == 200
            continue
        problem = json.loads(body)
        assert (status, problem["status"]) == (403, 403), (method, path, body)
        assert "may not call the platform" in problem["detail"]
        assert "Authorization: Bearer" in problem["detail"]
        assert SECRET not in body


def names(client: Client) -> set[str]:
    return {one["name"] for one in client.pages("/api/projects")}


@contextmanager
def pipe(path: Path) -> Iterator[Callable[[list[str]], None]]:
    """A named pipe, and how to write a line into it. It ends with the context."""
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)  # both ways, so that opening waits for no reader
    try:
        yield lambda words: (os.write(descriptor, json.dumps(words).encode() + b"\n"), None)[1]
    finally:
        os.close(descriptor)


def running_it(words: list[str]) -> str:
    """Python that runs the program in its own process."""
    argv = [knocking.__file__, *words]
    return f"import runpy, sys\nsys.argv = {argv!r}\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"


def shell(words: list[str]) -> str:
    """A command of a shell that runs the program."""
    return shlex.join(["python3", knocking.__file__, *words])


def stepping(client: Client, root: Path) -> tuple[str, str]:
    """A job whose only step does what it reads from the pipe; the path of its project, and of its run."""
    mine = project(client, "mine")
    (Path(mine["path"]) / "knock.py").write_text(running_it(["each", str(root / "pipe")]))
    at = f"/api/projects/{mine['uuid']}"
    pipeline = client.post(f"{at}/pipelines", {"definition": document({"knock": {}})})
    job = client.post(f"{at}/jobs", {"name": "job", "pipeline_uuid": pipeline["uuid"]})
    client.post(f"{at}/jobs/{job['uuid']}/confirm")
    return mine["uuid"], f"{at}/jobs/{job['uuid']}"


@contextmanager
def celery(directory: Path, environment: dict[str, str]) -> Iterator[None]:
    """A Celery worker that executes the runs, where the platform does not."""
    if not environment:
        yield
        return
    command = [sys.executable, "-m", "celery", "--app", "orchest.worker", "worker", "--queues", "runs"]
    options = ["--beat", "--concurrency=1", "--loglevel=error", "--without-gossip", "--without-mingle"]
    environ = {**os.environ, **environment, "ORCHEST_BASE_URL": "http://127.0.0.1:8470"}
    worker = subprocess.Popen([*command, *options], cwd=directory, env=environ)
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(30)


@pytest.mark.parametrize("executor", ["embedded", "celery"])
def test_a_step_is_refused_until_it_is_given_a_token(tmp_path: Path, executor: str) -> None:
    """Also while the platform is another process than the one that started it."""
    environment = {}
    if executor == "celery":
        environment = {"ORCHEST_EXECUTOR": "celery", "CLARION_BROKER_URL": REDIS}
    with pipe(tmp_path / "pipe") as send:
        with running(tmp_path, **environment) as platform, celery(tmp_path, environment):
            client = Client(platform.url)
            other = project(client, SECRET)["uuid"]
            mine, job = stepping(client, tmp_path)
            tried = json.dumps(requests(mine, other))
            send([str(tmp_path / "first"), platform.url, tried])
            for tries in answered(tmp_path / "first").values():
                assert_refused(tries)
            assert names(client) == {SECRET, "mine"}  # a person is answered while the step runs
            environ = {**os.environ, **environment}
            command = [sys.executable, "-m", "orchest", "token"]
            made = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
            token = made.stdout.strip()
        with running(tmp_path, **environment) as platform:
            client = Client(platform.url)
            send([str(tmp_path / "second"), platform.url, tried, token])
            by_way = answered(tmp_path / "second")
            let_in = {(method, path): status for method, path, status, _ in by_way.pop("with a token")}
            assert let_in["GET", f"/api/projects/{mine}"] == 200
            assert let_in["POST", "/api/projects"] == 201
            assert let_in["DELETE", f"/api/projects/{other}"] == 204
            for tries in by_way.values():
                assert_refused(tries)
            assert names(client) == {"mine", knocking.STOLEN}
            assert len(list(client.pages("/api/projects"))) == 2  # only the one with the token
            send([])
            assert client.until(job, lambda shown: shown["status"] in FINAL, "it ends")["status"] == "SUCCESS"


def test_services_builds_and_notebooks_are_refused(tmp_path: Path) -> None:
    with running(tmp_path, "--host", "::1") as platform:
        client = Client(platform.url)
        other, mine = project(client, SECRET)["uuid"], project(client, "mine")
        at, tried = f"/api/projects/{mine['uuid']}", json.dumps(requests(mine["uuid"], other))

        def knock(name: str) -> list[str]:
            return ["once", str(tmp_path / name), platform.url, tried]

        environment = client.post(
            f"{at}/environments",
            {"name": "e", "base": "python-bare", "setup_script": shell(knock("build"))},
        )
        client.post(f"{at}/environments/{environment['uuid']}/builds", {})
        service = shell(knock("service")) + "; exec sleep 600"
        made = document(
            {"knock": {"file_path": "knock.ipynb"}},
            services={"knock": {"command": "sh -c", "args": shlex.quote(service)}},
        )
        (Path(mine["path"]) / "knock.ipynb").write_text(notebook(knock("notebook")))
        pipeline = client.post(f"{at}/pipelines", {"definition": made})["uuid"]
        session = f"{at}/pipelines/{pipeline}/session"
        client.post(session, {})
        client.until(session, lambda shown: shown["status"] == "RUNNING", "the session runs")
        client.post(f"{at}/pipelines/{pipeline}/runs", {})
        for name in ("build", "service", "notebook"):
            for tries in answered(tmp_path / name).values():
                assert_refused(tries)
        assert names(client) == {SECRET, "mine"}
        client.delete(session)


def notebook(words: list[str]) -> str:
    """A notebook of one cell, whose kernel itself runs a program with these words."""
    made = new_notebook(cells=[new_code_cell(running_it(words))])
    made["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    return str(nbformat.writes(made))
