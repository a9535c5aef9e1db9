"""The proof that telemetry holds nothing of anybody: markers everywhere, every type, all the way.

A unique marker lies in every string and JSON column of every model (found by walking the tables), in the
environment, the host's and the user's name, paths, request headers, answers and exception texts. Every type
is driven through record, outbox, relay and the wire into a real collector. Then nothing that telemetry wrote
or sent may hold a trace of any marker: no text, no encoding, no hash, no fragment.
"""

import getpass
import hashlib
import http.client
import json
import logging
import os
import platform
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from clarion.analytics import Accepted, TelemetryData, attach, send_event
from clarion.analytics.capturing import Analytics
from clarion.analytics.configuring import BackendSettings, configure
from clarion.analytics.previewing import batches
from clarion.analytics.reporting import report
from clarion.analytics.verifying import Question, verify
from clarion.anonymous import iso
from clarion.api.analytics import analytics_router
from clarion.collector.access import AccessToken
from clarion.collector.app import create_app
from clarion.collector.keys import WriteKey
from clarion.collector.pages.site import PAGES
from clarion.collector.schema import AllowList
from clarion.collector.server import Server
from clarion.collector.service import Settings
from clarion.deliverees.analytics import deliveree_of
from clarion.deliverees.backends import BACKENDS, dump
from clarion.deliverees.webhook import Webhook
from clarion.egress import Egress, EgressPolicy
from clarion.envelope import AppProperties, detect_system, render
from clarion.events import Event
from clarion.losses import telemetry_types
from clarion.outbox import Attempt, Capture, Delivery, Recording, record
from clarion.registry import leaves, telemetry_document
from clarion.subscriptions import Subscription
from clarion.telemetry import (
    KIND,
    SettingReader,
    Telemetry,
    TelemetryState,
    show_notice,
    state_of,
    utc_now,
)
from clarion.testing import LOOPBACK, Received, Receiver, Reply, drain
from orchest.analytics import Event as Types
from orchest.events import CATALOGUE
from orchest.models import Base, Status
from tests.house.markers import Leak, Search, marker, marker_id
from tests.house.telemetry_world import (
    Renaming,
    as_text,
    free_columns,
    happenings,
    holds_text,
    populate,
    private,
)
from tests.orchest.world import NOW

SENT = telemetry_types(CATALOGUE)
KEY = "ck_proof_of_orchest"
TOKEN = "look-at-everything"
PROJECT = "orchest"
SPAN = "since=2020-01-01T00:00:00Z&until=2100-01-01T00:00:00Z"

ENVIRONMENT = (
    "HOME",
    "USER",
    "LOGNAME",
    "USERNAME",
    "HOSTNAME",
    "GIT_AUTHOR_EMAIL",
    "SECRET_TOKEN",
    "VIRTUAL_ENV",
)
ADDRESS = ip_address("203.0.113.77")
"""Of a network that is for documentation alone (RFC 5737): who calls, as a proxy would say it."""
HEADERS = ("user-agent", "referer", "cookie", "x-forwarded-for", "authorization", "accept-language")


@dataclass
class Evidence:
    """Everything telemetry wrote or sent, by where it was found, and the markers that must not be in it."""

    markers: dict[str, str] = field(default_factory=dict)
    places: list[tuple[str, bytes | str]] = field(default_factory=list)
    wire: list[Received] = field(default_factory=list)
    previewed: list[bytes] = field(default_factory=list)
    """What a request with each message alone would be, before it was sent."""
    told: list[Received] = field(default_factory=list)
    verdict: dict[str, Any] = field(default_factory=dict)
    logged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def mark(self, name: str) -> str:
        self.markers[name] = marker(name)
        return self.markers[name]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for request in self.wire for event in json.loads(request.body)["batch"]]

    def leaks(self) -> list[Leak]:
        search = Search(self.markers.items())
        return [leak for where, data in self.places for leak in search.leaks(where, data)]


