"""The browser client's types are those of the platform's catalogue."""

from pathlib import Path

from clarion.cli.documents import typescript
from orchest.events import CATALOGUE

EVENTS = Path(__file__).parents[2] / "clients" / "browser" / "src" / "events.ts"


def test_the_committed_types_are_what_the_catalogue_declares() -> None:
    """Write them anew: CLARION_APP=orchest.events clarion events schema --typescript -o <the file>."""
    assert EVENTS.read_text("utf-8") == typescript(CATALOGUE)
