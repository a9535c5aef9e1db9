"""A whole platform in this process: application, workers, database, and the project of the examples."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import text

from clarion.addresses import EgressPolicy
from orchest.app import create_app
from orchest.platform import Platform, open_platform
from orchest.site import Limits, Site
from tests.orchest.building import document, eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "penguins"
FINAL = {"SUCCESS", "FAILURE", "ABORTED"}


class Running:
    """A client of a running platform, with shortcuts for what tests do all the time."""

    def __init__(self, platform: Platform, client: TestClient) -> None:
        self.platform = platform
        self.client = client

    def call(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        answer = self.client.request(method, f"/api{path}", **options)
        assert answer.status_code == status, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def get(self, path: str, **params: Any) -> Any:
        return self.call("GET", path, params=params)

    def post(self, path: str, status: int = 200, body: Any = None) -> Any:
        return self.call("POST", path, status, **({} if body is None else {"json": body}))

    def project(self, name: str = "penguins", source: Path | None = None) -> Any:
        """A project in a directory of its own; with the files of ``source``."""
        made = self.post("/projects", 201, {"name": name})
        if source is not None:
            shutil.copytree(source, made["path"], dirs_exist_ok=True)
        return made

    def example(self) -> tuple[str, str]:
        """The example's project and pipeline."""
        project = self.project(source=EXAMPLE)["uuid"]
        path = f"/projects/{project}/pipelines/import"
        return project, self.post(path, 201, {"path": "penguins.orchest"})["uuid"]

    def pipeline(self, steps: dict[str, dict[str, Any]], **more: Any) -> tuple[str, str]:
        """A project with one pipeline of steps given as code (see `tests.orchest.building`)."""
        project = self.project("made")
        for title, step in steps.items():
            (Path(project["path"]) / f"{title}.py").write_text(step["code"])
        body = {"definition": document(steps, **more)}
        made = self.post(f"/projects/{project['uuid']}/pipelines", 201, body)
        return project["uuid"], made["uuid"]

    def job(self, project: str, pipeline: str, confirm: bool = True, **values: Any) -> str:
        body = {"name": "job", "pipeline_uuid": pipeline, **values}
        uuid: str = self.post(f"/projects/{project}/jobs", 201, body)["uuid"]
        if confirm:
            self.post(f"/projects/{project}/jobs/{uuid}/confirm")
        return uuid

    def ended(self, path: str, seconds: float = 60) -> Any:
        """What is at ``path`` once its status is final."""
        found: list[Any] = []

        def look() -> bool:
            found[:] = [self.get(path)]
            return found[0]["status"] in FINAL

        eventually(look, f"{path} ended", seconds)
        return found[0]

    def until(
        self, path: str, holds: Callable[[Any], Any], seconds: float = 30, *, params: Any = None
    ) -> Any:
        """What is at ``path`` once ``holds`` of it."""
        found: list[Any] = []

        def look() -> bool:
            found[:] = [self.get(path, **(params or {}))]
            return bool(holds(found[0]))

        eventually(look, f"{path} as awaited", seconds)
        return found[0]

    def told(self, like: str = "%") -> list[str]:
        """The types of the events so far, in order."""
        return [type_ for type_, _ in self.events(like)]

    def events(self, like: str = "%") -> list[tuple[str, Any]]:
        """The events so far, in order, with their notifications."""
        query = text("SELECT type, notification FROM events WHERE type LIKE :like ORDER BY sequence")
        with self.platform.reading.connect() as connection:
            found = connection.execute(query, {"like": like}).all()
        return [(row[0], json.loads(row[1]) if isinstance(row[1], str) else row[1]) for row in found]


@contextmanager
def running(
    database_url: str, data: Path, limits: Limits | None = None, *, workers: bool = True
) -> Iterator[Running]:
    """A platform on a database that has its tables."""
    site = Site("http://127.0.0.1", data, limits=limits or Limits(2, 2, 1))
    platform = open_platform(site, database_url, EgressPolicy())
    try:
        app = create_app(platform, workers=workers)
        with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
            yield Running(platform, client)
    finally:
        clear(data)
        platform.close()


def clear(data: Path) -> None:
    """Wait for what a platform started to end; kill what does not: it uses the database."""
    try:
        eventually(lambda: not writers(data), "executors ended", 5)
    except AssertionError:
        for pid in writers(data):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not writers(data), "executors were killed")


def writers(data: Path) -> list[int]:
    """The processes whose output goes to a file of this platform."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "fd" / "1").readlink().is_relative_to(data.resolve()):
                found.append(int(entry.name))
    return found
