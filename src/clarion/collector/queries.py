"""The query API: JSON under ``/api``, opened by an access token, errors as RFC 9457 problem documents.

Every handler checks its input, asks :mod:`.questions` in a worker thread and returns what it gets.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException

from clarion.collector import oversight, questions
from clarion.collector.canary import judged
from clarion.collector.keys import digest_of
from clarion.collector.live import WATCHERS, Watcher, frames
from clarion.collector.privacy import same
from clarion.collector.questions import Period, Span
from clarion.collector.service import Collector
from clarion.collector.store import QueryTooSlow
from clarion.errors import ClarionError, InvalidInput, NotFound

DEFAULT_SPAN: Final = timedelta(days=30)
MOST_STEPS: Final = 10


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


class Installation(BaseModel):
    """An installation, by the id it sends or as the collector shows it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    project: str = Field(min_length=1, max_length=40)
    installation: str = Field(min_length=1, max_length=200)


class Ids(BaseModel):
    """Ids of events, as their sender knows them."""

    model_config = ConfigDict(extra="forbid", strict=True)
    project: str = Field(min_length=1, max_length=40)
    ids: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(max_length=1000)


def create_api(collector: Collector) -> FastAPI:
    """The API as an application of its own, to be given every path under ``/api``."""
    bearer = HTTPBearer(auto_error=False, description="An access token of the collector")

    def allowed(given: Annotated[Any, Depends(bearer)]) -> None:
        settings = collector.settings
        if given is None or not (
            _one_of(given.credentials, settings.access_tokens)
            or _one_of(digest_of(given.credentials), settings.access_digests)
        ):
            raise HTTPException(401, "an access token is needed", {"WWW-Authenticate": "Bearer"})

    api = FastAPI(
        title="Clarion collector",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        dependencies=[Depends(allowed)],
        responses=_problems(400, 401, 404, 422, 503),
    )
    _errors(api)
    _overview(api, collector)
    _people(api, collector)
    _privacy(api, collector)
    _live(api, collector)
    return api


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def _one_of(given: str, tokens: tuple[str, ...]) -> bool:
    """Compare with every token, so that the time says nothing about which one is near."""
    return sum(same(given, token) for token in tokens) > 0


def _errors(api: FastAPI) -> None:
    @api.exception_handler(ClarionError)
    async def clarion(_: Request, error: ClarionError) -> JSONResponse:
        return problem(error.status, error.message)

    @api.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"where": ".".join(str(part) for part in one["loc"]), "what": str(one["msg"])}
            for one in error.errors()
        ]
        return problem(422, "the request is not valid", errors)

    @api.exception_handler(QueryTooSlow)
    async def slow(_: Request, __: QueryTooSlow) -> JSONResponse:
        return problem(503, "the question took too long: ask for a shorter span")


