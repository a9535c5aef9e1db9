"""Workers that take what is to be done from rows, and do each in a thread of its own: builds, sessions."""

import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from clarion.observe import log
from orchest.platform import Platform
from orchest.pollers import Poller

TRIES = 60
"""How often what happened is written until the database takes it, once a second."""


class Task(Protocol):
    """What a thread of a crew does. Setting ``woken`` makes it look at its row at once."""

    @property
    def woken(self) -> threading.Event: ...


Taken = TypeVar("Taken", bound=Task)


class Crew(Poller, Generic[Taken]):
    """A `Poller`. One a process; several processes share the work through the rows."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self._active: dict[Taken, threading.Thread] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def look(self) -> None:
        """Once: see what is to be done, and `begin` it."""

    @abstractmethod
    def carry_out(self, task: Taken) -> None:
        """Do it, in a thread that ends with it; tasks look at ``stopped`` and end when it is set."""

    def nudge(self) -> None:
        super().nudge()
        for task in self.under_way():
            task.woken.set()

    def stop(self) -> None:
        """Begin nothing more, and return when what is under way has ended."""
        self.stopped.set()
        self.nudge()
        super().stop()
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
