"""The conventions of the API, in one place for those who write a router.

    router = APIRouter(prefix="/api/projects/{project_uuid}/jobs", tags=["jobs"])

    @router.post("", status_code=201, response_model=JobShown, responses=problems(404, 409))
    def create_job(project_uuid: Uuid, body: NewJob, once: Once, site: TheSite) -> Response:
        return once(body, lambda session: JobShown.of(jobs.create_job(session, site, ...)))

    @router.get("", responses=problems(404))
    def list_jobs(project_uuid: Uuid, page: PageQuery, readers: Readers) -> Page[JobShown]:
        with readers() as session:
            return page.page(session, select(Job).where(...), (Job.created, Job.uuid), JobShown.of)

    @router.delete("/{job_uuid}", status_code=204, responses=problems(404, 409))
    def delete_job(job_uuid: Uuid, sessions: Writers, site: TheSite, nudge: Nudge) -> None:
        with sessions.begin() as session:
            jobs.delete_job(session, site, job_uuid)
        nudge()

Operations are plain functions, run in threads. They open their transaction themselves, as short as it can
be, and do files and processes outside it. Errors are raised (`clarion.errors`, `orchest.errors`), never
built: `problems` only documents them; those in `problems.COMMON` need not be named. Bodies are `Body`s.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints, model_validator
from sqlalchemy.orm import Session, sessionmaker

from orchest.api.idempotency import Once
from orchest.api.paging import Page, PageQuery
from orchest.api.problems import problems
from orchest.documents import MAX_DEPTH, unusable_values
from orchest.platform import Platform
from orchest.site import Site

__all__ = [
    "Body",
    "EnvVariables",
    "Name",
    "Nudge",
    "Number",
    "Once",
    "Page",
    "PageQuery",
    "Readers",
    "Shown",
    "ThePlatform",
    "TheSite",
    "Time",
    "Uuid",
    "Writers",
    "problems",
]

UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"

Uuid = Annotated[str, StringConstraints(pattern=UUID_PATTERN)]
"""An identifier, in a path or a body."""

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
"""A number in a path: of a delivery, of an event."""

Name = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"
    ),
]
"""What something is called: 1 to 255 characters, not only spaces, no control characters."""

EnvVariables = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=255, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")],
        Annotated[str, StringConstraints(max_length=32 * 1024)],
    ],
    Field(max_length=200, description="Names and values that steps find in their environment."),
]
"""Environment variables: names of letters, digits and ``_``, values as texts."""

Time = Annotated[
    datetime, PlainSerializer(lambda t: t.astimezone(UTC).isoformat().replace("+00:00", "Z"), str, "json")
]
"""A time in an answer: ISO 8601, UTC, with ``T`` and ``Z``."""


class Body(BaseModel):
    """A request's body: strict, and no key that is not named.

    Strict also means that an enumeration or a time is not read from a text unless its field says
    ``Field(strict=False)``; ``Literal`` needs nothing.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def refuse_unusable(cls, value: Any) -> Any:
        """What JSON can say and a database cannot hold: NUL characters, NaN, half surrogate pairs, and
        what lies too deep.
        """
        for problem in unusable_values(value, MAX_DEPTH + 10):  # what is in the body has its own limit
            raise ValueError(problem.message)
        return value


class Shown(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(from_attributes=True)


def the_platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


ThePlatform = Annotated[Platform, Depends(the_platform)]


def the_site(platform: ThePlatform) -> Site:
    return platform.site


def writers(platform: ThePlatform) -> sessionmaker[Session]:
    return platform.sessions


def readers(platform: ThePlatform) -> sessionmaker[Session]:
    return platform.readers


def nudge(platform: ThePlatform) -> Callable[[], None]:
    return platform.nudge


TheSite = Annotated[Site, Depends(the_site)]
Writers = Annotated[sessionmaker[Session], Depends(writers)]
"""Makes sessions that write: ``with sessions.begin() as session: ...``."""
Readers = Annotated[sessionmaker[Session], Depends(readers)]
"""Makes sessions that only read, and never wait for a writer."""
Nudge = Annotated[Callable[[], None], Depends(nudge)]
"""Call it after a commit that left work for the supervisor or the scheduler."""
