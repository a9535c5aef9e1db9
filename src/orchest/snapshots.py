"""Snapshots: the copy of a project's files that a job runs, whatever happens to the project meanwhile."""

import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clarion.errors import Conflict
from clarion.observe import log
from orchest.pipelines import STAGED
from orchest.site import Site

LEFT_OUT = frozenset({"__pycache__", ".ipynb_checkpoints"})
"""Directories that are made again by themselves."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy: its directory, and its files' size in bytes."""

    path: Path
    size: int


def take_snapshot(site: Site, source: Path, job_uuid: str) -> Snapshot:
    """Copy the files in ``source`` for a job. Links stay links; sockets, pipes and devices are left out.

    Raises:
        Conflict: a file cannot be read, or the disk is full; nothing is left.
    """
    target = site.jobs / job_uuid
    site.jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        shutil.copytree(source, target, symlinks=True, ignore=left_out)
    except (OSError, shutil.Error) as error:
        remove_snapshot(target)
        raise Conflict(f"the files of {source} could not be copied: {said(error)}") from None
    return Snapshot(target, size_of(target))


def said(error: OSError | shutil.Error) -> str:
    """The first thing that went wrong."""
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        return str(error.args[0][0][-1])
    return error.strerror or type(error).__name__


def left_out(directory: str, names: Iterable[str]) -> set[str]:
    """What is not copied of a directory."""
    skipped = set()
    for name in names:
        try:
            mode = (Path(directory) / name).lstat().st_mode
        except OSError:
            continue  # gone meanwhile; the copy says so if it is not
        plain = stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)
        if not plain or name.endswith(STAGED) or (name in LEFT_OUT and stat.S_ISDIR(mode)):
            skipped.add(name)
    return skipped


def size_of(directory: Path) -> int:
    """Bytes of the files below a directory."""
    return sum(
        (Path(parent) / name).lstat().st_size for parent, _, names in os.walk(directory) for name in names
    )


def remove_snapshot(path: Path) -> None:
    """Remove a copy that no job has; what cannot be removed is logged and left."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("files of a job are left", path=str(path), error=type(error).__name__)
