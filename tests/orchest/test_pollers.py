"""Workers that look at rows: when they look, and that neither a failure nor a long wait holds them."""

import threading
from collections.abc import Iterator
from typing import cast

import pytest

from orchest.platform import Platform
from orchest.pollers import Poller

WITHIN = 10.0


class Counting(Poller):
    """Waits for an hour between looks; each look is awaited by the test, and does what the test says."""

    kind = "counting"
    poll = 3600.0

    def __init__(self) -> None:
        super().__init__(cast(Platform, None))
        self.looks = threading.Semaphore(0)
        self.fails = False
        self.failures: list[Exception] = []

    def look(self) -> None:
        failing = self.fails
        self.looks.release()
        if failing:
            raise ValueError("nothing can be seen")

    def failed(self, error: Exception) -> None:
        super().failed(error)
        self.failures.append(error)

    def looked(self) -> bool:
        return self.looks.acquire(timeout=WITHIN)


@pytest.fixture
def poller() -> Iterator[Counting]:
    made = Counting()
    made.start()
    yield made
    made.stop()


def test_it_looks_at_once_and_when_it_is_nudged(poller: Counting) -> None:
    assert poller.looked()
    poller.nudge()
    assert poller.looked()


def test_a_look_that_fails_does_not_end_it(poller: Counting) -> None:
    assert poller.looked()
    poller.fails = True
    poller.nudge()
    assert poller.looked()
    poller.fails = False
    poller.nudge()
    assert poller.looked()
    assert [str(error) for error in poller.failures] == ["nothing can be seen"]


def test_stopping_does_not_wait_for_the_next_look(poller: Counting) -> None:
    assert poller.looked()
    poller.stop()
    assert not poller._thread.is_alive()


def test_stopping_just_before_it_looks_is_not_missed() -> None:
    """What wakes it was set before it was cleared: it asks whether to stop after that."""
    poller = Counting()

    class Stopping(threading.Event):
        def clear(self) -> None:
            poller.stopped.set()
            super().clear()

    poller._woken = Stopping()
    poller.start()
    poller._thread.join(WITHIN)
    assert not poller._thread.is_alive()
    assert not poller.looks.acquire(blocking=False)
