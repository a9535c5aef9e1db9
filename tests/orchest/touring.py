"""One tour of a real platform process, for all tests of what it makes happen."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from clarion.addresses import EgressPolicy
from clarion.events import Event
from clarion.outbox import Capture
from clarion.testing import Received, Receiver, Reply
from orchest import demo
from orchest.client import Client
from orchest.collecting import switch_on
from orchest.platform import open_platform
from orchest.site import Site
from orchest.tour import Tour

KEPT = Reply(200, (("content-type", "application/json"),), b'{"status": 1}')
"""How an analytics backend says that it has what it was sent."""


@dataclass(frozen=True)
class Told:
    """One event, as it is told to subscribers and as telemetry; what is only ever telemetry has no other."""

    type: str
    notification: dict[str, Any] | None
    telemetry: dict[str, Any] | None


@dataclass(frozen=True)
class Toured:
    """All that a tour made happen."""

    url: str
    told: list[Told]
    """Events in the order of their sequence, then what was only captured."""
    received: list[Received]
    """What the webhook was sent, in the order of arrival."""
    sent: list[dict[str, Any]]
    """What the analytics backend was sent, one by one."""
    headings: list[str]


@contextmanager
def touring(root: Path) -> Iterator[Toured]:
    """A platform process on a tour, with a webhook for everything and an analytics backend."""
    data, headings = root / "data", list[str]()
    with Receiver() as webhook, Receiver(lambda _: KEPT) as backend:
        switch_on(demo.database(data), data, backend.url, "write-key", datetime.now(UTC))
        with demo.platform(demo.variables(data), root / "platform.log") as url:
            client = Client(url)
            demo.subscribe(client, webhook.url)
            Tour(client, headings.append).run()
            told = list(all_told(demo.database(data), data))
            wait_for_all(client)
        batches = [json.loads(request.body)["batch"] for request in backend.received]
        yield Toured(url, told, list(webhook.received), [one for batch in batches for one in batch], headings)


def wait_for_all(client: Client) -> None:
    """Until nothing is left to be delivered."""
    client.until(
        "/api/notifications/deliveries",
        lambda found: not found["items"],
        "all is delivered",
        state="pending",
    )


def all_told(url: str, data: Path) -> Iterator[Told]:
    """What is stored of it: the frozen renderings, which are what is sent."""
    platform = open_platform(Site("http://127.0.0.1", data), url, EgressPolicy())
    try:
        with platform.readers() as session:
            for event in session.scalars(select(Event).order_by(Event.sequence)):
                yield Told(event.type, event.notification, event.telemetry)
            for capture in session.scalars(select(Capture).order_by(Capture.id)):
                yield Told(capture.type, None, capture.telemetry)
    finally:
        platform.close()
