"""`send_event`: what is stored, what is refused, and that off is off."""

import copy
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from flask import Flask
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session
from starlette.applications import Starlette

from clarion import analytics
from clarion.analytics import Accepted, Disabled, Rejected, TelemetryData, attach, enumeration, send_event
from clarion.analytics.capturing import UNUSABLE, analytics_of
from clarion.analytics.previewing import preview
from clarion.consent import Why
from clarion.database import Base, open_engine
from clarion.deliverees.analytics import deliveree_of
from clarion.envelope import SCHEMA_VERSION
from clarion.errors import ConfigurationError
from clarion.losses import losses
from clarion.observe import counters
from clarion.outbox import Capture, Delivery
from clarion.telemetry import SettingReader, Telemetry, TelemetryState, switch
from tests.clarion.telemetry_sample import NOW, TYPES, Window, an_analytics, asking, switched_on

Event: Any = enumeration(TYPES)
URL = "http://127.0.0.1:9/"
ALIVE = TelemetryData(event_properties={"active": True}, derived_properties={})


def rows(engine: Engine) -> tuple[int, int]:
    with Session(engine) as session:
        counts = [session.scalar(select(func.count()).select_from(t)) or 0 for t in (Capture, Delivery)]
        return counts[0], counts[1]


@pytest.fixture
def on(engine: Engine) -> Any:
    return an_analytics(engine, switched_on(engine, URL))


@pytest.mark.parametrize("make", [lambda: Flask("app"), FastAPI, Starlette, dict])
def test_each_kind_of_application_sends(on: Any, make: Any) -> None:
    app = make()
    attach(app, on)
    result = send_event(app, Event.SHOP_HEARTBEAT, ALIVE)
    assert isinstance(result, Accepted)
    assert result
    assert rows(on.engine) == (1, 1)
    with Session(on.engine) as session:
        capture = session.scalars(select(Capture)).one()
        assert str(capture.uuid) == result.id
        assert (capture.type, capture.occurred_at) == ("shop-heartbeat", NOW)
        assert capture.telemetry == {"event_properties": {"active": True}, "derived_properties": {}}


