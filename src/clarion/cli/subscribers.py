"""``clarion subscribers``: who is told."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clarion.cli.installation import installation, now
from clarion.cli.printing import AsJson, facts, print_json, say, table
from clarion.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from clarion.messages import Message
    from clarion.subscriptions import Subscriber

app = typer.Typer(help="Who is told of what happens.", no_args_is_help=True)
add = typer.Typer(help="Add a subscriber.", no_args_is_help=True)
app.add_typer(add, name="add")

Which = Annotated[str, typer.Argument(metavar="SUBSCRIBER", help="Its uuid, or how its uuid begins.")]

SECRETS = ("secret", "write_key", "password", "token")
"""Columns whose values are never printed."""


@app.command("list")
def list_subscribers(
    everyone: Annotated[bool, typer.Option("--all", help="Telemetry's own subscriber, too.")] = False,
    json: AsJson = False,
) -> None:
    """List the subscribers with what they want."""
    from sqlalchemy import select
    from sqlalchemy.orm import selectinload

    from clarion.subscriptions import Subscriber

    with installation().reading() as session:
        query = select(Subscriber).order_by(Subscriber.id).options(selectinload(Subscriber.subscriptions))
        found = [describe(s) for s in session.scalars(query) if everyone or not s.hidden]
    if json:
        print_json(found)
        return
    rows = [(s["uuid"], s["kind"], s["name"], s["enabled"], s.get("url"), ", ".join(wants(s))) for s in found]
    columns = ("UUID", "KIND", "NAME", "ENABLED", "URL", "WANTS")
    table(columns, rows, empty="nobody is told; add somebody with: clarion subscribers add webhook")


@app.command("show")
def show(subscriber: Which, json: AsJson = False) -> None:
    """Show one subscriber: its settings, what it wants, how its deliveries stand."""
    with installation().reading() as session:
        row = find(session, subscriber)
        found = {**describe(row), "deliveries": standing(session, row.id)}
    if json:
        print_json(found)
        return
    deliveries = ", ".join(f"{count} {state}" for state, count in found["deliveries"].items())
    facts({**found, "subscriptions": ", ".join(wants(found)), "deliveries": deliveries or "none"})


@add.command("webhook")
def add_webhook(
    url: Annotated[str, typer.Option(help="Where to POST, such as https://example.com/hook.")],
    event: Annotated[
        list[str], typer.Option(help="A type or pattern it wants ('project:*', '*:failed'); repeat it.")
    ],
    name: Annotated[str, typer.Option(help="What to call it.")],
    scope: Annotated[str, typer.Option(help="Only at or below here, such as project/P/job/J.")] = "",
    owner: Annotated[str, typer.Option(help="The scope it belongs to, and never hears outside of.")] = "",
    secret: Annotated[
        str | None, typer.Option(help="What to sign with (whsec_...); one is made and printed otherwise.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="How the body is written, such as standard or orchest.")
    ] = "standard",
    content_type: Annotated[str | None, typer.Option(help="If the format has several.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for a whole request, 1 to 30.")] = None,
    verify_tls: Annotated[bool, typer.Option(help="Whether its certificate must be valid.")] = True,
    json: AsJson = False,
) -> None:
    """Add a webhook that is told of the given events from now on."""
    from clarion.deliverees import Webhook
    from clarion.subscriptions import subscribe

    here = installation()
    here.settings.egress.check_url(url)
    catalogue = here.catalogue
    given = {"secret": secret, "content_type": content_type, "timeout": timeout}
    webhook = Webhook(
        name=name,
        url=url,
        owner=owner,
        format=format,
        verify_ssl=verify_tls,
        created_at=now(),
        **{key: value for key, value in given.items() if value is not None},
    )
    with here.writing() as session:
        session.add(webhook)
        session.flush()
        subscribe(session, catalogue, webhook, [(one, scope) for one in event])
        session.flush()
        made = {**describe(webhook), "secret": webhook.secret}
    if json:
        print_json(made)
        return
    facts({"uuid": made["uuid"], "name": made["name"], "wants": ", ".join(wants(made))})
    if secret is None:
        say(f"secret  {made['secret']}  (it is not shown again)")


@app.command("enable")
def enable(subscriber: Which) -> None:
    """Tell it again of what happens from now on."""
    switch(subscriber, True)


@app.command("disable")
def disable(subscriber: Which) -> None:
    """Tell it of nothing new; what waits for it goes on waiting until it is enabled again."""
    switch(subscriber, False)


def switch(subscriber: str, on: bool) -> None:
    with installation().writing() as session:
        row = find(session, subscriber)
        row.enabled = on
        name = row.name
    say(f"{name} is {'enabled' if on else 'disabled'}")


@app.command("delete")
def delete(
    subscriber: Which,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a subscriber; what waits for it is cancelled, what was delivered stays visible."""
    from clarion.outbox import delete_subscriber

    here = installation()
    with here.reading() as session:
        row = find(session, subscriber)
        name, uuid = row.name, str(row.uuid)
    if not yes:
        typer.confirm(f"Delete {name} ({uuid})?", abort=True)
    with here.writing() as session:
        cancelled = delete_subscriber(session, find(session, uuid), now())
    say(f"{name} is deleted; {cancelled} deliveries were cancelled")


