"""Whether telemetry may be recorded and sent: one pure decision, the same at every gate.

What says no, first of all wins. Nothing here can turn telemetry on: that takes a configured backend, a
notice that was shown, and nobody who objects.

==============================  ==========================================================
the environment                 ``TELEMETRY_DISABLED`` or ``DO_NOT_TRACK`` is set and is not a no
the environment                 ``TELEMETRY_DEBUG``: print what would be sent, send nothing
the application's own config    ``TELEMETRY_DISABLED`` is set and is not a no
a build or a test run           ``CI`` and the like, or pytest; ``TELEMETRY_DISABLED=0`` says it is meant
no configuration                no backend was ever configured
the stored setting              an administrator switched it off
no notice yet                   nobody was told yet what is collected (or not since it grew)
==============================  ==========================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from clarion.errors import ConfigurationError

NOTICE_VERSION = 2
"""Raised with every change that widens what is sent: the notice is then shown again before anything is. The
changelog names it beside the fingerprint of what is sent; with every event it goes as ``schema_version``."""

NOTICE = """\
This installation can send anonymous usage events to the people who develop it: which kinds of things
happen, counts, durations and versions. No names, paths, texts, addresses or contents; identifiers leave
only as pseudonyms under a key that stays here. `clarion telemetry preview TYPE` shows the exact bytes,
docs/privacy.md lists every field. Switch it off with `clarion telemetry disable`, TELEMETRY_DISABLED=1 or
DO_NOT_TRACK=1; what was waiting is then deleted.
"""
"""What people are shown before the first event is sent."""

NO = frozenset({"0", "false", "no", "off", "n", "f"})
"""How a variable says no; anything else that is not empty says yes, so that a slip means silence."""

RUNS_OF_MACHINES = (
    "CI",
    "CONTINUOUS_INTEGRATION",
    "BUILD_NUMBER",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "CIRCLECI",
    "TRAVIS",
    "BUILDKITE",
    "DRONE",
    "TEAMCITY_VERSION",
    "JENKINS_URL",
    "APPVEYOR",
    "BITBUCKET_BUILD_NUMBER",
    "CODEBUILD_BUILD_ID",
    "TF_BUILD",
    "PYTEST_VERSION",
)
"""What builds and test runs set: nobody uses the application there."""


DEBUG_KEY = b"shown, not sent"
"""What pseudonyms are made with while ``TELEMETRY_DEBUG`` is set; what has them is never stored."""


class Why(StrEnum):
    """What decided. A closed list, shown to people and safe as a metric label."""

    ON = "on"
    DISABLED = "TELEMETRY_DISABLED is set in the environment"
    DO_NOT_TRACK = "DO_NOT_TRACK is set in the environment"
    DEBUG = "TELEMETRY_DEBUG is set: events are printed, not sent"
    CONFIGURATION = "TELEMETRY_DISABLED is set in the application's configuration"
    MACHINE = "this is a build or a test run"
    UNCONFIGURED = "no analytics backend is configured"
    SETTING = "it was switched off"
    NOTICE = "the notice has not been shown yet"
    UNKNOWN = "the setting cannot be read"


REFUSALS = frozenset({Why.DISABLED, Why.DO_NOT_TRACK, Why.CONFIGURATION})
"""What people say against telemetry where only one process hears it. That one forgets what waits."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether telemetry is on, and what decided."""

    why: Why

    @property
    def on(self) -> bool:
        return self.why is Why.ON

    def __bool__(self) -> bool:
        return self.on


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database knows: the administrator's word, if any, and which notice was shown."""

    enabled: bool | None
    notice: int | None


def said(value: Any) -> bool | None:
    """What a variable or setting says: True, False, or None if it is not set."""
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    return None if not text else text not in NO


def given_installation(environ: Mapping[str, str], config: Mapping[str, Any] | None = None) -> UUID | None:
    """The installation's id as ``TELEMETRY_UUID`` gives it, in the environment or else in the application's
    own configuration, instead of the stored one.

    Raises:
        ConfigurationError: it is not a UUID. Any other text could say something of somebody.
    """
    for where, settings in (("", environ), (" in the application's configuration", config or {})):
        value = settings.get("TELEMETRY_UUID")
        text = "" if value is None else str(value).strip()
        try:
            if text:
                return UUID(text)
        except ValueError:
            problem = f"TELEMETRY_UUID{where} must be a UUID; `uuidgen` makes a random one"
            raise ConfigurationError(problem) from None
    return None


def run_by_machine(environ: Mapping[str, str]) -> bool:
    """Whether the environment is that of a build or of a test run."""
    return any(said(environ.get(name)) for name in RUNS_OF_MACHINES)


def objection(
    environ: Mapping[str, str], config: Mapping[str, Any] | None = None, machine: bool | None = None
) -> Why | None:
    """What in the environment or the application's configuration says no; needs no database.

    ``machine`` is what `run_by_machine` says, where that is known already.
    """
    disabled = said(environ.get("TELEMETRY_DISABLED"))
    if disabled:
        return Why.DISABLED
    if said(environ.get("DO_NOT_TRACK")):
        return Why.DO_NOT_TRACK
    if said(environ.get("TELEMETRY_DEBUG")):
        return Why.DEBUG
    if config is not None and said(config.get("TELEMETRY_DISABLED")):
        return Why.CONFIGURATION
    if disabled is None and (run_by_machine(environ) if machine is None else machine):
        return Why.MACHINE
    return None


def decide(
    environ: Mapping[str, str], config: Mapping[str, Any] | None = None, stored: Stored | None = None
) -> Decision:
    """The decision as of now. ``stored`` is None if no backend was ever configured."""
    why = objection(environ, config)
    return unobjected(stored) if why is None else Decision(why)


def unobjected(stored: Stored | None) -> Decision:
    """The decision where neither the environment nor the application's configuration has an `objection`."""
    if stored is None:
        return Decision(Why.UNCONFIGURED)
    if stored.enabled is False:
        return Decision(Why.SETTING)
    if stored.notice is None or stored.notice < NOTICE_VERSION:
        return Decision(Why.NOTICE)
    return Decision(Why.ON)