@contextmanager
def a_collector(data: Path) -> Iterator[int]:
    """A real collector that allows what the platform's catalogue declares; gives its port."""
    allowed = AllowList.parse(telemetry_document(CATALOGUE))
    keys, access = (WriteKey.of(PROJECT, KEY),), (AccessToken.of(TOKEN),)
    app = create_app(Settings(data, allowed, keys, access, segment_seconds=0.05))
    import uvicorn

    started, ports = threading.Event(), []

    def listening(port: int) -> None:
        ports.append(port)
        started.set()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, access_log=True, log_level="debug", proxy_headers=False, log_config=None)
        server = Server(config, app, listening)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        assert started.wait(30)
        yield ports[0]
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def shown_to_people(port: int, question: bytes, bearer: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Every page of the collector, an event of each type on it, and what it gives as files."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/ui/login", f"token={TOKEN}")
    cookie = {"cookie": connection.getresponse().headers["set-cookie"].partition(";")[0]}
    connection.close()
    asked = [("GET", f"/ui{place}?days=400", b"", cookie) for place, _ in PAGES]
    asked += [("POST", f"/ui/events/{t.name}/recent?days=400", b"", cookie) for t in SENT]
    lists = ("events", "series", "counters", "installations", "versions", "retention", "quarantine", "audit")
    asked += [("GET", f"/api/{name}?project={PROJECT}&{SPAN}&format=csv", b"", bearer) for name in lists]
    asked.append(("POST", "/api/installations/export?format=csv", question, bearer))
    for method, path, body, headers in asked:
        status, answer = ask(port, method, path, body, **headers)
        assert status == 200, (path, answer)
        assert "/recent" not in path or b'class="card payload"' in answer, path
        yield f"collector {path}", answer


class Listening(logging.Handler):
    """Keeps every log line as it would be printed, traceback included."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self.kept = kept
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, entry: logging.LogRecord) -> None:
        extra = {k: v for k, v in vars(entry).items() if k not in vars(logging.makeLogRecord({}))}
        self.kept.append(f"{self.format(entry)} {extra}")


@contextmanager
def everything_logged(kept: list[str]) -> Iterator[None]:
    handler, root = Listening(kept), logging.getLogger()
    names = ["clarion", "orchest", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"]
    before = {name: logging.getLogger(name).level for name in names}
    root.addHandler(handler)
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def mark_surroundings(evidence: Evidence, patch: pytest.MonkeyPatch, place: Path) -> None:
    """The environment, the host, the user and the working directory."""
    for name in ENVIRONMENT:
        patch.setenv(name, evidence.mark(f"environment {name}"))
    for module, name in (
        (socket, "gethostname"),
        (socket, "getfqdn"),
        (platform, "node"),
        (getpass, "getuser"),
    ):
        said = evidence.mark(f"{module.__name__}.{name}")
        patch.setattr(module, name, lambda *_, said=said: said)
    where = place / evidence.mark("working directory")
    (where / ".git").mkdir(parents=True)
    remote = f"git@git.example:{evidence.mark('git remote')}/shop.git"
    (where / ".git" / "config").write_text(f'[remote "origin"]\n\turl = {remote}\n')
    patch.chdir(where)
    for name in ("CI", "DO_NOT_TRACK", "TELEMETRY_DEBUG"):
        patch.delenv(name, raising=False)
    patch.setenv("TELEMETRY_DISABLED", "0")


def record_everything(
    engine: Engine, evidence: Evidence, telemetry: Telemetry, patch: pytest.MonkeyPatch
) -> None:
    """Every recorded type about a world of markers; then once more with measures that fail with a marker."""
    renaming = Renaming(lambda original, longest: marker(original)[:longest], marker_id)
    recording = Recording(clock=lambda: NOW, telemetry_key=telemetry.key)
    with Session(engine, info=recording.info()) as session:
        world = populate(session, renaming)
        for build in (world.build, world.jupyter):
            build.status, build.started, build.finished = Status.FAILURE, NOW, NOW
        session.commit()
        record(session, *happenings(session, world, renaming))
        session.commit()
        failing = evidence.mark("exception text")

        def fail(_definition: Any) -> Any:
            raise RuntimeError(f"cannot read {failing}")

        with patch.context() as inner:
            inner.setattr("orchest.events.materials.parse", fail)
            inner.setattr("orchest.events.sessions.parse", fail)
            record(session, *happenings(session, world, renaming))
            session.commit()
        evidence.markers |= renaming.known
        evidence.missing = [*unmarked_columns(session, renaming), *unmarked_facts(session, renaming)]


def unmarked_columns(session: Session, renaming: Renaming) -> list[str]:
    """The columns of the platform's models in which no marker lies: a new column must not go unproven."""
    markers = set(renaming.known.values())
    missing = []
    for column in free_columns():
        if column.foreign_keys:
            continue
        held = " ".join(as_text(value) for value in session.scalars(select(column)) if value is not None)
        if not any(text in held for text in markers):
            missing.append(f"{column.table.name}.{column.name}")
    return missing


