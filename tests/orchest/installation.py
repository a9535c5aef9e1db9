"""A platform on a database of its own, with workers in this process, and what to look at and wait for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.addresses import EgressPolicy
from clarion.events import Event
from orchest.definition import parse
from orchest.models import Pipeline, Project
from orchest.pipelines import create_pipeline, new_definition
from orchest.platform import Worker, open_platform
from orchest.projects import create_project
from orchest.site import Site
from tests.orchest.building import eventually

BARE = "python-bare"


class Installation:
    """A platform without relay; start the workers a test needs with `working`."""

    def __init__(self, url: str, root: Path, **site: Any) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.site = Site("http://localhost:8470", root / "data", **site)
        self.platform = open_platform(self.site, url, EgressPolicy.of(()))

    @contextmanager
    def working(self, *workers: Worker) -> Iterator[None]:
        """The workers run in the body."""
        self.platform.workers = list(workers)
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            for worker in workers:
                worker.stop()

    def change(self, act: Callable[[Session], Any]) -> Any:
        """Act in a transaction, commit, and wake the workers; what it returned can still be read."""
        with self.platform.sessions(expire_on_commit=False) as session:
            result = act(session)
            session.commit()
        self.platform.nudge()
        return result

    def read(self, query: Any) -> Any:
        with self.platform.readers() as session:
            return session.scalar(query)

    def project(self, name: str = "project") -> Project:
        directory = self.root / name
        directory.mkdir()
        project: Project = self.change(
            lambda session: create_project(session, self.site, name=name, path=directory)
        )
        return project

    def pipeline(self, project: Project, services: dict[str, Any]) -> Pipeline:
        """A pipeline with these services."""
        definition = parse({**new_definition("pipeline").document, "services": services})
        pipeline: Pipeline = self.change(
            lambda session: create_pipeline(
                session, self.site, project.uuid, definition=definition, path="pipeline.orchest"
            )
        )
        return pipeline

    def told(self, *kinds: type[Event]) -> list[str]:
        """The types of all events so far, of these kinds, in order."""
        with self.platform.readers() as session:
            events = session.scalars(select(Event).order_by(Event.sequence)).all()
            return [event.type for event in events if not kinds or isinstance(event, kinds)]

    def payloads(self, kind: type[Event]) -> list[dict[str, Any]]:
        with self.platform.readers() as session:
            query = select(Event).order_by(Event.sequence)
            return [event.notification for event in session.scalars(query) if isinstance(event, kind)]

    def eventually(self, query: Any, value: Any, seconds: float = 30) -> None:
        """Wait until the query's scalar is ``value``."""
        eventually(lambda: bool(self.read(query) == value), f"{query} is {value}", seconds)
