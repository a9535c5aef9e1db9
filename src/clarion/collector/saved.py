"""Saved views: a page with what was chosen on it, under a name. A JSON file beside the events.

What is kept of a query string is what pages understand. An installation in it stands there as it is shown,
and the view goes with the installation.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote_plus, urlencode

from clarion.collector.audit import names
from clarion.collector.files import changing, replace
from clarion.errors import Conflict, InvalidInput, NotFound

MOST: Final = 200
"""Views that may be kept."""
MOST_CHARACTERS: Final = 16_000
"""Longest query string."""

UNDERSTOOD: Final = frozenset(
    {"project", "days", "by", "step", "window", "event", "installation", "version", "show", "sql"}
)
"""The parameters of pages."""

_NAME: Final = re.compile(r"[^\x00-\x1f\x7f/]{1,80}\Z")
_PAGE: Final = re.compile(r"(/[a-z]+)?\Z|/events/[A-Za-z0-9:._-]{1,200}\Z")


@dataclass(frozen=True, slots=True)
class View:
    """A page below ``/ui`` and its query string."""

    name: str
    page: str
    query: str

    @classmethod
    def of(cls, name: str, page: str, query: str) -> "View":
        """A view from what somebody gave. Raises InvalidInput."""
        name = name.strip()
        if not _NAME.match(name):
            raise InvalidInput("a view's name is 1 to 80 characters without '/' and control characters")
        if not _PAGE.match(page):
            raise InvalidInput("no page of that name can be saved")
        if len(query) > MOST_CHARACTERS:
            raise InvalidInput(f"a view's query string has at most {MOST_CHARACTERS} characters")
        try:
            pairs = parse_qsl(query, max_num_fields=50)
        except ValueError as error:
            raise InvalidInput("the query string has too many parameters") from error
        return cls(name, page, urlencode([pair for pair in pairs if pair[0] in UNDERSTOOD]))


class SavedViews:
    """The views in the file at ``path``. Any thread, and any process, may change them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[View]:
        """Every view, by name."""
        try:
            entries = json.loads(self._path.read_text("utf-8"))["views"]
        except FileNotFoundError:
            return []
        return sorted((View(**entry) for entry in entries), key=lambda view: view.name.casefold())

    def save(self, view: View) -> bool:
        """Keep a view, in place of the one of that name; whether it is new. Raises Conflict: too many."""
        with changing(self._path):
            others = [one for one in self.all() if one.name != view.name]
            new = len(others) == len(self.all())
            if len(others) >= MOST:
                raise Conflict(f"{MOST} views are kept already: delete one")
            self._write([*others, view])
        return new

    def delete(self, name: str) -> None:
        """Forget a view. Raises NotFound."""
        with changing(self._path):
            left = [one for one in self.all() if one.name != name]
            if len(left) == len(self.all()):
                raise NotFound("there is no saved view of that name")
            self._write(left)

    def forget(self, installations: Sequence[str]) -> None:
        """Delete the views that name one of some installations."""
        with changing(self._path):
            views = self.all()
            left = [one for one in views if not names(f"{one.name} {unquote_plus(one.query)}", installations)]
            if len(left) < len(views):
                self._write(left)

    def _write(self, views: Sequence[View]) -> None:
        replace(self._path, json.dumps({"views": [asdict(one) for one in views]}, indent=1))
