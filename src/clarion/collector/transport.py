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


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_POSTHOG: Final = _names(
    """
    $active_feature_flags $anon_distinct_id $current_url $device_id $geoip_disable $groups $host
    $insert_id $ip $is_identified $lib $lib_version $pathname $process_person_profile $sent_at
    $session_id $set $set_once $time $timezone $timezone_offset $user_id $window_id distinct_id
    token
    """
)
_SERVER: Final = _names(
    """
    $code_file $code_fn $feature_flags_disabled $is_server $locale $node_version $os $os_distro
    $os_version $python_runtime $python_version $runtime $runtime_version
    """
)
_WEB: Final = _names(
    """
    $app_build $app_name $app_namespace $app_version $autocapture_disabled_server_side $browser
    $browser_language $browser_language_prefix $browser_type $browser_version
    $client_session_initial_pathname $client_session_initial_referring_host $config_defaults
    $configured_session_timeout_ms $console_log_recording_enabled_server_side
    $dead_clicks_enabled_server_side $device $device_manufacturer $device_model $device_type
    $event_time_override_provided $event_time_override_system_time
    $exception_capture_enabled_server_side $had_persisted_distinct_id $initial_person_info
    $initialization_time $is_sampled $lib_custom_api_host $lib_rate_limit_remaining_tokens
    $network_cellular $network_wifi $os $os_version $pageview_id $prev_pageview_duration
    $prev_pageview_id $prev_pageview_pathname $raw_user_agent $recording_status $referrer
    $referring_domain $replay_minimum_duration $replay_sample_rate $screen_dpr $screen_height
    $screen_name $screen_width $sdk_debug_current_session_duration $sdk_debug_error
    $sdk_debug_extensions_init_method $sdk_debug_extensions_init_time_ms
    $sdk_debug_replay_internal_buffer_length $sdk_debug_replay_internal_buffer_size
    $sdk_debug_retry_queue_size $sdk_debug_session_start $sdk_dist_channel $search_engine
    $session_entry_host $session_entry_pathname $session_entry_referrer
    $session_entry_referring_domain $session_entry_url $title $viewport_height $viewport_width
    $virtual_time $web_vitals_allowed_metrics $web_vitals_enabled_server_side title
    """
)
_SEGMENT: Final = frozenset({"$lib", "$lib_version"})

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

LISTED: Final = frozenset().union(*STRIPPED.values())
"""Every key on any list: names of the clients' own, so safe to show when another client sends one."""

CONTEXT: Final = _names(
    """
    active amp_id app campaign channel device groupId instanceId ip library locale location network
    os page protocols referrer screen sessionId sessionStart timezone traits userAgent userAgentData
    """
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
