"""What goes along with every event: the application and the machine it runs on, as two closed schemas.

Neither has a field that could hold free text; the numbers of an installation leave as buckets only.
"""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Annotated, Any, get_args, get_type_hints

from clarion import anonymous
from clarion.anonymous import Bucket, Version
from clarion.consent import NOTICE_VERSION
from clarion.errors import ConfigurationError

SCHEMA_VERSION = NOTICE_VERSION
"""The version of everything telemetry may carry: people are told anew whenever that grows."""


class HostOS(StrEnum):
    LINUX = "linux"
    MACOS = "macos"
    WINDOWS = "windows"
    OTHER = "other"


class Deployment(StrEnum):
    """How the application is run."""

    PACKAGE = "package"
    CONTAINER = "container"
    KUBERNETES = "kubernetes"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class About:
    """What a property is, and what it is collected for; in its annotation."""

    doc: str
    purpose: str


@dataclass(frozen=True, slots=True)
class AppProperties:
    """The application: its version and how it is set up."""

    version: Annotated[Version | None, About("The application's version.", "Which versions are in use.")] = (
        None
    )
    dev: Annotated[bool, About("Whether it runs from its repository.", "To leave developers out.")] = False
    cloud: Annotated[bool, About("Whether we host it.", "To tell our own installations.")] = False
    max_interactive_runs_parallelism: Annotated[
        Bucket | None,
        About("Interactive runs that may run at once, as a bucket.", "Whether the default is right."),
    ] = None
    max_job_runs_parallelism: Annotated[
        Bucket | None, About("Job runs that may run at once, as a bucket.", "Whether the default is right.")
    ] = None
    max_builds_parallelism: Annotated[
        Bucket | None, About("Builds that may run at once, as a bucket.", "Whether the default is right.")
    ] = None


@dataclass(frozen=True, slots=True)
class SystemProperties:
    """The machine, as coarsely as anything useful can be said of it."""

    host_os: Annotated[HostOS, About("The family of operating systems.", "Which ones must be supported.")] = (
        HostOS.OTHER
    )
    gpu_enabled_instance: Annotated[
        bool, About("Whether a GPU can be used.", "Whether GPU support is worth its upkeep.")
    ] = False
    deployment: Annotated[Deployment, About("How it was installed.", "Which ways to install are used.")] = (
        Deployment.OTHER
    )


def detect_system(*, gpu: bool = False, deployment: Deployment = Deployment.OTHER) -> SystemProperties:
    """This machine's properties; what is not on our list of systems is ``other``."""
    named = {"Linux": HostOS.LINUX, "Darwin": HostOS.MACOS, "Windows": HostOS.WINDOWS}
    return SystemProperties(named.get(platform.system(), HostOS.OTHER), gpu, deployment)


def render(properties: AppProperties | SystemProperties) -> dict[str, Any]:
    """The properties as they leave: each constructed for its declared type.

    Raises:
        ConfigurationError: a value is not of its type; the message names the property, never the value.
    """
    hints = get_type_hints(type(properties), include_extras=True)
    rendered = {}
    for one in fields(properties):
        try:
            rendered[one.name] = anonymous.convert(hints[one.name], getattr(properties, one.name))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{type(properties).__name__}.{one.name}: {error}") from None
    return rendered


def documented(
    cls: type[AppProperties] | type[SystemProperties],
) -> Iterator[tuple[str, Any, About]]:
    """Each property of one of the two: its name, its type, what is said about it."""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        [about] = [meta for meta in get_args(hint)[1:] if isinstance(meta, About)]
        yield name, hint, about


def fields_schema(cls: type[AppProperties] | type[SystemProperties]) -> dict[str, Any]:
    """The closed JSON Schema (2020-12) of one of the two."""
    properties = {
        name: {**anonymous.schema(hint), "description": about.doc} for name, hint, about in documented(cls)
    }
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SWITCHES: Mapping[str, bool] = {"$process_person_profile": False, "$geoip_disable": True}
"""Tell a PostHog server to make no profile of anybody and to look no address up."""


def whole_schema(telemetry: Mapping[str, Any]) -> dict[str, Any]:
    """The closed schema of one event's ``properties`` on the wire, from its type's telemetry schema."""
    parts = telemetry["properties"]
    properties = {
        "event_properties": parts["event_properties"],
        "derived_properties": parts["derived_properties"],
        "app_properties": fields_schema(AppProperties),
        "system_properties": fields_schema(SystemProperties),
        "schema_version": {"const": SCHEMA_VERSION},
        **{name: {"const": value} for name, value in SWITCHES.items()},
    }
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
