"""Captured types for the telemetry tests, and an installation that is switched on."""

import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

import clarion.deliverees  # noqa: F401  maps every kind of subscriber
from clarion.analytics.capturing import Analytics
from clarion.analytics.configuring import BackendSettings, configure
from clarion.anonymous import Bucket, Version
from clarion.captured import Captured, prop
from clarion.catalogue import catalogue
from clarion.envelope import AppProperties, Deployment, HostOS, SystemProperties
from clarion.outbox import Recording
from clarion.telemetry import SettingReader, Telemetry, show_notice
from clarion.testing import FrozenClock, Received
from tests.clarion import sample

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WRITE_KEY = "ck_shop"
APP = AppProperties(version="1.2.3", max_job_runs_parallelism=4)
SYSTEM = SystemProperties(HostOS.LINUX, deployment=Deployment.CONTAINER)


class Window(Enum):
    CART = "cart"
    SHELF = "shelf"
    OTHER = "other"


class Heartbeat(Captured, kind="shop-heartbeat", source="webserver"):
    """The shop is alive."""

    upkeep = sample.KEPT

    active: bool = prop(doc="Whether somebody shops.", purpose="How much it is used.")


class WindowOpened(Captured, kind="shop-window:opened", source="browser"):
    """A window of the shop was looked into."""

    upkeep = sample.KEPT

    name: Window = prop(doc="Which one.", purpose="What is looked at.")
    articles: Bucket = prop(doc="How many articles it shows.", purpose="How large windows are.")
    client: Version | None = prop(doc="The client's version.", purpose="What is still in use.")


TYPES = catalogue([sample.__name__, __name__])


def switched_on(engine: Engine, url: str, backend: str = "posthog") -> Telemetry:
    """Configure analytics to ``url`` and show the notice; returns what asks about it."""
    with Session(engine) as session, session.begin():
        configure(session, BackendSettings(url, WRITE_KEY, backend), APP, SYSTEM, NOW)
        show_notice(session, NOW)
    return asking(engine)


def asking(engine: Engine, **more: Any) -> Telemetry:
    return Telemetry(SettingReader(engine, max_age=0), **({"environ": {}} | more))


def an_analytics(engine: Engine, telemetry: Telemetry, **more: Any) -> Analytics:
    return Analytics(engine, **({"types": TYPES, "telemetry": telemetry, "clock": FrozenClock(NOW)} | more))


def recording(telemetry: Telemetry) -> dict[str, Recording]:
    return Recording(clock=FrozenClock(NOW), telemetry_key=telemetry.key).info()


def events_in(received: list[Received]) -> list[dict[str, Any]]:
    """The events of PostHog batches, in order of arrival."""
    return [event for request in received for event in json.loads(request.body)["batch"]]
