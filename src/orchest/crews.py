"""Workers that take what is to be done from rows, and do each in a thread of its own: builds, sessions."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Generic, Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clarion.observe import log
from orchest.owners import new_owner
from orchest.platform import Platform

TRIES = 60
"""How often what happened is written until the database takes it, once a second."""


class Task(Protocol):
    """What a thread of a crew does. Setting ``woken`` makes it look at its row at once."""

    @property
    def woken(self) -> threading.Event: ...


Taken = TypeVar("Taken", bound=Task)


class Crew(ABC, Generic[Taken]):
    """A `Worker`. One a process; several processes share the work through the rows."""

    kind: ClassVar[str]
    """What it takes, for the log."""
    poll: ClassVar[float]
    """Seconds between two looks, when nothing nudges."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.owner = new_owner()
        self.stopped = threading.Event()
        self._woken = threading.Event()
        self._active: dict[Taken, threading.Thread] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name=self.kind, daemon=True)

    @abstractmethod
    def look(self) -> None:
        """Once: see what is to be done, and `begin` it."""

    @abstractmethod
    def carry_out(self, task: Taken) -> None:
        """Do it, in a thread that ends with it; tasks look at ``stopped`` and end when it is set."""

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        self._woken.set()
        for task in self.under_way():
            task.woken.set()

    def stop(self) -> None:
        """Begin nothing more, and return when what is under way has ended."""
        self.stopped.set()
        self.nudge()
        self._thread.join()
        with self._lock:
            threads = list(self._active.values())
        for thread in threads:
            thread.join()

    def under_way(self) -> list[Taken]:
        """What is being done."""
        with self._lock:
            return list(self._active)

    def begin(self, task: Taken) -> None:
        """Do it in a thread of its own."""
        thread = threading.Thread(target=self._do, args=(task,), name=self.kind, daemon=True)
        with self._lock:
            self._active[task] = thread
        thread.start()

    def _do(self, task: Taken) -> None:
        try:
            self.carry_out(task)
        except SQLAlchemyError as error:
            log.error("how it ended could not be written", kind=self.kind, exc_info=error)
        finally:
            with self._lock:
                del self._active[task]
            self._woken.set()

    def _loop(self) -> None:
        while not self.stopped.is_set():
            self._woken.clear()
            try:
                self.look()
            except (SQLAlchemyError, OSError) as error:
                log.error("looking failed; trying again", kind=self.kind, exc_info=error)
            self._woken.wait(self.poll)


def insisting(platform: Platform, change: Callable[[Session], bool]) -> bool:
    """Carry out ``change`` in a transaction, again while the database does not answer.

    Raises:
        SQLAlchemyError: it did not answer for a minute.
    """
    for tried in range(1, TRIES + 1):
        try:
            with platform.sessions.begin() as session:
                return change(session)
        except SQLAlchemyError as error:
            if tried == TRIES:
                raise
            log.warning("the database does not take what happened", error=type(error).__name__)
            time.sleep(1.0)
    raise AssertionError