def unmarked_facts(session: Session, renaming: Renaming) -> list[str]:
    """The private facts of recorded events in which no marker lies."""
    markers = set(renaming.known.values())
    columns = Event.__table__.c
    missing = set()
    for event_type in CATALOGUE.recorded:
        for declared in private(event_type.cls):  # type: ignore[arg-type]
            if holds_text(declared) and declared.name != "job_schedule":
                held = " ".join(as_text(v) for v in session.scalars(select(columns[declared.name])) if v)
                if not any(text in held for text in markers):
                    missing.add(f"events.{declared.name}")
    return sorted(missing)


def capture_everything(evidence: Evidence, analytics: Analytics) -> None:
    """Every captured type: the browser's through the relay, with marked headers; the others by themselves."""
    app = FastAPI()
    attach(app, analytics)
    app.include_router(analytics_router(analytics))
    headers = {name: evidence.mark(f"header {name}") for name in HEADERS}
    headers["x-forwarded-for"] += f", {ADDRESS}"
    with TestClient(app, headers=headers | {"content-type": "application/json"}) as client:
        for event_type in CATALOGUE:
            if event_type.captured:
                properties = event_type.telemetry_example(NOW)["event_properties"]
                if event_type.source == "browser":
                    body = {"event": event_type.name, "properties": properties}
                    assert client.post("/analytics", json=body).json()["accepted"] == 1
                else:
                    [member] = [m for m in Types if m.value == event_type.name]
                    assert isinstance(send_event(app, member, TelemetryData(properties)), Accepted)
        for properties in (
            {"name": evidence.mark("value of a closed list")},
            {"name": "jobs", evidence.mark("undeclared key"): evidence.mark("undeclared value")},
            {"name": {evidence.mark("nested key"): [evidence.mark("nested value")]}},
        ):
            client.post("/analytics", json={"event": "view:loaded", "properties": properties})
        client.post("/analytics", json={"event": evidence.mark("undeclared event"), "properties": {}})
    assert not send_event(
        app, Types.HEARTBEAT_TRIGGER, TelemetryData({"active": evidence.mark("wrong value")})
    )
    with pytest.raises(ValueError, match="undeclared"):
        send_event(
            app, Types.HEARTBEAT_TRIGGER, TelemetryData({"active": True, evidence.mark("wrong key"): 1})
        )


