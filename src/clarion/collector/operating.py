"""How the collector itself does: what it takes, refuses and keeps, and what its senders say they lost."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Final

from clarion.collector import oversight
from clarion.collector.privacy import K_DEFAULT
from clarion.collector.questions import Span, fold, iso, values_of
from clarion.collector.schema import AllowList
from clarion.collector.service import Collector
from clarion.collector.store import Store
from clarion.collector.timing import CLOCK, SKEWS

LOSSES: Final = "telemetry:events:lost"
"""The event by which applications say what they could not send."""


def drops(store: Store, span: Span, allowed: AllowList, k: int = K_DEFAULT) -> list[dict[str, Any]]:
    """What clients say they lost, by why: how many of their reports say how much, as a bucket."""
    schema = allowed.events.get(LOSSES)
    leaf: Mapping[str, Any] = schema.leaves.get("event_properties.lost", {}) if schema else {}
    reasons = [name for one in (leaf, *leaf.get("anyOf", ())) for name in one.get("properties", ())]
    if not reasons:
        return []
    paths = [("event_properties", "lost", reason) for reason in reasons]
    groups = values_of(store, span, LOSSES, paths, "v IS NOT NULL AND v != '0'")
    return [{"reason": path.rpartition(".")[2], "values": fold(values, k)} for path, values in groups.items()]


def clocks(counted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How far the clocks of senders were off, by request, from what :func:`.oversight.counters` found."""
    found = {row["label"]: row["count"] for row in counted if row["name"] == CLOCK}
    return [{"clock": name, "requests": found.get(name, 0)} for _, name in SKEWS]


def operation(collector: Collector, span: Span) -> dict[str, Any]:
    """How the collector itself does."""
    store, settings = collector.store, collector.settings
    counted = oversight.counters(store, span)
    half, most = collector.took.quantiles((0.5, 0.99))
    expired = collector.expired
    return {
        "ready": collector.ready,
        "store_failing": collector.loader.failing,
        "disk_failing": collector.journal.failed,
        "events_per_second": round(collector.rate.per_second, 2),
        "answers": [
            {"format": form, "status": status, "requests": n}
            for (form, status), n in sorted(collector.answers.items())
        ],
        "answer_seconds": {"p50": half, "p99": most},
        "loaded": collector.loader.loaded,
        "duplicates": collector.loader.duplicates,
        "fsyncs": collector.journal.fsyncs,
        "tails": len(collector.tail),
        "store_bytes": store.size(),
        "backlog_bytes": collector.loader.backlog,
        "disk_free_bytes": shutil.disk_usage(settings.data).free,
        "retention_days": settings.retention.days,
        "retention_ran": iso(expired[0]) if expired else None,
        "retention_removed": expired[1] if expired else None,
        "counters": [row for row in counted if row["name"] != CLOCK],
        "clocks": clocks(counted),
        "libraries": oversight.libraries(store, span, settings.k),
        "drops": drops(store, span, settings.schema, settings.k),
        **oversight.lags(store, span),
    }
