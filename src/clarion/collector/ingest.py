"""From arrivals to journal lines: strip the transport, judge against the allow-list, keep or quarantine.

Pure but for the counters it adds to: no disk, no network, no clock. The value of a refused property is read
nowhere after this module.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from clarion.collector.privacy import Pseudonyms, UnknownNames
from clarion.collector.records import Count, Event, Shape, line
from clarion.collector.schema import AllowList, Fault
from clarion.collector.transport import strip, version_of
from clarion.collector.wire import Arrival

MAX_EVENT_BYTES: Final = 32 * 1024
"""Largest event kept (Segment's own limit)."""


class Ruling(StrEnum):
    """What became of one event."""

    KEPT = "kept"
    QUARANTINED = "quarantined"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Judged:
    """A ruling with the line to write. ``detail`` says why in our words, never in the client's."""

    ruling: Ruling
    lines: bytes
    detail: str = ""
    record: Event | None = None


class Judge:
    """Judges arrivals of any project against one allow-list, and counts what it takes away."""

    def __init__(self, allowed: AllowList, pseudonyms: Pseudonyms, names: UnknownNames) -> None:
        self.allowed = allowed
        self._pseudonyms = pseudonyms
        self._names = names
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """(project, name, label) to how often, since the last :meth:`drain`."""

    def batch(self, project: str, arrivals: Sequence[Arrival], now: datetime) -> list[Judged]:
        """Judge every arrival by itself: one bad event never touches the others."""
        received = stamp(now)
        return [self._judge(project, arrival, received) for arrival in arrivals]

    def drain(self, now: datetime) -> bytes:
        """The counters as journal lines; they start again from zero."""
        counts, self.counts = self.counts, Counter()
        at = stamp(now)
        return b"".join(line(Count(p, name, label, at, n)) for (p, name, label), n in counts.items())

    def _judge(self, project: str, arrival: Arrival, received: str) -> Judged:
        library = arrival.library
        for key in arrival.dropped:
            self.counts[project, "stripped", f"{library}:{key}"] += 1
        if arrival.problem:
            return self._quarantine(project, arrival, received, (Fault("", arrival.problem),))
        schema = self.allowed.events.get(arrival.event)
        if schema is None:
            return self._unknown(project, arrival, received)
        for key in strip(library, schema.top, arrival.properties):
            self.counts[project, "stripped", f"{library}:{key}"] += 1
        if not schema.allows(arrival.properties):
            faults = schema.faults(arrival.properties) or (Fault("", "not allowed"),)
            return self._quarantine(project, arrival, received, faults)
        record = self._record(project, arrival, received)
        written = line(record)
        if len(written) > MAX_EVENT_BYTES:
            return self._quarantine(project, arrival, received, (Fault("", "too large", "object", "1000+"),))
        self.counts[project, "kept", library] += 1
        return Judged(Ruling.KEPT, written, record=record)

    def _record(self, project: str, arrival: Arrival, received: str) -> Event:
        properties = arrival.properties
        app = properties.get("app_properties")
        number = properties.get("schema_version")
        return Event(
            key=self._pseudonyms.event(project, arrival.id),
            project=project,
            event=arrival.event,
            installation=self._pseudonyms.installation(project, arrival.distinct_id),
            occurred_at=stamp(arrival.occurred_at),
            received_at=received,
            library=arrival.library,
            library_version=arrival.library_version,
            app_version=version_of(app.get("version")) if isinstance(app, dict) else "",
            schema_version=number if isinstance(number, int) and 0 <= number < 2**31 else 0,
            schema_hash=self.allowed.hash[:16],
            properties=properties,
        )

    def _unknown(self, project: str, arrival: Arrival, received: str) -> Judged:
        installation = self._pseudonyms.installation(project, arrival.distinct_id)
        name = self._names.label(project, arrival.event, installation)
        return self._quarantine(project, arrival, received, (Fault("", "unknown event"),), name)

    def _quarantine(
        self, project: str, arrival: Arrival, received: str, faults: Sequence[Fault], name: str | None = None
    ) -> Judged:
        installation = self._pseudonyms.installation(project, arrival.distinct_id)
        app = arrival.properties.get("app_properties")
        version = version_of(app.get("version")) if isinstance(app, dict) else ""
        event = name if name is not None else (arrival.event if arrival.event in self.allowed.events else "")
        written = []
        for fault in faults:
            path = fault.path
            if fault.unknown_key:
                shown = self._names.label(project, fault.unknown_key, installation)
                path = f"{path}.{shown}" if path else shown
            written.append(
                line(
                    Shape(
                        project=project,
                        event=event,
                        path=path,
                        problem=fault.problem,
                        type=fault.type,
                        size=fault.size,
                        library=arrival.library,
                        library_version=arrival.library_version,
                        app_version=version,
                        installation=installation,
                        received_at=received,
                    )
                )
            )
        self.counts[project, "quarantined", faults[0].problem] += 1
        return Judged(Ruling.QUARANTINED, b"".join(written), faults[0].problem)


def stamp(moment: datetime) -> str:
    """A moment as it is stored: UTC, milliseconds, without an offset (both stores keep UTC)."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")


def rendered(record: Event) -> dict[str, Any]:
    """An event as the live tail shows it: exactly what is stored."""
    return {
        "key": record.key,
        "event": record.event,
        "project": record.project,
        "installation": record.installation,
        "occurred_at": record.occurred_at + "Z",
        "received_at": record.received_at + "Z",
        "library": record.library,
        "library_version": record.library_version,
        "app_version": record.app_version,
        "schema_version": record.schema_version,
        "properties": record.properties,
    }
