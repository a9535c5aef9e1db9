"""``clarion telemetry``: whether it is on and why, what it sends, and how to stop it."""

import os
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clarion.cli.installation import Installation, installation, now
from clarion.cli.printing import AsJson, facts, print_json, say, table
from clarion.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from clarion.analytics.capturing import Analytics
    from clarion.analytics.verifying import Question, Verified
    from clarion.consent import Decision
    from clarion.telemetry import TelemetryState

app = typer.Typer(help="What telemetry sends, and switching it on and off.", no_args_is_help=True)

OFF, FAILED = 3, 1
"""Exit statuses: telemetry is off; something did not arrive."""

Type = Annotated[str, typer.Argument(metavar="TYPE", help="An event type, such as project:created.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def decided(state: "TelemetryState | None") -> "Decision":
    from clarion import consent

    return consent.decide(os.environ, None, None if state is None else state.stored)


def configured(session: "Session") -> "TelemetryState | None":
    from clarion.telemetry import TelemetryState

    return session.get(TelemetryState, 1)


@app.command("status")
def status(json: AsJson = False) -> None:
    """Say whether telemetry is on, and what decided. Exit status 0: on, 3: off."""
    from clarion.backlog import TOO_LONG, overdue
    from clarion.telemetry import rotates_at

    place = installation()
    with place.reading() as session:
        state = configured(session)
        decision = decided(state)
        report: dict[str, Any] = {"on": decision.on, "why": decision.why.value}
        if state is not None:
            report |= about(session, state)
            report["id replaced"] = rotates_at(state, place.settings.telemetry_rotation)
        if (late := overdue(session, now())) is not None:
            report["warning"] = TOO_LONG.format(hours=late // timedelta(hours=1))
    if place.settings.app:
        from clarion.registry import telemetry_document

        report["schema"] = telemetry_document(place.catalogue)["hash"]
    if json:
        print_json(report)
    else:
        if lost := report.get("lost"):
            report["lost"] = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        facts(report)
    raise typer.Exit(0 if decision.on else OFF)


def about(session: "Session", state: "TelemetryState") -> dict[str, Any]:
    from sqlalchemy import func, select

    from clarion.backlog import oldest_waiting
    from clarion.losses import KIND, losses
    from clarion.outbox import Delivery
    from clarion.subscriptions import Subscriber
    from clarion.telemetry import installation_of

    ours = select(Subscriber.id).where(Subscriber.kind == KIND).scalar_subquery()
    counted = select(Delivery.state, func.count(), func.max(Delivery.finished_at)).where(
        Delivery.subscriber_id == ours
    )
    states = {name: (count, last) for name, count, last in session.execute(counted.group_by(Delivery.state))}
    return {
        "backend": state.backend,
        "url": state.url,
        "installation": str(installation_of(state)),
        "waiting": states.get("pending", (0, None))[0],
        "refused": states.get("dead", (0, None))[0],
        "lost": losses(session) or None,
        "oldest waits since": oldest_waiting(session),
        "last sent": states.get("delivered", (0, None))[1],
        "notice shown": state.notice_at,
    }


@app.command("show")
def show(
    type: Annotated[str | None, typer.Argument(metavar="[TYPE]", help="Only this event type.")] = None,
    json: AsJson = False,
) -> None:
    """List every property telemetry may carry: the class of its data, what it is and what it is for."""
    from clarion.losses import telemetry_types
    from clarion.registry import registry

    types = telemetry_types(installation().catalogue)
    if type is not None:
        types[type]  # NotFound names similar ones
    snapshot = registry(types)
    chosen = {name: entry for name, entry in snapshot["events"].items() if type in (None, name)}
    if json:
        print_json({**snapshot, "events": chosen})
        return
    rows = [
        (name, prop, entry["classification"], entry["doc"], entry["purpose"])
        for name, event in chosen.items()
        for group in ("event_properties", "derived_properties")
        for prop, entry in event[group].items()
    ]
    if type is None:
        rows += [
            ("(every event)", prop, entry["classification"], entry["doc"], entry["purpose"])
            for entries in snapshot["envelope"].values()
            for prop, entry in entries.items()
        ]
    columns = ("EVENT", "PROPERTY", "CLASS", "WHAT IT IS", "WHAT IT IS FOR")
    table(columns, rows, empty="nothing is declared")


@app.command("preview")
def preview(
    type: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="An example of this type, instead of what waits.")
    ] = None,
) -> None:
    """Print the exact bytes that would be sent now: the next request, or an example of one type."""
    from clarion.analytics.previewing import preview as bytes_of

    place = installation()
    with place.engine(read_only=True) as engine:
        typer.echo(bytes_of(analytics(place, engine), type))


def analytics(place: Installation, engine: Any) -> "Analytics":
    from clarion.analytics.capturing import Analytics

    return Analytics(engine, types=place.catalogue, clock=now)


@app.command("log")
def log(
    limit: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many, newest first.")] = 20,
    json: AsJson = False,
) -> None:
    """Show what was sent last, or given up, with its content."""
    from json import loads

    from clarion.analytics.previewing import finished

    with installation().reading() as session:
        rows = [
            {
                "finished": delivery.finished_at,
                "state": delivery.state,
                "type": message.type,
                "telemetry": None if message.telemetry is None else loads(message.telemetry),
            }
            for message, delivery in finished(session, limit)
        ]
    if json:
        print_json(rows)
        return
    listed = [(row["finished"], row["state"], row["type"], row["telemetry"]) for row in rows]
    table(("WHEN", "STATE", "EVENT", "CONTENT"), listed, empty="nothing was sent yet")


@app.command("enable")
def enable() -> None:
    """Show what is collected, and switch telemetry on."""
    from clarion.consent import NOTICE
    from clarion.telemetry import switch

    with installation().writing() as session:
        say(NOTICE)
        switch(session, True, now())
        decision = decided(configured(session))
    say("Telemetry is on." if decision.on else f"It is still off: {decision.why.value}.")
    raise typer.Exit(0 if decision.on else OFF)


@app.command("disable")
def disable() -> None:
    """Switch telemetry off and delete what waits. Nothing is sent to say so."""
    from clarion.telemetry import switch

    with installation().writing() as session:
        if configured(session) is None:
            say("Telemetry is off: no analytics backend is configured.")
            return
        dropped = switch(session, False, now())
    say(f"Telemetry is off. Messages that waited and were deleted: {dropped}.")


@app.command("reset-id")
def reset_id(yes: Yes = False) -> None:
    """Make a new installation id and a new key, linked to the old ones by nothing.

    `clarion prune` and the platform do so by themselves once a year (CLARION_TELEMETRY_ROTATION_DAYS).
    """
    from clarion.telemetry import reset_identity

    confirm(yes, "What waits is deleted, and pseudonyms will no longer match earlier ones. Go on?")
    with installation().writing() as session:
        say(f"The installation is now {reset_identity(session, now())}.")


@app.command("purge")
def purge(yes: Yes = False) -> None:
    """Delete every telemetry message that was not sent."""
    from clarion.backlog import purge as forget_all

    confirm(yes, "Telemetry that waits or was refused is deleted. Go on?")
    with installation().writing() as session:
        say(f"Deleted: {forget_all(session)}.")


def confirm(yes: bool, question: str) -> None:
    if not yes:
        typer.confirm(question, abort=True)


@app.command("configure")
def configure(
    url: Annotated[str, typer.Option(help="The backend's URL, such as https://telemetry.example.com.")],
    write_key: Annotated[str, typer.Option(help="The key that may only write.", envvar="CLARION_WRITE_KEY")],
    backend: Annotated[
        str, typer.Option(help="posthog (our collector too), posthog-v1 or segment.")
    ] = "posthog",
) -> None:
    """Say where telemetry goes. Nothing is sent before `clarion telemetry enable`."""
    from clarion.analytics.configuring import BackendSettings
    from clarion.analytics.configuring import configure as set_up
    from clarion.envelope import AppProperties, detect_system

    with installation().writing() as session:
        before = configured(session)
        said = None if before is None else (before.app, before.system)
        settings = BackendSettings(url, write_key, backend)
        state = set_up(session, settings, AppProperties(), detect_system(), now())
        if said is not None:  # what the application itself said stays
            state.app, state.system = said
    say("Telemetry is configured; switch it on with: clarion telemetry enable")


@app.command("verify")
def verify(
    project: Annotated[
        str | None, typer.Option(help="The collector's project.", envvar="CLARION_COLLECTOR_PROJECT")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="An access token of the collector.", envvar="CLARION_COLLECTOR_TOKEN"),
    ] = None,
    patience: Annotated[float, typer.Option(min=1, max=600, help="Seconds to wait for arrival.")] = 30.0,
    json: AsJson = False,
) -> None:
    """Send one example of every type to the backend, and say which arrived, anonymous, after how long.

    Arrival can only be asked of our own collector. Exit status 0: all is well, 1: not, 3: telemetry is off.
    """
    from clarion.analytics.verifying import Question

    if (project is None) != (token is None):
        raise InvalidInput("to ask what arrived, give both --project and --token")
    question = None if project is None or token is None else Question(project, token)
    results = verified(installation(), question, patience)
    if json:
        print_json([asdict(one) | {"well": one.well} for one in results])
    else:
        rows = [(r.type, r.arrived, r.anonymous, lag(r), r.problem) for r in results]
        table(("EVENT", "ARRIVED", "ANONYMOUS", "LAG", "PROBLEM"), rows, empty="there are no event types")
    raise typer.Exit(0 if all(one.well for one in results) else FAILED)


def lag(result: "Verified") -> str:
    return "" if result.lag is None else f"{result.lag:.2f} s"


def verified(place: Installation, question: "Question | None", patience: float) -> "list[Verified]":
    import asyncio

    from clarion.analytics.verifying import verify as send_one_of_each
    from clarion.deliverees.analytics import deliveree_of
    from clarion.egress import Egress

    with place.reading() as session:
        state = configured(session)
        if state is None:
            raise NotFound("telemetry is not configured: there is no analytics backend to send to")
        if not (decision := decided(state)):
            typer.echo(f"clarion: telemetry is off: {decision.why.value}", err=True)
            raise typer.Exit(OFF)
        deliveree = deliveree_of(state)

    async def run() -> "list[Verified]":
        async with Egress(place.settings.egress) as egress:
            return await send_one_of_each(
                egress, deliveree, place.catalogue, now, question, patience=patience
            )

    return asyncio.run(run())
