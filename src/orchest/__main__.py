"""The platform's commands: ``python -m orchest run``."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from clarion.cli.faults import of_the_database
from clarion.errors import ClarionError
from orchest.server import prepare, serve
from orchest.settings import read_settings
from orchest.tokens import make_token

PORT = 8470

app = typer.Typer(
    help="Orchest: data pipelines that tell what happens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def say(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


@app.command()
def run(
    host: Annotated[
        str, typer.Option(help="The address to bind; any but loopback needs a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="PORT", min=0, max=65535, help="The port; 0 takes a free one.")
    ] = PORT,
) -> None:
    """Start the platform: API, pages, relay and executor. Prints its address once it answers."""
    raise typer.Exit(serve(host, port, read_settings(), say))


@app.command()
def token() -> None:
    """Make a new access token and print it. The one before is no longer taken, after a restart."""
    platform = prepare(read_settings(), f"http://localhost:{PORT}")
    with platform.sessions.begin() as session:
        made = make_token(session, platform.site.clock())
    platform.close()
    say(made)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(context: typer.Context) -> None:
    """Run the example project against a local receiver, and show every event and delivery."""
    if find_spec("orchest.demo") is None:
        raise ClarionError("there is no demo in this checkout")
    raise typer.Exit(import_module("orchest.demo").main(context.args))


def main() -> None:
    try:
        app()
    except ClarionError as error:
        said = error.message
    except SQLAlchemyError as error:
        if (found := of_the_database(error)) is None:
            raise
        said = found
    else:
        return
    typer.echo(said, err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
