"""All commands, and how their errors are said."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clarion import __version__
from clarion.cli import (
    canary,
    collector,
    deliveries,
    docs,
    doctor,
    events,
    listen,
    migrating,
    pruning,
    relaying,
    subscribers,
    telemetry,
)
from clarion.cli.faults import of_an_extra, of_the_database
from clarion.errors import ClarionError, ConfigurationError, InvalidInput

FAILED, WRONG = 1, 2


class Commands(TyperGroup):
    """The commands, whose errors are said in one line and never as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ClarionError as error:
            typer.echo(f"clarion: {error.message}", err=True)
            status = WRONG if isinstance(error, InvalidInput | ConfigurationError) else FAILED
        except Exception as error:
            if (said := of_an_extra(error)) is not None:
                status = WRONG
            elif (said := of_the_database(error)) is not None:
                status = FAILED
            else:
                raise
            typer.echo(f"clarion: {said}", err=True)
        raise typer.Exit(status)


app = typer.Typer(
    cls=Commands,
    help="Transactional events, notifications and anonymous telemetry.",
    epilog="Settings are CLARION_... variables, or the table tool.clarion of pyproject.toml; "
    "`clarion doctor` looks at them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("migrate")(migrating.migrate)
app.add_typer(migrating.app, name="migrations")
app.command("relay")(relaying.relay)
app.add_typer(events.app, name="events")
app.add_typer(subscribers.app, name="subscribers")
app.add_typer(deliveries.app, name="deliveries")
telemetry.app.command("canary")(canary.canary)
app.add_typer(telemetry.app, name="telemetry")
app.add_typer(collector.app, name="collector")
app.command("prune")(pruning.prune)
app.command("listen")(listen.listen)
app.command("doctor")(doctor.doctor)
app.command("docs")(docs.docs)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clarion {__version__}")
        raise typer.Exit


@app.callback()
def clarion(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Transactional events, notifications and anonymous telemetry."""
