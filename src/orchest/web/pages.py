"""The pages over HTTP. Those in `links.PAGES` are where notifications lead to."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.orm import Session

import clarion
from clarion.errors import NotFound
from clarion.outbox import redeliver
from clarion.telemetry import switch
from orchest.api.deliveries import State, find_delivery, find_event
from orchest.api.http import Number, Readers, ThePlatform, Uuid
from orchest.api.notifications import PingShown, SubscriberDetails, ping_subscriber
from orchest.api.security import COOKIE, SESSION, Access
from orchest.events import View
from orchest.platform import Platform
from orchest.subscribers import find_subscriber, remove_subscriber
from orchest.telemetry import ask_again
from orchest.web import views

HERE = Path(__file__).parent

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

router = APIRouter(include_in_schema=False)
static = StaticFiles(directory=HERE / "static", packages=[("clarion", "web/static")])
"""Our own style and scripts, and the library's telemetry client."""

VIEWS = {
    "index.html": View.PROJECTS,
    "project.html": View.PROJECT,
    "pipeline.html": View.PIPELINE,
    "environment.html": View.ENVIRONMENT,
    "job.html": View.JOB,
    "run.html": View.INTERACTIVE_RUN,
    "events.html": View.EVENTS,
    "event.html": View.EVENTS,
    "deliveries.html": View.NOTIFICATIONS,
    "delivery.html": View.NOTIFICATIONS,
    "subscribers.html": View.NOTIFICATIONS,
    "subscriber.html": View.NOTIFICATIONS,
    "delete_subscriber.html": View.NOTIFICATIONS,
    "missing.html": View.OTHER,
}
"""What telemetry calls the pages. Not the one that shows it: to look would change what is sent next."""


def clock_time(value: datetime | None) -> str:
    """A time as pages write it: UTC, to the second."""
    return "" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(start: datetime | None, end: datetime | None, now: datetime) -> str:
    """How long something took, or has taken so far."""
    if start is None:
        return ""
    seconds = max(((end or now) - start).total_seconds(), 0.0)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters.update(time=clock_time, pretty=pretty)
templates.globals.update(duration=duration, version=clarion.__version__)


