"""The write-ahead journal: what makes an answer mean "kept".

Lines are appended to a segment file and fsynced in groups: every request that arrived while the disk was busy
shares the next fsync. A sealed segment (``NNNN.ndjson``) is bulk loaded into the store and deleted; segments
left over from a crash are loaded at the next start. Loading is idempotent, so a crash anywhere loses nothing
and doubles nothing.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clarion.collector.files import sync_directory

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""A segment is sealed at this size ..."""

SEGMENT_SECONDS: Final = 0.5
"""... or this long after its first line, whichever comes first: the lag of the queries."""

OPEN: Final = ".open"
SEALED: Final = ".ndjson"


class StorageFailed(Exception):
    """The disk did not take the lines: nothing was promised, the client must retry."""


@dataclass(slots=True)
class _Group:
    data: list[bytes] = field(default_factory=list)
    waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = field(default_factory=list)


class Journal:
    """One writer thread over one directory. ``sealed(path)`` is called on that thread for each full segment.

    ``tail`` gives lines to add when a segment is sealed (counters that need no fsync of their own).
    """

    def __init__(
        self,
        directory: Path,
        sealed: Callable[[Path], None],
        tail: Callable[[], bytes] = lambda: b"",
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
    ) -> None:
        self._directory = directory
        self._sealed = sealed
        self._tail = tail
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._condition = threading.Condition()
        self._group = _Group()
        self._stopping = False
        self._seal_asked: list[threading.Event] = []
        self._file: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._number = 0
        self.failed = False
        """The last write failed: the service is not ready."""
        self.fsyncs = 0
        self._thread = threading.Thread(target=self._run, name="collector-journal", daemon=True)

    def recover(self) -> list[Path]:
        """Seal what a crash left open, dropping a last line cut short; every sealed segment, oldest first."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.glob(f"*{OPEN}"):
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                if len(whole) < len(data):
                    os.truncate(path, len(whole))
                path.rename(path.with_suffix(SEALED))
            else:
                path.unlink()
        found = sorted(self._directory.glob(f"*{SEALED}"))
        self._number = max((int(path.stem) for path in found), default=self._number)
        return found

    def start(self, first: int = 0) -> None:
        """Start writing. Segment numbers begin after ``first`` (the newest the store ever loaded)."""
        self._number = max(self._number, first)
        self._thread.start()

    async def append(self, lines: bytes) -> None:
        """Return when ``lines`` (whole lines) are on the disk. Raises StorageFailed."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._condition:
            if self._stopping:
                raise StorageFailed("the collector is stopping")
            self._group.data.append(lines)
            self._group.waiting.append((loop, done))
            self._condition.notify()
        await done

    def seal(self, wait: float = 10.0) -> None:
        """Seal the current segment now, so that what it holds becomes visible to queries."""
        asked = threading.Event()
        with self._condition:
            self._seal_asked.append(asked)
            self._condition.notify()
        asked.wait(wait)

    def stop(self) -> None:
        """Write what is waiting, seal the segment, end the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        deadline: float | None = None
        while True:
            with self._condition:
                if not (self._group.data or self._stopping or self._seal_asked):
                    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
                    self._condition.wait(timeout)
                group, self._group = self._group, _Group()
                asked, self._seal_asked = self._seal_asked, []
                stopping = self._stopping
            if group.data:
                self._write(group)
                deadline = deadline or time.monotonic() + self._segment_seconds
            due = deadline is not None and time.monotonic() >= deadline
            if due or asked or stopping or self._size >= self._segment_bytes:
                self._seal()
                deadline = None
            for event in asked:
                event.set()
            if stopping and not self._group.data:
                return

    def _write(self, group: _Group) -> None:
        data = b"".join(group.data)
        error: StorageFailed | None = None
        try:
            self._put(data)
            self.failed = False
        except OSError as cause:
            error = StorageFailed(cause.strerror or "the disk refused the write")
            self.failed = True
            self._abandon()
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for loop, done in group.waiting:
            by_loop.setdefault(loop, []).append(done)
        for loop, waiting in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, waiting, error)

    def _put(self, data: bytes) -> None:
        if self._file is None:
            self._open()
        assert self._file is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)
        self.fsyncs += 1
        self._size += len(data)

    def _open(self) -> None:
        self._number += 1
        self._path = self._directory / f"{self._number:012d}{OPEN}"
        self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        self._size = 0
        sync_directory(self._directory)

    def _abandon(self) -> None:
        """After a failed write or fsync, cut back to the last promised byte and never write here again."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # a cut that fails leaves one torn line, which recover() drops
            os.ftruncate(self._file, self._size)
        self._seal()

    def _seal(self) -> None:
        if self._file is None or self._path is None:
            return
        file, path, size = self._file, self._path, self._size
        self._file, self._path, self._size = None, None, 0
        with contextlib.suppress(OSError):  # counters: worth keeping, not worth failing for
            if size and (lines := self._tail()):
                os.write(file, lines)
        os.close(file)
        target = path.with_suffix(SEALED)
        try:
            path.rename(target) if size else path.unlink()
        except OSError:
            self.failed = True
            return
        if size:
            self._sealed(target)


def _settle(waiting: list[asyncio.Future[None]], error: StorageFailed | None) -> None:
    for done in waiting:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
