"""``clarion collector`` and ``clarion prune``: processes, keys, tokens, and what is said of faults."""

import json
import signal
import socket
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from clarion.cli.collector import PORT
from clarion.cli.faults import of_an_extra
from clarion.collector.keys import digest_of
from clarion.collector.schema import AllowList
from clarion.database import Base, open_engine
from clarion.events import Event
from clarion.outbox import Delivery, Recording, record
from clarion.registry import telemetry_document
from clarion.testing import FrozenClock, Receiver, drain
from tests.clarion.cli_runs import call
from tests.clarion.collecting import PROJECT, Running, a_collector
from tests.clarion.collector import sample as wire
from tests.clarion.plain import add_plain
from tests.clarion.sample import ABOUT_ORDER, OrderEvent
from tests.clarion.telemetry_sample import TYPES

MODULES = "tests.clarion.sample,tests.clarion.telemetry_sample"
ROOT = Path(__file__).parents[2]
NOBODY = "0d9c1e5e-6d0f-4b7e-8a53-9b1d2c3e4f50"


@pytest.fixture(autouse=True)
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CLARION_APP", MODULES)
    monkeypatch.setenv("CLARION_DATABASE_URL", f"sqlite:///{tmp_path / 'shop.db'}")
    for name in ("DATA", "TOKEN", "URL", "SCHEMA", "PROJECT"):
        monkeypatch.delenv(f"CLARION_COLLECTOR_{name}", raising=False)


def issue(project: str = PROJECT) -> str:
    ran = call("collector", "keys", "issue", project)
    assert ran.status == 0, ran.all
    return ran.out.strip()


NOT_INSTALLED = """
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))  # what is None there cannot be imported
from clarion.cli import main
main()
"""


