"""``clarion deliveries``: who was told of what, every attempt, and doing it again."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clarion.cli.installation import installation, now
from clarion.cli.printing import AsJson, facts, print_json, printable, say, table
from clarion.cli.subscribers import find
from clarion.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

app = typer.Typer(help="Who was told of what, and what came of it.", no_args_is_help=True)

BATCH = 200
"""Deliveries made due again in one transaction, so that recording never waits long."""
LAST = 2**63 - 1
"""No delivery has a higher number; a database cannot even be asked for one."""


class State(StrEnum):
    """A delivery's states (`clarion.outbox.Delivery`)."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    CANCELLED = "cancelled"


@app.command("list")
def list_deliveries(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    subscriber: Annotated[
        str | None, typer.Option(help="Only to this one: its uuid or its beginning.")
    ] = None,
    event: Annotated[str | None, typer.Option(help="Only of this event type.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 50,
    before: Annotated[
        int | None, typer.Option(max=LAST, help="Only older than this delivery: the next page.")
    ] = None,
    json: AsJson = False,
) -> None:
    """List deliveries, newest first."""
    with installation().reading() as session:
        query = select_deliveries(session, state, subscriber, event)
        rows = page(session, query, limit + 1, before)
    more = rows[limit - 1]["id"] if len(rows) > limit else None
    rows = rows[:limit]
    if json:
        print_json({"items": rows, "next": more})
        return
    columns = ("ID", "STATE", "EVENT", "SUBSCRIBER", "ATTEMPTS", "DUE OR FINISHED")
    listed = [
        (
            row["id"],
            row["state"],
            row["event"],
            row["subscriber"] or "(deleted)",
            row["attempts"],
            row["finished_at"] or row["due_at"],
        )
        for row in rows
    ]
    table(columns, listed, empty="there are no such deliveries")
    if more is not None:
        say(f"There are more: --before {more}")


def select_deliveries(
    session: "Session", state: State | None, subscriber: str | None, event: str | None
) -> "Select[Any]":
    from sqlalchemy import func, select

    from clarion.events import Event
    from clarion.outbox import Capture, Delivery
    from clarion.subscriptions import Subscriber

    type_ = func.coalesce(Event.type, Capture.type)
    query: Any = (
        select(
            Delivery.id,
            Delivery.state,
            type_.label("event"),
            Event.uuid.label("event_uuid"),
            Event.scope.label("scope"),
            Subscriber.name.label("subscriber"),
            Delivery.attempts,
            Delivery.due_at,
            Delivery.finished_at,
        )
        .outerjoin(Event.__table__, Event.sequence == Delivery.event_sequence)
        .outerjoin(Capture, Capture.id == Delivery.capture_id)
        .outerjoin(Subscriber.__table__, Subscriber.id == Delivery.subscriber_id)
        .order_by(Delivery.id.desc())
    )
    if state is not None:
        query = query.where(Delivery.state == state.value)
    if subscriber is not None:
        query = query.where(Delivery.subscriber_id == find(session, subscriber).id)
    found: Select[Any] = query if event is None else query.where(type_ == event)
    return found


def page(session: "Session", query: "Select[Any]", limit: int, before: int | None) -> list[dict[str, Any]]:
    from clarion.outbox import Delivery

    if before is not None:
        query = query.where(Delivery.id < before)
    return [dict(row._mapping) for row in session.execute(query.limit(limit))]


@app.command("show")
def show(
    delivery: Annotated[int, typer.Argument(metavar="ID", max=LAST, help="The delivery's number.")],
    json: AsJson = False,
) -> None:
    """Show one delivery: what is told, and every attempt with what was answered."""
    from sqlalchemy import select

    from clarion.events import Event
    from clarion.outbox import Attempt, Capture, Delivery

    with installation().reading() as session:
        query = select_deliveries(session, None, None, None).where(Delivery.id == delivery)
        row = session.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"there is no delivery {delivery}")
        attempts = session.scalars(
            select(Attempt).where(Attempt.delivery_id == delivery).order_by(Attempt.number)
        ).all()
        source = session.get_one(Delivery, delivery)
        payload = (
            session.scalar(
                select(Event.__table__.c.notification).where(Event.sequence == source.event_sequence)
            )
            if source.event_sequence is not None
            else session.scalar(select(Capture.telemetry).where(Capture.id == source.capture_id))
        )
        tried = [describe_attempt(one) for one in attempts]
    found = {**row._mapping, "tried": tried, "payload": payload}
    if json:
        print_json(found)
        return
    facts({name: value for name, value in found.items() if name not in ("tried", "payload")})
    say()
    rows = [
        (one["number"], one["started_at"], one["duration_ms"], one["outcome"], one["status"], one["detail"])
        for one in tried
    ]
    table(("TRY", "AT", "MS", "OUTCOME", "STATUS", "WHY"), rows, empty="it was not attempted yet")
    last = tried[-1]["body"] if tried else None
    if last:
        say(f"\nThe last answer:\n{printable(last)}")
    say("\nWhat is told:")
    print_json(payload)


def describe_attempt(attempt: Any) -> dict[str, Any]:
    names = ("number", "started_at", "duration_ms", "outcome", "status", "reason", "detail", "headers")
    body = None if attempt.body is None else attempt.body.decode("utf-8", "replace")
    return {**{name: getattr(attempt, name) for name in names}, "body": body, "truncated": attempt.truncated}


@app.command("retry")
def retry(
    delivery: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", max=LAST, help="Deliveries' numbers.")
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead ones.")] = False,
    subscriber: Annotated[str | None, typer.Option(help="With --dead: only those to this one.")] = None,
) -> None:
    """Make finished deliveries due again, with the same message id and a fresh schedule.

    A relay attempts them within a second. Those that cannot be (still pending, the subscriber is gone)
    are named, and the command fails.
    """
    if bool(delivery) == dead or (subscriber is not None and not dead):
        raise InvalidInput("give deliveries' numbers, or --dead, which --subscriber may narrow down")
    again, refused = retry_all_dead(subscriber) if dead else retry_some(delivery or [])
    for reason in refused:
        typer.echo(reason, err=True)
    say(f"{again} deliveries are due again")
    if refused:
        raise typer.Exit(1)


def retry_all_dead(subscriber: str | None) -> tuple[int, list[str]]:
    here, again, refused, last = installation(), 0, list[str](), None
    while True:
        with here.reading() as session:
            query = select_deliveries(session, State.DEAD, subscriber, None)
            ids = [row["id"] for row in page(session, query, BATCH, last)]
        if not ids:
            return again, refused
        made, no = retry_some(ids)
        again, refused, last = again + made, refused + no, ids[-1]


def retry_some(ids: list[int]) -> tuple[int, list[str]]:
    """How many are due again, and why the others are not."""
    from clarion.outbox import redeliver

    again, refused = 0, list[str]()
    with installation().writing() as session:
        for one in ids:
            try:
                redeliver(session, one, now())
                again += 1
            except (NotFound, Conflict) as error:
                refused.append(error.message)
    return again, refused
