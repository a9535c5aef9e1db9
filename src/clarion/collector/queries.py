"""The query API: JSON under ``/api``, opened by an access token, errors as RFC 9457 problem documents.

Every handler checks its input, asks :mod:`.questions` in a worker thread and returns what it gets.
"""

from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from clarion.collector import looking, managing, operating, oversight, questions
from clarion.collector.access import COOKIE, Sessions, from_our_page, reader_of
from clarion.collector.answering import As, declared, errors, problems, spans_of
from clarion.collector.canary import judged
from clarion.collector.kinds import described
from clarion.collector.questions import Period, Span
from clarion.collector.service import Collector
from clarion.errors import InvalidInput

MOST_STEPS: Final = 10


class Ids(BaseModel):
    """Ids of events, as their sender knows them."""

    model_config = ConfigDict(extra="forbid", strict=True)
    project: str = Field(min_length=1, max_length=40)
    ids: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(max_length=1000)


def create_api(collector: Collector, sessions: Sessions) -> FastAPI:
    """The API as an application of its own, to be given every path under ``/api``.

    A token opens all of it, a browser's session what only reads.
    """
    bearer = HTTPBearer(auto_error=False, description="An access token of the collector")

    def reader(request: Request, given: Annotated[Any, Depends(bearer)]) -> None:
        name = None
        if given is not None:
            name = reader_of(given.credentials, collector.settings.access)
        elif request.method == "GET" and from_our_page(request.headers):
            name = sessions.reader(request.cookies.get(COOKIE, ""))
        if name is None:
            raise HTTPException(401, "an access token is needed", {"WWW-Authenticate": "Bearer"})
        request.state.reader = name

    api = FastAPI(
        title="Clarion collector",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        dependencies=[Depends(reader)],
        responses=problems(400, 401, 403, 404, 409, 422, 503),
    )
    errors(api)
    _overview(api, collector)
    _people(api, collector)
    _privacy(api, collector)
    _operation(api, collector)
    managing.quarantine(api, collector)
    managing.erasure(api, collector)
    managing.saved_views(api, collector)
    managing.backups(api, collector)
    looking.raw_events(api, collector)
    looking.sql(api, collector)
    looking.live_tail(api, collector)
    return api


def _overview(api: FastAPI, collector: Collector) -> None:
    spans = spans_of(collector)
    store, listed = collector.store, collector.settings.schema

    @api.get("/api/projects")
    def projects() -> dict[str, Any]:
        return {"projects": collector.keys.projects()}

    @api.get("/api/schema")
    def schema() -> dict[str, Any]:
        """What may be kept: every type with who answers for it, every property with its kind."""
        events = {name: {**described(one), "schema": one.schema} for name, one in listed.events.items()}
        return {"hash": listed.hash, "version": listed.version, "events": events}

    @api.get("/api/events")
    def volume(span: Annotated[Span, spans], shown: As) -> Response:
        found = questions.volume(store, span, collector.clock(), collector.settings.k)
        return shown(
            {"events": found} | oversight.alerts(found, listed, collector.clock()), "events", questions.VOLUME
        )

    @api.get("/api/events/{event}/properties")
    def properties(event: str, span: Annotated[Span, spans], shown: As) -> Response:
        declared(collector, event)
        k = collector.settings.k
        found = questions.properties(store, span, collector.settings.schema, event, k)
        columns = ("property", "filled", "events", "value", "values_events", "installations")
        return shown({"properties": found}, "properties", columns)

    @api.get("/api/series")
    def series(span: Annotated[Span, spans], shown: As, period: Period = "day", event: str = "") -> Response:
        found = questions.series(store, span, period, event)
        return shown({"series": found}, "series", ("period", "event", "events"))

    @api.get("/api/counters")
    def counters(span: Annotated[Span, spans], shown: As) -> Response:
        return shown({"counters": oversight.counters(store, span)}, "counters", ("name", "label", "count"))


def _people(api: FastAPI, collector: Collector) -> None:
    spans = spans_of(collector)
    store = collector.store
    k = collector.settings.k

    @api.get("/api/installations")
    def installations(span: Annotated[Span, spans], shown: As, period: Period = "day") -> Response:
        found = questions.installations(store, span, period, k)
        columns = ("period", "installations", "new", "returning", "churned")
        return shown({"installations": found}, "installations", columns)

    @api.get("/api/versions")
    def versions(span: Annotated[Span, spans], shown: As, period: Period = "week") -> Response:
        found = questions.versions(store, span, period, k)
        return shown({"periods": found}, "periods", ("period", "value", "events", "installations"))

    @api.get("/api/active")
    def active(span: Annotated[Span, spans]) -> dict[str, Any]:
        """Installations active in the last day, 7 days and 30 days."""
        return questions.active(store, span.project, collector.clock(), k)

    @api.get("/api/adoption")
    def adoption(span: Annotated[Span, spans], shown: As) -> Response:
        found = questions.adoption(store, span, k)
        return shown({"versions": found}, "versions", ("version", "first_seen", "half", "days_to_half"))

    @api.get("/api/platforms")
    def platforms(span: Annotated[Span, spans], shown: As) -> Response:
        found = questions.platforms(store, span, collector.settings.schema, k)
        return shown({"platforms": found}, "platforms", ("property", "value", "installations"))

    @api.get("/api/funnel")
    def funnel(
        span: Annotated[Span, spans],
        shown: As,
        step: Annotated[list[str], Query(min_length=2, max_length=MOST_STEPS)],
        window_days: Annotated[float, Query(gt=0, le=400)] = 14,
    ) -> Response:
        for name in step:
            if name not in collector.settings.schema.events:
                raise InvalidInput("every step must be an event of the schema; see /api/schema")
        found = questions.funnel(store, span, step, timedelta(days=window_days), k)
        return shown({"steps": found}, "steps", ("step", "event", "installations", "share"))

    @api.get("/api/retention")
    def retention(
        span: Annotated[Span, spans], shown: As, period: Period = "week", event: str = ""
    ) -> Response:
        found = questions.retention(store, span, period, event, k)
        columns = ("cohort", "installations", "returned_place", "returned")
        return shown({"cohorts": found}, "cohorts", columns)


def _privacy(api: FastAPI, collector: Collector) -> None:
    spans = spans_of(collector)
    store = collector.store

    @api.get("/api/verdict")
    def verdict(span: Annotated[Span, spans]) -> dict[str, Any]:
        return judged(collector, span)

    @api.post("/api/arrivals")
    def arrivals(asked: Ids) -> dict[str, Any]:
        keys = {name: collector.pseudonyms.event(asked.project, name) for name in asked.ids}
        return {"arrived": oversight.arrivals(store, keys)}


def _operation(api: FastAPI, collector: Collector) -> None:
    spans = spans_of(collector)

    @api.get("/api/operation")
    def operation(span: Annotated[Span, spans]) -> dict[str, Any]:
        """How the collector does: what it takes, how fast, what it refuses, what it keeps and since when."""
        return operating.operation(collector, span)

    @api.get("/api/libraries")
    def libraries(span: Annotated[Span, spans], shown: As) -> Response:
        found = oversight.libraries(collector.store, span, collector.settings.k)
        return shown({"libraries": found}, "libraries", ("library", "value", "events", "installations"))