def html(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page. It may load nothing but our own style and script."""
    platform: Platform = request.app.state.platform
    now, view = platform.site.clock(), VIEWS.get(name)
    if view is View.INTERACTIVE_RUN and values["job"] is not None:
        view = View.JOB_RUN
    # while telemetry is off the page does not even load the client
    told = view is not None and bool(platform.analytics.telemetry.decision())
    text = templates.get_template(name).render(
        request=request, now=now, path=request.url.path, view=view if told else None, **values
    )
    headers = {"content-security-policy": POLICY, "cache-control": "no-store"}
    return HTMLResponse(text, status, headers=headers)


def page(
    request: Request, readers: Readers, name: str, view: Callable[[Session], dict[str, Any]]
) -> HTMLResponse:
    """The page of what ``view`` reads; a page that says so when it is not there."""
    with readers() as session:
        try:
            values = view(session)
        except NotFound as error:
            return missing(request, session, error)
        return html(request, name, **values)


def missing(request: Request, session: Session, error: NotFound) -> HTMLResponse:
    """What is not there may have been: its events tell."""
    ids = {key: str(value) for key, value in request.path_params.items() if key.endswith("_uuid")}
    layers = [("project", ids.get("project_uuid"))]
    layers += [
        (layer, ids[f"{layer}_uuid"])
        for layer in ("pipeline", "environment", "job")
        if f"{layer}_uuid" in ids
    ]
    scope = "/".join(f"{layer}/{uuid}" for layer, uuid in layers if uuid)
    events = views.recent_events(session, scope) if scope else []
    return html(request, "missing.html", 404, message=error.message, events=events)


@router.get("/")
def index(request: Request, readers: Readers) -> Response:
    return page(request, readers, "index.html", views.index)


@router.get("/projects/{project_uuid}")
def project(request: Request, readers: Readers, project_uuid: Uuid) -> Response:
    return page(request, readers, "project.html", lambda s: views.project(s, project_uuid))


@router.get("/projects/{project_uuid}/pipelines/{pipeline_uuid}")
def pipeline(request: Request, readers: Readers, project_uuid: Uuid, pipeline_uuid: Uuid) -> Response:
    return page(request, readers, "pipeline.html", lambda s: views.pipeline(s, project_uuid, pipeline_uuid))


@router.get("/projects/{project_uuid}/pipelines/{pipeline_uuid}/runs/{run_uuid}")
def interactive_run(
    request: Request, readers: Readers, project_uuid: Uuid, pipeline_uuid: Uuid, run_uuid: Uuid
) -> Response:
    return page(
        request,
        readers,
        "run.html",
        lambda s: views.run(s, project_uuid, run_uuid, pipeline_uuid=pipeline_uuid),
    )


@router.get("/projects/{project_uuid}/environments/{environment_uuid}")
def environment(request: Request, readers: Readers, project_uuid: Uuid, environment_uuid: Uuid) -> Response:
    return page(
        request, readers, "environment.html", lambda s: views.environment(s, project_uuid, environment_uuid)
    )


@router.get("/projects/{project_uuid}/jobs/{job_uuid}")
def job(request: Request, readers: Readers, project_uuid: Uuid, job_uuid: Uuid) -> Response:
    return page(request, readers, "job.html", lambda s: views.job(s, project_uuid, job_uuid))


@router.get("/projects/{project_uuid}/jobs/{job_uuid}/runs/{run_uuid}")
def job_run(
    request: Request, readers: Readers, project_uuid: Uuid, job_uuid: Uuid, run_uuid: Uuid
) -> Response:
    return page(
        request, readers, "run.html", lambda s: views.run(s, project_uuid, run_uuid, job_uuid=job_uuid)
    )


@router.get("/events")
def events(request: Request, readers: Readers) -> Response:
    return page(
        request, readers, "events.html", lambda s: {"events": views.recent_events(s, None, views.MOST)}
    )


@router.get("/events/{event_uuid}")
def event(request: Request, readers: Readers, event_uuid: Uuid) -> Response:
    return page(request, readers, "event.html", lambda s: {"event": find_event(s, event_uuid)})


@router.get("/deliveries")
def deliveries(
    request: Request, readers: Readers, state: Annotated[State | None, Query()] = None
) -> Response:
    return page(
        request,
        readers,
        "deliveries.html",
        lambda s: {"deliveries": views.recent_deliveries(s, state), "state": state},
    )


@router.get("/deliveries/{delivery_id}")
def delivery(request: Request, readers: Readers, delivery_id: Number) -> Response:
    return page(request, readers, "delivery.html", lambda s: {"delivery": find_delivery(s, delivery_id)})


@router.post("/deliveries/{delivery_id}/redeliver")
def redeliver_again(delivery_id: Number, platform: ThePlatform) -> Response:
    with platform.sessions.begin() as session:
        find_delivery(session, delivery_id)
        redeliver(session, delivery_id, platform.site.clock())
    platform.nudge_relay()
    return RedirectResponse(f"/deliveries/{delivery_id}", 303)


@router.get("/subscribers")
def subscribers(request: Request, readers: Readers) -> Response:
    return page(request, readers, "subscribers.html", lambda s: {"subscribers": views.all_subscribers(s)})


@router.get("/subscribers/{subscriber_uuid}")
def subscriber(request: Request, readers: Readers, subscriber_uuid: Uuid) -> Response:
    return page(request, readers, "subscriber.html", lambda s: told(s, subscriber_uuid))


def told(session: Session, subscriber_uuid: str, pinged: PingShown | None = None) -> dict[str, Any]:
    return {
        "subscriber": SubscriberDetails.detailed(find_subscriber(session, subscriber_uuid)),
        "deliveries": views.recent_deliveries(session, None, subscriber_uuid),
        "pinged": pinged,
    }


@router.post("/subscribers/{subscriber_uuid}/ping")
async def ping(request: Request, readers: Readers, subscriber_uuid: Uuid, platform: ThePlatform) -> Response:
    pinged = await ping_subscriber(subscriber_uuid, platform)
    return await run_in_threadpool(
        page, request, readers, "subscriber.html", lambda s: told(s, subscriber_uuid, pinged)
    )


@router.get("/subscribers/{subscriber_uuid}/delete")
def ask_to_delete(request: Request, readers: Readers, subscriber_uuid: Uuid) -> Response:
    return page(
        request,
        readers,
        "delete_subscriber.html",
        lambda s: {"subscriber": find_subscriber(s, subscriber_uuid)},
    )


@router.post("/subscribers/{subscriber_uuid}/delete")
def delete(subscriber_uuid: Uuid, platform: ThePlatform) -> Response:
    with platform.sessions.begin() as session:
        remove_subscriber(session, platform.site, subscriber_uuid)
    return RedirectResponse("/subscribers", 303)


@router.get("/telemetry")
def telemetry(
    request: Request, readers: Readers, platform: ThePlatform, type: Annotated[str | None, Query()] = None
) -> Response:
    return page(request, readers, "telemetry.html", lambda s: views.telemetry(s, platform, type or None))


@router.post("/telemetry/enable")
def enable_telemetry(platform: ThePlatform) -> Response:
    """Whoever asks for it has the notice on the page before them."""
    return switched(platform, True)


@router.post("/telemetry/disable")
def disable_telemetry(platform: ThePlatform) -> Response:
    return switched(platform, False)


def switched(platform: Platform, on: bool) -> Response:
    """Telemetry was switched on or off; back to its page."""
    with platform.sessions.begin() as session:
        switch(session, on, platform.site.clock())
    ask_again(platform)
    return RedirectResponse("/telemetry", 303)


@router.get("/login")
def login(request: Request) -> Response:
    return html(request, "login.html", wrong=False)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Take the access token and keep it in a cookie that no script and no foreign page can use."""
    access: Access = request.app.state.access
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    token = form.get("token", [""])[0].strip()
    if not token or not access.token_allowed(token):
        return html(request, "login.html", 403, wrong=True)
    answer = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    for name, value in ((COOKIE, token), (SESSION, access.new_session())):
        answer.set_cookie(name, value, max_age=30 * 86400, httponly=True, samesite="strict", secure=secure)
    return answer
