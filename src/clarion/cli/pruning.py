"""``clarion prune``: delete what is finished and old."""

from datetime import timedelta
from typing import Annotated

import typer

from clarion.cli.installation import installation, now
from clarion.cli.printing import AsJson, facts, print_json


def prune(
    deliveries_days: Annotated[
        int, typer.Option(min=1, max=36_500, help="Days a finished delivery is kept, with its attempts.")
    ] = 90,
    events_days: Annotated[
        int | None,
        typer.Option(min=1, max=36_500, help="Days an event is kept; for ever if it is not given."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Delete finished deliveries, events and telemetry that are old; nothing that is still to be delivered.

    In small transactions, which block nobody: run it beside the application, from cron for example. If
    telemetry is on and has lost events, once a day it also stores the event that says how many. An id of
    telemetry that is a year old (CLARION_TELEMETRY_ROTATION_DAYS) is replaced, unless it was given.
    """
    from dataclasses import asdict

    from clarion.analytics.capturing import Analytics
    from clarion.analytics.reporting import report
    from clarion.retention import Kept
    from clarion.retention import prune as delete_old

    events = None if events_days is None else timedelta(days=events_days)
    place = installation()
    identity = place.settings.telemetry_rotation
    kept = Kept(timedelta(days=deliveries_days), events, identity=identity)
    with place.engine() as engine:
        pruned = asdict(delete_old(engine, now(), kept))
        report(Analytics(engine, clock=now))
    print_json(pruned) if json else facts(pruned)
