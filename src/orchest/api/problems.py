"""Every error as ``application/problem+json`` (RFC 9457): the framework's own and ours."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from clarion.errors import ClarionError
from clarion.observe import log
from orchest.definition import InvalidDefinition
from orchest.documents import pointer
from orchest.errors import InvalidFields

MEDIA_TYPE = "application/problem+json"


class FieldError(BaseModel):
    """One thing wrong with the request."""

    location: str = Field(description="Where it is: `body`, `query`, `path` or `header`.")
    field: str = Field(description="A JSON pointer into the body (RFC 6901), or the parameter's name.")
    message: str = Field(description="What is wrong, and what is allowed.")


class Problem(BaseModel):
    """Why a request failed (RFC 9457)."""

    type: str = Field(default="about:blank", description="Always `about:blank`: the status says what it is.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened, for people.")
    errors: list[FieldError] = Field(default=[], description="Each field that cannot be used.")


DESCRIPTIONS = {
    400: "The request cannot be read.",
    401: "The access token is missing or wrong.",
    403: "The request comes from a foreign page, is for a foreign host, or is of code the platform runs.",
    404: "There is no such thing.",
    409: "Its state does not allow this.",
    413: "The body is too large.",
    503: "The database does not answer; try again.",
    422: "Something in the request cannot be used; `errors` names each field.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of an operation that may fail so: ``responses=problems(404, 409)``."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": DESCRIPTIONS[status], "content": content} for status in statuses}


COMMON = problems(400, 401, 403, 413, 422, 503)
"""What every operation of the API may answer; routers need not say so."""


def problem(
    status: int,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem as an answer."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=list(errors))
    return JSONResponse(body.model_dump(), status, headers=headers, media_type=MEDIA_TYPE)


def field_errors(error: Exception) -> list[FieldError]:
    """What an error of ours says about single fields."""
    match error:
        case InvalidDefinition():
            found = [(p.path, p.message) for p in error.problems]
            return [FieldError(location="body", field="/definition" + at, message=what) for at, what in found]
        case InvalidFields():
            return [FieldError(location=p.location, field=p.field, message=p.message) for p in error.problems]
        case _:
            return []


def on_clarion_error(request: Request, error: Exception) -> JSONResponse:
    """An error of ours. What is our own fault (5xx) is logged, and told without its details."""
    assert isinstance(error, ClarionError)
    if error.status >= 500:
        log.error("a request failed", path=request.url.path, exc_info=error)
        return problem(error.status, "The platform could not do this; its log says why.")
    return problem(error.status, error.message, field_errors(error))


def on_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    """A request that does not have the documented shape."""
    assert isinstance(error, RequestValidationError)
    found = [shape_error(one) for one in error.errors()]
    detail = "; ".join(f"{one.field or one.location}: {one.message}" for one in found)
    return problem(422, detail, found)


def shape_error(one: Mapping[str, Any]) -> FieldError:
    """One of pydantic's errors. A parse error's position in the body is no field."""
    location, *path = one["loc"]
    message = str(one["msg"]).removeprefix("Value error, ")
    if one["type"] == "json_invalid":
        return FieldError(location="body", field="", message=f"not JSON: {one['ctx']['error']}, at {path[0]}")
    field = pointer(*path) if location == "body" else ".".join(map(str, path))
    return FieldError(location=str(location), field=field, message=message)


def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """An error of the framework: no such route, no such method, a body that is too large."""
    assert isinstance(error, HTTPException)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    detail = str(error.detail)
    if error.status_code == 404 and detail == "Not Found":
        detail = f"There is nothing at {request.url.path}."
    if error.status_code == 405:
        headers["allow"] = ", ".join(sorted(allowed_methods(request)))
        detail = f"{request.method} is not possible here; possible: {headers['allow']}."
    return problem(error.status_code, detail, headers=headers)


def allowed_methods(request: Request) -> set[str]:
    """Every method of every route that has this path; the framework names only the first route's."""
    allowed: set[str] = set()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes):
            allowed.add(method)
    return allowed


def on_integrity_error(request: Request, error: Exception) -> JSONResponse:
    """Two requests did what only one can: the database's constraints decide which."""
    log.info("a constraint refused a request", path=request.url.path, error=str(error.__cause__))
    return problem(409, "Something else was changed at the same moment; look again, and try again.")


def on_database_error(request: Request, error: Exception) -> JSONResponse:
    """The database does not answer, or is too busy."""
    log.error("the database does not answer", path=request.url.path, exc_info=error)
    return problem(503, "The database does not answer; try again.", headers={"retry-after": "2"})


def on_unexpected(request: Request, error: Exception) -> JSONResponse:
    """A fault of ours; the server logs it with its traceback."""
    return problem(500, "The platform failed to answer; its log says why.")


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem, and document the shape."""
    app.add_exception_handler(ClarionError, on_clarion_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(IntegrityError, on_integrity_error)
    app.add_exception_handler(OperationalError, on_database_error)
    app.add_exception_handler(Exception, on_unexpected)
