"""What goes along with every event: two closed schemas, each property constructed for its declared type."""

import platform
from typing import Any

import pytest

from clarion import anonymous
from clarion.anonymous import Bucket, Version
from clarion.envelope import (
    SCHEMA_VERSION,
    SWITCHES,
    AppProperties,
    Deployment,
    HostOS,
    SystemProperties,
    detect_system,
    documented,
    fields_schema,
    render,
    whole_schema,
)
from clarion.errors import ConfigurationError

PARALLELISM = ("max_interactive_runs_parallelism", "max_job_runs_parallelism", "max_builds_parallelism")


def test_what_nobody_said_is_null_no_or_other() -> None:
    assert render(AppProperties()) == {
        "version": None,
        "dev": False,
        "cloud": False,
        **dict.fromkeys(PARALLELISM),
    }
    assert render(SystemProperties()) == {
        "host_os": "other",
        "gpu_enabled_instance": False,
        "deployment": "other",
    }


def test_numbers_leave_as_buckets() -> None:
    assert render(AppProperties("1.2.3", True, True, 1, 4, 37)) == {  # type: ignore[arg-type]
        "version": "1.2.3",
        "dev": True,
        "cloud": True,
        **dict(zip(PARALLELISM, ("1", "2-5", "11-50"), strict=True)),
    }


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        (AppProperties(version="ann's"), "AppProperties.version"),
        (AppProperties(dev="ann's"), "AppProperties.dev: expected bool, got str"),  # type: ignore[arg-type]
        (SystemProperties(gpu_enabled_instance=None), "SystemProperties.gpu_enabled_instance"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_value_is_told_by_its_name(properties: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{said}") as caught:
        render(properties)
    assert "ann" not in str(caught.value)


@pytest.mark.parametrize(
    ("system", "named"),
    [
        ("Linux", HostOS.LINUX),
        ("Darwin", HostOS.MACOS),
        ("Windows", HostOS.WINDOWS),
        ("AnnOS", HostOS.OTHER),
        ("", HostOS.OTHER),
    ],
)
def test_a_system_is_one_of_a_list(system: str, named: HostOS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    assert detect_system() == SystemProperties(named, False, Deployment.OTHER)
    found = detect_system(gpu=True, deployment=Deployment.KUBERNETES)
    assert found == SystemProperties(named, True, Deployment.KUBERNETES)


def test_the_system_s_schema_is_closed() -> None:
    assert {name: hint.__args__[0] for name, hint, _ in documented(AppProperties)} == {
        "version": Version | None,
        "dev": bool,
        "cloud": bool,
        **dict.fromkeys(PARALLELISM, Bucket | None),
    }
    said = {name: about.doc for name, _, about in documented(SystemProperties)}
    assert all(said.values())
    assert fields_schema(SystemProperties) == {
        "type": "object",
        "properties": {
            "host_os": {
                "enum": ["linux", "macos", "windows", "other"],
                "description": said["host_os"],
            },
            "gpu_enabled_instance": {"type": "boolean", "description": said["gpu_enabled_instance"]},
            "deployment": {
                "enum": ["package", "container", "kubernetes", "other"],
                "description": said["deployment"],
            },
        },
        "required": ["host_os", "gpu_enabled_instance", "deployment"],
        "additionalProperties": False,
    }


def test_the_application_s_schema_is_that_of_its_types() -> None:
    schema = fields_schema(AppProperties)
    for name, hint, about in documented(AppProperties):
        assert schema["properties"][name] == {**anonymous.schema(hint), "description": about.doc}
    assert schema["required"] == list(schema["properties"]) == ["version", "dev", "cloud", *PARALLELISM]


def test_an_event_s_whole_schema_is_closed() -> None:
    event, derived = {"title": "event"}, {"title": "derived"}
    properties = {
        "event_properties": event,
        "derived_properties": derived,
        "app_properties": fields_schema(AppProperties),
        "system_properties": fields_schema(SystemProperties),
        "schema_version": {"const": SCHEMA_VERSION},
        "$process_person_profile": {"const": False},
        "$geoip_disable": {"const": True},
    }
    telemetry = {"properties": {"event_properties": event, "derived_properties": derived}}
    assert whole_schema(telemetry) == {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    assert SWITCHES == {"$process_person_profile": False, "$geoip_disable": True}