def test_what_telemetry_needs_can_come_from_plain_settings(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched_on(engine, URL)
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    monkeypatch.setattr("clarion.analytics.capturing._opened", {})
    settings: dict[str, Any] = {"CLARION_DATABASE_URL": database_url}
    everything: Any = analytics.Event
    assert send_event(settings, everything.SHOP_HEARTBEAT, ALIVE)
    app = Flask("app")
    app.config.update(settings)
    assert send_event(app, everything.SHOP_HEARTBEAT, ALIVE)
    settings["TELEMETRY_DISABLED"] = True  # read live
    assert rows(engine) == (2, 2)
    assert send_event(settings, everything.SHOP_HEARTBEAT, ALIVE) == Disabled(Why.CONFIGURATION.value)
    assert rows(engine) == (0, 0)
    from clarion.analytics import capturing

    for reader in capturing._opened.values():
        reader.engine.dispose()


GIVEN = UUID("8d5f0e5c-0f5f-4c58-9d35-3a8f7c1f0b11")


def sent_under(engine: Engine) -> str:
    """The id that a relay sends under, which reads no application's configuration."""
    with Session(engine) as session:
        return deliveree_of(session.get_one(TelemetryState, 1)).envelope.installation


@pytest.fixture
def settings(engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Plain settings of an installation that is on, whose id is given."""
    switched_on(engine, URL)
    opened: dict[str, SettingReader] = {}
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    monkeypatch.setattr("clarion.analytics.capturing._opened", opened)
    yield {"CLARION_DATABASE_URL": database_url, "TELEMETRY_UUID": str(GIVEN)}
    for reader in opened.values():
        reader.engine.dispose()


@pytest.mark.parametrize("kind", ["mapping", "flask", "fastapi"])
def test_the_id_can_be_given_in_the_application_s_configuration(
    engine: Engine, settings: dict[str, Any], kind: str
) -> None:
    everything: Any = analytics.Event
    app: Any = settings
    if kind == "flask":
        app = Flask("app")
        app.config.update(settings)
    elif kind == "fastapi":
        app = FastAPI()
        attach(app, an_analytics(engine, asking(engine, config=settings)))
    assert sent_under(engine) != str(GIVEN)
    shown = preview(analytics_of(app), "shop-heartbeat")
    assert json.loads(shown)["batch"][0]["distinct_id"] == str(GIVEN)  # before anything was sent
    for _ in range(2):
        assert send_event(app, everything.SHOP_HEARTBEAT, ALIVE)
    assert sent_under(engine) == str(GIVEN)
    with Session(engine) as session:
        assert session.get_one(TelemetryState, 1).given
    assert rows(engine) == (2, 2)


def test_the_environment_s_id_stands_above_it(
    engine: Engine, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = UUID(int=GIVEN.int + 1)
    monkeypatch.setenv("TELEMETRY_UUID", str(other))
    everything: Any = analytics.Event
    assert send_event(settings, everything.SHOP_HEARTBEAT, ALIVE)
    assert sent_under(engine) == str(other)
    monkeypatch.delenv("TELEMETRY_UUID")
    assert sent_under(engine) not in (str(other), str(GIVEN))  # neither was stored


def test_off_stores_no_id(engine: Engine, settings: dict[str, Any]) -> None:
    with Session(engine) as session, session.begin():
        switch(session, False, NOW)
    everything: Any = analytics.Event
    assert send_event(settings, everything.SHOP_HEARTBEAT, ALIVE) == Disabled(Why.SETTING.value)
    assert sent_under(engine) != str(GIVEN)


def test_an_id_that_is_no_uuid_is_refused_with_a_reason(engine: Engine, settings: dict[str, Any]) -> None:
    everything: Any = analytics.Event
    settings["TELEMETRY_UUID"] = "ann's laptop"
    result = send_event(settings, everything.SHOP_HEARTBEAT, ALIVE)
    assert isinstance(result, Rejected)
    assert "TELEMETRY_UUID in the application's configuration must be a UUID" in result.reason
    assert "ann" not in result.reason
    assert rows(engine) == (0, 0)
    strict = an_analytics(engine, asking(engine, config=settings), strict=True)
    with pytest.raises(ConfigurationError, match="must be a UUID"):
        strict.send("shop-heartbeat", ALIVE)


def test_something_else_than_an_application_is_named() -> None:
    with pytest.raises(TypeError, match="got int"):
        send_event(3, Event.SHOP_HEARTBEAT, ALIVE)


@pytest.mark.parametrize(
    "data",
    [
        TelemetryData({"active": True, "name": "secret-name"}),
        TelemetryData({}),
        None,
        TelemetryData({"active": True}, {"count": 1}),
        TelemetryData([("active", True)]),  # type: ignore[arg-type]
        {"active": True},
        "active",
    ],
)
def test_a_wrong_shape_is_a_value_error_on_or_off(on: Any, data: Any) -> None:
    with pytest.raises(ValueError, match=r"declared|mapping|TelemetryData") as caught:
        on.send("shop-heartbeat", data)
    assert "secret-name" not in str(caught.value)
    off = an_analytics(on.engine, asking(on.engine, environ={"DO_NOT_TRACK": "1"}))
    with pytest.raises(ValueError, match=r"declared|mapping|TelemetryData"):
        off.send("shop-heartbeat", data)
    assert rows(on.engine) == (0, 0)


def test_an_undeclared_event_is_a_value_error(on: Any) -> None:
    class Made(Enum):
        UP = "made:up"

    for event in (Made.UP, "made:up", 7, None):
        with pytest.raises(ValueError, match="declared types"):
            on.send(event, ALIVE)


@pytest.mark.parametrize("value", [1, "yes", None.__class__, float("nan"), b"x", {"a"}, NOW, object()])
def test_a_wrong_value_is_refused_in_production_and_raises_in_development(on: Any, value: Any) -> None:
    data = TelemetryData({"active": value})
    result = on.send(Event.SHOP_HEARTBEAT, data)
    assert isinstance(result, Rejected)
    assert not result
    assert "active" in result.reason
    on.strict = True
    with pytest.raises(ValueError, match="active"):
        on.send(Event.SHOP_HEARTBEAT, data)
    assert rows(on.engine) == (0, 0)


def test_values_leave_as_their_declared_types_only(on: Any) -> None:
    data = TelemetryData({"name": "/home/ada/cart", "articles": 37, "client": "1.4"})
    assert on.send(Event.SHOP_WINDOW_OPENED, data)
    data = TelemetryData({"name": Window.CART, "articles": 0, "client": None})
    assert on.send(Event.SHOP_WINDOW_OPENED, data)
    with Session(on.engine) as session:
        sent = [
            c.telemetry["event_properties"] for c in session.scalars(select(Capture).order_by(Capture.id))
        ]
    assert sent == [
        {"name": "other", "articles": "11-50", "client": "1.4"},
        {"name": "cart", "articles": "0", "client": None},
    ]


def test_a_recorded_type_can_be_sent_too_with_identifiers_as_pseudonyms(on: Any) -> None:
    properties = {"shop": {"uuid": "s1", "order": {"uuid": "o1", "number": 3, "channel": "web"}}}
    assert on.send(Event.SHOP_ORDER_PLACED, TelemetryData(properties))
    with Session(on.engine) as session:
        sent = session.scalars(select(Capture)).one().telemetry["event_properties"]
    assert (sent["type"], sent["timestamp"], sent["schema_version"]) == (
        "shop:order:placed",
        "2026-01-01T00:00:00.000Z",
        1,
    )
    assert sent["shop"]["order"]["number"] == 3
    assert len(sent["shop"]["uuid"]) == 32
    with pytest.raises(ValueError, match="1 undeclared"):
        on.send(Event.SHOP_ORDER_PLACED, TelemetryData({"shop": {**properties["shop"], "name": "Corner"}}))


def test_what_a_recorded_type_carries_besides_its_fields_may_be_given_and_is_made_anew(on: Any) -> None:
    given = {"uuid": "hers", "type": "hers", "timestamp": "hers", "schema_version": 9}
    properties = {**given, "shop": {"uuid": "s1"}}
    assert on.send(Event.SHOP_CLOSED, TelemetryData(properties))
    with Session(on.engine) as session:
        sent = session.scalars(select(Capture)).one().telemetry["event_properties"]
    assert sent.keys() == properties.keys()
    assert "hers" not in sent.values()
    with pytest.raises(ValueError, match="1 undeclared"):
        on.send(Event.SHOP_CLOSED, TelemetryData({**properties, "timestampx": 1}))


def test_nothing_given_is_changed(on: Any) -> None:
    given = {"name": Window.CART, "articles": 5, "client": "1.0"}
    before = copy.deepcopy(given)
    assert on.send(Event.SHOP_WINDOW_OPENED, TelemetryData(MappingProxyType(given)))
    assert given == before


def test_one_message_sent_twice_is_stored_once_under_another_id(on: Any) -> None:
    identifier = UUID(int=42)
    first = on.send(Event.SHOP_HEARTBEAT, ALIVE, id=identifier)
    again = on.send(Event.SHOP_HEARTBEAT, ALIVE, id=identifier)
    assert first == again
    assert first.id != str(identifier)
    assert rows(on.engine) == (1, 1)


@pytest.mark.parametrize(
    ("environ", "config"),
    [
        ({"TELEMETRY_DISABLED": "1"}, None),
        ({"DO_NOT_TRACK": "yes"}, None),
        ({"CI": "true"}, None),
        ({"PYTEST_VERSION": "8"}, None),
        ({}, {"TELEMETRY_DISABLED": True}),
    ],
)
def test_off_stores_nothing_asks_no_database_opens_no_socket_starts_no_thread(
    engine: Engine, environ: dict[str, str], config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched_on(engine, URL)
    engine.dispose()

    reached: list[str] = []

    def refuse(*_: Any, **__: Any) -> None:
        reached.append("out")
        raise AssertionError("off reached out")

    off = an_analytics(engine, asking(engine, environ=environ, config=config))
    attach({}, off)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setattr(threading.Thread, "start", refuse)
        patch.setattr(Engine, "connect", refuse)
        results = [off.send(Event.SHOP_HEARTBEAT, ALIVE) for _ in range(3)]
    assert all(isinstance(result, Disabled) and not result for result in results)
    assert reached == []
    assert rows(engine) == (0, 0)


def test_what_cannot_be_deleted_at_once_is_tried_again(
    on: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert on.send(Event.SHOP_HEARTBEAT, ALIVE)
    clock = [0.0]
    reader = SettingReader(on.engine, monotonic=lambda: clock[0])
    on.telemetry = Telemetry(reader, environ={"DO_NOT_TRACK": "1"})
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "connect", lambda *_, **__: 1 / 0)
        for clock[0] in (0.0, 0.9, 1.0):
            assert on.send(Event.SHOP_HEARTBEAT, ALIVE) == Disabled(Why.DO_NOT_TRACK.value)
    assert caplog.text.count("cannot be deleted yet") == 2
    assert rows(on.engine) == (1, 1)
    clock[0] = 20.0
    on.send(Event.SHOP_HEARTBEAT, ALIVE)
    assert rows(on.engine) == (0, 0)


@pytest.mark.parametrize("environ", [{"CI": "true"}, {"TELEMETRY_DEBUG": "1"}, {}])
def test_only_what_people_say_deletes_what_waits(on: Any, environ: dict[str, str]) -> None:
    assert on.send(Event.SHOP_HEARTBEAT, ALIVE)
    attach({}, an_analytics(on.engine, asking(on.engine, environ=environ)))
    assert rows(on.engine) == (1, 1)


def test_off_in_a_database_without_tables_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    engine.connect().close()
    off = an_analytics(engine, asking(engine, environ={"DO_NOT_TRACK": "1"}))
    assert off.send(Event.SHOP_HEARTBEAT, ALIVE) == Disabled(Why.DO_NOT_TRACK.value)
    assert caplog.text == ""
    engine.dispose()


def test_off_is_read_live(on: Any) -> None:
    environ: dict[str, str] = {}
    on.telemetry.environ = environ
    assert on.send(Event.SHOP_HEARTBEAT, ALIVE)
    for _ in range(2):
        environ["TELEMETRY_DISABLED"] = "true"
        assert on.send(Event.SHOP_HEARTBEAT, ALIVE) == Disabled(Why.DISABLED.value)
        assert rows(on.engine) == (0, 0)  # each time it is switched off
        del environ["TELEMETRY_DISABLED"]
        assert on.send(Event.SHOP_HEARTBEAT, ALIVE)
    with Session(on.engine) as session, session.begin():
        assert switch(session, False, NOW) == 1
    assert on.send(Event.SHOP_HEARTBEAT, ALIVE) == Disabled(Why.SETTING.value)
    assert rows(on.engine) == (0, 0)


def test_debugging_prints_and_stores_nothing(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    on.telemetry.environ = {"TELEMETRY_DEBUG": "1"}
    assert on.send(Event.SHOP_HEARTBEAT, ALIVE) == Disabled(Why.DEBUG.value)
    [event] = json.loads(capsys.readouterr().err)["batch"]
    assert (event["event"], event["timestamp"]) == ("shop-heartbeat", "2026-01-01T00:00:00.000Z")
    assert event["properties"]["event_properties"] == {"active": True}
    assert event["properties"]["schema_version"] == SCHEMA_VERSION
    assert rows(on.engine) == (0, 0)


def test_without_a_configured_backend_nothing_is_stored(engine: Engine) -> None:
    nobody = an_analytics(engine, asking(engine))
    assert nobody.send(Event.SHOP_HEARTBEAT, ALIVE) == Disabled(Why.UNCONFIGURED.value)
    assert send_event({}, Event.SHOP_HEARTBEAT, ALIVE).reason in {w.value for w in Why}  # type: ignore[union-attr]
    assert rows(engine) == (0, 0)


def test_a_database_that_is_busy_is_rejected_quickly(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'busy.db'}")
    Base.metadata.create_all(engine)
    on = an_analytics(engine, switched_on(engine, URL))
    with Session(engine) as busy:
        busy.execute(select(1))  # begins as a writer, and stays one
        assert on.send(Event.SHOP_HEARTBEAT, ALIVE) == Rejected("it could not be stored")
        busy.rollback()
    assert on.send(Event.SHOP_HEARTBEAT, ALIVE)
    engine.dispose()


def test_the_look_at_how_many_wait_is_as_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clarion.analytics.capturing.TRIM_EVERY", 1)
    engine = open_engine(f"sqlite:///{tmp_path / 'busy.db'}")
    Base.metadata.create_all(engine)
    on = an_analytics(engine, switched_on(engine, URL))
    insert, busy = on.inserted, Session(engine)

    def inserted(*arguments: Any) -> int:
        told = insert(*arguments)
        busy.execute(select(1))  # another writer, just behind the insert
        return told

    monkeypatch.setattr(on, "inserted", inserted)
    began = time.perf_counter()
    assert on.send(Event.SHOP_HEARTBEAT, ALIVE)
    assert time.perf_counter() - began < 10  # for SQLite's writer one may wait 30 s
    busy.close()
    engine.dispose()


class Faulty:
    """A value, and a mapping, all of whose methods fail, with what is no ValueError or is one."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def fail(self, *_: Any) -> Any:
        raise self.error("a value's own: secret-name")

    __eq__ = __str__ = __float__ = __bool__ = __iter__ = fail


class FaultyMapping(dict[str, Any]):
    def items(self) -> Any:
        raise ValueError("secret-name")


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (Event.SHOP_HEARTBEAT, TelemetryData({"active": Faulty(RuntimeError)})),
        (Event.SHOP_WINDOW_OPENED, TelemetryData({"name": Faulty(KeyError), "articles": 1, "client": None})),
        (
            Event.SHOP_WINDOW_OPENED,
            TelemetryData({"name": Window.CART, "articles": 1, "client": Faulty(OSError)}),
        ),
        (Event.SHOP_HEARTBEAT, TelemetryData(FaultyMapping(active=True))),
    ],
)
def test_what_a_value_s_own_methods_raise_is_a_refusal(on: Any, event: Any, data: TelemetryData) -> None:
    result = on.send(event, data)
    assert isinstance(result, Rejected)
    assert "secret-name" not in result.reason
    with Session(on.engine) as session:
        assert losses(session) == {"schema_reject": 1}
    on.strict = True
    with pytest.raises(Exception, match=r"secret-name|declared types|expected bool"):
        on.send(event, data)
    assert rows(on.engine) == (0, 0)


