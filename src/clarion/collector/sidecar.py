"""Answers to what the official clients ask besides sending events, and the collector's own health.

A browser client fetches its configuration and feature flags before it sends anything; each gets the smallest
answer that says "nothing of that here", so that it goes on.
"""

import re
from typing import Any, Final

import msgspec

SIDE_ROUTES: Final = (
    "/array/<key>/config",
    "/array/<key>/config.js",
    "/flags",
    "/decide",
    "/static/<file>.js",
    "/v1/m",
)

_CONFIG: Final[dict[str, Any]] = {
    "supportedCompression": ["gzip", "gzip-js", "base64"],
    "analytics": {"endpoint": "/i/v0/e/"},
    "autocapture_opt_out": True,
    "autocaptureExceptions": False,
    "captureDeadClicks": False,
    "capturePerformance": False,
    "defaultIdentifiedOnly": True,
    "elementsChainAsString": True,
    "hasFeatureFlags": False,
    "heatmaps": False,
    "isAuthenticated": False,
    "sessionRecording": False,
    "siteApps": [],
    "surveys": False,
    "toolbarParams": {},
}
_FLAGS: Final = _CONFIG | {
    "config": {"enable_collect_everything": False},
    "featureFlags": {},
    "featureFlagPayloads": {},
    "flags": {},
    "errorsWhileComputingFlags": False,
}
_SCRIPT: Final = b"application/javascript; charset=utf-8"
_JSON: Final = b"application/json"
_ARRAY: Final = re.compile(r"/array/[^/]{1,64}/config(\.js)?\Z")
_STATIC: Final = re.compile(r"/static/[\w./-]{1,128}\.js\Z")
_SETTINGS: Final = re.compile(r"/v1/projects/[^/]{1,64}/settings\Z")


def side_answer(route: str) -> tuple[bytes, bytes] | None:
    """(body, content type) for a side request; None when the route is not one."""
    if found := _ARRAY.match(route):
        return (b"", _SCRIPT) if found.group(1) else (msgspec.json.encode(_CONFIG), _JSON)
    if route in ("/flags", "/decide"):
        return msgspec.json.encode(_FLAGS), _JSON
    if _STATIC.match(route):
        return b"", _SCRIPT
    if route == "/v1/m":  # how a Segment client itself does: taken so that it is content, and not kept
        return b'{"success":true}', _JSON
    if _SETTINGS.match(route):
        return b'{"integrations":{"Segment.io":{}}}', _JSON
    return None


def metrics(collector: Any) -> bytes:
    """Prometheus text: answers by wire format and status, journal, loader, store."""
    lines = ["# TYPE collector_requests_total counter"]
    for (form, status), count in sorted(collector.answers.items()):
        lines.append(f'collector_requests_total{{format="{form}",status="{status}"}} {count}')
    for name, kind, value in (
        ("collector_events_loaded_total", "counter", collector.loader.loaded),
        ("collector_events_duplicate_total", "counter", collector.loader.duplicates),
        ("collector_journal_fsyncs_total", "counter", collector.journal.fsyncs),
        ("collector_journal_failing", "gauge", int(collector.journal.failed)),
        ("collector_store_failing", "gauge", int(collector.loader.failing)),
        ("collector_backlog_bytes", "gauge", collector.loader.backlog),
        ("collector_store_bytes", "gauge", collector.store.size()),
        ("collector_tails", "gauge", len(collector.tail)),
    ):
        lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
    lines.append("# TYPE collector_answer_seconds histogram")
    took = collector.took
    for bound, count in took.cumulative():
        lines.append(f'collector_answer_seconds_bucket{{le="{bound}"}} {count}')
    lines.append(f'collector_answer_seconds_bucket{{le="+Inf"}} {took.count}')
    lines += [f"collector_answer_seconds_sum {took.total}", f"collector_answer_seconds_count {took.count}"]
    return "\n".join(lines).encode() + b"\n"
