"""The canary: for a moment a real installation, full of markers, whose telemetry must arrive without them.

It has a database of its own, migrated as any, and sends one event of each type through record, outbox and
relay to the real collector. Every text that an event can hold, the database's path and some of the
environment contain a marker; then the collector is asked what it keeps of the installation, and no marker
may be in it, nor what could be made of one. That proves arrival and anonymity at once, at the place where
they count.

It sends under a random id with a write key for a project of its own, so that no number counts it.
"""

import asyncio
import base64
import hashlib
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from clarion import anonymous
from clarion.analytics import TelemetryData
from clarion.analytics.capturing import Analytics
from clarion.analytics.configuring import BackendSettings, configure
from clarion.analytics.previewing import finished
from clarion.analytics.reporting import report
from clarion.analytics.verifying import Question, Sender, arrivals
from clarion.catalogue import Catalogue, example_of
from clarion.database import open_engine
from clarion.declarations import Field
from clarion.deliverees.analytics import wire_uuid
from clarion.deliverees.backends import JSON, USER_AGENT
from clarion.envelope import AppProperties, detect_system
from clarion.errors import ClarionError
from clarion.losses import OWN, Loss, telemetry_types
from clarion.messages import Request, Response
from clarion.migrations.history import History, upgrade
from clarion.outbox import Recording, record
from clarion.relay import Relay
from clarion.telemetry import SettingReader, Telemetry, show_notice, state_of

PROJECT = "canary"
"""The project it sends to, unless another is named."""

SURROUNDINGS = ("USER", "LOGNAME", "HOSTNAME", "COMPUTERNAME", "CLARION_CANARY")
"""Variables that hold a marker while it lives. ``TELEMETRY_UUID`` says nothing then: the id is its own."""

MOST = 4 * 1024 * 1024
"""Bytes of the collector's export that are read; a canary's is below a hundred thousand."""

FRAGMENT = 8
"""Characters of a marker that count as a trace of it."""


class Lost(ClarionError):
    """The collector cannot be asked what it keeps of the canary."""


@dataclass(frozen=True, slots=True)
class Flight:
    """What became of a canary: event types by what happened to them, and traces found in what was kept.

    ``kept`` is how many events the collector shows of it: what is not shown was not searched.
    """

    installation: str
    kept: int
    arrived: tuple[str, ...]
    missing: tuple[str, ...]
    traces: tuple[str, ...]

    @property
    def well(self) -> bool:
        return self.kept >= len(self.arrived) > 0 and not self.missing and not self.traces


