"""Watching a platform: a row for each event, delivery and attempt, when it happens.

All that is shown is what the platform's own API tells, but for one thing: whether a signature was good is
the receiver's word.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from orchest.client import CallFailed, Client
from orchest.tour import NOTIFICATIONS

LOOK = 0.2
"""Seconds between two looks at what is new."""
WIDTH = 100
"""Columns of a line, with a terminal and without."""
TYPE = 59
"""Columns of the longest type."""
PAGE = 200


@dataclass
class Told:
    """What was seen of one event type."""

    events: int = 0
    deliveries: int = 0
    attempts: int = 0
    delivered: int = 0
    verified: int = 0

    @property
    def complete(self) -> bool:
        """It happened, and every subscriber was told, verifiably."""
        return 0 < self.deliveries == self.delivered == self.verified


class Watcher:
    """Watches in a thread of its own, from entering to leaving the context.

    ``verified`` says how often a message, by its id, came with a good signature.
    """

    def __init__(self, client: Client, console: Console, verified: Callable[[str], int]) -> None:
        self.told: dict[str, Told] = {}
        self.failure: Exception | None = None
        """What ended the watch before its time."""
        self._client = client
        self._console = console
        self._verified = verified
        self._event = self._delivery = 0
        self._tries: dict[int, int] = {}
        """Attempts seen of each delivery that is not finished."""
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def __enter__(self) -> "Watcher":
        self._row("TIME", "#", "EVENT", "ATTEMPT", "DELIVERY", "bold")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join()

    def heading(self, text: str) -> None:
        """Begin something: what happened before stands above it."""
        with self._lock:
            if self._thread.is_alive():
                self.look()
            self._console.print(Text(f"\n== {text}", style="bold cyan"))

    @property
    def pending(self) -> int:
        """Deliveries that are not finished, as of the last look."""
        return len(self._tries)

    def _watch(self) -> None:
        try:
            while not self._stopped.wait(LOOK):
                with self._lock:
                    self.look()
            self.look()
        except (CallFailed, OSError) as error:
            self.failure = error

    def look(self) -> None:
        """Once: show what is new."""
        for event in self._new("events", lambda one: int(one["sequence"]) > self._event):
            self._event = event["sequence"]
            self._of(event).events += 1
            self._show(event, event["occurred_at"], "recorded", "", "bold")
        for delivery in self._new("deliveries", lambda one: int(one["id"]) > self._delivery):
            self._delivery = delivery["id"]
            self._of(delivery["event"]).deliveries += 1
            self._tries[delivery["id"]] = 0
        for id in sorted(self._tries):
            self._attempts(self._client.get(f"{NOTIFICATIONS}/deliveries/{id}"))

    def _new(self, what: str, fresh: Callable[[Any], bool]) -> list[Any]:
        """What is new of a list, the oldest first."""
        found = []
        for item in self._client.pages(f"{NOTIFICATIONS}/{what}", limit=PAGE):
            if not fresh(item):
                break
            found.append(item)
        return found[::-1]

    def _attempts(self, delivery: Mapping[str, Any]) -> None:
        event, seen = delivery["event"], self._tries[delivery["id"]]
        told = self._of(event)
        for attempt in delivery["tries"][seen:]:
            told.attempts += 1
            good = attempt["outcome"] == "delivered"
            answered = attempt["status"] or attempt["reason"]
            verified = good and self._verified(message_id(event)) > 0
            told.delivered += good
            told.verified += verified
            said = f"{attempt['number']}: {answered}" + (" verified" if verified else "")
            state = "delivered" if good else "pending" if attempt["outcome"] == "retry" else "dead"
            self._show(event, attempt["started_at"], said, state, "green" if verified else "yellow")
        self._tries[delivery["id"]] = len(delivery["tries"])
        if delivery["state"] != "pending":
            del self._tries[delivery["id"]]

    def _show(self, event: Mapping[str, Any], at: str, attempt: str, delivery: str, style: str) -> None:
        self._row(clock(at), str(event["sequence"]), event["type"], attempt, delivery, style)

    def _row(self, at: str, number: str, type: str, attempt: str, delivery: str, style: str) -> None:
        line = f"{at:8} {number:>4} {type:{TYPE}} {attempt:16} {delivery}"[:WIDTH].rstrip()
        self._console.print(Text(line, style=style), soft_wrap=True)

    def _of(self, event: Mapping[str, Any]) -> Told:
        return self.told.setdefault(event["type"], Told())


def message_id(event: Mapping[str, Any]) -> str:
    """The id under which an event's message is delivered."""
    return f"msg_{event['uuid'].replace('-', '')}"


def clock(at: str) -> str:
    """A time of the API as this machine's clock shows it."""
    return f"{datetime.fromisoformat(at).astimezone():%H:%M:%S}"
