"""The live tail: events as they are kept, to whoever watches, and to nobody else.

Nothing is buffered for watchers who are not there, and one who reads too slowly misses events, told how many.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from clarion.collector.ingest import rendered
from clarion.collector.records import Event

QUEUE: Final = 1000
"""Most events waiting for one watcher."""

WATCHERS: Final = 50
"""Most watchers at once."""

PING_SECONDS: Final = 15.0


@dataclass(eq=False, slots=True)
class Watcher:
    """One open tail and what it wants to see; an empty filter matches everything."""

    project: str
    event: str = ""
    installations: frozenset[str] = frozenset()
    app_version: str = ""
    queue: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(QUEUE))
    missed: int = 0
    shown: int = 0

    def wants(self, record: Event) -> bool:
        """Whether an event passes the filters."""
        return (
            record.project == self.project
            and (not self.event or record.event == self.event)
            and (not self.installations or record.installation in self.installations)
            and (not self.app_version or record.app_version == self.app_version)
        )


class Tail:
    """The open tails of one collector."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    def __bool__(self) -> bool:
        return bool(self._watchers)

    def __len__(self) -> int:
        return len(self._watchers)

    def publish(self, record: Event) -> None:
        """Show one durable event to the tails that want it. Never blocks."""
        for watcher in self._watchers:
            if watcher.wants(record):
                try:
                    watcher.queue.put_nowait(record)
                except asyncio.QueueFull:
                    watcher.missed += 1

    @contextmanager
    def watching(self, watcher: Watcher) -> Iterator[Watcher]:
        """Register a tail for as long as it is open."""
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End every tail, so that the server can stop."""
        for watcher in self._watchers:
            while watcher.queue.full():
                watcher.queue.get_nowait()
            watcher.queue.put_nowait(None)


async def frames(watcher: Watcher, ping_seconds: float = PING_SECONDS) -> AsyncIterator[bytes]:
    """Server-sent events of one tail, with a comment every ``ping_seconds`` of silence."""
    yield b": watching\n\n"
    while True:
        try:
            async with asyncio.timeout(ping_seconds):
                record = await watcher.queue.get()
        except TimeoutError:
            yield b": ping\n\n"
            continue
        if record is None:
            return
        if watcher.missed:
            missed, watcher.missed = watcher.missed, 0
            yield _frame("missed", {"count": missed})
        watcher.shown += 1
        yield _frame("event", rendered(record))


def _frame(name: str, data: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
