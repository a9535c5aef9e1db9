"""Telemetry in programs that fork, that only import it, and whose backend nobody can reach.

Each test runs a program of its own: a fork within a test run would take the run's threads and locks along.
"""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from clarion.analytics import TelemetryData
from clarion.consent import RUNS_OF_MACHINES, Why
from clarion.outbox import Capture, Delivery
from tests.clarion.telemetry_sample import an_analytics, switched_on

ROOT = Path(__file__).resolve().parents[2]
BOUND = 40.0
"""Seconds a program may take before it counts as stuck; none comes near."""

UNREACHABLE = "http://127.0.0.1:9/"

COMMON = """
import json, os, sys, threading
from sqlalchemy import event
from clarion import analytics
from clarion.analytics import TelemetryData, capturing, send_event
from tests.clarion import telemetry_sample

URL = sys.argv[1]
APP = {"CLARION_DATABASE_URL": URL}
Event = analytics.enumeration(telemetry_sample.TYPES)
ALIVE = TelemetryData({"active": True})

def sent():
    result = send_event(APP, Event.SHOP_HEARTBEAT, ALIVE)
    assert result, result
    return result.id

def told(pipe, what):
    os.write(pipe, json.dumps(what).encode() + b"\\n")

def heard(pipe):
    return json.loads(os.fdopen(pipe, closefd=False).readline())

def forked(work):
    # runs `work` in a child; gives what it returned, and its exit
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            told(writing, work())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    return child, reading

def ended(child, reading):
    said = heard(reading)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    return said
"""


