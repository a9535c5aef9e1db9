"""Deleting a pipeline or a project with all it contains, innermost first, and then the files.

Everything is ended and told of in one transaction; what of it was running, its supervisor finds gone and
ends. Files are removed after the commit, so that a deletion that fails has removed nothing.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.observe import log
from clarion.outbox import record
from orchest import environments, jobs, runs, sessions
from orchest.events import PipelineEvent, ProjectEvent, about_pipeline, about_project
from orchest.models import Job, Pipeline
from orchest.pipelines import find_pipeline
from orchest.projects import find_project
from orchest.site import Site
from orchest.snapshots import remove_snapshot


@dataclass(frozen=True, slots=True)
class Remains:
    """The files of what was deleted."""

    directory: str | None = None
    """Of the project."""
    runs: Sequence[str] = field(default=())
    environments: Sequence[str] = field(default=())
    snapshots: Sequence[str] = field(default=())
    """Of jobs: paths."""

    def remove(self, site: Site) -> None:
        """Remove them, after the commit. What cannot be removed yet, the workers' sweeps remove later."""
        runs.remove_files(site, self.runs)
        for uuid in self.environments:
            environments.remove_directory(site, uuid)
        for path in self.snapshots:
            remove_snapshot(Path(path))
        if self.directory is not None:
            remove_directory(site, self.directory)


def delete_pipeline(session: Session, site: Site, project_uuid: str, pipeline_uuid: str) -> Remains:
    """Delete a pipeline: its session's runs, its session, then itself. Its jobs stay: they hold a copy.

    Raises:
        NotFound: there is no such pipeline.
    """
    pipeline = find_pipeline(session, project_uuid, pipeline_uuid, lock=True)
    sessions.end_session(session, site, project_uuid, pipeline_uuid)
    erased = runs.erase_interactive_runs(session, site, project_uuid, pipeline_uuid)
    values = about_pipeline(pipeline, site.links)
    session.delete(pipeline)
    session.flush()
    record(session, PipelineEvent("deleted", **values))
    return Remains(runs=erased)


def delete_project(session: Session, site: Site, project_uuid: str) -> Remains:
    """Delete a project: its jobs, its pipelines and their sessions, its environments, then itself.

    Raises:
        NotFound: there is no such project.
    """
    project = find_project(session, project_uuid, lock=True)
    kept = select(Job.snapshot_path).where(Job.project_uuid == project_uuid, Job.snapshot_path.is_not(None))
    snapshots = [path for path in session.scalars(kept) if path is not None]
    erased = jobs.delete_jobs(session, site, project_uuid)
    pipelines = select(Pipeline.uuid).where(Pipeline.project_uuid == project_uuid)
    for uuid in session.scalars(pipelines.order_by(Pipeline.created, Pipeline.uuid)).all():
        erased += delete_pipeline(session, site, project_uuid, uuid).runs
    erased += runs.erase_interactive_runs(session, site, project_uuid)
    built = environments.delete_environments(session, site, project_uuid)
    values, directory = about_project(project, site.links), project.path
    session.delete(project)
    session.flush()
    record(session, ProjectEvent("deleted", **values))
    return Remains(directory, erased, built, snapshots)


def remove_directory(site: Site, path: str) -> None:
    """Remove the files of a deleted project, if the platform made its directory; a user's own stays."""
    directory = Path(path)
    if directory.parent != site.projects.resolve():
        return
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("files of a deleted project are left", path=path, error=type(error).__name__)
