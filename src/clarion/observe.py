"""What Clarion counts and logs about itself. Importing it configures nothing."""

import logging
import os
from collections import Counter
from threading import Lock

import structlog

log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    logging.getLogger("clarion"),
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
    wrapper_class=structlog.stdlib.BoundLogger,
)
"""Key-value logging into the standard library's ``clarion`` logger; the application decides where it goes."""


class Counters:
    """Process-wide counters, by name and label. Labels are from closed lists, never from user data."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._values: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, label: str = "", amount: int = 1) -> None:
        with self._lock:
            self._values[name, label] += amount

    def value(self, name: str, label: str = "") -> int:
        with self._lock:
            return self._values[name, label]

    def begin_anew(self) -> None:
        """In a forked child: a thread that was counting stayed with the parent, and never lets go here."""
        self._lock = Lock()

    def snapshot(self) -> dict[str, dict[str, int]]:
        """Every counter as ``{name: {label: value}}``."""
        with self._lock:
            result: dict[str, dict[str, int]] = {}
            for (name, label), value in sorted(self._values.items()):
                result.setdefault(name, {})[label] = value
            return result


counters = Counters()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=counters.begin_anew)