def gather(engine: Engine, evidence: Evidence, data: Path) -> None:
    """Everything that telemetry wrote or sent, except the one row that never leaves."""
    for number, request in enumerate(evidence.wire):
        evidence.places.append((f"wire request {number}", request.path.encode() + request.body))
        evidence.places.append((f"wire headers {number}", str(dict(request.headers))))
    with Session(engine) as session:
        for row in session.scalars(select(Event.telemetry).where(Event.telemetry.is_not(None))):
            evidence.places.append(("events.telemetry", json.dumps(row)))
        for capture in session.scalars(select(Capture)):
            evidence.places.append(
                ("captures", f"{capture.uuid} {capture.type} {json.dumps(capture.telemetry)}")
            )
        state = session.scalars(select(TelemetryState)).one()
        stated = f"{state.installation} {state.app} {state.system}"
        evidence.places.append(("telemetry_state", stated))
        attempts = (
            select(Attempt)
            .join(Delivery, Delivery.id == Attempt.delivery_id)
            .where(
                Delivery.subscriber_id.in_(
                    select(Webhook.__table__.c.id).where(Webhook.__table__.c.kind == KIND)
                )
            )
        )
        for attempt in session.scalars(attempts):
            evidence.places.append(("attempts", f"{attempt.detail} {attempt.headers} {attempt.body!r}"))
    for path in sorted(p for p in data.rglob("*") if p.is_file() and p.name != "collector.key"):
        evidence.places.append((f"collector {path.relative_to(data)}", path.read_bytes()))
    evidence.places.append(("logs", "\n".join(evidence.logged)))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def proof(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Everything happens once; the tests look at what is left of it."""
    from clarion.database import Base as ClarionBase
    from clarion.database import open_engine

    place = tmp_path_factory.mktemp("proof")
    if request.param == "sqlite":
        url = f"sqlite:///{place / 'proof.db'}"
    else:
        url = request.getfixturevalue("postgres_session_url")
    engine, evidence, patch = open_engine(url), Evidence(), pytest.MonkeyPatch()
    for base in (ClarionBase, Base):
        base.metadata.drop_all(engine)
        base.metadata.create_all(engine)
    try:
        with everything_logged(evidence.logged):
            run(engine, evidence, place, patch)
    finally:
        patch.undo()
        for base in (Base, ClarionBase):
            base.metadata.drop_all(engine)
        engine.dispose()
    return evidence


def run(engine: Engine, evidence: Evidence, place: Path, patch: pytest.MonkeyPatch) -> None:
    mark_surroundings(evidence, patch, place)
    data = place / "collector"
    with a_collector(data) as port:

        def forward(request: Received) -> Reply:
            status, body = ask(
                port, "POST", request.path, request.body, **{"content-type": "application/json"}
            )
            return Reply(status, (("content-type", "application/json"),), body)

        said = evidence.mark("answer of a webhook").encode()

        def fail_one(request: Received) -> Reply:
            return Reply(500 if b"project:deleted" in request.body else 200, (), said)

        with Receiver(forward) as backend, Receiver(fail_one) as hook:
            with Session(engine) as session, session.begin():
                app = AppProperties("1.2.3", True, True, 1, 2, 3)  # type: ignore[arg-type]
                system = replace(detect_system(gpu=True))
                configure(session, BackendSettings(backend.url, KEY), app, system, NOW)
                show_notice(session, NOW)
                url = f"{hook.url}{evidence.mark('webhook path')}"
                everything = Subscription(pattern="*", scope="")
                name = evidence.mark("webhook name")
                session.add(Webhook(name=name, url=url, created_at=NOW, subscriptions=[everything]))
            telemetry = Telemetry(SettingReader(engine))
            record_everything(engine, evidence, telemetry, patch)
            analytics = Analytics(engine, types=CATALOGUE, telemetry=telemetry, clock=lambda: NOW)
            capture_everything(evidence, analytics)
            assert isinstance(report(analytics), Accepted)  # what was refused just now
            with Session(engine) as session:
                sender = deliveree_of(state_of(session))
                [waiting] = batches(session, NOW, 10_000)
                evidence.previewed = [sender.body([one], NOW) for one in waiting]
            drain(engine, clock=lambda: NOW)
            evidence.wire = list(backend.received)
            evidence.told = list(hook.received)
        bearer = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        installation = evidence.events[0]["distinct_id"]
        question = json.dumps({"project": PROJECT, "installation": installation}).encode()
        exported = ask(port, "POST", "/api/installations/export", question, **bearer)
        assert exported[0] == 200
        evidence.places.append(("collector export", exported[1]))
        evidence.places += shown_to_people(port, question, bearer)
        for name in ("verdict", "quarantine", "counters"):
            status, body = ask(port, "GET", f"/api/{name}?project={PROJECT}&{SPAN}", **bearer)
            assert status == 200, body
            evidence.places.append((f"collector {name}", body))
            if name == "verdict":
                evidence.verdict = json.loads(body)
    gather(engine, evidence, data)
    with Session(engine) as session:
        waiting = select(func.count()).select_from(Delivery).where(Delivery.state == "dead")
        assert session.scalar(waiting) == 0
    os.chdir("/")


def test_a_marker_lies_in_every_column_that_can_hold_one(proof: Evidence) -> None:
    assert proof.missing == []
    assert len(proof.markers) > 100


def test_every_type_reaches_the_wire(proof: Evidence) -> None:
    assert {event["event"] for event in proof.events} == {t.name for t in SENT}
    assert len({event["uuid"] for event in proof.events}) == len(proof.events)


def test_every_event_leaves_as_it_was_previewed(proof: Evidence) -> None:
    assert len(proof.previewed) > len(CATALOGUE)
    alone = [dump({"api_key": KEY, "batch": [event], "sent_at": iso(NOW)}) for event in proof.events]
    assert sorted(alone) == sorted(proof.previewed)


def test_every_property_is_seen_with_a_value(proof: Evidence) -> None:
    for event_type in SENT:
        sent = [e["properties"] for e in proof.events if e["event"] == event_type.name]
        for group, schema in event_type.telemetry_schema()["properties"].items():
            for path, _ in leaves(schema, ()):
                assert any(looked_up(one[group], path) is not None for one in sent), (event_type.name, path)


def looked_up(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def test_no_trace_of_a_marker_is_anywhere(proof: Evidence) -> None:
    found = proof.leaks()
    assert found == [], "\n".join(
        f"{leak.marker} as {leak.form} in {leak.where}: {leak.around}" for leak in found[:20]
    )


def test_no_trace_of_an_address_is_anywhere(proof: Evidence) -> None:
    text = str(ADDRESS)
    forms = [form.encode() for form in (text, ADDRESS.packed.hex(), str(int(ADDRESS)))]
    forms += [
        how(text.encode()).hexdigest().encode()[:16] for how in (hashlib.md5, hashlib.sha1, hashlib.sha256)
    ]
    for where, data in proof.places:
        held = data.encode() if isinstance(data, str) else data
        assert not [form for form in forms if form in held], where


def test_the_collector_calls_every_type_anonymous(proof: Evidence) -> None:
    assert proof.verdict["verdict"] == "green"
    assert {e["event"]: e["verdict"] for e in proof.verdict["events"]} == {t.name: "green" for t in SENT}


def test_the_same_search_finds_them_where_they_belong(proof: Evidence) -> None:
    """What subscribers were told is full of them: the proof would see a leak."""
    told = "\n".join(request.body.decode() for request in proof.told)
    found = {leak.marker for leak in Search(proof.markers.items()).leaks("webhook", told)}
    assert {"private-project", "private-job", "private-load", "host"} <= found
    assert len(found) > 15


def test_an_event_is_its_type_an_id_a_time_and_properties(proof: Evidence) -> None:
    for event in proof.events:
        assert set(event) == {"event", "uuid", "distinct_id", "timestamp", "properties"}


def test_the_evidence_is_not_empty(proof: Evidence) -> None:
    kinds = {where.split(" ")[0] for where, data in proof.places if data}
    assert {
        "wire",
        "events.telemetry",
        "captures",
        "telemetry_state",
        "attempts",
        "collector",
        "logs",
    } <= kinds
    assert any(where.endswith("events.duckdb") for where, _ in proof.places)
    assert "a value could not be computed" in "\n".join(proof.logged)
    assert "a telemetry event was refused" in "\n".join(proof.logged)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_verify_sees_every_type_arrive_anonymous(tmp_path: Path, backend: str) -> None:
    """The arrival check of `clarion telemetry verify`, against a real collector, in each wire format."""
    state = TelemetryState(
        installation=UUID(int=1), key=b"k" * 32, renewed_at=NOW, backend=backend, write_key=KEY,
        url="", app=render(AppProperties()), system=render(detect_system()),
    )  # fmt: skip
    with a_collector(tmp_path / "collector") as port:
        state.url = f"http://127.0.0.1:{port}"
        async with Egress(EgressPolicy.of(LOOPBACK)) as egress:
            results = await verify(
                egress, deliveree_of(state), CATALOGUE, utc_now, Question(PROJECT, TOKEN), patience=20
            )
    assert [r.type for r in results] == [t.name for t in SENT]
    assert [r for r in results if not (r.well and r.arrived and r.anonymous)] == []
    assert all(r.lag is not None and r.lag < 20 for r in results)