async def fly(
    sender: Sender,
    directory: Path,
    history: History,
    types: Catalogue,
    backend: BackendSettings,
    question: Question,
    clock: Callable[[], datetime],
    *,
    patience: float = 30.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Flight:
    """Make an installation in ``directory``, have everything happen, deliver it, and ask what arrived.

    Raises:
        Lost: the collector does not say what it keeps.
        ConfigurationError: a wrong backend, or revisions that cannot be run.
    """
    marker = f"canary{secrets.token_hex(12)}"
    with marked(marker), installed(directory / f"{marker}.db", history) as engine:
        with Session(engine) as session, session.begin():
            configure(session, backend, AppProperties(), detect_system(), clock())
            show_notice(session, clock())
            installation = str(state_of(session).installation)
        everything(engine, types, marker, clock)
        await Relay(engine, sender, clock=clock).drain()
        with Session(engine) as session:
            sent = {wire_uuid(message): message.type for message, _ in finished(session, 10_000)}
    have = await arrivals(sender, backend.url, question, list(sent), patience, sleep)
    every = {t.name for t in telemetry_types(types)}
    arrived = {sent[uuid] for uuid in have}
    suspected = [sent[uuid] for uuid, said in have.items() if not said["anonymous"]]
    kept = await exported(sender, backend.url, question, installation)
    return Flight(
        installation,
        counted(kept),
        tuple(sorted(arrived)),
        tuple(sorted(every - arrived)),
        (*traces(marker, kept), *(f"a scanner's finding in {name}" for name in sorted(suspected))),
    )


@contextmanager
def marked(marker: str) -> Iterator[None]:
    """The marker in the environment, until the block is left."""
    given = dict.fromkeys(SURROUNDINGS, marker) | {"TELEMETRY_UUID": ""}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def installed(path: Path, history: History) -> Iterator[Engine]:
    """A database of its own, as a new installation has it."""
    engine = open_engine(f"sqlite:///{path}")
    try:
        upgrade(history, engine)
        yield engine
    finally:
        engine.dispose()


def everything(engine: Engine, types: Catalogue, marker: str, clock: Callable[[], datetime]) -> None:
    """Every recorded type happens once, and every captured one is sent once."""
    telemetry = Telemetry(SettingReader(engine, max_age=0))
    recording = Recording(clock, telemetry_key=telemetry.key)
    with sessionmaker(engine, info=recording.info())() as session:
        for event_type in types.recorded:
            cls: Any = event_type.cls
            stored = [f for f in cls.fields if f.stored and f.applies(event_type.verb)]
            record(session, cls(event_type.verb, **{f.name: value(f, marker, clock()) for f in stored}))
        session.commit()
    analytics = Analytics(engine, types=types, telemetry=telemetry, clock=clock)
    for event_type in (one for one in types if one.captured and one.cls not in OWN):
        given = {field.name: anonymous_value(field, marker, clock()) for field in event_type.fields}
        analytics.send(event_type.name, TelemetryData(given))
    analytics.note_lost(Loss.BROWSER_DROPPED)
    report(analytics)


def value(field: Field, marker: str, now: datetime) -> Any:
    """A value of the field's type that has the marker wherever a text can be."""
    adapter = TypeAdapter[Any](field.type)
    schema = adapter.json_schema()
    example = example_of(schema, now, schema.get("$defs", {}))
    try:
        return adapter.validate_python(filled(example, marker))
    except ValidationError:  # what looks like room for a text is not: a map with closed keys, say
        return adapter.validate_python(example)


def anonymous_value(field: Field, marker: str, now: datetime) -> Any:
    """A value that telemetry takes: as it leaves or, where that is another than goes in, as it goes in."""
    leaving = example_of(anonymous.schema(field.type), now, {})
    try:
        anonymous.convert(field.type, leaving)
    except (ValueError, TypeError):
        return value(field, marker, now)
    return leaving


def filled(example: Any, marker: str) -> Any:
    """An example with the marker in place of every text that could be any."""
    match example:
        case "...":
            return marker
        case {}:
            return {filled(key, marker): filled(inner, marker) for key, inner in example.items()} or {
                marker: marker
            }
        case list():
            return [filled(inner, marker) for inner in example]
    return example


async def exported(sender: Sender, url: str, question: Question, installation: str) -> str:
    """All that the collector keeps of the installation, as text."""
    request = Request(
        url=url.rstrip("/") + "/api/installations/export",
        body=json.dumps({"project": question.project, "installation": installation}).encode(),
        headers={"content-type": JSON, "user-agent": USER_AGENT, "authorization": f"Bearer {question.token}"},
        keep=MOST,
    )
    match await sender.send(request):
        case Response(status=200, truncated=False, body=body):
            return body.decode("utf-8", "replace")
        case Response(status=status):
            raise Lost(f"the collector does not export what it keeps of the canary: it answered {status}")
        case failure:
            raise Lost(f"the collector cannot be asked what it keeps of the canary: {failure.message}")


def counted(export: str) -> int:
    """How many events an export has; 0 if it is none."""
    try:
        return len(json.loads(export)["events"])
    except (ValueError, KeyError, TypeError):
        return 0


def traces(marker: str, text: str) -> Iterator[str]:
    """The ways in which a marker can be found in a text."""
    lowered = text.lower()
    yield from (form for form, needle in forms(marker).items() if needle.lower() in lowered)


def forms(marker: str) -> Mapping[str, str]:
    """What a marker could have become: parts of it, encodings, hashes."""
    raw = marker.encode()
    last = len(marker) - FRAGMENT
    found = {
        "its beginning": marker[:FRAGMENT],
        "its end": marker[last:],
        "reversed": marker[::-1][:FRAGMENT],
    }
    found |= {"hexadecimal": raw.hex()}
    for shift in range(3):  # wherever it begins among the bytes, four characters stand for three of them
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        found[f"base64, shifted by {shift}"] = encoded[4 if shift else 0 : -4]
    for name in ("md5", "sha1", "sha256", "sha512", "blake2b"):
        found[name] = hashlib.new(name, raw).hexdigest()
    return found | {"uuid5": str(uuid5(NAMESPACE_DNS, marker))}