def test_a_nudge_that_fails_loses_no_event(on: Any) -> None:
    def nudge() -> None:
        raise RuntimeError("no relay")

    on.nudge = nudge
    assert on.send(Event.SHOP_HEARTBEAT, ALIVE)
    assert rows(on.engine) == (1, 1)


def test_a_clock_or_a_configuration_that_fails_is_a_refusal(on: Any) -> None:
    class Failing(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise RuntimeError

    on.telemetry.config = Failing()
    assert isinstance(on.send(Event.SHOP_HEARTBEAT, ALIVE), Rejected)


@pytest.mark.parametrize("url", ["mysql://ann:secret@localhost/x", "secret", 5, ["sqlite://"]])
def test_settings_that_name_no_database_are_refused_without_saying_them(
    url: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    before = counters.value("telemetry_refused", "configuration")
    settings = {"CLARION_DATABASE_URL": url}
    everything: Any = analytics.Event
    result = send_event(settings, everything.SHOP_HEARTBEAT, ALIVE)
    assert result == Rejected(UNUSABLE)
    assert counters.value("telemetry_refused", "configuration") == before + 1
    assert "secret" not in caplog.text
    with pytest.raises(ValueError, match="declared"):
        send_event(settings, everything.SHOP_HEARTBEAT, TelemetryData({"active": True, "more": 1}))


def test_a_missing_driver_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_DISABLED", "0")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "clarion.analytics.answering", raising=False)
    everything: Any = analytics.Event
    settings = {"CLARION_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
    assert send_event(settings, everything.SHOP_HEARTBEAT, ALIVE) == Rejected(UNUSABLE)


def test_a_database_that_is_gone_is_rejected(tmp_path: Path) -> None:
    here = open_engine(f"sqlite:///{tmp_path / 'here.db'}")
    Base.metadata.create_all(here)
    telemetry = switched_on(here, URL)
    gone = open_engine(f"sqlite:///{tmp_path / 'no' / 'such' / 'directory.db'}")
    assert an_analytics(gone, telemetry).send(Event.SHOP_HEARTBEAT, ALIVE) == Rejected(
        "it could not be stored"
    )
    assert asking(gone).decision().why is Why.UNKNOWN
    assert asking(gone).key() is None
    here.dispose()
    gone.dispose()


def test_a_database_without_tables_is_rejected(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    lost = an_analytics(engine, asking(engine))
    assert lost.send(Event.SHOP_HEARTBEAT, ALIVE) == Rejected("it could not be stored")
    engine.dispose()


def test_a_browser_s_time_is_kept(on: Any) -> None:
    on.send(Event.SHOP_HEARTBEAT, ALIVE, occurred_at=NOW - timedelta(minutes=3))
    with Session(on.engine) as session:
        assert session.scalars(select(Capture)).one().occurred_at == NOW - timedelta(minutes=3)


def test_importing_it_loads_neither_database_nor_network() -> None:
    """Counted in modules, not in time: two of ours, and of Python's own none that is large."""
    code = (
        "import sys; before = set(sys.modules); import clarion.analytics as a; a.TelemetryData(); "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}
    assert ours == {"clarion", "clarion.analytics"}
    assert not loaded & {"asyncio", "ssl", "socket", "http", "urllib.request", "multiprocessing", "sqlite3"}
    assert len(loaded) < 60


def test_the_enumeration_has_every_type_once() -> None:
    assert [member.value for member in Event] == [t.name for t in TYPES]
    assert Event.SHOP_ORDER_PARCEL_SENT.value == "shop:order:parcel:sent"
