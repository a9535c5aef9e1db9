"""A tour of a running platform: through its API, everything it has a type for is made to happen, for real.

The first acts go one after another, for a person to follow; then chapters that have nothing to do with each
other go side by side; at the end all is deleted. Every wait looks at the platform's own state and is bounded.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchest.client import Client
from orchest.luggage import (
    BROKEN_SERVICE,
    BROWSER,
    CHECK,
    CHECKS,
    ENVIRONMENT,
    FILES,
    LATER,
    WAIT,
    step,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "penguins"
"""The example project, in the checkout that the platform is run from."""

ENDED = ("SUCCESS", "FAILURE", "ABORTED")
EVERY_SECOND = "* * * * * *"
NOTIFICATIONS = "/api/notifications"

Tell = Callable[[str], None]


class TourFailed(Exception):
    """The platform did something else than it should; says what."""


class Tour:
    """The platform that ``client`` calls is taken on a tour. ``tell`` is given a heading at each turn.

    Raises:
        TourFailed, CallFailed, Overdue: the platform did not do as it should.
    """

    def __init__(self, client: Client, tell: Tell, example: Path = EXAMPLE) -> None:
        self.client = client
        self.tell = tell
        self.example = example
        self.project = ""
        self.directory = Path()
        self.penguins = ""
        self.checks = ""
        self.grid_search = self.nightly = ""
        self._notifications: dict[str, Any] = {}
        """What was read already, by event: they never change."""

    def run(self) -> None:
        """All of it. When it fails, or is interrupted, nothing of it goes on."""
        with self.pool(1) as pool:
            jupyter = pool.submit(self.jupyter)
            self.begin()
            self.main_job()
            self.copies()
            self.browser()
            self.side_by_side(
                self.other_jobs,
                self.session,
                self.failing_session,
                self.cron_job,
                self.slow_cron_job,
                self.failing_cron_job,
                self.unusable_cron_job,
                self.builds,
            )
            jupyter.result()
        self.end()

    def side_by_side(self, *chapters: Callable[[], None]) -> None:
        """Chapters that do not depend on each other, at the same time; the first failure is raised."""
        with self.pool(len(chapters)) as pool:
            futures = [pool.submit(chapter) for chapter in chapters]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()

    @contextmanager
    def pool(self, size: int) -> Iterator[ThreadPoolExecutor]:
        """Threads, which give up waiting when the body fails."""
        with ThreadPoolExecutor(size) as pool:
            try:
                yield pool
            except BaseException:
                self.client.give_up()
                raise

    @property
    def home(self) -> str:
        return f"/api/projects/{self.project}"

    def begin(self) -> None:
        """A project with the example's files, its environment built, its pipelines imported."""
        self.tell("A project, its environment and its pipelines")
        made = self.client.post("/api/projects", {"name": "penguins"})
        self.project, self.directory = made["uuid"], Path(made["path"])
        shutil.copytree(self.example, self.directory, dirs_exist_ok=True)
        (self.directory / "check.py").write_text(CHECK)
        (self.directory / "wait.py").write_text(WAIT)
        change = {"name": "Palmer penguins", "env_variables": {"REGION": "Palmer Archipelago"}}
        self.client.patch(self.home, change)
        self.environment("Python", ENVIRONMENT)
        pipelines = f"{self.home}/pipelines"
        self.penguins = self.client.post(f"{pipelines}/import", {"path": "penguins.orchest"})["uuid"]
        self.checks = self.client.post(pipelines, {"definition": CHECKS})["uuid"]

    def environment(
        self, name: str, uuid: str | None = None, script: str = "", built: str = "SUCCESS"
    ) -> str:
        """An environment, whose build ends in the state ``built``; its address in the API."""
        body = {"name": name, "base": "python-bare", "setup_script": script}
        made = self.client.post(f"{self.home}/environments", body | ({} if uuid is None else {"uuid": uuid}))
        place = f"{self.home}/environments/{made['uuid']}"
        self.build(f"{place}/builds", built)
        return place

    def build(self, builds: str, to: str, body: Mapping[str, Any] | None = None) -> None:
        """Ask for a build, and see it end in a state; to be ABORTED it is cancelled once it has started."""
        tag = self.client.post(builds, body or {})["image_tag"]
        if to == "ABORTED":
            self.reaches(f"{builds}/{tag}", "STARTED")
            self.client.post(f"{builds}/{tag}/cancel")
        self.reaches(f"{builds}/{tag}", to, 120)

    def reaches(self, path: str, status: str, seconds: float = 60) -> Any:
        """What is at ``path`` once it has this status; another end is waited for in vain, and shown."""

        def there(found: Any) -> bool:
            return found is not None and (found["status"] == status or found["status"] in ENDED)

        found = self.client.until(path, there, f"{path} is {status}", seconds)
        if found["status"] != status:
            raise TourFailed(f"{path} should have become {status}: {json.dumps(found)[:2000]}")
        return found

    def job(self, name: str, pipeline: str, changes: Mapping[str, Any] | None = None, **values: Any) -> str:
        """A confirmed job, its draft changed before if there are ``changes``; its address in the API."""
        body = {"name": name, "pipeline_uuid": pipeline, **values}
        place = f"{self.home}/jobs/{self.client.post(f'{self.home}/jobs', body)['uuid']}"
        if changes:
            self.client.patch(place, changes)
        self.client.post(f"{place}/confirm")
        return place

    def runs_of(self, job: str, **query: Any) -> list[Any]:
        """The pipeline runs of a job, the newest first."""
        return list(self.client.pages(f"{self.home}/runs", job_uuid=job.rpartition("/")[2], **query))

    def main_job(self) -> None:
        """The example's pipeline, once for each of its six parameter sets."""
        self.tell("A job: the example's pipeline over a grid of six parameter sets")
        strategy = json.loads((self.example / "grid.json").read_text())
        changes = {"name": "Grid search", "env_variables": {"SEASON": "2008"}}
        job = self.job("Grid", self.penguins, changes, strategy=strategy)
        self.reaches(job, "SUCCESS", 120)
        self.grid_search = job

    def copies(self) -> None:
        """A copy of a job, and one of a job with a schedule; a pipeline is saved."""
        self.tell("Copies of a job and of a cron job; a pipeline is saved")
        self.client.post(f"{self.grid_search}/duplicate", {"name": "Grid search again"})
        strategy = {"pipeline_parameters": {"seconds": [0], "api_token": ["not to be seen"]}}
        body = {"name": "Every night", "pipeline_uuid": self.checks, "strategy": strategy}
        made = self.client.post(f"{self.home}/jobs", body | {"schedule": "0 4 * * *"})
        self.nightly = f"{self.home}/jobs/{made['uuid']}"
        self.client.post(f"{self.nightly}/duplicate", {})
        place = f"{self.home}/pipelines/{self.penguins}"
        self.save(place, self.client.get(f"{place}/definition") | {"services": {"files": FILES}})

    def other_jobs(self) -> None:
        """Jobs that fail and are cancelled; a run and a job are deleted."""
        self.tell("A job with a column there is none of, and a job nobody waits for")
        wrong = {"pipeline_parameters": {"target": ["body_mass_g", "wingspan_mm"]}}
        failing = self.job("Wingspans", self.penguins, strategy=wrong)
        slow = self.job("Patience", self.checks, strategy={"pipeline_parameters": {"seconds": [60, 61]}})
        self.reaches(slow, "STARTED")
        self.client.post(f"{slow}/abort")
        self.reaches(failing, "FAILURE", 120)
        self.check_links(failing)
        self.client.delete(f"{self.home}/runs/{self.runs_of(failing)[0]['uuid']}")
        self.client.delete(failing)

    def session(self) -> None:
        """The example, interactive: with a service, and runs that succeed, fail and are cancelled."""
        self.tell("An interactive session with a service, and runs in it")
        place = f"{self.home}/pipelines/{self.penguins}"
        definition = self.client.get(f"{place}/definition")
        self.client.post(f"{place}/session", {})
        self.running(place)
        self.reaches(self.interactive_run(place), "SUCCESS", 120)
        wrong = {**definition["parameters"], "target": "wingspan_mm"}
        self.save(place, definition | {"parameters": wrong})
        self.reaches(self.interactive_run(place), "FAILURE", 120)
        waiting = step(2, "Wait", "wait.py")
        self.save(place, definition | {"steps": definition["steps"] | waiting})
        run = self.interactive_run(place, steps=list(waiting))
        self.reaches(run, "STARTED")
        self.client.post(f"{place}/session/services/files/restart")
        self.restarted(place)
        self.client.post(f"{run}/abort")
        self.check_links(place)
        self.client.delete(f"{place}/session")
        self.gone(f"{place}/session")
        self.client.patch(place, {"name": "Palmer", "env_variables": {"SEASON": "2007"}})

    def save(self, pipeline: str, definition: Mapping[str, Any]) -> None:
        self.client.put(f"{pipeline}/definition", {"definition": definition})

    def interactive_run(self, pipeline: str, **body: Any) -> str:
        """An interactive run; its address in the API."""
        return f"{self.home}/runs/{self.client.post(f'{pipeline}/runs', body)['uuid']}"

    def running(self, pipeline: str) -> None:
        what = "the session runs"
        self.client.until(f"{pipeline}/session", lambda found: found and found["status"] == "RUNNING", what)

    def restarted(self, pipeline: str) -> None:
        """Until the event has told that the service was restarted."""
        self.client.until(
            f"{NOTIFICATIONS}/events",
            lambda found: found["items"],
            f"the restart of a service of {pipeline} is told",
            type="project:pipeline:interactive-session:service-restarted",
            project_uuid=self.project,
        )

    def gone(self, path: str) -> None:
        self.client.until(path, lambda found: found is None, f"{path} is gone")

    def failing_session(self) -> None:
        """A session whose service ends at once; and the end of its pipeline."""
        self.tell("A session whose service does not start")
        made = self.client.post(f"{self.home}/pipelines", {"definition": BROKEN_SERVICE})
        place = f"{self.home}/pipelines/{made['uuid']}"
        self.client.post(f"{place}/session", {})
        self.gone(f"{place}/session")
        self.check_links(place)
        self.client.delete(place)

    def cron_job(self) -> None:
        """A job every second: paused, resumed, its old runs forgotten, cancelled, deleted."""
        self.tell("A cron job every second: paused, resumed, trimmed, cancelled, deleted")
        job = self.nightly
        self.client.patch(job, {"schedule": EVERY_SECOND, "timezone": "Antarctica/Palmer"})
        self.client.post(f"{job}/confirm")
        self.first_run_reaches(job, "SUCCESS")
        self.client.post(f"{job}/pause")
        self.client.post(f"{job}/resume")
        self.client.until(job, lambda found: found["total_cron_runs"] >= 2, "a second cron run", 30)
        self.client.post(f"{job}/pause")
        self.runs_are(job, "all ended", lambda runs: all(run["status"] in ENDED for run in runs))
        for run in self.runs_of(job):
            if run["status"] != "SUCCESS":
                raise TourFailed(f"a run of {job} should have succeeded: {json.dumps(run)}")
        self.check_links(job)
        self.client.patch(job, {"max_retained_pipeline_runs": 1})
        self.client.post(f"{job}/trigger")
        self.runs_are(job, "but one forgotten", lambda runs: len(runs) == 1 and runs[0]["status"] in ENDED)
        self.client.post(f"{job}/abort")
        self.client.delete(job)

    def slow_cron_job(self) -> None:
        """A cron job that is triggered by hand, and cancelled under way."""
        self.tell("A cron job that is triggered by hand, and cancelled while it runs")
        strategy = {"pipeline_parameters": {"seconds": [60]}}
        job = self.job("Yearly", self.checks, schedule="@yearly", strategy=strategy)
        self.client.post(f"{job}/trigger")
        self.runs_are(job, "started", lambda runs: any(run["status"] == "STARTED" for run in runs))
        self.client.post(f"{job}/abort")

    def first_run_reaches(self, job: str, status: str) -> None:
        def there(found: Any) -> bool:
            return any(run["number"] == 1 and run["status"] == status for run in found["items"])

        self.client.until(f"{job}/cron-runs", there, f"the first run of {job} is {status}", limit=200)

    def runs_are(self, job: str, what: str, holds: Callable[[list[Any]], bool]) -> None:
        """Until ``holds`` of the pipeline runs of a job, the newest first."""
        self.client.until(
            f"{self.home}/runs",
            lambda found: holds(found["items"]),
            f"the runs of {job} are {what}",
            job_uuid=job.rpartition("/")[2],
            limit=200,
        )

    def failing_cron_job(self) -> None:
        """A cron job whose runs fail; it goes on, until it is cancelled."""
        self.tell("A cron job whose runs fail")
        strategy = {"pipeline_parameters": {"broken": [True]}}
        job = self.job("Broken check", self.checks, schedule=EVERY_SECOND, strategy=strategy)
        self.first_run_reaches(job, "FAILURE")
        self.client.post(f"{job}/abort")

    def unusable_cron_job(self) -> None:
        """A cron job of which no run can be created any more, because its environment is not built."""
        self.tell("A cron job that loses its environment")
        environment = self.environment("Later", LATER)
        definition = {"name": "Later", "steps": step(3, "Check", "check.py", environment=LATER)}
        definition |= {"uuid": "7c000000-0000-4000-8000-0000001a7e00", "parameters": CHECKS["parameters"]}
        made = self.client.post(f"{self.home}/pipelines", {"definition": definition})
        job = self.job("Orphan", made["uuid"], schedule="0 0 1 1 *")
        self.client.post(f"{job}/pause")
        self.client.patch(job, {"schedule": EVERY_SECOND})
        self.client.delete(environment)
        body = {"name": "Later", "base": "python-bare", "uuid": LATER}
        self.client.post(f"{self.home}/environments", body)
        self.client.post(f"{job}/resume")
        self.reaches(job, "FAILURE")

    def builds(self) -> None:
        """Builds that fail and are cancelled; and the end of an environment."""
        self.tell("Builds of environments that fail, and that are cancelled")
        self.environment("Broken", script="echo 'about to fail'\nexit 1", built="FAILURE")
        self.environment("Endless", script="sleep 300", built="ABORTED")

    def jupyter(self) -> None:
        """JupyterLab, built with scripts that work, fail and take too long."""
        self.tell("JupyterLab, built with a set-up script that works, one that fails, one that is cancelled")
        for script, to in (("true", "SUCCESS"), ("exit 1", "FAILURE"), ("sleep 300", "ABORTED")):
            self.build("/api/jupyter/builds", to, {"setup_script": script})

    def check_links(self, place: str) -> None:
        """Every link of the events of what is at ``place`` leads to a page, unless its subject is deleted.

        Raises:
            TourFailed: one does not; says which.
        """
        uuid = place.rpartition("/")[2]
        payloads = [one for one in self.notifications() if any(uuid in link for link in urls(one))]
        deleted = tuple(list(urls(one))[-1] for one in payloads if one["type"].endswith(":deleted"))
        links = {link for one in payloads for link in urls(one) if not link.startswith(deleted)}
        for link in sorted(links):
            if (status := self.client.page_status(link)) != 200:
                raise TourFailed(f"{link}, a link of an event, leads to a page answered {status}")

    def browser(self) -> None:
        """What the browser sends through the web server's relay; pings of all that can be pinged."""
        self.tell("A browser shows a view, an alert and a question; webhook and analytics backend are pinged")
        for event, properties in BROWSER:
            self.client.post("/analytics", {"event": event, "properties": properties})
        for webhook in self.client.get(f"{NOTIFICATIONS}/subscribers")["subscribers"]:
            self.client.post(f"{NOTIFICATIONS}/subscribers/test-ping-delivery/{webhook['uuid']}")
        if self.client.get("/api/telemetry")["on"]:
            self.client.post("/api/telemetry/ping")

    def notifications(self) -> list[Any]:
        """What subscribers are told of the project so far, the newest first."""
        events = self.client.pages(f"{NOTIFICATIONS}/events", project_uuid=self.project, limit=200)
        return [self.notification(event["uuid"]) for event in events]

    def notification(self, event_uuid: str) -> Any:
        if event_uuid not in self._notifications:
            found = self.client.get(f"{NOTIFICATIONS}/events/{event_uuid}")
            self._notifications[event_uuid] = found["notification"]
        return self._notifications[event_uuid]

    def end(self) -> None:
        """The project is deleted, and all that is left in it."""
        self.tell("The end: the project is deleted with all that is left in it")
        self.check_links(self.home)
        self.client.delete(self.home)


def urls(payload: Any) -> Iterator[str]:
    """The links in a notification, outermost first."""
    if isinstance(payload, Mapping):
        for key, value in payload.items():
            if key == "url" and isinstance(value, str):
                yield value
            else:
                yield from urls(value)
