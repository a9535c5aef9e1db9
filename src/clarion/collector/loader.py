"""Moves sealed journal segments into the store, in order, on a thread of its own.

A segment is deleted only after the store has committed it. A store that fails is retried; meanwhile the
journal grows, and beyond a limit the collector stops promising.
"""

import contextlib
import os
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from clarion.collector.store import Store

BACKLOG_BYTES: Final = 2 * 1024**3
"""Most bytes of unloaded journal before new events are refused with 503."""

_RETRY_SECONDS: Final = (0.1, 1.0, 5.0, 15.0)
_log = structlog.get_logger(__name__)


class Loader:
    """One consumer of segments."""

    def __init__(self, store: Store, backlog_bytes: int = BACKLOG_BYTES) -> None:
        self._store = store
        self._limit = backlog_bytes
        self._queue: queue.SimpleQueue[Path | threading.Event | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._backlog = 0
        self._lock = threading.Lock()
        self.failing = False
        """The store refused the last segment offered."""
        self.loaded = 0
        self.duplicates = 0
        self._thread = threading.Thread(target=self._run, name="collector-loader", daemon=True)

    def start(self, left_over: Sequence[Path] = ()) -> None:
        """Begin, with the segments a former process left."""
        for path in left_over:
            self.offer(path)
        self._thread.start()

    def offer(self, segment: Path) -> None:
        """Queue a sealed segment."""
        with self._lock:
            self._backlog += segment.stat().st_size
        self._queue.put(segment)

    @property
    def backlog(self) -> int:
        """Bytes of journal that are not yet in the store."""
        return self._backlog

    @property
    def full(self) -> bool:
        """Whether the backlog is so large that nothing more should be promised."""
        return self._backlog > self._limit

    def wait(self, seconds: float = 10.0) -> bool:
        """Wait until everything offered so far is loaded; False when it took longer."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(seconds)

    def stop(self) -> None:
        """Load what is queued, unless the store is failing; then end. What is not loaded stays on disk."""
        self._stop.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        _yield_the_processor()
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            size = item.stat().st_size
            if self._load(item):
                with self._lock:
                    self._backlog -= size

    def _load(self, segment: Path) -> bool:
        for attempt in range(1_000_000):
            try:
                trim(segment)
                loaded = self._store.load(int(segment.stem), segment)
                segment.unlink()
            except Exception as error:  # any database fault: the segment is safe on disk, try again
                self.failing = True
                _log.error(
                    "collector_load_failed", segment=segment.name, error=type(error).__name__, attempt=attempt
                )
                if self._stop.wait(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]):
                    return False
                continue
            self.failing = False
            self.loaded += loaded.events
            self.duplicates += loaded.duplicates
            return True
        return False


def trim(segment: Path) -> None:
    """Cut a last line that was never promised: one a failing disk took only in part."""
    with segment.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0:
            return
        file.seek(end - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _yield_the_processor() -> None:
    """Let requests go first: on Linux a nice value belongs to a thread."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
