"""The pages over HTTP: the door, the routes, and what every answer has."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import parse_qs, parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import clarion
from clarion.collector import looking, oversight
from clarion.collector.access import COOKIE, SESSION_SECONDS, Sessions, from_our_page
from clarion.collector.audit import Look
from clarion.collector.exporting import as_csv, as_json
from clarion.collector.limits import QueryTooSlow
from clarion.collector.pages import views
from clarion.collector.pages.views import DAYS, IGNORED, Where
from clarion.collector.service import Collector, Resolution
from clarion.collector.sql import MOST_CHARACTERS
from clarion.collector.store import SHAPE_KEY
from clarion.errors import ClarionError, InvalidInput, NotFound

HERE: Final = Path(__file__).parent
CATALOGUE: Final = "/catalogue"
"""The page for everybody."""

HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
"""Nothing but our own files: no inline script, no third party, no framing."""

PAGES: Final = (
    ("", "Events"),
    ("/installations", "Installations"),
    ("/versions", "Versions"),
    ("/journeys", "Journeys"),
    ("/quarantine", "Quarantine"),
    ("/live", "Live"),
    ("/sql", "SQL"),
    ("/operation", "Operation"),
    ("/looks", "Looks"),
    ("/saved", "Saved"),
)
_MOST_BODY: Final = 4096
_MOST_FORM: Final = 64 * 1024
Given = Mapping[str, str]
"""The fields of a form, the first of a name."""

templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.globals.update(version=clarion.__version__, pages=PAGES, every_days=DAYS)
templates.filters.update(
    count=lambda n: f"{n:,}".replace(",", "\u202f"),
    moment=lambda text: text[:19].replace("T", " ") if text else "never",
    size=lambda n: f"{n / 1024**2:,.1f} MB" if n < 1024**3 else f"{n / 1024**3:,.1f} GB",
)


class Refused(Exception):
    """Nobody is logged in."""


def create_pages(collector: Collector, sessions: Sessions) -> Starlette:
    """The pages as an application of its own, to be given every path under ``/ui``."""
    site = Site(collector, sessions)
    return Starlette(
        routes=[
            Route("/ui/login", site.login, methods=["GET", "POST"]),
            Route("/ui/logout", site.logout, methods=["POST"]),
            Mount("/ui/static", StaticFiles(directory=HERE / "static")),
            Route(CATALOGUE, site.catalogue),
            Route("/ui/events/{event}/recent", site.recent, methods=["POST"]),
            Route("/ui/events/{event}", site.page("event.html", _event)),
            Route("/ui", site.page("events.html", lambda c, w, _: views.events(c, w))),
            Route("/ui/installations", site.page("installations.html", _installations)),
            Route(
                "/ui/installation",
                site.page("installation.html", lambda *_: {"erased": None, "savable": None}),
            ),
            Route("/ui/installation/export", site.form(site.export), methods=["POST"]),
            Route("/ui/installation/erase", site.form(site.erase), methods=["POST"]),
            Route("/ui/versions", site.page("versions.html", _versions)),
            Route("/ui/journeys", site.page("journeys.html", _journeys)),
            Route("/ui/quarantine", site.page("quarantine.html", _quarantine)),
            Route("/ui/quarantine/resolve", site.form(site.resolve), methods=["POST"]),
            Route("/ui/sql", site.sql_form),
            Route("/ui/sql/run", site.form(site.sql), methods=["POST"]),
            Route("/ui/saved", site.page("saved.html", lambda c, *_: views.saved(c))),
            Route("/ui/saved/save", site.form(site.save), methods=["POST"]),
            Route("/ui/saved/delete", site.form(site.delete), methods=["POST"]),
            Route("/ui/live", site.page("live.html", lambda c, w, r: views.live(c, w, r.query_params))),
            Route("/ui/operation", site.page("operation.html", lambda c, w, _: views.operation(c, w))),
            Route("/ui/looks", site.page("looks.html", _looks)),
        ],
        exception_handlers={
            Refused: _to_the_door,
            ClarionError: site.fault,
            QueryTooSlow: site.fault,
            HTTPException: site.fault,
        },
    )


View = Callable[[Collector, Where, Request], dict[str, Any]]


def _event(collector: Collector, where: Where, request: Request) -> dict[str, Any]:
    return views.event(collector, where, request.path_params["event"])


def _installations(collector: Collector, where: Where, request: Request) -> dict[str, Any]:
    return views.installations(collector, where, request.query_params.get("by", ""))


def _versions(collector: Collector, where: Where, request: Request) -> dict[str, Any]:
    return views.versions(collector, where, request.query_params.get("by", ""))


def _quarantine(collector: Collector, where: Where, request: Request) -> dict[str, Any]:
    return views.quarantine(collector, where, request.query_params.get("show", ""))


def _journeys(collector: Collector, where: Where, request: Request) -> dict[str, Any]:
    asked = request.query_params
    return views.journeys(collector, where, asked.getlist("step"), asked.get("window", ""))


def _looks(collector: Collector, _: Where, request: Request) -> dict[str, Any]:
    return views.looks(collector, request.query_params.get("before", ""))


class Site:
    """The handlers over one collector."""

    def __init__(self, collector: Collector, sessions: Sessions) -> None:
        self._collector = collector
        self._sessions = sessions

    def page(self, template: str, view: View) -> Callable[[Request], Response]:
        """A handler that shows what ``view`` finds to whoever is logged in. It runs in a thread."""

        def handler(request: Request) -> Response:
            reader = self._reader(request)
            where = self._where(request)
            return _html(template, reader, request, where, view(self._collector, where, request))

        return handler

    def recent(self, request: Request) -> Response:
        """An event's page with its last events: a look, so a POST, and written down first."""
        reader = self._reader(request)
        where, name = self._where(request), request.path_params["event"]
        values = views.event(self._collector, where, name)
        with self._collector.audit.looking(Look(reader, "recent", where.project, name)) as look:
            values["recent"] = views.recent(self._collector, where, name)
            look.events = len(values["recent"])
        return _html("event.html", reader, request, where, values)

    def form(
        self, work: Callable[[str, Given, Request], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        """A handler for a form that somebody who is logged in sent from a page of ours."""

        async def handler(request: Request) -> Response:
            reader = self._reader(request)
            body = (await _body(request, _MOST_FORM)).decode("utf-8", "replace")
            try:
                given = dict(reversed(parse_qsl(body, keep_blank_values=True, max_num_fields=50)))
            except ValueError as error:
                raise HTTPException(413, "The form has too many fields.") from error
            return await run_in_threadpool(work, reader, given, request)

        return handler

    def resolve(self, reader: str, given: Given, request: Request) -> Response:
        """Ignore, reopen or purge a refused shape, and back to the inbox."""
        how = given.get("how", "")
        if how not in get_args(Resolution):
            raise InvalidInput("A refused shape is ignored, reopened or purged.")
        where = self._where(request)
        shape = [given.get(name, "") for name in SHAPE_KEY]
        self._collector.resolve(reader, where.project, shape, how)  # type: ignore[arg-type]
        shown = {"show": IGNORED} if how == "reopen" else {}
        return _to(f"/ui/quarantine?{where.query(**shown)}")

    def sql_form(self, request: Request) -> Response:
        """The page of SQL, with a statement that a link or a saved view brings; it is not run."""
        return self._sql(request, self._reader(request), request.query_params.get("sql", ""), run=False)

    def sql(self, reader: str, given: Given, request: Request) -> Response:
        """The page of SQL with what a statement finds."""
        return self._sql(request, reader, given.get("sql", "").strip(), run=True)

    def _sql(self, request: Request, reader: str, text: str, run: bool) -> Response:
        where = self._where(request)
        values = views.sql(self._collector, where, reader, text[:MOST_CHARACTERS], run)
        return _html("sql.html", reader, request, where, values, 422 if values["said"] else 200)

    def save(self, _: str, given: Given, __: Request) -> Response:
        """Save a view, and back to it."""
        view, _new = self._collector.save_view(
            given.get("name", ""), given.get("page", ""), given.get("query", "")
        )
        return _to(f"/ui{view.page}?{view.query}")

    def delete(self, _: str, given: Given, request: Request) -> Response:
        """Forget a saved view."""
        self._collector.saved.delete(given.get("name", ""))
        return _to(f"/ui/saved?{self._where(request).query()}")

    def export(self, reader: str, given: Given, request: Request) -> Response:
        """Everything of one installation, as a file."""
        whose, where = _installation(given), self._where(request)
        rows = looking.exported(self._collector, reader, where.project, whose)
        if given.get("format") == "csv":
            text, kind = as_csv(rows, oversight.RAW_COLUMNS), "csv"
        else:
            text, kind = as_json(rows, "events"), "json"
        named = {"content-disposition": f'attachment; filename="installation.{kind}"'}
        media = "text/csv" if kind == "csv" else "application/json"
        return StreamingResponse(text, headers=HEADERS | named, media_type=media)

    def erase(self, reader: str, given: Given, request: Request) -> Response:
        """Forget one installation, and say what is left of it."""
        whose, where = _installation(given), self._where(request)
        if given.get("sure") != "yes":
            raise InvalidInput("Nothing was erased: say that you are sure.")
        erased = self._collector.erase(reader, where.project, whose)
        return _html("installation.html", reader, request, where, {"erased": erased, "savable": None})

    def catalogue(self, _: Request) -> Response:
        """What every event means. For everybody: it needs no session, and says nothing that was received."""
        text = templates.get_template("catalogue.html").render(**views.catalogue(self._collector))
        return HTMLResponse(text, 200, HEADERS)

    async def login(self, request: Request) -> Response:
        """The door: an access token opens it for twelve hours."""
        if request.method == "POST":
            if not from_our_page(request.headers):
                raise HTTPException(403, "This form was sent from another site.")
            given = parse_qs((await _body(request)).decode("utf-8", "replace")).get("token", [""])[0]
            session = self._sessions.login(given)
            if session is not None:
                answer = RedirectResponse("/ui", 303, HEADERS)
                answer.set_cookie(
                    COOKIE, session, max_age=int(SESSION_SECONDS), httponly=True, samesite="strict"
                )
                return answer
            return _door("That is not an access token of this collector.", 401)
        return _door()

    async def logout(self, request: Request) -> Response:
        """Forget the browser."""
        if from_our_page(request.headers):
            self._sessions.logout(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/ui/login", 303, HEADERS)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    async def fault(self, request: Request, error: Exception) -> Response:
        """A page that says what went wrong."""
        if isinstance(error, HTTPException):
            status, said = error.status_code, str(error.detail)
        elif isinstance(error, ClarionError):
            status, said = error.status, error.message
        else:
            status, said = 503, "The question took too long. Choose fewer days."
        reader = self._sessions.reader(request.cookies.get(COOKIE, ""))
        if reader is None:
            return _door(said, status)
        where = await run_in_threadpool(self._where, request, known=False)
        return _html("fault.html", reader, request, where, {"said": said, "status": status}, status)

    def _reader(self, request: Request) -> str:
        name = self._sessions.reader(request.cookies.get(COOKIE, ""))
        if name is None or not (request.method == "GET" or from_our_page(request.headers)):
            raise Refused
        return name

    def _where(self, request: Request, known: bool = True) -> Where:
        """What is asked for; the first project and 30 days unless said otherwise. Raises NotFound."""
        canary = self._collector.settings.canary  # comes last: nobody wants to see it first
        projects = tuple(sorted(self._collector.keys.projects(), key=lambda name: name == canary))
        asked = request.query_params.get("project") or (projects[0] if projects else "")
        if known and projects and asked not in projects:
            raise NotFound("No project of that name has a write key.")
        days = request.query_params.get("days", "")
        chosen = next((one for one in DAYS if str(one) == days), 30)
        return Where(asked if asked in projects else "", projects, chosen, self._collector.clock())


def _door(said: str = "", status: int = 200) -> HTMLResponse:
    return HTMLResponse(templates.get_template("login.html").render(said=said), status, HEADERS)


async def _to_the_door(_: Request, __: Exception) -> Response:
    return RedirectResponse("/ui/login", 303, HEADERS)


def _to(path: str) -> Response:
    return RedirectResponse(path, 303, HEADERS)


def _installation(given: Given) -> str:
    whose = given.get("installation", "").strip()
    if not 0 < len(whose) <= 200:
        raise InvalidInput("Name an installation by the id it sends, or as it is shown.")
    return whose


async def _body(request: Request, most: int = _MOST_BODY) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, "The form is too large.")
    return body


def _html(
    template: str,
    reader: str,
    request: Request,
    where: Where,
    values: Mapping[str, Any],
    status: int = 200,
) -> HTMLResponse:
    path = request.url.path
    savable = (path.removeprefix("/ui").removesuffix("/recent"), request.url.query or where.query())
    text = templates.get_template(template).render(
        {"reader": reader, "path": path, "where": where, "savable": savable} | dict(values)
    )
    return HTMLResponse(text, status, HEADERS)
