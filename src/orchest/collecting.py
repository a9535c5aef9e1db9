"""A collector of one's own on loopback, for as long as a context lasts: to see what telemetry sends.

It keeps what the platform's catalogue allows, and tells which event types have arrived.
"""

import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import uvicorn

from clarion.addresses import EgressPolicy
from clarion.analytics.configuring import BackendSettings, configure
from clarion.collector import keys
from clarion.collector.access import AccessToken
from clarion.collector.app import create_app
from clarion.collector.schema import AllowList
from clarion.collector.server import Server
from clarion.collector.service import Settings
from clarion.envelope import AppProperties, detect_system
from clarion.registry import telemetry_document
from clarion.telemetry import switch
from orchest.client import Client
from orchest.events import CATALOGUE
from orchest.platform import migrate, open_platform
from orchest.site import Site

PROJECT = "orchest"
STARTING = 30.0
"""Seconds the collector may take to listen."""


class NotStarted(Exception):
    """The collector does not run."""


@dataclass(frozen=True)
class Collecting:
    """A collector that runs."""

    url: str
    write_key: str
    client: Client

    def arrived(self) -> dict[str, int]:
        """How many events of each type were kept."""
        found = self.client.get("/api/events", project=PROJECT)["events"]
        return {row["event"]: row["events"] for row in found}

    def refused(self) -> int:
        """How many events were not what the catalogue says, and kept out."""
        shapes = self.client.get("/api/quarantine", project=PROJECT)["shapes"]
        return sum(int(shape["count"]) for shape in shapes)


@contextmanager
def collecting(data: Path) -> Iterator[Collecting]:
    """A collector that keeps its events in ``data``. It has ended when the context is left.

    Raises:
        NotStarted: it does not listen.
    """
    data.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(24)
    settings = Settings(
        data,
        AllowList.parse(telemetry_document(CATALOGUE)),
        access=(AccessToken.of(token),),
        segment_seconds=0.2,
    )
    write_key = keys.issue(settings.keys_file, PROJECT)
    with serving(settings) as port:
        url = f"http://127.0.0.1:{port}"
        yield Collecting(url, write_key, Client(url, token))


@contextmanager
def serving(settings: Settings) -> Iterator[int]:
    """The collector's server in a thread; the port it listens on."""
    app = create_app(settings)
    config = uvicorn.Config(
        app, access_log=False, server_header=False, log_level="warning", timeout_graceful_shutdown=3
    )
    listens = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(config, app, lambda _: listens.set())
        thread = threading.Thread(target=server.run, args=([listener],), name="collector", daemon=True)
        thread.start()
        try:
            if not listens.wait(STARTING):
                raise NotStarted("the collector did not start")
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(STARTING)


def switch_on(database_url: str, data: Path, url: str, write_key: str, now: datetime) -> None:
    """Make a platform that does not run yet send its telemetry there, as its administrator would."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    platform = open_platform(Site("http://127.0.0.1", data), database_url, EgressPolicy())
    try:
        migrate(platform)
        with platform.sessions.begin() as session:
            backend = BackendSettings(url, write_key)
            configure(session, backend, AppProperties(), detect_system(), now)
            switch(session, True, now)
    finally:
        platform.close()
