"""The audit log: every look at raw events, and every change of what is kept, written down before it happens.

Who it was (the name of the access token), when, what, with which filter, and how many events or refused
values it was; never what was in them. SQL is written down as it was asked. A look that cannot be written down
does not happen. The log is a SQLite file beside the events, so that it can be read while the collector runs;
it is kept as long as events are.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from clarion.collector.ingest import stamp
from clarion.errors import ClarionError

What = Literal["live", "recent", "export", "sql", "ignore", "reopen", "purge", "erase", "backup"]
ERASED: Final = "erased"
"""Stands for an installation that was forgotten since."""

_TABLE: Final = f"""
CREATE TABLE IF NOT EXISTS looks (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, ended_at TEXT, who TEXT NOT NULL,
    what TEXT NOT NULL CHECK (what IN {get_args(What)}), project TEXT NOT NULL,
    event TEXT NOT NULL, installation TEXT NOT NULL, version TEXT NOT NULL, events INTEGER,
    detail TEXT NOT NULL DEFAULT '',
    CHECK ((ended_at IS NULL) = (events IS NULL)))
"""
_VERSION: Final = 1
LOOK_COLUMNS: Final = (
    "id",
    "at",
    "ended_at",
    "who",
    "what",
    "project",
    "event",
    "installation",
    "version",
    "events",
    "detail",
)


class NotAudited(ClarionError):
    """The look could not be written down, so nothing is shown."""

    status = 503


@dataclass(slots=True)
class Look:
    """One look at raw events, or one change. Empty filters match all; ``installation`` is the id that is
    shown, never the one it sends; ``detail`` is a refused shape, or SQL as it was asked.

    Whoever shows events adds to ``events``.
    """

    who: str
    what: What
    project: str
    event: str = ""
    installation: str = ""
    version: str = ""
    events: int = 0
    detail: str = ""


class Audit:
    """The log of one data directory. ``clock`` gives the wall time. Any thread may use it."""

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        self._path = path
        self._clock = clock
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            _migrate(connection)

    @contextmanager
    def looking(self, look: Look) -> Iterator[Look]:
        """Write down that a look begins, and when it ends how many events it was. Raises NotAudited."""
        number = self.begin(look)
        try:
            yield look
        finally:
            self.end(number, look)

    def begin(self, look: Look) -> int:
        """Write down, durably, that a look begins; its number. Raises NotAudited."""
        try:
            with self._open() as connection:
                cursor = connection.execute(
                    "INSERT INTO looks (at, who, what, project, event, installation, version, detail)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        self._now(),
                        look.who,
                        look.what,
                        look.project,
                        look.event,
                        look.installation,
                        look.version,
                        look.detail,
                    ),
                )
        except sqlite3.Error as error:
            raise NotAudited from error
        return int(cursor.lastrowid or 0)

    def end(self, number: int, look: Look) -> None:
        """Add when a look ended, and how many events it showed."""
        with self._open() as connection:
            connection.execute(
                "UPDATE looks SET ended_at = ?, events = ? WHERE id = ?", (self._now(), look.events, number)
            )

    def looks(self, most: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """The newest looks first, from before a number on; one without an end goes on, or was cut off."""
        return read_looks(self._path, most, before)

    def forget(self, project: str, installations: Sequence[str]) -> None:
        """Remove the ids of erased installations; that somebody looked stays."""
        with self._open() as connection:
            connection.executemany(
                "UPDATE looks SET installation = ? WHERE project = ? AND installation = ?",
                [(ERASED, project, one) for one in installations],
            )
            asked = connection.execute(
                "SELECT id, detail FROM looks WHERE project = ? AND detail != ''", (project,)
            )
            connection.executemany(
                "UPDATE looks SET detail = ? WHERE id = ?",
                [(ERASED, number) for number, detail in asked.fetchall() if names(detail, installations)],
            )

    def expire(self, before: str) -> int:
        """Remove looks from before a moment (``ingest.stamp`` form); how many."""
        with self._open() as connection:
            return connection.execute("DELETE FROM looks WHERE at < ?", (before,)).rowcount

    def _now(self) -> str:
        return stamp(self._clock())

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction on a connection of its own, durable when it ends; deleted bytes are overwritten."""
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            with connection:
                yield connection


def names(text: str, installations: Sequence[str]) -> bool:
    """Whether a text has the id of one of some installations in it, however it is punctuated."""
    digits = re.sub(r"[^0-9a-f]", "", text.lower())
    return any(one.replace("-", "").lower() in digits for one in installations)


def _migrate(connection: sqlite3.Connection) -> None:
    """Make the table, or rebuild one from before there were changes in the log."""
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'looks'").fetchone()
    old = connection.execute("PRAGMA user_version").fetchone()[0] < _VERSION and there
    if old:
        connection.execute("ALTER TABLE looks RENAME TO looks_before")
    connection.execute(_TABLE)
    if old:
        kept = ", ".join(name for name in LOOK_COLUMNS if name != "detail")
        connection.execute(f"INSERT INTO looks ({kept}) SELECT {kept} FROM looks_before")  # noqa: S608 -- our columns
        connection.execute("DROP TABLE looks_before")
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def read_looks(path: Path, most: int = 100, before: int | None = None) -> list[dict[str, Any]]:
    """The looks in the log at ``path``, newest first, while a collector may run; none without a log."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(
            f"SELECT {', '.join(LOOK_COLUMNS)} FROM looks WHERE id < ? ORDER BY id DESC LIMIT ?",  # noqa: S608 -- our columns
            (before if before is not None else 2**63 - 1, most),
        ).fetchall()
    return [
        {**dict(row), **{name: f"{row[name]}Z" for name in ("at", "ended_at") if row[name]}} for row in rows
    ]


def audit_file(data: Path) -> Path:
    """Where a collector's audit log lies: next to the events."""
    return data / "audit.db"
