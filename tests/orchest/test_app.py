"""The platform as a process: it migrates, says its address once it is well, guards itself."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from clarion.addresses import EgressPolicy
from clarion.catalogue import EventTypeRow
from clarion.testing import Receiver
from orchest.app import create_app
from orchest.events import CATALOGUE
from orchest.platform import migrate, open_platform
from orchest.server import base_url_of
from orchest.site import Site
from tests.orchest.serving import running

BASE = "http://127.0.0.1:8470"


def test_it_runs_guards_itself_and_delivers(tmp_path: Path) -> None:
    with (
        Receiver() as receiver,
        running(tmp_path, CLARION_EGRESS_ALLOWED_NETWORKS="127.0.0.0/8") as platform,
    ):
        assert platform.said == [f"Orchest is running: http://127.0.0.1:{platform.port}"]
        assert platform.call("GET", "/healthz")[0] == 200
        assert platform.call("GET", "/readyz")[0] == 200
        assert platform.call("GET", "/", host="evil.example")[0] == 403
        new = '{"name": "one"}'
        for foreign in ({"origin": "http://evil.example"}, {"sec_fetch_site": "cross-site"}):
            assert platform.call("POST", "/api/projects", new, **foreign)[0] == 403
        webhook = f'{{"name": "w", "url": "{receiver.url}", "subscriptions": [{{"event_type": "*"}}]}}'
        assert platform.call("POST", "/api/notifications/subscribers/webhooks", webhook)[0] == 201
        assert (
            platform.call("POST", "/api/projects", new, origin=f"http://127.0.0.1:{platform.port}")[0] == 201
        )
        receiver.wait_for(1)
        assert b"project:created" in receiver.received[0].body
    assert platform.process.returncode in (0, -signal.SIGTERM)
    data = tmp_path / ".data"
    assert data.stat().st_mode & 0o077 == 0
    assert (data / "clarion.db").exists()


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with running(tmp_path) as platform, pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", platform.port), timeout=5).close()


def test_another_address_needs_the_token(tmp_path: Path) -> None:
    with running(tmp_path, "--host", "0.0.0.0") as platform:
        told = re.fullmatch(r"Access token, shown this once: (\S{40,})", platform.said[0])
        assert told is not None
        token = told[1]
        assert platform.call("GET", "/healthz")[0] == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": "orchest_access=wrong"}):
            assert platform.call("GET", "/api/projects", **headers)[0] == 401
        bearer = {"authorization": f"Bearer {token}"}
        assert platform.call("GET", "/api/projects", **bearer)[0] == 200
        assert platform.call("GET", "/", cookie=f"orchest_access={token}")[0] == 200
        assert platform.call("GET", "/", host="evil.example", **bearer)[0] == 403
    for file in (tmp_path / ".data").glob("clarion.db*"):
        assert token.encode() not in file.read_bytes()
    with running(tmp_path, "--host", "0.0.0.0") as platform:
        assert len(platform.said) == 1  # the token is not shown again
        assert platform.call("GET", "/api/projects", **bearer)[0] == 200


def run(directory: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """A command that ends by itself: its exit status and what it complained."""
    done = subprocess.run(
        [sys.executable, "-m", "orchest", *arguments],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CLARION_DATABASE_URL": "mysql://x"}, "CLARION_DATABASE_URL"),
        ({"CLARION_EGRESS_ALLOWED_NETWORKS": "everywhere"}, "CLARION_EGRESS_ALLOWED_NETWORKS"),
        ({"ORCHEST_BASE_URL": "here"}, "ORCHEST_BASE_URL"),
        ({"ORCHEST_JOB_RUNS": "0"}, "ORCHEST_JOB_RUNS"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    status, complaint = run(tmp_path, "run", "--port", "0", **environment)
    assert status == 1
    assert said in complaint
    assert "Traceback" not in complaint


@pytest.mark.parametrize("command", [("run", "--port", "0"), ("token",)])
def test_a_database_that_does_not_answer_is_said_in_one_line(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        url = f"postgresql://u:secret@127.0.0.1:{nobody.getsockname()[1]}/x"
        status, complaint = run(tmp_path, *command, CLARION_DATABASE_URL=url)
    assert status == 1
    assert complaint.startswith("the database does not answer (")
    assert complaint.count("\n") == 1
    assert "secret" not in complaint


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, complaint = run(tmp_path, "run", "--port", str(taken.getsockname()[1]))
    assert status == 1
    assert "cannot listen on 127.0.0.1" in complaint
    assert not (tmp_path / ".data").exists()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://localhost:1"),
        ("::", "http://localhost:1"),
        ("::1", "http://[::1]:1"),
        ("orchest.example", "http://orchest.example:1"),
    ],
)
def test_base_url(host: str, url: str) -> None:
    assert base_url_of(host, 1) == url


def test_healthz_says_no_before_it_runs_and_without_tables(tmp_path: Path) -> None:
    platform = open_platform(Site(BASE, tmp_path), f"sqlite:///{tmp_path / 'x.db'}", EgressPolicy())
    app = create_app(platform, workers=False)
    client = TestClient(app, base_url=BASE)
    assert client.get("/healthz").status_code == 503
    with client:
        assert client.get("/healthz").status_code == 503
        migrate(platform)
        assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").status_code == 503
    platform.close()


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_migrating(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """An empty database has every type afterwards; migrating again changes nothing."""
    url: Any = f"sqlite:///{tmp_path / 'x.db'}"
    if backend == "postgresql":
        url = request.getfixturevalue("empty_postgres_url")
    platform = open_platform(Site(BASE, tmp_path), url, EgressPolicy())
    migrate(platform)
    migrate(platform)
    with platform.readers() as session:
        assert len(session.scalars(select(EventTypeRow.name)).all()) == len(CATALOGUE) == 66
    platform.close()


def test_readyz_says_no_when_the_relay_has_ended(tmp_path: Path) -> None:
    platform = open_platform(Site(BASE, tmp_path), f"sqlite:///{tmp_path / 'x.db'}", EgressPolicy())
    migrate(platform)
    with TestClient(create_app(platform), base_url=BASE) as client:
        assert client.get("/readyz").status_code == 200
        assert platform.relay is not None
        platform.relay.stop()
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
    platform.close()
