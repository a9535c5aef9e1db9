"""What each page shows, read from the database as plain values."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clarion.analytics.capturing import Analytics
from clarion.analytics.previewing import finished, preview
from clarion.backlog import oldest_waiting, waiting
from clarion.consent import Why
from clarion.deliverees.backends import BATCH
from clarion.errors import InvalidInput, NotFound
from clarion.events import Event
from clarion.outbox import Delivery
from clarion.subscriptions import Subscriber
from orchest import subscribers
from orchest.api import telemetry as api_telemetry
from orchest.api.deliveries import EVENT, DeliveryShown, EventShown, delivery_rows, shown, within
from orchest.api.notifications import SubscriberDetails
from orchest.definition import Definition, parse
from orchest.events.redaction import looks_secret, marked_parameters, redact
from orchest.executor import read_log
from orchest.models import (
    CronRun,
    Environment,
    EnvironmentImageBuild,
    InteractiveSession,
    Job,
    Pipeline,
    PipelineRun,
    Project,
    Status,
)
from orchest.pipelines import find_pipeline
from orchest.platform import Platform
from orchest.projects import find_project
from orchest.web.graph import draw

MOST = 50
"""Rows of a table on a page; the API has the rest."""

LOG_TAIL = 32 * 1024
"""Bytes of a log's end that a page shows."""

LAST_SENT = 20
"""Telemetry messages that a page shows of those that were sent; `clarion telemetry log` has the rest."""

View = dict[str, Any]


def index(session: Session) -> View:
    """Projects, with how much is in each."""
    counts = {
        name: dict(
            session.execute(select(model.project_uuid, func.count()).group_by(model.project_uuid)).all()
        )
        for name, model in (("pipelines", Pipeline), ("environments", Environment), ("jobs", Job))
    }
    projects = session.scalars(select(Project).order_by(Project.created.desc(), Project.uuid).limit(MOST))
    return {
        "projects": [
            {"project": one, **{name: found.get(one.uuid, 0) for name, found in counts.items()}}
            for one in projects
        ],
        "events": recent_events(session, None, 10),
    }


def project(session: Session, project_uuid: str) -> View:
    found = find_project(session, project_uuid)
    return {
        "project": found,
        "variables": hidden_variables(found.env_variables),
        "pipelines": newest(session, Pipeline, Pipeline.created, project_uuid),
        "environments": newest(session, Environment, Environment.created, project_uuid),
        "jobs": newest(session, Job, Job.created, project_uuid),
        "events": recent_events(session, f"project/{project_uuid}"),
    }


def newest(session: Session, model: Any, by: Any, project_uuid: str) -> Sequence[Any]:
    query = select(model).where(model.project_uuid == project_uuid).order_by(by.desc()).limit(MOST)
    return session.scalars(query).all()


def pipeline(session: Session, project_uuid: str, pipeline_uuid: str) -> View:
    found = find_pipeline(session, project_uuid, pipeline_uuid)
    definition = readable(found.definition)
    runs = select(PipelineRun).where(
        PipelineRun.project_uuid == project_uuid,
        PipelineRun.pipeline_uuid == pipeline_uuid,
        PipelineRun.job_uuid.is_(None),
    )
    jobs = select(Job).where(Job.project_uuid == project_uuid, Job.pipeline_uuid == pipeline_uuid)
    return {
        "project": found.project,
        "pipeline": found,
        "definition": definition,
        "drawing": draw(definition) if definition else None,
        "session": session.get(InteractiveSession, (project_uuid, pipeline_uuid)),
        "runs": session.scalars(runs.order_by(PipelineRun.number.desc()).limit(MOST)).all(),
        "jobs": session.scalars(jobs.order_by(Job.created.desc()).limit(MOST)).all(),
        "events": recent_events(session, f"project/{project_uuid}/pipeline/{pipeline_uuid}"),
    }


def environment(session: Session, project_uuid: str, environment_uuid: str) -> View:
    found = session.get(Environment, environment_uuid)
    if found is None or found.project_uuid != project_uuid:
        raise NotFound(f"there is no environment {environment_uuid} in project {project_uuid}")
    builds = (
        select(EnvironmentImageBuild)
        .where(EnvironmentImageBuild.environment_uuid == environment_uuid)
        .order_by(EnvironmentImageBuild.image_tag.desc())
        .limit(MOST)
    )
    rows = session.scalars(builds).all()
    return {
        "project": found.project,
        "environment": found,
        "builds": rows,
        "log": tail(rows[0].log_path) if rows else None,
        "events": recent_events(session, f"project/{project_uuid}/environment/{environment_uuid}"),
    }


def job(session: Session, project_uuid: str, job_uuid: str) -> View:
    found = find_job(session, project_uuid, job_uuid)
    runs = select(PipelineRun).where(PipelineRun.job_uuid == job_uuid)
    cron_runs = select(CronRun).where(CronRun.job_uuid == job_uuid)
    counted = select(PipelineRun.status, func.count()).where(PipelineRun.job_uuid == job_uuid)
    return {
        "project": found.project,
        "job": found,
        "variables": hidden_variables(found.env_variables),
        "counts": dict(session.execute(counted.group_by(PipelineRun.status)).all()),
        "runs": session.scalars(runs.order_by(PipelineRun.number.desc()).limit(MOST)).all(),
        "cron_runs": session.scalars(cron_runs.order_by(CronRun.number.desc()).limit(MOST)).all(),
        "parameters_of": shown_parameters,
        "events": recent_events(session, f"project/{project_uuid}/job/{job_uuid}"),
    }


