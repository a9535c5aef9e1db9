"""Telemetry of this installation: where it goes, what goes along with it, and that people are told first.

Without a backend, in the settings or stored by ``clarion telemetry configure``, telemetry is off: nothing is
stored and nothing is sent.
"""

import os
from collections.abc import Callable
from pathlib import Path

import clarion
from clarion.analytics.configuring import BackendSettings, configure
from clarion.consent import NOTICE, Why, given_installation
from clarion.envelope import AppProperties, SystemProperties, detect_system, render
from clarion.errors import ConfigurationError
from clarion.telemetry import SettingReader, TelemetryState, show_notice
from orchest.platform import Platform
from orchest.settings import Settings
from orchest.site import Limits

GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
"""What the drivers of NVIDIA and AMD make where a GPU can be used."""


def app_properties(settings: Settings, limits: Limits) -> AppProperties:
    """What is said of the application."""
    return AppProperties(
        version=clarion.__version__,
        dev=settings.dev,
        cloud=settings.cloud,
        max_interactive_runs_parallelism=limits.interactive_runs,
        max_job_runs_parallelism=limits.job_runs,
        max_builds_parallelism=limits.builds,
    )


def system_properties(settings: Settings) -> SystemProperties:
    """What is said of the machine."""
    gpu = any(device.exists() for device in GPU_DEVICES) if settings.gpu is None else settings.gpu
    return detect_system(gpu=gpu, deployment=settings.deployment)


def set_up(platform: Platform, settings: Settings) -> None:
    """Configure analytics as the settings say; keep a backend that was stored, and what was decided.

    Raises:
        ConfigurationError: an unknown backend, a wrong write key, half a backend, an id that is not a UUID.
        InvalidAddress: a URL that could never be called.
    """
    given_installation(os.environ)
    app, system = app_properties(settings, platform.site.limits), system_properties(settings)
    backend = backend_of(settings)
    with platform.sessions.begin() as session:
        if backend is not None:
            configure(session, backend, app, system, platform.site.clock())
        elif (state := session.get(TelemetryState, 1)) is not None:
            state.app, state.system = render(app), render(system)
    ask_again(platform)


def backend_of(settings: Settings) -> BackendSettings | None:
    """The backend that the settings name. Raises ConfigurationError if they say only half of it."""
    if settings.telemetry_url is None and settings.telemetry_write_key is None:
        return None
    if settings.telemetry_url is None or settings.telemetry_write_key is None:
        raise ConfigurationError(
            "set both, ORCHEST_TELEMETRY_URL and ORCHEST_TELEMETRY_WRITE_KEY, or neither"
        )
    return BackendSettings(settings.telemetry_url, settings.telemetry_write_key, settings.telemetry_backend)


def give_notice(platform: Platform, say: Callable[[str], None]) -> bool:
    """Tell people what is collected, once, and note that it was: nothing was sent before.

    Returns whether it was said: not where telemetry is off anyhow; it is then said when it would be on.
    """
    if platform.analytics.telemetry.decision().why is not Why.NOTICE:
        return False
    say(NOTICE)
    with platform.sessions.begin() as session:
        show_notice(session, platform.site.clock())
    ask_again(platform)
    return True


def ask_again(platform: Platform) -> None:
    """Have this process read the stored setting at the next question."""
    if isinstance(reader := platform.analytics.telemetry.reader, SettingReader):
        reader.forget()
