"""The query API: JSON under ``/api``, opened by an access token, errors as RFC 9457 problem documents.

Every handler checks its input, asks :mod:`.questions` in a worker thread and returns what it gets.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException

from clarion.collector import oversight, questions
from clarion.collector.access import COOKIE, Sessions, from_our_page, reader_of
from clarion.collector.audit import LOOK_COLUMNS, Look
from clarion.collector.canary import judged
from clarion.collector.exporting import as_csv, as_json, counted, flat
from clarion.collector.live import WATCHERS, Watcher, frames
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


class Shown:
    """How an answer is wanted: as JSON, or its rows as CSV."""

    def __init__(self, format: Literal["json", "csv"] = "json") -> None:
        self.format = format

    def __call__(self, found: Mapping[str, Any], rows: str, columns: Sequence[str]) -> Response:
        """``found`` as it is, or what it has under ``rows`` as lines of ``columns``."""
        if self.format == "json":
            return JSONResponse(found)
        return self.file(flat(found[rows]), rows, columns)

    def file(self, rows: Iterable[Mapping[str, Any]], name: str, columns: Sequence[str]) -> Response:
        """The rows while they are produced: none is kept."""
        if self.format == "json":
            return StreamingResponse(as_json(rows, name), media_type="application/json")
        named = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
        return StreamingResponse(as_csv(rows, columns), headers=named, media_type="text/csv")


As = Annotated[Shown, Depends(Shown)]


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
        responses=_problems(400, 401, 404, 422, 503),
    )
    _errors(api)
    _overview(api, collector)
    _people(api, collector)
    _privacy(api, collector)
    _raw(api, collector)
    _live(api, collector)
    return api


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


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
    def volume(span: Annotated[Span, spans], shown: As) -> Response:
        found = questions.volume(store, span, collector.clock(), collector.settings.k)
        seen = {row["event"] for row in found}
        unseen = sorted(name for name in collector.settings.schema.events if name not in seen)
        return shown({"events": found, "never_seen": unseen}, "events", questions.VOLUME)

    @api.get("/api/events/{event}/properties")
    def properties(event: str, span: Annotated[Span, spans], shown: As) -> Response:
        _declared(collector, event)
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


def _declared(collector: Collector, event: str) -> None:
    if event not in collector.settings.schema.events:
        raise NotFound("no event of that name is in the schema; see /api/schema")


def _people(api: FastAPI, collector: Collector) -> None:
    spans = _spans(collector)
    store = collector.store
    k = collector.settings.k

    @api.get("/api/installations")
    def installations(span: Annotated[Span, spans], shown: As, period: Period = "day") -> Response:
        found = questions.installations(store, span, period, k)
        columns = ("period", "installations", "new", "returning")
        return shown({"installations": found}, "installations", columns)

    @api.get("/api/versions")
    def versions(span: Annotated[Span, spans], shown: As, period: Period = "week") -> Response:
        found = questions.versions(store, span, period, k)
        return shown({"periods": found}, "periods", ("period", "value", "events", "installations"))

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
    spans = _spans(collector)
    store = collector.store

    @api.get("/api/quarantine")
    def quarantine(span: Annotated[Span, spans], shown: As) -> Response:
        found = oversight.quarantine(store, span, collector.settings.k)
        return shown({"shapes": found}, "shapes", oversight.QUARANTINE)

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


def _raw(api: FastAPI, collector: Collector) -> None:
    """What shows events themselves: each look is written down first."""
    spans = _spans(collector)
    store = collector.store

    @api.post("/api/installations/export")
    def export(asked: Installation, request: Request, shown: As) -> Response:
        collector.flush()
        stored = collector.stored_ids(asked.project, asked.installation)
        whose = collector.shown_id(asked.project, asked.installation)
        look = Look(request.state.reader, "export", asked.project, installation=whose)
        number = collector.audit.begin(look)

        def rows() -> Iterator[Mapping[str, Any]]:
            try:
                yield from counted(oversight.export(store, asked.project, stored), look)
            finally:
                collector.audit.end(number, look)

        return shown.file(rows(), "events", oversight.RAW_COLUMNS)

    @api.get("/api/events/{event}/recent")
    def recent(
        event: str,
        span: Annotated[Span, spans],
        request: Request,
        shown: As,
        most: Annotated[int, Query(ge=1, le=100)] = 10,
    ) -> Response:
        """The events of one type that were received last."""
        _declared(collector, event)
        with collector.audit.looking(Look(request.state.reader, "recent", span.project, event)) as look:
            found = oversight.recent(store, span, event, most)
            look.events = len(found)
        return shown({"events": found}, "events", oversight.RAW_COLUMNS)

    @api.get("/api/audit")
    def audit(
        shown: As,
        most: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    ) -> Response:
        """Who looked at raw events, newest first."""
        return shown({"looks": collector.audit.looks(most, before)}, "looks", LOOK_COLUMNS)


def _live(api: FastAPI, collector: Collector) -> None:
    @api.get("/api/live", response_class=StreamingResponse)
    async def live(
        project: Annotated[str, Query(min_length=1, max_length=40)],
        request: Request,
        event: Annotated[str, Query(max_length=200)] = "",
        installation: Annotated[str, Query(max_length=200)] = "",
        version: Annotated[str, Query(max_length=64)] = "",
    ) -> StreamingResponse:
        """Server-sent events: each event as it is stored, from now on."""
        wanted = Look(request.state.reader, "live", project, event, installation, version)
        return await watched(collector, wanted)


async def watched(collector: Collector, look: Look) -> StreamingResponse:
    """An open tail, written down when it opens and when it ends. ``look.installation`` is as it was asked.

    Raises HTTPException 503 when too many are open, NotAudited.
    """
    if len(collector.tail) >= WATCHERS:
        raise HTTPException(503, f"{WATCHERS} live tails are open already")
    who: tuple[str, ...] = ()
    if look.installation:
        who = collector.stored_ids(look.project, look.installation)
        look.installation = collector.shown_id(look.project, look.installation)
    watcher = Watcher(look.project, look.event, frozenset(who), look.version)
    number = await asyncio.to_thread(collector.audit.begin, look)

    async def stream() -> AsyncIterator[bytes]:
        try:
            with collector.tail.watching(watcher):
                async for frame in frames(watcher):
                    yield frame
        finally:  # the watcher may be gone: nothing can be waited for here
            look.events = watcher.shown
            asyncio.get_running_loop().run_in_executor(None, collector.audit.end, number, look)

    quiet = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=quiet)