def find_job(session: Session, project_uuid: str, job_uuid: str) -> Job:
    found = session.get(Job, job_uuid)
    if found is None or found.project_uuid != project_uuid:
        raise NotFound(f"there is no job {job_uuid} in project {project_uuid}")
    return found


def run(session: Session, project_uuid: str, run_uuid: str, **owner: str) -> View:
    """A run; ``owner`` is the job or the pipeline it must belong to."""
    found = session.get(PipelineRun, run_uuid)
    if (
        found is None
        or found.project_uuid != project_uuid
        or any(getattr(found, name) != uuid for name, uuid in owner.items())
        or ("pipeline_uuid" in owner and found.job_uuid is not None)
    ):
        raise NotFound(f"there is no such pipeline run {run_uuid}")
    definition = readable(found.definition)
    statuses = {step.step_uuid: str(step.status) for step in found.steps}
    return {
        "project": found.project,
        "run": found,
        "job": found.job,
        "parameters": shown_parameters(found),
        "drawing": draw(definition, statuses) if definition else None,
        "steps": [{"step": step, "log": step_log(found, step.step_uuid)} for step in found.steps],
        "files": {one.uuid: one.file_path for one in definition.steps.values()} if definition else {},
        "under_way": found.status in (Status.PENDING, Status.STARTED),
    }


def step_log(run: PipelineRun, step_uuid: str) -> str:
    """The end of a step's log, readable while it runs."""
    if run.run_path is None:
        return ""
    path = Path(run.run_path)
    try:
        size = (path / "steps" / step_uuid / "log.txt").stat().st_size
    except OSError:
        return ""
    return read_log(path, step_uuid, max(size - LOG_TAIL, 0), LOG_TAIL).text


def tail(path: str | None) -> str:
    """The end of a log file; empty when there is none."""
    if path is None:
        return ""
    try:
        with Path(path).open("rb") as log:
            log.seek(max(Path(path).stat().st_size - LOG_TAIL, 0))
            return log.read(LOG_TAIL).decode(errors="replace")
    except OSError:
        return ""


def shown_parameters(run: PipelineRun) -> View:
    """What a run was given, secrets hidden, by the title of the step."""
    definition = readable(run.definition)
    titles = {one.uuid: one.title for one in definition.steps.values()} if definition else {}
    marked = marked_parameters(run.definition)
    return {
        titles.get(key) or key.removesuffix("_parameters"): redact(values, marked)
        for key, values in run.parameters.items()
        if isinstance(values, Mapping) and values
    }


def hidden_variables(variables: Mapping[str, Any]) -> dict[str, str]:
    """Environment variables with the values of secret-looking ones hidden."""
    return {name: "••••••" if looks_secret(name) else str(value) for name, value in sorted(variables.items())}


def readable(document: Any) -> Definition | None:
    """The definition; None if what is stored is none by today's rules."""
    try:
        return parse(document)
    except InvalidInput:
        return None


def recent_events(session: Session, scope: str | None, limit: int = 20) -> list[EventShown]:
    query = select(*EVENT)
    if scope is not None:
        query = query.where(within(scope))
    rows = session.execute(query.order_by(Event.sequence.desc()).limit(limit))
    return [EventShown.of(row) for row in rows]


def recent_deliveries(
    session: Session, state: str | None, subscriber: str | None = None
) -> list[DeliveryShown]:
    where = [Delivery.state == state] if state else []
    if subscriber is not None:
        where.append(Subscriber.uuid == UUID(subscriber))
    rows = session.execute(delivery_rows(*where).order_by(Delivery.id.desc()).limit(MOST))
    return [DeliveryShown(**shown(row)) for row in rows]


def all_subscribers(session: Session) -> list[SubscriberDetails]:
    query = select(Subscriber).where(subscribers.visible()).order_by(Subscriber.id.desc()).limit(MOST)
    return [SubscriberDetails.detailed(one) for one in session.scalars(query)]


def telemetry(session: Session, platform: Platform, type: str | None) -> View:
    """Whether telemetry is on, the next request byte for byte or an example of ``type``, what was sent last.

    Raises:
        NotFound: there is no such type.
    """
    told = api_telemetry.shown(platform, session)
    why = Why(told.why)
    body = None
    if type is not None:
        body = preview(platform.analytics, type)
    elif told.on:  # off forgets what waits, so that there is no next request
        body = next_request(platform.analytics)
    return {
        "telemetry": told,
        "can_enable": told.backend is not None and (told.enabled is False or why is Why.NOTICE),
        "can_disable": told.backend is not None and told.enabled is not False,
        "overruled": why not in (Why.ON, Why.SETTING, Why.NOTICE, Why.UNCONFIGURED),
        "waiting": waiting(session),
        "oldest": oldest_waiting(session),
        "type": type,
        "most": BATCH,
        "types": [one.name for one in platform.analytics.types],
        "raw": None if body is None else body.decode(),
        "size": None if body is None else len(body),
        "readable": None if body is None else json.loads(body),
        "sent": [
            {
                "type": message.type,
                "state": delivery.state,
                "finished": delivery.finished_at,
                "content": None if message.telemetry is None else json.loads(message.telemetry),
            }
            for message, delivery in finished(session, LAST_SENT)
        ],
    }


def next_request(analytics: Analytics) -> bytes | None:
    """The body of the next request; None if nothing waits."""
    try:
        return preview(analytics)
    except NotFound:
        return None