def run(program: str, *arguments: str, **environ: str) -> Any:
    """Run a program to its end, within `BOUND`; gives what it printed last, as JSON."""
    surroundings = {k: v for k, v in os.environ.items() if k not in ("CI", "DO_NOT_TRACK", "TELEMETRY_DEBUG")}
    surroundings |= {"TELEMETRY_DISABLED": "0", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"} | environ
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=BOUND,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def stored(engine: Engine) -> list[str]:
    """The ids of what is stored, each with its one delivery."""
    with Session(engine) as session:
        captures = session.scalars(select(Capture)).all()
        deliveries = session.scalars(select(Delivery.capture_id)).all()
        assert sorted(deliveries, key=str) == sorted((c.id for c in captures), key=str)
        return sorted(str(capture.uuid) for capture in captures)


@pytest.fixture
def url(engine: Engine, database_url: str) -> str:
    switched_on(engine, UNREACHABLE)
    return database_url


PRELOADED = """
def work():
    return [sent() for _ in range(3)]

ids = [id for _ in range(2) for id in ended(*forked(work))]
print(json.dumps(ids + [sent() for _ in range(3)]))
"""


def test_workers_forked_from_a_preloaded_application_store_each_event_once(engine: Engine, url: str) -> None:
    """gunicorn --preload: the application is imported and configured once, and forked before it serves."""
    module = COMMON + "assert APP and not capturing._opened\ncapturing.analytics_of(APP).telemetry.ask()\n"
    ids = run(module + PRELOADED, url)
    assert stored(engine) == sorted(ids)


USED = """
opened = []
ids = [sent()]  # opens a connection, which the pool keeps
pool = capturing._opened[URL].engine
event.listen(pool, "connect", lambda *_: opened.append(os.getpid()))

def work():
    mine = [sent(), sent()]
    assert os.getpid() in opened, "the child speaks on its parent's connection"
    return mine

child = forked(work)
ids += ended(*child)
ids += [sent(), sent()]
assert opened == [], "the parent lost its connection"
print(json.dumps(ids))
"""


def test_a_child_opens_a_connection_of_its_own_and_leaves_its_parent_s_alone(
    engine: Engine, url: str
) -> None:
    ids = run(COMMON + USED, url)
    assert stored(engine) == sorted(ids)


CARRIED = """
from clarion.analytics import attach
from clarion.analytics.capturing import Analytics
from clarion.database import open_engine
from clarion.telemetry import Telemetry

opened = []
engine = open_engine(URL)
carried = Analytics(engine, types=telemetry_sample.TYPES, telemetry=Telemetry(engine))
attach(APP, carried)
ids = [sent()]
event.listen(engine, "connect", lambda *_: opened.append(os.getpid()))

def work():
    mine = [sent()]
    assert os.getpid() in opened, "the child speaks on its parent's connection"
    return mine

ids += ended(*forked(work)) + [sent()]
assert opened == []
print(json.dumps(ids))
"""


def test_the_same_holds_for_analytics_that_an_application_carries(engine: Engine, url: str) -> None:
    ids = run(COMMON + CARRIED, url)
    assert stored(engine) == sorted(ids)


BUSY = """
entered, go = threading.Event(), threading.Event()

from clarion.telemetry import SettingReader
load = SettingReader._load

def slow(self):
    entered.set()
    assert go.wait(30)
    return load(self)

SettingReader._load = slow
ids = []
other = threading.Thread(target=lambda: ids.append(sent()))
other.start()
assert entered.wait(30)  # it reads the setting, and holds what guards that

def work():
    go.set()
    return sent()

child = forked(work)
said = ended(*child)
go.set()
other.join(30)
assert not other.is_alive()
print(json.dumps([*ids, said]))
"""


def test_a_fork_while_another_thread_reads_the_setting_leaves_nobody_waiting(
    engine: Engine, url: str
) -> None:
    ids = run(COMMON + BUSY, url)
    assert stored(engine) == sorted(ids)


COUNTING = """
from clarion.observe import counters

held, go = threading.Event(), threading.Event()

def count_slowly():
    with counters._lock:
        held.set()
        assert go.wait(30)

other = threading.Thread(target=count_slowly)
other.start()
assert held.wait(30)

def work():
    counters.add("attempts", "delivered", 2)
    return [counters.value("attempts", "delivered"), sent()]

count, id = ended(*forked(work))
go.set()
other.join(30)
assert not other.is_alive()
counters.add("attempts", "delivered")
print(json.dumps([count, counters.value("attempts", "delivered"), id]))
"""


def test_a_fork_while_another_thread_counts_leaves_nobody_waiting(engine: Engine, url: str) -> None:
    in_child, in_parent, id = run(COMMON + COUNTING, url)
    assert (in_child, in_parent) == (2, 1)
    assert stored(engine) == [id]


GREEN = """
import gevent
from clarion.egress import EgressPolicy
from clarion.engines.embedded import EmbeddedEngine
from clarion.errors import ConfigurationError

ids = [job.value for job in gevent.joinall([gevent.spawn(sent) for _ in range(30)], timeout=30)]
try:
    EmbeddedEngine(URL, EgressPolicy()).start()
    said = ""
except ConfigurationError as error:
    said = error.message
print(json.dumps([ids, said]))
"""


def test_under_gevent_events_are_stored_and_the_embedded_engine_says_that_it_cannot_run(
    engine: Engine, url: str
) -> None:
    ids, said = run("from gevent import monkey\nmonkey.patch_all()\n" + COMMON + GREEN, url)
    assert stored(engine) == sorted(ids)
    assert "run `clarion relay` beside it" in said


PATCHED_IN_PART = """
from clarion.engines.embedded import threads_are_greenlets
before = threads_are_greenlets()
import gevent.monkey
imported = threads_are_greenlets()
gevent.monkey.patch_socket()
print(json.dumps([before, imported, threads_are_greenlets()]))
"""


def test_gevent_that_leaves_threads_alone_is_no_hindrance(tmp_path: Path) -> None:
    assert run(COMMON + PATCHED_IN_PART, f"sqlite:///{tmp_path / 'none.db'}") == [False, False, False]


SERVED = """
import os
from flask import Flask
from clarion import analytics
from clarion.analytics import TelemetryData, send_event
from tests.clarion import telemetry_sample

app = Flask("shop")
app.config["CLARION_DATABASE_URL"] = os.environ["SHOP_DATABASE"]
Event = analytics.enumeration(telemetry_sample.TYPES)

def happened():
    return send_event(app, Event.SHOP_HEARTBEAT, TelemetryData({"active": True}))

first = happened()  # before the fork: the parent has a connection open

@app.post("/")
def take():
    result = happened()
    return [result.id, first.id] if result else (result.reason, 503)
"""


@contextmanager
def gunicorn(directory: Path, *options: str, **environ: str) -> Iterator[int]:
    """Serves `SERVED` with two workers; the port it listens on. Ends it, and sees that it ended well."""
    (directory / "served.py").write_text(SERVED)
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0", *options]
    path = f"{directory}:{ROOT}:{ROOT / 'src'}"
    surroundings = os.environ | {"TELEMETRY_DISABLED": "0", "DO_NOT_TRACK": "", "PYTHONPATH": path} | environ
    server = subprocess.Popen(
        [*command, "served:app"], env=surroundings, cwd=directory, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        said = ""
        while "Listening at" not in said:
            said = server.stderr.readline()
            assert said, "gunicorn ended"
        yield int(said.split("127.0.0.1:")[1].split()[0])
        server.terminate()
        _, rest = server.communicate(timeout=BOUND)
        assert server.returncode == 0, rest[-3000:]
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def posted(port: int) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND)
    try:
        connection.request("POST", "/")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@pytest.mark.parametrize("worker", ["sync", "gevent"])
def test_gunicorn_s_workers_store_each_event_once(
    engine: Engine, url: str, tmp_path: Path, worker: str
) -> None:
    with (
        gunicorn(tmp_path, "--preload", "--worker-class", worker, SHOP_DATABASE=url) as port,
        ThreadPoolExecutor(8) as threads,
    ):
        answers = list(threads.map(posted, [port] * 40))
    ids, firsts = {id for id, _ in answers}, {first for _, first in answers}
    assert (len(ids), len(firsts)) == (40, 1)
    assert set(stored(engine)) == ids | firsts


WATCHED = """
import json, sys, threading, os
noted = []

def note(name, arguments):
    if name.startswith("socket."):
        noted.append([name, str(arguments[1:])])
    elif name in ("_thread.start_new_thread", "subprocess.Popen", "sqlite3.connect", "os.fork"):
        noted.append([name])
    elif name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        noted.append([name, str(arguments[0])])

sys.dont_write_bytecode = True
sys.addaudithook(note)
"""

IMPORTED = """
import clarion.analytics
from clarion.analytics import Accepted, Disabled, Rejected, TelemetryData, attach, send_event
heavy = sorted({"sqlalchemy", "pycurl", "fastapi", "clarion.database", "clarion.egress"} & set(sys.modules))
more = ["clarion.analytics.capturing", "clarion.analytics.configuring", "clarion.analytics.previewing"]
for name in more:
    __import__(name)
print(json.dumps({"noted": noted, "heavy": heavy, "threads": threading.active_count()}))
"""


def test_importing_it_does_no_io_and_starts_no_thread() -> None:
    assert run(WATCHED + IMPORTED) == {"noted": [], "heavy": [], "threads": 1}


EXIT = """
import atexit

seen = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)

def tell(name, _arguments):
    if name.startswith("socket.") or name == "_thread.start_new_thread":
        os.write(seen, json.dumps([name]).encode() + b"\\n")

sys.addaudithook(tell)  # stays until the interpreter is gone, past everything done at exit
atexit.register(os.write, seen, b'["exit"]\\n')
print(json.dumps([sent() for _ in range(5)]))
"""


def test_a_program_whose_backend_cannot_be_reached_never_tries_it(tmp_path: Path) -> None:
    """On SQLite, where not even the database is reached by a socket: no connection until it has ended."""
    from clarion.database import Base, open_engine

    url = f"sqlite:///{tmp_path / 'exit.db'}"
    engine = open_engine(url)
    Base.metadata.create_all(engine)
    switched_on(engine, "http://backend.example:9/")
    seen = tmp_path / "seen"
    program = COMMON + EXIT
    ids = run(program, url, str(seen))
    assert stored(engine) == sorted(ids)
    assert [json.loads(line)[0] for line in seen.read_text().splitlines()] == ["exit"]
    with Session(engine) as session:
        assert {d.attempts for d in session.scalars(select(Delivery))} == {0}
    engine.dispose()


SILENT = """
from clarion import analytics
from clarion.analytics import TelemetryData, send_event
from tests.clarion import telemetry_sample
Event = analytics.enumeration(telemetry_sample.TYPES)
APP = {"CLARION_DATABASE_URL": sys.argv[1]} if len(sys.argv) > 1 else {}
import clarion.analytics.capturing
noted.clear()
results = [send_event(APP, Event.SHOP_HEARTBEAT, TelemetryData({"active": True})) for _ in range(3)]
why = sorted({result.reason for result in results})
print(json.dumps({"noted": noted, "threads": threading.active_count(), "why": why}))
"""


@pytest.mark.parametrize("word", ["TELEMETRY_DISABLED", "DO_NOT_TRACK"])
def test_a_program_that_is_told_off_asks_for_what_waits_once(tmp_path: Path, word: str) -> None:
    """By its first event, if nothing was attached: the database is connected to once, and nothing else."""
    from clarion.database import Base, open_engine

    url = f"sqlite:///{tmp_path / 'off.db'}"
    engine = open_engine(url)
    Base.metadata.create_all(engine)
    telemetry = switched_on(engine, UNREACHABLE)
    assert an_analytics(engine, telemetry).send("shop-heartbeat", TelemetryData({"active": True}))
    assert len(stored(engine)) == 1
    said = run(WATCHED + SILENT, url, **(dict.fromkeys(RUNS_OF_MACHINES, "") | {word: "1"}))
    assert (said["noted"], said["threads"]) == ([["sqlite3.connect"]], 1)
    assert stored(engine) == []
    engine.dispose()


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"TELEMETRY_DISABLED": "1"}, Why.DISABLED),
        ({"DO_NOT_TRACK": "yes"}, Why.DO_NOT_TRACK),
        ({"TELEMETRY_DISABLED": "", "CI": "true"}, Why.MACHINE),
        ({"TELEMETRY_DISABLED": "", "GITLAB_CI": "1"}, Why.MACHINE),
        ({"TELEMETRY_DISABLED": "0"}, Why.UNCONFIGURED),
    ],
)
def test_off_a_whole_program_touches_nothing(tmp_path: Path, environ: dict[str, str], why: Why) -> None:
    """No socket, no look-up of a name, no thread, no process, no database, no file: all are watched."""
    file = tmp_path / "off.db"
    named = () if why is Why.UNCONFIGURED else (f"sqlite:///{file}",)
    surroundings = dict.fromkeys(RUNS_OF_MACHINES, "") | environ
    assert run(WATCHED + SILENT, *named, **surroundings) == {"noted": [], "threads": 1, "why": [why.value]}
    assert list(tmp_path.iterdir()) == []
