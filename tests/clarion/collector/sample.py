"""A small schema and events that fit it, for every test and bench of the collector."""

import uuid
from typing import Any

from clarion.collector.schema import AllowList

KEY = "ck_test_key_of_orchest"
TOKEN = "look-at-everything"
GUEST = "look-at-everything-but-sql"
PROJECT = "orchest"
CREATED = "project:created"
FAILED = "project:cron-job:run:failed"


def _closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _whole(event: dict[str, Any]) -> dict[str, Any]:
    schema = _closed(
        event_properties=event,
        derived_properties=_closed(duration_bucket={"enum": ["1s", "2s", "4s", "8s"]}),
        app_properties=_closed(version={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"}),
        system_properties=_closed(os={"enum": ["linux", "macos", "other"]}, cpu_count={"type": "integer"}),
        schema_version={"type": "integer", "minimum": 1},
    )
    schema["properties"]["$process_person_profile"] = {"const": False}
    schema["properties"]["$geoip_disable"] = {"const": True}
    schema["required"] += ["$process_person_profile", "$geoip_disable"]
    return schema


PSEUDONYM = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
DOCUMENT: dict[str, Any] = {
    "hash": "5d41402abc4b2a76b9719d911017c592",
    "version": 3,
    "events": {
        CREATED: {
            "description": "A project was created.",
            "source": "server",
            "schema": _whole(_closed(project=PSEUDONYM)),
        },
        FAILED: {
            "description": "A run failed.",
            "source": "server",
            "owner": "jobs team",
            "since": "1.0",
            "expires": "2027-06-01",
            "purposes": {"event_properties.trigger": "Which triggers are used."},
            "schema": _whole(
                _closed(
                    project=PSEUDONYM,
                    trigger={"enum": ["cron", "manual", "other"]},
                    step_count={"type": "integer", "minimum": 0, "maximum": 1000},
                    retried={"type": "boolean"},
                )
            ),
        },
    },
}
SCHEMA = AllowList.parse(DOCUMENT)


def properties(name: str = CREATED, **changes: Any) -> dict[str, Any]:
    """Properties that conform; ``changes`` replace keys of ``event_properties``."""
    event: dict[str, Any] = {"project": "0" * 31 + "1"}
    if name == FAILED:
        event |= {"trigger": "cron", "step_count": 3, "retried": False}
    return {
        "event_properties": event | changes,
        "derived_properties": {"duration_bucket": "2s"},
        "app_properties": {"version": "1.2.0"},
        "system_properties": {"os": "linux", "cpu_count": 2},
        "schema_version": 3,
        "$process_person_profile": False,
        "$geoip_disable": True,
    }


def event(name: str = CREATED, installation: str = "installation-1", **changes: Any) -> dict[str, Any]:
    """One PostHog event that conforms."""
    return {
        "event": name,
        "uuid": str(uuid.uuid4()),
        "distinct_id": installation,
        "timestamp": "2026-11-20T10:00:00.000Z",
        "properties": properties(name, **changes),
    }


def batch(*events: dict[str, Any]) -> dict[str, Any]:
    """A PostHog v0 batch."""
    return {"api_key": KEY, "batch": list(events)}
