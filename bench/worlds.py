"""What the measurements run on: fresh databases, a small catalogue, webhooks that point at the sink."""

import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, func, make_url, select, text
from sqlalchemy.orm import Mapped, Session

from clarion.catalogue import catalogue
from clarion.database import Base, open_engine
from clarion.declarations import fact, identity
from clarion.deliverees.webhook import Webhook
from clarion.events import Event
from clarion.outbox import Delivery, record
from clarion.subscriptions import subscribe
from clarion.upkeep import Never, Upkeep

POSTGRES_URL = os.environ.get(
    "CLARION_TEST_POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
)
DATABASES = ("sqlite", "postgresql")


class AccountEvent(Event, kind="account", layer="account"):
    """An account, with a payload of about 1.3 kB, as real notifications have."""

    verbs = {"changed": "Account {name} changed", "stuck": "Account {name} is stuck"}

    upkeep = Upkeep("bench", "0.1", Never("It is measured as it is."), ("bench",))

    account_uuid: Mapped[str] = identity(doc="The account.")
    account_name: Mapped[str] = fact()
    account_number: Mapped[int] = fact(anonymous=True, doc="Its number.", purpose="To be measured.")
    account_history: Mapped[list[dict[str, Any]]] = fact()


HISTORY = [
    {"type": "UPDATED", "changed_object": "plan", "old_value": f"basic-{n}", "new_value": f"pro-{n}"}
    for n in range(11)
]


def account(number: int, verb: str = "changed") -> AccountEvent:
    return AccountEvent(
        verb,
        account_uuid=str(uuid.UUID(int=number)),
        account_name=f"Account {number}",
        account_number=number,
        account_history=HISTORY,
    )


@dataclass(frozen=True)
class World:
    """A database with Clarion's tables and one of the application's own, ``business``."""

    name: str
    url: str
    engine: Engine

    def webhooks(self, *urls: str, pattern: str = "*") -> list[int]:
        """Webhooks that want ``pattern``; their ids."""
        with Session(self.engine) as session:
            made = []
            for url in urls:
                webhook = Webhook(name=url, url=url, created_at=datetime.now(UTC))
                session.add(webhook)
                session.flush()
                subscribe(session, catalogue(["bench.worlds"]), webhook, [(pattern, "")])
                made.append(webhook.id)
            session.commit()
            return made

    def pending(self, subscriber: int) -> int:
        waiting = select(func.count()).where(
            Delivery.subscriber_id == subscriber, Delivery.state == "pending"
        )
        with Session(self.engine) as session:
            return session.scalar(waiting) or 0

    def relay_engine(self) -> Engine:
        return open_engine(self.url, durable=False)


def record_for(world: World, events: Iterable[AccountEvent]) -> None:
    """Record ``events`` in one transaction."""
    with Session(world.engine) as session:
        record(session, *events)
        session.commit()


@contextmanager
def world(name: str) -> Iterator[World]:
    """A world on ``sqlite`` or ``postgresql``, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="clarion-bench-") as directory:
        if name == "sqlite":
            with opened(name, f"sqlite:///{Path(directory) / 'bench.db'}") as made:
                yield made
            return
        database = f"clarion_bench_{uuid.uuid4().hex[:12]}"
        admin = create_engine(POSTGRES_URL, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {database}"))
        try:
            url = make_url(POSTGRES_URL).set(database=database).render_as_string(hide_password=False)
            with opened(name, url) as made:
                yield made
        finally:
            with admin.connect() as connection:
                connection.execute(text(f"DROP DATABASE {database} WITH (FORCE)"))
            admin.dispose()


@contextmanager
def opened(name: str, url: str) -> Iterator[World]:
    engine = open_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE business (id INTEGER PRIMARY KEY, name TEXT)"))
    try:
        yield World(name, url, engine)
    finally:
        engine.dispose()
