"""The pages over HTTP: the door, the routes, and what every answer has."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import clarion
from clarion.collector.access import COOKIE, SESSION_SECONDS, Sessions, from_our_page
from clarion.collector.audit import Look
from clarion.collector.pages import views
from clarion.collector.pages.views import DAYS, Where
from clarion.collector.service import Collector
from clarion.collector.store import QueryTooSlow
from clarion.errors import ClarionError, NotFound

HERE: Final = Path(__file__).parent
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
    ("/journeys", "Journeys"),
    ("/quarantine", "Quarantine"),
    ("/live", "Live"),
    ("/operation", "Operation"),
    ("/looks", "Looks"),
)
_MOST_BODY: Final = 4096

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
    size=lambda n: f"{n / 1024**2:,.1f} MB",
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
            Route("/ui/events/{event}/recent", site.recent, methods=["POST"]),
            Route("/ui/events/{event}", site.page("event.html", _event)),
            Route("/ui", site.page("events.html", lambda c, w, _: views.events(c, w))),
            Route("/ui/installations", site.page("installations.html", _installations)),
            Route("/ui/journeys", site.page("journeys.html", _journeys)),
            Route("/ui/quarantine", site.page("quarantine.html", lambda c, w, _: views.quarantine(c, w))),
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


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY:
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
    text = templates.get_template(template).render(
        reader=reader, path=request.url.path, where=where, **values
    )
    return HTMLResponse(text, status, HEADERS)
