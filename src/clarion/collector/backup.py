"""A backup is one file: a tar of the data directory, made while the collector runs.

It holds what was answered until it was begun. To restore: unpack it into an empty directory and start the
collector on that.
"""

import contextlib
import io
import os
import sqlite3
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from clarion.collector.audit import Look, audit_file
from clarion.collector.journal import SEALED
from clarion.collector.service import Collector
from clarion.errors import Forbidden

PREFIX: Final = "backup-"


def make(collector: Collector, who: str) -> Path:
    """A new backup, beside the events; whoever asked for it deletes it. It is written down first.

    It holds the collector's secret, so it is for administrators. Raises Forbidden, NotAudited, Unsupported.
    """
    if who not in collector.settings.administrators:
        raise Forbidden(
            "this access token may not make a backup: see `clarion collector serve --administrator`"
        )
    data = collector.settings.data
    with collector.audit.looking(Look(who, "backup", "")), contextlib.ExitStack() as undone:
        handle, name = tempfile.mkstemp(".tar", PREFIX, data)
        undone.callback(Path(name).unlink)
        collector.flush()
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
            # The journal first: what is loaded meanwhile is in the store, and loading it twice is harmless
            for segment in sorted((data / "journal").iterdir()):
                for path in (segment, segment.with_suffix(SEALED)):  # it may be sealed by now, or loaded
                    with contextlib.suppress(FileNotFoundError):
                        _add(tar, f"journal/{path.name}", path.read_bytes())
                        break
            with collector.store.still() as path:
                tar.add(path, path.name)
            for small in ("collector.key", "keys.json", "access-tokens.sha256", "views.json"):
                if (data / small).exists():
                    tar.add(data / small, small)
            _add(tar, "audit.db", _serialized(audit_file(data)))
        undone.pop_all()
    return Path(name)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    tar.addfile(entry, io.BytesIO(content))


def _serialized(path: Path) -> bytes:
    """A SQLite file as it is in this moment, its write-ahead log included."""
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
        return connection.serialize()


def clear(data: Path) -> None:
    """Delete the backups that a crash left unfinished or nobody fetched to the end."""
    for path in data.glob(f"{PREFIX}*.tar"):
        path.unlink(missing_ok=True)
