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
            if (said := of_the_database(error)) is None:
                raise
            typer.echo(f"clarion: {said}", err=True)
            status = FAILED
        raise typer.Exit(status)


def of_the_database(error: Exception) -> str | None:
    """A database's error as a sentence with what to do; None if it is another kind of error."""
    from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

    if not isinstance(error, DBAPIError):
        return None
    said = str(error.orig).strip().splitlines()[0] if error.orig else type(error).__name__
    missing = isinstance(error, OperationalError | ProgrammingError) and (
        "no such table" in said or "no such column" in said or "does not exist" in said
    )
    if missing and not said.startswith("connection"):
        return f"the database is not up to date ({said}); run: clarion migrate"
    if isinstance(error, OperationalError):
        return f"the database does not answer ({said}); see CLARION_DATABASE_URL and: clarion doctor"
    return f"the database refuses: {said}"


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
