"""Workers that look at rows, in a thread of their own: whenever they are nudged, and every so often."""

import threading
from abc import ABC, abstractmethod
from typing import ClassVar

from clarion.observe import log
from orchest.owners import new_owner
from orchest.platform import Platform


class Poller(ABC):
    """A `Worker`. A look that fails is logged, and made again."""

    kind: ClassVar[str]
    """What it is, for its thread and the log."""
    poll: ClassVar[float]
    """Seconds between two looks, when nothing nudges."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.owner = new_owner()
        self.stopped = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=self.kind, daemon=True)

    @abstractmethod
    def look(self) -> object:
        """Once: see what is to be done."""

    def turn(self) -> float:
        """`look`, and say in how many seconds it is worth looking again."""
        self.look()
        return self.poll

    def failed(self, error: Exception) -> None:
        """A look failed. It is made again."""
        log.error("looking failed; trying again", kind=self.kind, exc_info=error)

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        """Look no more, and return when the last look is over."""
        self.stopped.set()
        self._woken.set()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            self._woken.clear()
            if self.stopped.is_set():
                return
            wait = self.poll
            try:
                wait = self.turn()
            except Exception as error:  # a worker that ended would be missed by nobody until much later
                self.failed(error)
            self._woken.wait(wait)
