"""``clarion migrate`` and ``clarion migrations``: the database's schema, and the revisions that make it."""

from typing import Annotated

import typer

from clarion.cli.installation import installation
from clarion.cli.printing import say
from clarion.errors import InvalidInput

app = typer.Typer(help="Write revisions for what the application declares, and check that none is missing.")


def migrate(
    to: Annotated[
        str, typer.Option("--to", metavar="REVISION", help="How far: a revision, or heads for all.")
    ] = "heads",
    back_to: Annotated[
        str,
        typer.Option(
            "--back-to",
            metavar="REVISION",
            help="Go back instead, such as to shop@-1 (one) or shop@base (all); what goes is lost.",
        ),
    ] = "",
) -> None:
    """Bring the database up to date: Clarion's tables, then the application's.

    Makes a SQLite file that is not there yet. Processes that migrate at once wait for each other, and
    if something fails nothing has changed.
    """
    from clarion.migrations.history import downgrade, upgrade

    if back_to and to != "heads":
        raise InvalidInput("give either --to or --back-to")
    here = installation()
    if back_to:
        with here.engine() as engine:
            downgrade(here.history, engine, back_to)
        say(f"{here.settings.shown_database_url} is back to {back_to}")
        return
    with here.engine(create=True) as engine:
        steps = upgrade(here.history, engine, to)
    for step in steps:
        say(f"{step.revision}  {step.message}")
    done = f"took {len(steps)} steps" if steps else "was up to date"
    say(f"{here.settings.shown_database_url} {done}")


@app.command("revision")
def revision(
    message: Annotated[
        str, typer.Option("--message", "-m", help="What it is for, in a few words; part of its file's name.")
    ],
) -> None:
    """Write a revision with what is declared and in no revision yet: event types, columns, tables.

    It is compared with what the newest revision makes, in memory; the database is not touched.
    Read the file before you commit it.
    """
    from clarion.migrations.history import write_revision

    if not message.strip():
        raise InvalidInput("--message: say in a few words what the revision is for")
    path = write_revision(installation().history, message.strip())
    say("nothing is missing: no revision was written" if path is None else str(path))


@app.command("check")
def check() -> None:
    """Fail, and say what differs, if something is declared that the newest revision does not make.

    The database is compared, too, if there is one. Nothing is changed anywhere.
    """
    from sqlalchemy.exc import OperationalError

    from clarion.migrations.history import examine, undeclared

    here = installation()
    wrong = [f"no revision for: {one}" for one in undeclared(here.history)]
    if wrong:
        wrong.append("write it with: clarion migrations revision -m '...'")
    name = here.settings.shown_database_url
    try:
        found = examine(here.history, here.settings.database_url)
    except OperationalError:
        say(f"{name} does not answer, so only the revisions were checked")
        found = None
    if found is not None and found.pending:
        wrong.append(
            f"{name} lacks {len(found.pending)} revisions; bring it up to date with: clarion migrate"
        )
    elif found is not None and not wrong:
        wrong += [f"{name} differs: {one}" for one in found.differences]
    for line in wrong:
        say(line)
    if wrong:
        raise typer.Exit(1)
    both = "the newest revision and the database"
    say(f"what is declared, {both} agree" if found else "what is declared and the newest revision agree")


@app.command("path")
def path() -> None:
    """Print where Clarion's own revisions lie, for the version_locations of an application's Alembic."""
    from clarion.migrations import VERSIONS

    say(str(VERSIONS))