@pytest.mark.parametrize(
    "command",
    ["serve", "token", "audit", "keys issue shop", "keys list", "keys revoke x"],
)
def test_without_its_extra_a_command_says_which(tmp_path: Path, command: str) -> None:
    absent = "duckdb,msgspec,zstandard,brotli,jsonschema_rs,fastapi,starlette,uvicorn,jinja2,aiosqlite"
    done = subprocess.run(
        [sys.executable, "-c", NOT_INSTALLED, absent, "collector", *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "clarion: jsonschema_rs is not installed: pip install 'clarion[collector]'\n"


def test_another_missing_module_is_no_extra_s() -> None:
    assert of_an_extra(ModuleNotFoundError(name="clarion.nothing")) is None
    assert of_an_extra(ModuleNotFoundError(name="shop.events")) is None
    assert of_an_extra(ModuleNotFoundError()) is None
    assert of_an_extra(ValueError("duckdb")) is None


@pytest.mark.parametrize(
    ("module", "extra"),
    [("uvicorn.server", "server"), ("pycurl", "relay"), ("psycopg", "postgres"), ("celery.app", "celery")],
)
def test_the_smallest_extra_that_has_a_module_is_named(module: str, extra: str) -> None:
    told = of_an_extra(ModuleNotFoundError(name=module))
    assert told == f"{module.partition('.')[0]} is not installed: pip install 'clarion[{extra}]'"


def send(running: Running, key: str, *events: dict[str, object]) -> httpx.Response:
    body = {"api_key": key, "batch": list(events)}
    return httpx.post(f"{running.url}/batch/", json=body, timeout=20)


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    """The allow-list of the collector's own tests, as a file."""
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(wire.DOCUMENT))
    return path


def test_a_token_is_made_once_and_opens_the_api_after_a_restart(tmp_path: Path) -> None:
    issue()
    with a_collector(tmp_path, app=MODULES) as first:
        assert first.token.startswith("ct_")
        listed = first.ask("schema")
        assert first.get("schema", token="ct_wrong").status_code == 401
        assert first.get("schema", token=digest_of(first.token)).status_code == 401
        assert first.end() == 0
    document = telemetry_document(TYPES)
    assert (listed["hash"], set(listed["events"])) == (document["hash"], set(document["events"]))
    with a_collector(tmp_path, app=MODULES) as again:
        assert "Access token" not in again.printed
        assert again.get("schema", token=first.token).status_code == 200
        assert again.end(signal.SIGINT) == 0
    data = tmp_path / ".data/collector"
    assert all(first.token.encode() not in path.read_bytes() for path in data.rglob("*") if path.is_file())
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_a_new_token_replaces_the_old_one_and_a_given_one_stands_above_both(
    tmp_path: Path, schema: Path
) -> None:
    issue()
    old, new = call("collector", "token").out.strip(), call("collector", "token").out.strip()
    with a_collector(tmp_path, "--schema", str(schema)) as running:
        assert "Access token" not in running.printed
        assert [running.get("schema", token=one).status_code for one in (old, new)] == [401, 200]
        assert running.get("schema", token=new).json()["hash"] == AllowList.load(schema).hash
    with a_collector(tmp_path, collector_token="given", collector_schema=str(schema)) as running:
        assert [running.get("schema", token=one).status_code for one in ("given", new)] == [200, 401]


def test_each_look_has_the_name_of_whose_token_it_was(tmp_path: Path, schema: Path) -> None:
    key = issue()
    tokens = {name: call("collector", "token", "--name", name).out.strip() for name in ("ada", "grace")}
    assert call("collector", "audit").out.strip() == "nobody looked at raw events"
    with a_collector(tmp_path, "--schema", str(schema)) as running:
        send(running, key, wire.event(installation=NOBODY))
        running.token = tokens["ada"]
        assert len(running.export(NOBODY)) == 1
        running.token = tokens["grace"]
        assert running.export("nobody") == []
        shown = call("collector", "audit").out
        looks = json.loads(call("collector", "audit", "--json", "--most", "5").out)
    assert [(look["who"], look["what"], look["events"]) for look in looks] == [
        ("grace", "export", 0),
        ("ada", "export", 1),
    ]
    assert NOBODY not in shown
    assert f"installation={looks[1]['installation']}" in shown.replace("\n", "")
    assert call("collector", "token", "--name", "ada", "--revoke").status == 0
    assert "there are: grace" in fails("token", "--name", "ada", "--revoke", status=1)
    assert "1 to 40" in fails("token", "--name", "Ada L.")
    with a_collector(tmp_path, "--schema", str(schema)) as running:
        assert [running.get("schema", token=one).status_code for one in tokens.values()] == [401, 200]


def test_keys_open_and_close_a_running_collector_and_an_installation_is_erased(
    tmp_path: Path, schema: Path
) -> None:
    with a_collector(tmp_path, "--schema", str(schema), "--data", "here") as running:
        issued = [call("collector", "keys", "issue", PROJECT, "--data", "here").out.strip() for _ in "ab"]
        listed = json.loads(call("collector", "keys", "list", "--data", "here", "--json").out)
        digests = [digest_of(key) for key in issued]
        assert listed == [{"project": PROJECT, "digest": one, "revoked": False} for one in digests]
        assert wait_for(running, issued[0], 200)
        assert send(running, issued[0], wire.event(installation=NOBODY)).status_code == 200
        assert call("collector", "keys", "revoke", issued[0], "--data", "here").status == 0
        assert wait_for(running, issued[0], 401)
        assert send(running, issued[1], wire.event(installation=NOBODY)).status_code == 200
        assert call("collector", "keys", "revoke", digests[1], "--data", "here").status == 0
        assert wait_for(running, issued[1], 401)
        shown = call("collector", "keys", "list", "--data", "here").out
        assert shown.count("revoked") == 2
        assert not any(key in shown for key in issued)
        assert len(running.export(NOBODY)) == 2
        words = ["collector", "erase", NOBODY, "--project", PROJECT, "--url", running.url]
        assert call(*words, "--token", running.token, answer="n\n").status == 1
        assert "answered 401" in call(*words, "--token", "wrong", "--yes").err
        assert len(running.export(NOBODY)) == 2
        erased = call(*words, "--token", running.token, "--yes")
        assert (erased.status, erased.out) == (0, "Deleted: 2 events, 0 refused shapes. Left: 0.\n")
        assert running.export(NOBODY) == []


def wait_for(running: Running, key: str, status: int) -> bool:
    """Whether the collector comes to answer so to the key: it reads its file again once a second."""
    never = threading.Event()
    for _ in range(100):
        if send(running, key, wire.event()).status_code == status:
            return True
        never.wait(0.05)
    return False


def test_one_process_owns_the_data_and_the_port(tmp_path: Path, schema: Path) -> None:
    with a_collector(tmp_path, "--schema", str(schema), collector_host="127.0.0.1") as running:
        assert "text/html" in httpx.get(running.url, follow_redirects=True).headers["content-type"]
        second = call("collector", "serve", "--port", "0", "--schema", str(schema))
        assert second.status == 2
        assert "in use by another process" in second.all
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = call("collector", "serve", "--port", str(port), "--schema", str(schema), "--data", "other")
    assert refused.status == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in refused.all


def test_what_cannot_be_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: Path) -> None:
    assert "is not JSON" in fails("serve", "--schema", str(written(tmp_path / "bad.json", "{")))
    assert "cannot read" in fails("serve", "--schema", "nowhere.json")
    (tmp_path / "file").write_text("")
    assert "data directory" in fails("serve", "--schema", str(schema), "--data", "file/below")
    assert "data directory" in fails("keys", "issue", "shop", "--data", "file")
    written(tmp_path / ".data/collector/access-tokens.sha256", "not a digest")
    assert "SHA-256" in fails("serve", "--schema", str(schema))
    assert "1 to 40" in fails("keys", "issue", "Shop!")
    assert "there are no write keys" in call("collector", "keys", "list").out
    assert "no such write key" in fails("keys", "revoke", "ck_unknown", status=1)
    erase = ("erase", NOBODY, "--project", PROJECT, "--token", "t", "--yes", "--url")
    assert "does not answer" in fails(*erase, "http://127.0.0.1:1", status=1)
    assert "http" in fails(*erase, "ftp://127.0.0.1")
    monkeypatch.delenv("CLARION_APP")
    assert "--schema FILE" in fails("serve")


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def fails(*arguments: str, status: int = 2) -> str:
    ran = call("collector", *arguments)
    assert ran.status == status, ran.all
    assert ran.err.startswith("clarion: "), ran.err
    return ran.all


