"""What changes something: resolving what was refused, forgetting an installation, saved views."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask

from clarion.collector import backup, oversight
from clarion.collector.answering import As, Installation, spans_of
from clarion.collector.questions import Span
from clarion.collector.saved import MOST_CHARACTERS
from clarion.collector.service import Collector, Resolution

Text = Annotated[str, Field(max_length=2000)]


class Resolved(BaseModel):
    """A refused shape, as the quarantine shows it, and what becomes of it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    project: str = Field(min_length=1, max_length=40)
    event: Text
    path: Text
    problem: Text
    type: Text
    size: Text
    library: Text
    how: Resolution

    @property
    def shape(self) -> tuple[str, ...]:
        """The values of ``SHAPE_KEY``."""
        return (self.event, self.path, self.problem, self.type, self.size, self.library)


class Page(BaseModel):
    """A page below ``/ui``, and its query string."""

    model_config = ConfigDict(extra="forbid", strict=True)
    page: str = Field(max_length=300)
    query: str = Field(max_length=MOST_CHARACTERS)


def quarantine(api: FastAPI, collector: Collector) -> None:
    """The inbox of what was refused."""
    spans = spans_of(collector)

    @api.get("/api/quarantine")
    def listed(span: Annotated[Span, spans], shown: As, ignored: bool = False) -> Response:
        """What was refused, as shapes: those nobody ignores, or those somebody does."""
        found = oversight.quarantine(collector.store, span, collector.settings.k, ignored)
        return shown({"shapes": found}, "shapes", oversight.QUARANTINE)

    @api.post("/api/quarantine/resolve")
    def resolve(asked: Resolved, request: Request) -> dict[str, Any]:
        """Ignore a shape, reopen it, or purge: forget that it was refused. ``purged`` says how many values
        were.
        """
        gone = collector.resolve(request.state.reader, asked.project, asked.shape, asked.how)
        return {"how": asked.how, "purged": gone}


def erasure(api: FastAPI, collector: Collector) -> None:
    """Forgetting an installation."""

    @api.post("/api/installations/erase")
    def erase(asked: Installation, request: Request) -> dict[str, Any]:
        erased = collector.erase(request.state.reader, asked.project, asked.installation)
        return {"events": erased.events, "shapes": erased.shapes, "left": erased.left}


def saved_views(api: FastAPI, collector: Collector) -> None:
    """Pages with what was chosen on them, under a name."""

    @api.get("/api/views")
    def listed() -> dict[str, Any]:
        return {"views": [asdict(one) for one in collector.saved.all()]}

    @api.put("/api/views/{name}")
    def save(name: str, asked: Page) -> Response:
        """201 if there was none of that name, else it is replaced."""
        view, new = collector.save_view(name, asked.page, asked.query)
        return JSONResponse(asdict(view), 201 if new else 200)

    @api.delete("/api/views/{name}", status_code=204)
    def delete(name: str) -> None:
        collector.saved.delete(name)


def backups(api: FastAPI, collector: Collector) -> None:
    """The data directory as one file."""

    @api.post("/api/backup", response_class=FileResponse)
    def make(request: Request) -> Response:
        """A tar to unpack into an empty directory, of all that was answered; for administrators."""
        path = backup.make(collector, request.state.reader)
        gone = BackgroundTask(path.unlink, missing_ok=True)
        return FileResponse(path, filename="collector.tar", media_type="application/x-tar", background=gone)
