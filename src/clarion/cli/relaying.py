"""``clarion relay``: a relay as a process of its own."""

from typing import Annotated

import typer

from clarion.cli.installation import installation, log_to_stderr


def relay(
    in_flight: Annotated[
        int | None,
        typer.Option(min=1, max=20_000, help="Requests under way at once (CLARION_RELAY_IN_FLIGHT)."),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(min=0, max=600, help="Seconds they may go on after a signal (CLARION_RELAY_GRACE)."),
    ] = None,
) -> None:
    """Deliver what is due until SIGTERM or SIGINT, beside the application; run as many as you like.

    Where it may send to is set by CLARION_EGRESS_ALLOWED_NETWORKS and CLARION_EGRESS_ALLOWED_HOSTS.
    """
    from clarion.engines.process import run_relay
    from clarion.observe import log
    from clarion.relay import Limits

    settings = installation().settings
    log_to_stderr(settings)
    limits = Limits(in_flight=in_flight or settings.relay_in_flight)
    status = run_relay(
        settings.database_url,
        settings.egress,
        limits=limits,
        grace=settings.relay_grace if grace is None else grace,
        ready=lambda: log.info("the relay runs", database=settings.shown_database_url),
    )
    raise typer.Exit(status)