def problem(
    status: int,
    detail: str,
    errors: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An RFC 9457 answer."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors)
    return JSONResponse(
        body.model_dump(exclude_none=True), status, headers, media_type="application/problem+json"
    )


def _dated(value: object) -> object:
    """Only ISO 8601: pydantic would take a bare number for seconds since 1970."""
    if isinstance(value, str) and value.lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError("a moment is written like 2026-11-01T00:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_dated)]


def _spans(collector: Collector) -> Any:
    def span(
        project: Annotated[str, Query(min_length=1, max_length=40)],
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> Span:
        """30 days until now unless said otherwise."""
        if project not in collector.keys.projects():
            raise NotFound("no project of that name has a write key; see /api/projects")
        end = until or collector.clock() + timedelta(days=1)
        start = since or end - DEFAULT_SPAN - timedelta(days=1)
        if start >= end:
            raise InvalidInput("since must be before until")
        return Span(project, start, end)

    return Depends(span)


def _overview(api: FastAPI, collector: Collector) -> None:
    spans = _spans(collector)
    store = collector.store

    @api.get("/api/projects")
    def projects() -> dict[str, Any]:
        return {"projects": collector.keys.projects()}

    @api.get("/api/schema")
    def schema() -> dict[str, Any]:
        listed = collector.settings.schema
        events = {
            name: {"description": one.description, "source": one.source, "schema": one.schema}
            for name, one in listed.events.items()
        }
        return {"hash": listed.hash, "version": listed.version, "events": events}

    @api.get("/api/events")
    def volume(span: Annotated[Span, spans]) -> dict[str, Any]:
        found = questions.volume(store, span, collector.clock())
        seen = {row["event"] for row in found}
        unseen = sorted(name for name in collector.settings.schema.events if name not in seen)
        return {"events": found, "never_seen": unseen}

    @api.get("/api/events/{event}/properties")
    def properties(event: str, span: Annotated[Span, spans]) -> dict[str, Any]:
        if event not in collector.settings.schema.events:
            raise NotFound("no event of that name is in the schema; see /api/schema")
        k = collector.settings.k
        return {"properties": questions.properties(store, span, collector.settings.schema, event, k)}

    @api.get("/api/series")
    def series(span: Annotated[Span, spans], period: Period = "day", event: str = "") -> dict[str, Any]:
        return {"series": questions.series(store, span, period, event)}

    @api.get("/api/counters")
    def counters(span: Annotated[Span, spans]) -> dict[str, Any]:
        return {"counters": oversight.counters(store, span)}


def _people(api: FastAPI, collector: Collector) -> None:
    spans = _spans(collector)
    store = collector.store
    k = collector.settings.k

    @api.get("/api/installations")
    def installations(span: Annotated[Span, spans], period: Period = "day") -> dict[str, Any]:
        return {"installations": questions.installations(store, span, period)}

    @api.get("/api/versions")
    def versions(span: Annotated[Span, spans], period: Period = "week") -> dict[str, Any]:
        return {"periods": questions.versions(store, span, period, k)}

    @api.get("/api/funnel")
    def funnel(
        span: Annotated[Span, spans],
        step: Annotated[list[str], Query(min_length=2, max_length=MOST_STEPS)],
        window_days: Annotated[float, Query(gt=0, le=400)] = 14,
    ) -> dict[str, Any]:
        for name in step:
            if name not in collector.settings.schema.events:
                raise InvalidInput("every step must be an event of the schema; see /api/schema")
        return {"steps": questions.funnel(store, span, step, timedelta(days=window_days), k)}

    @api.get("/api/retention")
    def retention(span: Annotated[Span, spans], period: Period = "week", event: str = "") -> dict[str, Any]:
        return {"cohorts": questions.retention(store, span, period, event, k)}


def _privacy(api: FastAPI, collector: Collector) -> None:
    spans = _spans(collector)
    store = collector.store

    @api.get("/api/quarantine")
    def quarantine(span: Annotated[Span, spans]) -> dict[str, Any]:
        return {"shapes": oversight.quarantine(store, span)}

    @api.get("/api/verdict")
    def verdict(span: Annotated[Span, spans]) -> dict[str, Any]:
        return judged(collector, span)

    @api.post("/api/arrivals")
    def arrivals(asked: Ids) -> dict[str, Any]:
        keys = {name: collector.pseudonyms.event(asked.project, name) for name in asked.ids}
        return {"arrived": oversight.arrivals(store, keys)}

    @api.post("/api/installations/erase")
    def erase(asked: Installation) -> dict[str, Any]:
        erased = collector.erase(asked.project, asked.installation)
        return {"events": erased.events, "shapes": erased.shapes, "left": erased.left}

    @api.post("/api/installations/export")
    def export(asked: Installation) -> dict[str, Any]:
        collector.flush()
        stored = collector.stored_ids(asked.project, asked.installation)
        return {"events": oversight.export(store, asked.project, stored)}


def _live(api: FastAPI, collector: Collector) -> None:
    @api.get("/api/live", response_class=StreamingResponse)
    async def live(
        project: Annotated[str, Query(min_length=1, max_length=40)],
        event: str = "",
        installation: str = "",
        version: str = "",
    ) -> StreamingResponse:
        """Server-sent events: each event as it is stored, from now on."""
        if len(collector.tail) >= WATCHERS:
            raise HTTPException(503, f"{WATCHERS} live tails are open already")
        who = frozenset(collector.stored_ids(project, installation)) if installation else frozenset()
        watcher = Watcher(project, event, who, version)

        async def stream() -> AsyncIterator[bytes]:
            with collector.tail.watching(watcher):
                async for frame in frames(watcher):
                    yield frame

        quiet = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream(), media_type="text/event-stream", headers=quiet)