@pytest.mark.parametrize("command", ["serve", "token", "erase", "keys issue", "keys list", "keys revoke"])
def test_every_command_has_a_help_text(command: str) -> None:
    helped = call("collector", *command.split(), "--help")
    assert (helped.status, f"collector {command}" in helped.all) == (0, True)
    assert str(PORT) in call("collector", "serve", "--help").all


def test_prune_deletes_what_is_old_and_says_how_much(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    Base.metadata.create_all(engine)
    clock = FrozenClock(datetime.now(UTC) - timedelta(days=40))
    with Receiver() as receiver, Session(engine, info=Recording(clock).info()) as session:
        add_plain(session, receiver.url, "*")
        record(session, OrderEvent("placed", **ABOUT_ORDER))
        session.commit()
        drain(engine, clock=clock)
        clock.advance(days=39)
        record(session, OrderEvent("placed", **ABOUT_ORDER))
        session.commit()
        drain(engine, clock=clock)
    nothing = {"deliveries": 0, "events": 0, "captures": 0, "telemetry": 0, "identity": False}
    assert json.loads(call("prune", "--json").out) == nothing
    done = call("prune", "--deliveries-days", "30", "--json")
    assert json.loads(done.out) == nothing | {"deliveries": 1}
    done = call("prune", "--deliveries-days", "30", "--events-days", "30")
    assert "events 1" in done.all
    with Session(engine) as session:
        counts = [session.scalar(select(func.count()).select_from(t)) for t in (Event.__table__, Delivery)]
    assert counts == [1, 1]
    assert call("prune", "--deliveries-days", "0").status == 2
    engine.dispose()


def test_administrators_are_named_and_ask_sql(tmp_path: Path, schema: Path) -> None:
    key = issue()
    tokens = {name: call("collector", "token", "--name", name).out.strip() for name in ("ada", "grace")}
    assert "no access token has the name bob" in fails(
        "serve", "--schema", str(schema), "--administrator", "bob"
    )
    with a_collector(tmp_path, "--schema", str(schema), collector_administrators="ada") as running:
        send(running, key, wire.event())
        asked = {
            "project": PROJECT,
            "sql": "SELECT count(*) AS n\nFROM events -- \x1b[31m",
        }

        def ask(name: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {tokens[name]}"}
            return httpx.post(f"{running.url}/api/sql", json=asked, headers=headers, timeout=20)

        assert ask("grace").status_code == 403
        assert ask("ada").json()["rows"] == [[1]]
        shown = call("collector", "audit").out
        assert "SELECT count(*) AS n FROM events --" in " ".join(shown.split())
        assert "\x1b" not in shown


def test_a_store_that_cannot_be_used_is_said_without_its_password(schema: Path) -> None:
    serve = ("serve", "--schema", str(schema), "--token", "given", "--store")
    assert "clickhouse://user:password@host" in fails(*serve, "postgresql://localhost/x")
    ran = call("collector", *serve, "clickhouse://reader:s3cret@127.0.0.1:1/events?connect_timeout=1")
    assert (ran.status, "the store at 127.0.0.1 cannot be used" in ran.err) == (2, True)
    assert "s3cret" not in ran.all


def test_clickhouse_without_its_extra_says_which(schema: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clickhouse_connect", None)
    said = fails("serve", "--schema", str(schema), "--token", "t", "--store", "clickhouse://127.0.0.1")
    assert "pip install 'clarion[clickhouse]'" in said


def test_events_are_kept_in_clickhouse(schema: Path, tmp_path: Path) -> None:
    pytest.importorskip("chdb", reason="pip install chdb-core runs this on ClickHouse's engine")
    key = issue()
    store = f"chdb://{tmp_path / 'clickhouse'}"
    words = ("--schema", str(schema), "--administrator", "given")
    with a_collector(tmp_path, *words, collector_store=store, collector_token="given") as running:
        assert send(running, key, wire.event(installation=NOBODY)).status_code == 200
        running.token = "given"
        assert len(running.export(NOBODY)) == 1
        assert running.get("quarantine", token="given").json() == {"shapes": []}
        asked = {"project": PROJECT, "sql": "SELECT 1"}
        answer = httpx.post(
            f"{running.url}/api/sql", json=asked, headers={"Authorization": "Bearer given"}, timeout=20
        )
        assert (answer.status_code, "ClickHouse answers SQL itself" in answer.text) == (501, True)
    assert not (tmp_path / ".data/collector/events.duckdb").exists()
    with a_collector(tmp_path, *words, collector_store=store, collector_token="given") as running:
        running.token = "given"
        assert len(running.export(NOBODY)) == 1
