"""What the handlers of the query API share: spans asked for, answers as JSON or CSV, problems told."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException

from clarion.collector.exporting import as_csv, as_json, flat
from clarion.collector.limits import QueryTooSlow
from clarion.collector.questions import Span
from clarion.collector.service import Collector
from clarion.errors import ClarionError, InvalidInput, NotFound

DEFAULT_SPAN: Final = timedelta(days=30)


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


class Shown:
    """How an answer is wanted: as JSON, or its rows as CSV."""

    def __init__(self, format: Literal["json", "csv"] = "json") -> None:
        self.format = format

    def __call__(self, found: Mapping[str, Any], rows: str, columns: Sequence[str]) -> Response:
        """``found`` as it is, or what it has under ``rows`` as lines of ``columns``."""
        if self.format == "json":
            return JSONResponse(found)
        return self.file(flat(found[rows]), rows, columns)

    def file(
        self,
        rows: Iterable[Mapping[str, Any]],
        name: str,
        columns: Sequence[str],
        header: Sequence[str] | None = None,
    ) -> Response:
        """The rows while they are produced: none is kept."""
        if self.format == "json":
            return StreamingResponse(as_json(rows, name), media_type="application/json")
        named = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
        return StreamingResponse(as_csv(rows, columns, header), headers=named, media_type="text/csv")


As = Annotated[Shown, Depends(Shown)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What each status is answered with, for the OpenAPI document."""
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def errors(api: FastAPI) -> None:
    """Have every fault answered as a problem document."""

    @api.exception_handler(ClarionError)
    async def clarion(_: Request, error: ClarionError) -> JSONResponse:
        return problem(error.status, error.message)

    @api.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        found = [
            {"where": ".".join(str(part) for part in one["loc"]), "what": str(one["msg"])}
            for one in error.errors()
        ]
        return problem(422, "the request is not valid", found)

    @api.exception_handler(QueryTooSlow)
    async def slow(_: Request, __: QueryTooSlow) -> JSONResponse:
        return problem(503, "the question took too long, or too much memory: ask for a shorter span")


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


def spans_of(collector: Collector) -> Any:
    """The dependency that reads project, since and until from the URL."""

    def span(
        project: Annotated[str, Query(min_length=1, max_length=40)],
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> Span:
        return span_of(collector, project, since, until)

    return Depends(span)


def span_of(collector: Collector, project: str, since: datetime | None, until: datetime | None) -> Span:
    """30 days until now unless said otherwise. Raises NotFound, InvalidInput."""
    if project not in collector.keys.projects():
        raise NotFound("no project of that name has a write key; see /api/projects")
    end = until or collector.clock() + timedelta(days=1)
    start = since or end - DEFAULT_SPAN - timedelta(days=1)
    if start >= end:
        raise InvalidInput("since must be before until")
    return Span(project, start, end)


def declared(collector: Collector, event: str) -> None:
    """Raises NotFound unless an event is in the schema."""
    if event not in collector.settings.schema.events:
        raise NotFound("no event of that name is in the schema; see /api/schema")
