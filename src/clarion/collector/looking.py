"""Whoever sees single events: the last of a type, those of an installation, live, and SQL. Each look is
written down first.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from clarion.collector import oversight
from clarion.collector.answering import As, Installation, Moment, declared, span_of, spans_of
from clarion.collector.audit import LOOK_COLUMNS, Look
from clarion.collector.exporting import as_text, counted
from clarion.collector.kinds import laid_out
from clarion.collector.live import WATCHERS, Watcher, frames
from clarion.collector.questions import Span
from clarion.collector.service import Collector
from clarion.collector.sql import MOST_CHARACTERS


class Statement(BaseModel):
    """SQL over the table ``events``: one project's events between two moments."""

    model_config = ConfigDict(extra="forbid")
    project: str = Field(min_length=1, max_length=40)
    sql: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    since: Moment | None = None
    until: Moment | None = None


def raw_events(api: FastAPI, collector: Collector) -> None:
    """Events as they are stored: exports, the last ones, and who looked."""
    spans = spans_of(collector)
    store = collector.store

    @api.post("/api/installations/export")
    def export(asked: Installation, request: Request, shown: As) -> Response:
        rows = exported(collector, request.state.reader, asked.project, asked.installation)
        return shown.file(rows, "events", oversight.RAW_COLUMNS)

    @api.get("/api/events/{event}/recent")
    def recent(
        event: str,
        span: Annotated[Span, spans],
        request: Request,
        shown: As,
        most: Annotated[int, Query(ge=1, le=100)] = 10,
    ) -> Response:
        """The events of one type that were received last, each value beside what it is declared as."""
        declared(collector, event)
        with collector.audit.looking(Look(request.state.reader, "recent", span.project, event)) as look:
            found = oversight.recent(store, span, event, most)
            look.events = len(found)
        schema = collector.settings.schema.events[event]
        beside = [{**one, "values": laid_out(one["properties"], schema)} for one in found]
        return shown({"events": beside if shown.format == "json" else found}, "events", oversight.RAW_COLUMNS)

    @api.get("/api/audit")
    def audit(
        shown: As,
        most: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    ) -> Response:
        """Who looked at raw events or changed what is kept, newest first."""
        return shown({"looks": collector.audit.looks(most, before)}, "looks", LOOK_COLUMNS)


def exported(collector: Collector, who: str, project: str, installation: str) -> Iterator[Mapping[str, Any]]:
    """Every event kept of an installation, which is written down now. Raises NotAudited."""
    collector.flush()
    stored = collector.stored_ids(project, installation)
    look = Look(who, "export", project, installation=collector.shown_id(project, installation))
    number = collector.audit.begin(look)

    def rows() -> Iterator[Mapping[str, Any]]:
        try:
            yield from counted(oversight.export(collector.store, project, stored), look)
        finally:
            collector.audit.end(number, look)

    return rows()


def sql(api: FastAPI, collector: Collector) -> None:
    """SQL, for administrators."""

    @api.post("/api/sql")
    def sql(asked: Statement, request: Request, shown: As) -> Response:
        """At most 1,000 rows of one SELECT over the table ``events``; ``more``: there are others."""
        span = span_of(collector, asked.project, asked.since, asked.until)
        found = collector.ask(request.state.reader, span, asked.sql)
        rows = [[as_text(value) for value in row] for row in found.rows]
        if shown.format == "json":
            return JSONResponse({"columns": found.columns, "rows": rows, "more": found.more})
        numbered = [{str(place): value for place, value in enumerate(row)} for row in rows]
        return shown.file(numbered, "sql", [str(place) for place in range(len(found.columns))], found.columns)


def live_tail(api: FastAPI, collector: Collector) -> None:
    """The live tail."""

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
