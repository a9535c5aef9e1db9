"""``clarion docs``: write the generated pages, or say which are out of date."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clarion.cli.installation import installation
from clarion.cli.printing import say

if TYPE_CHECKING:
    from clarion.catalogue import Catalogue

STALE = 1


def pages(types: "Catalogue") -> dict[str, str]:
    """Every generated file by its path below the documentation's directory."""
    from clarion.cli.pages import events_page, privacy_page
    from clarion.registry import rendered

    return {
        "privacy.md": privacy_page(types),
        "reference/events.md": events_page(types),
        "reference/telemetry-registry.json": rendered(types),
    }


def docs(
    directory: Annotated[Path, typer.Option(help="Where the documentation lies.")] = Path("docs"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if a page is stale.")] = False,
) -> None:
    """Write the pages that are generated from the catalogue."""
    stale = 0
    for name, text in pages(installation().catalogue).items():
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