@app.command("ping")
def ping(subscriber: Which, json: AsJson = False) -> None:
    """Send it a signed ping now, past the outbox, and show what it answers. Fails if it does not take it."""
    import asyncio

    from clarion.egress import Egress
    from clarion.messages import Answer, Request, Response
    from clarion.outcomes import Delivered

    here = installation()
    with here.reading() as session:
        row = find(session, subscriber)
        if row.hidden:
            raise Conflict(f"{row.name} is told of telemetry only; try: clarion telemetry verify")
        deliveree = row.deliveree()
    message = ping_message()

    async def send(request: Request) -> Answer:
        async with Egress(here.settings.egress, connections=1) as egress:
            return await egress.send(request)

    answer = asyncio.run(send(deliveree.request([message], now())))
    outcome = deliveree.judge([message], answer, now())[0]
    delivered = isinstance(outcome, Delivered)
    said = answer.body.decode("utf-8", "replace") if isinstance(answer, Response) else answer.message
    found = {
        "id": message.id,
        "delivered": delivered,
        "status": answer.status if isinstance(answer, Response) else None,
        "milliseconds": round(answer.elapsed * 1000),
        "answer": said,
    }
    if json:
        print_json(found)
    else:
        facts(found)
    if not delivered:
        raise typer.Exit(1)


def ping_message() -> "Message":
    """A message that says nothing but that it came; no event, and in no catalogue."""
    import json

    from uuid_utils.compat import uuid7

    from clarion.anonymous import iso
    from clarion.messages import Message

    uuid, at = uuid7(), now()
    payload = {
        "uuid": str(uuid),
        "type": "ping",
        "timestamp": iso(at),
        "summary": "Ping",
        "schema_version": 1,
    }
    return Message(uuid, "ping", at, None, 1, json.dumps(payload))


def find(session: "Session", named: str) -> "Subscriber":
    """The subscriber whose uuid is, or begins with, ``named``.

    Raises:
        NotFound: there is none.
        InvalidInput: there are several, or it is nothing a uuid begins with.
    """
    from sqlalchemy import String, cast, func, select

    from clarion.subscriptions import Subscriber

    digits = named.lower().replace("-", "")
    if not digits or len(digits) > 32 or set(digits) - set("0123456789abcdef"):
        raise InvalidInput(f"{named!r} is not a subscriber's uuid, nor how one begins")
    text = func.replace(cast(Subscriber.uuid, String), "-", "")
    found = session.scalars(select(Subscriber).where(text.startswith(digits)).limit(2)).all()
    if not found:
        raise NotFound(f"there is no subscriber {named}; see: clarion subscribers list --all")
    if len(found) > 1:
        raise InvalidInput(f"several subscribers' uuids begin with {named}; give more of it")
    return found[0]


def standing(session: "Session", subscriber_id: int) -> dict[str, int]:
    """How many deliveries are in each state."""
    from sqlalchemy import func, select

    from clarion.outbox import Delivery

    query = select(Delivery.state, func.count()).where(Delivery.subscriber_id == subscriber_id)
    rows = session.execute(query.group_by(Delivery.state).order_by(Delivery.state))
    return {row[0]: row[1] for row in rows}


def describe(row: "Subscriber") -> dict[str, Any]:
    """A subscriber as plain values, without what must stay secret."""
    hidden = {"id", *SECRETS}
    values = {
        attribute.key: getattr(row, attribute.key)
        for attribute in type(row).__mapper__.column_attrs
        if attribute.key not in hidden and not attribute.key.endswith("_id")
    }
    subscriptions = [{"pattern": s.pattern, "scope": s.scope} for s in row.subscriptions]
    return {**values, "uuid": str(row.uuid), "subscriptions": subscriptions}


def wants(described: dict[str, Any]) -> list[str]:
    return sorted(
        one["pattern"] + (f" in {one['scope']}" if one["scope"] else "") for one in described["subscriptions"]
    )
