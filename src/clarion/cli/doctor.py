"""``clarion doctor``: whether everything is in order, and what to do where it is not."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import typer

from clarion.cli.installation import Installation, installation, now
from clarion.cli.printing import AsJson, print_json, table
from clarion.errors import ClarionError

if TYPE_CHECKING:
    from sqlalchemy import Engine

Health = Literal["ok", "note", "fault"]

LATE = timedelta(seconds=60)
"""How long something may be overdue before nobody seems to deliver."""

EXTRAS = {
    "postgres": "psycopg",
    "async": "aiosqlite",
    "relay": "pycurl",
    "celery": "celery",
    "server": "fastapi",
    "collector": "duckdb",
}
"""A module by which each extra is recognised (pyproject.toml)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. A note is worth knowing, a fault must be mended."""

    what: str
    health: Health
    said: str


def doctor(json: AsJson = False) -> None:
    """Look at the settings, the database, its schema, the outbox, telemetry and what is installed.

    Fails if something must be mended.
    """
    findings = list(examine_all())
    if json:
        print_json([asdict(one) for one in findings])
    else:
        table(("WHAT", "IS", ""), [(f.what, f.health, f.said) for f in findings], empty="")
    if any(one.health == "fault" for one in findings):
        raise typer.Exit(1)


def examine_all() -> Iterator[Finding]:
    try:
        here = installation()
    except ClarionError as error:
        yield Finding("settings", "fault", error.message)
        return
    yield Finding("settings", "ok", f"database {here.settings.shown_database_url}")
    yield from application(here)
    yield from egress(here)
    yield from extras(here)
    yield from database(here)


def application(here: Installation) -> Iterator[Finding]:
    if not here.settings.app:
        yield Finding("application", "note", "none: CLARION_APP names no module that declares events")
        return
    catalogue = here.catalogue
    health: Health = "ok" if len(catalogue) else "fault"
    yield Finding(
        "application", health, f"{', '.join(here.settings.app)} declares {len(catalogue)} event types"
    )
    missing = undeclared(here)
    if missing:
        yield Finding("revisions", "fault", f"{'; '.join(missing)}: run clarion migrations revision -m '...'")
    else:
        yield Finding("revisions", "ok", "everything declared is in a revision")


def undeclared(here: Installation) -> list[str]:
    from clarion.migrations import history

    return history.undeclared(here.history)


def egress(here: Installation) -> Iterator[Finding]:
    policy = here.settings.egress
    allowed = [*map(str, policy.allowed_networks), *sorted(policy.allowed_hosts)]
    said = f"public addresses, and {', '.join(allowed)}" if allowed else "public addresses only"
    yield Finding("egress", "note" if allowed else "ok", f"webhooks may go to {said}")


def extras(here: Installation) -> Iterator[Finding]:
    there = [name for name, module in EXTRAS.items() if find_spec(module) is not None]
    missing = [name for name in EXTRAS if name not in there]
    yield Finding(
        "extras", "ok", f"installed: {', '.join(there) or 'none'}; not: {', '.join(missing) or 'none'}"
    )
    for name in missing:
        needed = name == "relay" or (name == "postgres" and here.sqlite_file is None)
        if needed:
            yield Finding(f"extra {name}", "fault", f"needed here: pip install 'clarion[{name}]'")


def database(here: Installation) -> Iterator[Finding]:
    from sqlalchemy.exc import SQLAlchemyError

    from clarion.migrations.history import examine

    try:
        found = examine(here.history, here.settings.database_url)
    except (SQLAlchemyError, ClarionError) as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        yield Finding("database", "fault", f"cannot be read: {said}")
        return
    if found is None:
        yield Finding("database", "fault", "is not there yet: run clarion migrate")
        return
    yield Finding("database", "ok", "answers")
    if found.pending:
        yield Finding("schema", "fault", f"lacks {len(found.pending)} revisions: run clarion migrate")
        return
    health: Health = "fault" if found.differences else "ok"
    yield Finding("schema", health, "; ".join(found.differences) or "is at the newest revision")
    with here.engine(read_only=True) as engine:
        yield from outbox(engine, now())
        yield from telemetry(engine, now())


def outbox(engine: "Engine", at: datetime) -> Iterator[Finding]:
    from sqlalchemy import func, select
    from sqlalchemy.orm import Session

    from clarion.outbox import Delivery
    from clarion.subscriptions import Subscriber

    with Session(engine) as session:
        # one look into the index of due deliveries for each subscriber, however many deliveries wait
        first = (
            select(func.min(Delivery.due_at))
            .where(Delivery.state == "pending", Delivery.subscriber_id == Subscriber.id)
            .scalar_subquery()
        )
        oldest: datetime | None = min(
            (due for due in session.scalars(select(first).where(Subscriber.enabled)) if due is not None),
            default=None,
        )
        dead = session.scalar(select(func.count()).select_from(Delivery).where(Delivery.state == "dead")) or 0
    late = oldest is not None and at - oldest > LATE
    if oldest is None:
        yield Finding("due", "ok", "nothing waits to be delivered")
    elif late:
        yield Finding(
            "due", "fault", f"something was due {(at - oldest).total_seconds():.0f} s ago: does a relay run?"
        )
    else:
        yield Finding("due", "ok", f"the oldest that waits is due at {oldest:%Y-%m-%dT%H:%M:%SZ}")
    if dead:
        yield Finding(
            "dead", "note", f"{dead} deliveries were given up: clarion deliveries list --state dead"
        )


def telemetry(engine: "Engine", at: datetime) -> Iterator[Finding]:
    from sqlalchemy.orm import Session

    from clarion.backlog import TOO_LONG, overdue
    from clarion.telemetry import Telemetry

    decision = Telemetry(engine).decision()
    yield Finding("telemetry", "ok", "is on" if decision else f"is off: {decision.why}")
    with Session(engine) as session:
        late = overdue(session, at)
    if late is not None:
        yield Finding("telemetry waits", "fault", TOO_LONG.format(hours=late // timedelta(hours=1)))
