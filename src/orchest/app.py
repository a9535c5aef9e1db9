"""The web application: the API, the pages, and in its lifespan everything that runs beside them."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

import clarion
from clarion.analytics import attach
from clarion.api.analytics import OPERATION, PATHS, analytics_router, preview_router
from clarion.api.metrics import metrics_router
from clarion.catalogue import EventTypeRow
from clarion.engines.embedded import EmbeddedEngine
from orchest import api
from orchest.api import problems
from orchest.api.security import Access, Guard, session_of
from orchest.builders import Builders
from orchest.heartbeat import Heartbeat
from orchest.hosting import Hosts
from orchest.models import Setting
from orchest.platform import Platform, Worker
from orchest.pruning import Pruning
from orchest.scheduler import Scheduler
from orchest.supervisor import Supervisor
from orchest.usage import NoteUsage
from orchest.web import pages

TAGS = [
    {"name": "projects", "description": "Directories of pipelines and environments."},
    {"name": "pipelines", "description": "Graphs of steps, kept as definition files."},
    {"name": "environments", "description": "What steps run in, and their builds."},
    {"name": "sessions", "description": "Pipelines opened for interactive work, their services and runs."},
    {"name": "jobs", "description": "Pipelines run once or on a schedule, with a grid of parameters."},
    {"name": "runs", "description": "Pipeline runs, their steps and logs."},
    {"name": "notifications", "description": "Who is told of what: event types, subscribers, deliveries."},
    {"name": "telemetry", "description": "What is sent to the people who develop it, and whether."},
    {"name": "health", "description": "Whether the platform runs."},
]

DESCRIPTION = """
Build data pipelines, run them, and be told what happens.

Errors are `application/problem+json` (RFC 9457). Lists are pages `{items, next}`: give `next` as `cursor`
to get the following one. What creates something takes an `Idempotency-Key` header: sent twice, it is done
once. Times are ISO 8601 in UTC.
"""


class Health(BaseModel):
    """What the platform says of itself."""

    status: str
    version: str


health = APIRouter(tags=["health"])


def create_app(platform: Platform, access: Access | None = None, *, workers: bool = True) -> FastAPI:
    """The application on this platform, whose database is migrated.

    ``access`` says who is answered (by default: loopback, without a token). With ``workers`` its lifespan
    runs the embedded relay and the platform's workers; without, another process does.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            if workers:
                app.state.relay = await run_in_threadpool(start_workers, platform, stack)
            app.state.running = True
            try:
                yield
            finally:
                app.state.running = False
                await run_in_threadpool(stack.close)

    app = FastAPI(
        title="Orchest",
        version=clarion.__version__,
        summary="Data pipelines that tell what happens.",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        responses=problems.COMMON,
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,  # their scripts come from elsewhere, and a script of our origin can run code here
        redoc_url=None,
    )
    app.state.platform = platform
    app.state.running = False
    app.state.relay = None
    app.state.access = access or Access()
    attach(app, platform.analytics)
    problems.install(app)
    app.add_middleware(NoteUsage, usage=platform.usage)
    app.add_middleware(Guard, access=app.state.access)
    app.include_router(health)
    for router in routers():
        app.include_router(router)
    relay = analytics_router(platform.analytics, session_of=session_of(app.state.access))
    for router in (relay, preview_router(platform.analytics)):
        app.include_router(router, tags=["telemetry"])
    app.include_router(metrics_router(platform.reading, platform.site.clock), tags=["health"])
    app.include_router(pages.router)
    app.mount("/static", pages.static)
    document(app)
    return app


def routers() -> Iterator[APIRouter]:
    """Every ``router`` of the modules of `orchest.api`."""
    for found in iter_modules(api.__path__, f"{api.__name__}."):
        router = getattr(import_module(found.name), "router", None)
        if router is not None:
            yield router


def start_workers(platform: Platform, stack: ExitStack) -> EmbeddedEngine:
    """Start the relay and every worker, and have ``stack`` stop them in the other order; the relay."""
    relay = EmbeddedEngine(platform.engine.url, platform.policy, clock=platform.site.clock, listening=True)
    relay.start()
    stack.callback(relay.stop)
    platform.relay = relay
    platform.workers = list(workers_of(platform))
    for worker in platform.workers:
        worker.start()
        stack.callback(worker.stop)
    return relay


def workers_of(platform: Platform) -> Sequence[Worker]:
    """What acts on the platform's rows: the supervisors of runs, builds and sessions, and by the clock."""
    return [
        Builders(platform),
        Hosts(platform),
        platform.executor or Supervisor(platform),
        Scheduler(platform),
        Pruning(platform),
        Heartbeat(platform),
    ]


def document(app: FastAPI) -> None:
    """Add to the OpenAPI document what every error looks like, and the relay of browsers' events."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = generate()
            made["paths"][PATHS[0]] = {"post": {**OPERATION, "tags": ["telemetry"]}}
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            schema = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}), Problem=schema)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


STARTING: dict[int | str, dict[str, Any]] = {
    503: {"model": Health, "description": "It is starting or ending, or its database does not answer."}
}


@health.get("/healthz", responses=STARTING, response_model=Health)
def healthz(request: Request) -> JSONResponse:
    """Whether the platform runs and its database is migrated."""
    return told(request.app.state.running and migrated(request.app.state.platform))


@health.get("/readyz", responses=STARTING, response_model=Health)
def readyz(request: Request) -> JSONResponse:
    """Whether it can take work now: it runs, its database answers, and its relay delivers."""
    relay: EmbeddedEngine | None = request.app.state.relay
    delivers = relay is None or relay.running  # None: another process does
    return told(request.app.state.running and delivers and migrated(request.app.state.platform))


def told(well: bool) -> JSONResponse:
    health = Health(status="ok" if well else "unavailable", version=clarion.__version__)
    return JSONResponse(health.model_dump(), 200 if well else 503)


def migrated(platform: Platform) -> bool:
    """Whether the database answers and has our tables."""
    try:
        with platform.readers() as session:
            session.execute(select(Setting.key).limit(1))
            session.execute(select(EventTypeRow.name).limit(1))
    except SQLAlchemyError:
        return False
    return True
