"""``clarion docs``: write the generated pages, or say which are out of date."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clarion.cli.installation import installation
from clarion.cli.printing import say
from clarion.errors import InvalidInput

if TYPE_CHECKING:
    from clarion.catalogue import Catalogue

STALE = 1
REGISTRY = "reference/telemetry-registry.json"


def pages(types: "Catalogue") -> dict[str, str]:
    """Every generated file by its path below the documentation's directory."""
    from clarion.cli.pages import events_page, privacy_page
    from clarion.registry import rendered

    return {
        "privacy.md": privacy_page(types),
        "reference/events.md": events_page(types),
        REGISTRY: rendered(types),
    }


def compared(path: Path, text: str, wider: bool) -> None:
    """Say what the new registry changes; one that lets out more is only written if that is said to be meant.

    Raises:
        InvalidInput: it lets out more, with what; or the one that is there cannot be read.
    """
    from clarion.registry import Difference, difference, widening

    if not path.exists():
        return
    try:
        before, after = json.loads(path.read_text("utf-8")), json.loads(text)
        found, more = difference(before, after), widening(before, after)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InvalidInput(f"{path} cannot be read; restore it, or delete it to begin anew") from None
    if found is Difference.WIDENING and not wider:
        raise InvalidInput(
            f"telemetry would send more: {', '.join(more)}. If that is meant, say --wider here, say it in "
            "the changelog, and have the notice shown again"
        )
    if found is not Difference.NONE:
        say(f"the change of what telemetry may send is: {found}")


def docs(
    directory: Annotated[Path, typer.Option(help="Where the documentation lies.")] = Path("docs"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if a page is stale.")] = False,
    wider: Annotated[bool, typer.Option("--wider", help="Telemetry is meant to send more.")] = False,
) -> None:
    """Write the pages that are generated from the catalogue."""
    stale = 0
    made = pages(installation().catalogue)
    compared(directory / REGISTRY, made[REGISTRY], wider)
    for name, text in made.items():
        path = directory / name
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale += 1
        if check:
            say(f"stale: {path}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        say(f"wrote {path}")
    if stale == 0:
        say("every page is up to date")
    raise typer.Exit(STALE if check and stale else 0)
