"""The platform as a process: bind, migrate, serve, and say the address once it answers."""

import http.client
import logging
import socket
import sys
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from clarion import settings as library
from clarion.database import normalise_url
from clarion.errors import ConfigurationError
from clarion.heads import PromptHeads
from clarion.retention import Kept
from orchest import telemetry
from orchest.api.security import Access, is_loopback
from orchest.app import create_app
from orchest.platform import Platform, migrate, open_platform
from orchest.settings import Settings, broker
from orchest.site import Site
from orchest.tokens import make_token, token_hash

GRACE = 10
"""Seconds that requests under way may go on when the process is told to end."""

PATIENCE = 120.0
"""Seconds until a platform that does not answer is given up as failed to start."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises ConfigurationError, which says why it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "a port is a number from 0 to 65535"
        raise ConfigurationError(f"cannot listen on {host} port {port}: {why}") from None


def base_url_of(host: str, port: int) -> str:
    """How users of this machine reach a server bound to ``host``."""
    try:
        if ip_address(host).is_unspecified:
            host = "localhost"
    except ValueError:
        pass
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def access_of(platform: Platform, host: str, allowed: tuple[str, ...]) -> tuple[Access, str | None]:
    """Who is answered by a server bound to ``host``, and the access token if it was made just now."""
    names = frozenset(
        name.lower() for name in (*allowed, host, urlsplit(platform.site.base_url).hostname or "") if name
    )
    public, token = not is_loopback(host), None
    with platform.sessions.begin() as session:
        found = token_hash(session)
        if found is None and public:
            token = make_token(session, platform.site.clock())
            found = token_hash(session)
    return Access(names, found, public), token


def site_of(settings: Settings, base_url: str) -> Site:
    """The site as it is set; ``base_url`` counts where none is."""
    return Site(base_url=settings.base_url or base_url, data=settings.data.resolve(), limits=settings.limits)


def prepare(settings: Settings, base_url: str) -> Platform:
    """The platform that is set, with its directories and its database up to date.

    Raises:
        ConfigurationError: a setting is wrong, or the database cannot be used.
    """
    configured = library.read_settings()
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    url = normalise_url(configured.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    site = site_of(settings, base_url)
    platform = open_platform(site, configured.database_url, configured.egress)
    platform.kept = Kept(identity=configured.telemetry_rotation)
    if settings.executor == "celery":
        from orchest.celery import RunsNudge, make_celery

        platform.executor = RunsNudge(
            make_celery(broker(configured.broker_url), site, configured.database_url)
        )
    migrate(platform)
    telemetry.set_up(platform, settings)
    return platform


def serve(host: str, port: int, settings: Settings, say: Callable[[str], None] = print) -> int:
    """Run the platform until SIGTERM or SIGINT; the exit status.

    ``say`` is given the address once ``/healthz`` answers 200, and a new access token, once.

    Raises:
        ConfigurationError: a setting is wrong, the address is taken or the database cannot be used.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with bind(host, port) as listening:
        bound = listening.getsockname()[1]
        platform = prepare(settings, base_url_of(host, bound))
        try:
            access, token = access_of(platform, host, settings.allowed_hosts)
            if token is not None:
                say(f"Access token, shown this once: {token}")
            telemetry.give_notice(platform, say)
            server = uvicorn.Server(
                uvicorn.Config(
                    create_app(platform, access),
                    http=PromptHeads,
                    log_level="warning",
                    access_log=False,
                    proxy_headers=False,
                    server_header=False,
                    timeout_graceful_shutdown=GRACE,
                    lifespan="on",
                )
            )
            announcer = threading.Thread(
                target=announce, args=(server, host, bound, platform.site.base_url, say), daemon=True
            )
            announcer.start()
            server.run(sockets=[listening])
            return 0 if server.started else 1
        finally:
            platform.close()


def announce(server: uvicorn.Server, host: str, port: int, url: str, say: Callable[[str], None]) -> None:
    """Say the address as soon as the platform answers that it is well."""
    never = threading.Event()
    for _ in range(int(PATIENCE / 0.1)):
        if server.should_exit:
            return
        if server.started and is_well(host, port):
            say(f"Orchest is running: {url}")
            return
        never.wait(0.1)


def is_well(host: str, port: int) -> bool:
    """Whether ``/healthz`` answers 200."""
    target = urlsplit(base_url_of(host, port)).hostname or host
    connection = http.client.HTTPConnection(target, port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
