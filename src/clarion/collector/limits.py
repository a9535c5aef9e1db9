"""What holds the questions to a DuckDB file back: the one who rewrites it, and their time and memory."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import duckdb

LOOK_SECONDS: Final = 0.05
"""How often a running question is looked at."""


class QueryTooSlow(Exception):
    """A question was ended: it took too long, or too much memory."""


@contextlib.contextmanager
def ended(cursor: Any, seconds: float, too_much: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """End what a cursor runs after so many seconds, or when it is too much. Raises QueryTooSlow then."""
    done = threading.Event()

    def watch() -> None:
        end = time.monotonic() + seconds
        while not done.wait(LOOK_SECONDS):
            if time.monotonic() >= end or too_much():
                cursor.interrupt()
                return

    watcher = threading.Thread(target=watch, name="collector-question", daemon=True)
    watcher.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise QueryTooSlow from error
    finally:
        done.set()
        watcher.join()


class Gate:
    """Many readers, or one rewriter of the file."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            self._closed = True
            self._condition.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._condition:
                self._closed = False
                self._condition.notify_all()
