"""``clarion telemetry canary``: whether telemetry arrives at the collector, and arrives anonymous."""

import asyncio
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clarion.cli.installation import Installation, installation, now
from clarion.cli.printing import AsJson, facts, print_json
from clarion.cli.telemetry import FAILED, OFF

if TYPE_CHECKING:
    from clarion.analytics.configuring import BackendSettings
    from clarion.analytics.verifying import Question
    from clarion.canary import Flight


def canary(
    url: Annotated[str, typer.Option(help="Where the collector runs.", envvar="CLARION_COLLECTOR_URL")],
    write_key: Annotated[
        str, typer.Option(help="A write key of the canary's own project.", envvar="CLARION_CANARY_WRITE_KEY")
    ],
    token: Annotated[
        str, typer.Option(help="An access token of the collector.", envvar="CLARION_COLLECTOR_TOKEN")
    ],
    project: Annotated[
        str, typer.Option(help="The project of the write key.", envvar="CLARION_COLLECTOR_CANARY")
    ] = "canary",
    backend: Annotated[str, typer.Option(help="posthog, posthog-v1 or segment.")] = "posthog",
    patience: Annotated[float, typer.Option(min=1, max=600, help="Seconds to wait for arrival.")] = 30.0,
    json: AsJson = False,
) -> None:
    """Send one event of every type from an installation made for it, full of markers, and look for them.

    The installation is a SQLite database in a temporary directory; the one that is configured here is not
    touched. Run it once a day. Exit status 0: all arrived and no marker did, 1: not, 3: telemetry is off.
    """
    from clarion import consent
    from clarion.analytics.configuring import BackendSettings
    from clarion.analytics.verifying import Question

    if (why := consent.objection(os.environ)) is not None:
        typer.echo(f"clarion: telemetry is off: {why.value}", err=True)
        raise typer.Exit(OFF)
    place = installation()
    logging.getLogger("clarion").addHandler(logging.NullHandler())  # values nobody can compute are expected
    found = flown(place, BackendSettings(url, write_key, backend), Question(project, token), patience)
    told: dict[str, Any] = {
        "well": found.well,
        "installation": found.installation,
        "arrived": len(found.arrived),
        "searched": found.kept,
        "missing": list(found.missing),
        "traces": list(found.traces),
    }
    if json:
        print_json(told)
    else:
        facts(told | {name: ", ".join(told[name]) or "none" for name in ("missing", "traces")})
    raise typer.Exit(0 if found.well else FAILED)


def flown(place: Installation, backend: "BackendSettings", question: "Question", patience: float) -> "Flight":
    """Have it fly. The collector's host is allowed whatever its address: who runs the command named it."""
    from clarion.addresses import EgressPolicy, parse_url
    from clarion.canary import fly
    from clarion.egress import Egress

    settings, host = place.settings, parse_url(backend.url).host
    policy = EgressPolicy.of(settings.egress_allowed_networks, (*settings.egress_allowed_hosts, host))

    async def run() -> "Flight":
        with tempfile.TemporaryDirectory(prefix="clarion-canary-") as directory:
            async with Egress(policy) as egress:
                return await fly(
                    egress,
                    Path(directory),
                    place.history,
                    place.catalogue,
                    backend,
                    question,
                    now,
                    patience=patience,
                )

    return asyncio.run(run())
