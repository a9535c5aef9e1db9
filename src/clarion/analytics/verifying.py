"""Whether telemetry really arrives: one event of each type, sent under an id of its own, and asked after.

The events are examples (`previewing.example`) and go through the same bytes and verdicts as real ones; they
are sent under a random id instead of the installation's, so that they count as nobody's use.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import uuid4

from clarion.catalogue import Catalogue
from clarion.deliverees.analytics import AnalyticsDeliveree, wire_uuid
from clarion.deliverees.backends import JSON, USER_AGENT
from clarion.losses import telemetry_types
from clarion.messages import Answer, Message, Request, Response
from clarion.outcomes import Delivered

ASKED = 40
"""Events asked after at once, so that the answer stays below what egress reads of one (16 KiB)."""

PAUSE = 0.5
"""Seconds between questions."""


class Sender(Protocol):
    """The one door to the network, `egress.Egress`."""

    async def send(self, request: Request) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Question:
    """How to ask our collector what arrived: the project its write key stands for, an access token."""

    project: str
    token: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of one type's event. None where nobody could be asked; ``lag`` is in seconds."""

    type: str
    problem: str = ""
    arrived: bool | None = None
    anonymous: bool | None = None
    lag: float | None = None

    @property
    def well(self) -> bool:
        return not self.problem and self.arrived is not False and self.anonymous is not False


def trial(deliveree: AnalyticsDeliveree) -> AnalyticsDeliveree:
    """The same deliveree under a random installation id."""
    return replace(deliveree, envelope=replace(deliveree.envelope, installation=str(uuid4())))


def one_of_each(types: Catalogue, now: datetime) -> list[Message]:
    """An example of every type, and of the library's own, each with an id of its own."""
    messages = []
    for event_type in telemetry_types(types):
        telemetry, uuid = event_type.telemetry_example(now), uuid4()
        if "uuid" in telemetry["event_properties"]:
            telemetry["event_properties"]["uuid"] = str(uuid)
        messages.append(Message(uuid, event_type.name, now, None, 1, None, json.dumps(telemetry)))
    return messages


async def verify(
    sender: Sender,
    deliveree: AnalyticsDeliveree,
    types: Catalogue,
    clock: Callable[[], datetime],
    question: Question | None = None,
    *,
    patience: float = 30.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[Verified]:
    """Send one of each type to the backend as ``deliveree`` would; with a ``question``, ask what arrived.

    Asks again for up to ``patience`` seconds. Never raises for what the backend does.
    """
    own, messages = trial(deliveree), one_of_each(types, clock())
    problems: dict[str, str] = {}
    for start in range(0, len(messages), own.batch):
        batch = messages[start : start + own.batch]
        answer = await sender.send(own.request(batch, clock()))
        for message, outcome in zip(batch, own.judge(batch, answer, clock()), strict=True):
            if not isinstance(outcome, Delivered):
                problems[wire_uuid(message)] = outcome.detail
    arrived: Mapping[str, Any] = {}
    if question is not None:
        wanted = [wire_uuid(m) for m in messages if wire_uuid(m) not in problems]
        arrived = await arrivals(sender, deliveree.url, question, wanted, patience, sleep)
    return [found(m, problems.get(wire_uuid(m), ""), arrived, question) for m in messages]


def found(message: Message, problem: str, arrived: Mapping[str, Any], question: Question | None) -> Verified:
    if question is None or problem:
        return Verified(message.type, problem)
    entry = arrived.get(wire_uuid(message))
    if entry is None:
        return Verified(message.type, "It was taken and is not there: see the collector's quarantine.", False)
    return Verified(message.type, "", True, bool(entry["anonymous"]), float(entry["lag_seconds"]))


async def arrivals(
    sender: Sender,
    url: str,
    question: Question,
    wanted: Sequence[str],
    patience: float,
    sleep: Callable[[float], Awaitable[None]],
) -> dict[str, Any]:
    """What the collector has of ``wanted``, by id, once it has all of them or patience ends."""
    have: dict[str, Any] = {}
    for _ in range(max(1, round(patience / PAUSE))):
        missing = [uuid for uuid in wanted if uuid not in have]
        for start in range(0, len(missing), ASKED):
            have |= await asked(sender, url, question, missing[start : start + ASKED])
        if len(have) == len(wanted):
            break
        await sleep(PAUSE)
    return have


async def asked(sender: Sender, url: str, question: Question, ids: Sequence[str]) -> dict[str, Any]:
    request = Request(
        url=url.rstrip("/") + "/api/arrivals",
        body=json.dumps({"project": question.project, "ids": list(ids)}).encode(),
        headers={"content-type": JSON, "user-agent": USER_AGENT, "authorization": f"Bearer {question.token}"},
    )
    match await sender.send(request):
        case Response(status=200, body=body):
            try:
                answer: dict[str, Any] = json.loads(body)["arrived"]
            except (ValueError, KeyError, TypeError):
                return {}
            return answer
    return {}
