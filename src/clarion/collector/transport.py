"""What the official clients add to an event without being asked, and how we know which client it was.

These keys describe the sender's machine, page or SDK. They are removed before an event is judged, by an
explicit list for each library, and every removal is counted. A key that is on no list stays, is then an
unknown property, and sends the event to quarantine: a client that starts to send something new is seen.
Lists read off posthog-python 7.91, posthog-node 5.70, posthog-js 1.449, posthog-js-lite 4.12,
segment-analytics-python 2.4, @segment/analytics-node 3.1, rudder-sdk-python 2.1 (tests run them all).
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from clarion.collector.schema import TRANSPORT_SWITCHES

_POSTHOG: Final = frozenset(
    [
        "$lib",
        "$lib_version",
        "$groups",
        "$session_id",
        "$window_id",
        "$device_id",
        "$active_feature_flags",
        "$set",
        "$set_once",
        "$ip",
        "token",
        "distinct_id",
        "$insert_id",
        "$time",
        "$sent_at",
        "$current_url",
        "$host",
        "$pathname",
        "$timezone",
        "$timezone_offset",
        "$process_person_profile",
        "$geoip_disable",
        "$is_identified",
        "$user_id",
        "$anon_distinct_id",
    ]
)
_SERVER: Final = frozenset(
    [
        "$os",
        "$os_version",
        "$os_distro",
        "$python_version",
        "$python_runtime",
        "$runtime",
        "$runtime_version",
        "$is_server",
        "$locale",
        "$code_fn",
        "$code_file",
        "$node_version",
        "$feature_flags_disabled",
    ]
)
_WEB: Final = frozenset(
    [
        "$os",
        "$os_version",
        "$browser",
        "$browser_version",
        "$browser_language",
        "$browser_language_prefix",
        "$device_type",
        "$device",
        "$device_model",
        "$device_manufacturer",
        "$screen_height",
        "$screen_width",
        "$screen_name",
        "$viewport_height",
        "$viewport_width",
        "$raw_user_agent",
        "$referrer",
        "$referring_domain",
        "$search_engine",
        "$session_entry_url",
        "$session_entry_host",
        "$session_entry_pathname",
        "$session_entry_referrer",
        "$session_entry_referring_domain",
        "$initial_person_info",
        "$configured_session_timeout_ms",
        "$autocapture_disabled_server_side",
        "$web_vitals_enabled_server_side",
        "$web_vitals_allowed_metrics",
        "$exception_capture_enabled_server_side",
        "$dead_clicks_enabled_server_side",
        "$recording_status",
        "$sdk_debug_replay_internal_buffer_length",
        "$sdk_debug_replay_internal_buffer_size",
        "$sdk_debug_current_session_duration",
        "$sdk_debug_session_start",
        "$sdk_debug_retry_queue_size",
        "$config_defaults",
        "$pageview_id",
        "$prev_pageview_id",
        "$prev_pageview_pathname",
        "$prev_pageview_duration",
        "$event_time_override_provided",
        "$event_time_override_system_time",
        "$console_log_recording_enabled_server_side",
        "$lib_rate_limit_remaining_tokens",
        "$client_session_initial_referring_host",
        "$client_session_initial_pathname",
        "$had_persisted_distinct_id",
        "$is_sampled",
        "$virtual_time",
        "$replay_sample_rate",
        "$replay_minimum_duration",
        "$title",
        "title",
        "$sdk_debug_error",
        "$app_version",
        "$app_build",
        "$app_name",
        "$app_namespace",
        "$network_wifi",
        "$network_cellular",
    ]
)
_SEGMENT: Final = frozenset(["$lib", "$lib_version"])

STRIPPED: Final[Mapping[str, frozenset[str]]] = {
    "posthog-python": _POSTHOG | _SERVER,
    "posthog-node": _POSTHOG | _SERVER,
    "posthog-js": _POSTHOG | _WEB,
    "posthog-js-lite": _POSTHOG | _WEB,
    "segment-python": _SEGMENT,
    "segment-node": _SEGMENT,
    "segment-js": _SEGMENT | frozenset({"path", "referrer", "search", "title", "url"}),
    "rudder-python": _SEGMENT,
    "direct": TRANSPORT_SWITCHES | frozenset({"token", "distinct_id", "$lib", "$lib_version"}),
    "other": _POSTHOG,
}
"""Library to the properties removed from its events. ``direct`` is a sender that names no library: ours."""

CONTEXT: Final = frozenset(
    [
        "active",
        "amp_id",
        "app",
        "campaign",
        "channel",
        "device",
        "groupId",
        "instanceId",
        "ip",
        "library",
        "locale",
        "location",
        "network",
        "os",
        "page",
        "protocols",
        "referrer",
        "screen",
        "sessionId",
        "sessionStart",
        "timezone",
        "traits",
        "userAgent",
        "userAgentData",
    ]
)
"""Keys of a Segment ``context``. All of it is dropped; one that is not listed is counted as ``context.*``."""

_LIBRARIES: Final[Mapping[str, str]] = {
    "posthog-python": "posthog-python",
    "posthog-node": "posthog-node",
    "web": "posthog-js",
    "posthog-js": "posthog-js",
    "js": "posthog-js-lite",
    "posthog-js-lite": "posthog-js-lite",
    "analytics-python": "segment-python",
    "segment-analytics-python": "segment-python",
    "@segment/analytics-node": "segment-node",
    "analytics.js": "segment-js",
    "@segment/analytics-next": "segment-js",
    "rudder-analytics-python": "rudder-python",
    "rudder-sdk-python": "rudder-python",
    "clarion": "direct",
}
_VERSION: Final = re.compile(r"\d{1,5}(\.\d{1,5}){0,3}(-(alpha|beta|rc)\.?\d{0,3})?\Z")


def library_of(name: object) -> str:
    """The library's name in our closed list: ``direct`` when none is named, ``other`` when unknown."""
    if name is None or name == "":
        return "direct"
    return _LIBRARIES.get(name, "other") if isinstance(name, str) else "other"


def version_of(value: object) -> str:
    """A version number, or empty: a version field must not become a way to send text."""
    return value if isinstance(value, str) and _VERSION.match(value) else ""


def strip(library: str, declared: frozenset[str], properties: dict[str, Any]) -> tuple[str, ...]:
    """Remove, in place, the listed keys that the event does not declare; the keys removed, for counting."""
    undeclared = properties.keys() - declared
    if not undeclared:
        return ()
    listed = STRIPPED[library] | TRANSPORT_SWITCHES
    removed = tuple(key for key in undeclared if key in listed)
    for key in removed:
        del properties[key]
    return removed
