"""The platform's own settings, from ``ORCHEST_...`` variables; the library's are in `clarion.settings`.

========================================  ================================================================
``ORCHEST_DATA``                          the directory for files: projects, runs, logs (``.data``)
``ORCHEST_BASE_URL``                      the address users reach the platform at, for links in notifications
``ORCHEST_ALLOWED_HOSTS``                 further host names it answers to, commas
``ORCHEST_INTERACTIVE_RUNS``              interactive pipeline runs at once
``ORCHEST_JOB_RUNS``                      pipeline runs of jobs at once
``ORCHEST_BUILDS``                        image builds at once
``ORCHEST_EXECUTOR``                      ``embedded`` runs pipelines here, ``celery`` on Celery's workers
``ORCHEST_TELEMETRY_URL``                 where telemetry goes; without one, and none stored, it is off
``ORCHEST_TELEMETRY_WRITE_KEY``           the key that may only write there
``ORCHEST_TELEMETRY_BACKEND``             ``posthog`` (our collector too), ``posthog-v1`` or ``segment``
``ORCHEST_DEPLOYMENT``                    how it is run: ``package``, ``container``, ``kubernetes``, ``other``
``ORCHEST_GPU``                           whether GPUs can be used; found out where it is not set
``ORCHEST_CLOUD``                         whether we host it
``ORCHEST_DEV``                           whether its developers run it
========================================  ================================================================

The library reads some of its own at each question: ``TELEMETRY_DISABLED`` and ``DO_NOT_TRACK`` switch
telemetry off, ``TELEMETRY_UUID`` is the id it is sent under, ``TELEMETRY_DEBUG`` prints instead of sending.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from clarion.envelope import Deployment
from clarion.errors import ConfigurationError
from clarion.settings import Words
from orchest.links import Links
from orchest.site import Limits

PREFIX = "ORCHEST_"


class Settings(BaseSettings):
    """What the platform is set to. Make one with `read_settings`, whose errors name the variable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    data: Path = Path(".data")
    base_url: str | None = None
    allowed_hosts: Words = ()
    interactive_runs: int = Field(default=2, ge=1, le=100)
    job_runs: int = Field(default=2, ge=1, le=100)
    builds: int = Field(default=1, ge=1, le=100)
    executor: Literal["embedded", "celery"] = "embedded"
    telemetry_url: str | None = None
    telemetry_write_key: str | None = Field(default=None, repr=False)
    telemetry_backend: str = "posthog"
    deployment: Deployment = Deployment.OTHER
    gpu: bool | None = None
    cloud: bool = False
    dev: bool = False

    @field_validator("base_url")
    @classmethod
    def check_base_url(cls, value: str | None) -> str | None:
        if value is not None:
            Links(value)
        return value

    @property
    def limits(self) -> Limits:
        return Limits(self.interactive_runs, self.job_runs, self.builds)


def broker(url: str | None) -> str:
    """The broker of runs that Celery executes.

    Raises:
        ConfigurationError: there is none.
    """
    if url is None:
        raise ConfigurationError(
            "CLARION_BROKER_URL: name the broker that Celery uses, such as amqp://localhost"
        )
    return url


def read_settings() -> Settings:
    """The settings.

    Raises:
        ConfigurationError: names the variable, what is wrong with it and what is allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        said = [
            f"{PREFIX}{str(one['loc'][0]).upper()}: {one['msg'].removeprefix('Value error, ')}"
            f", not {one['input']!r}"
            for one in error.errors(include_url=False)
        ]
        raise ConfigurationError("; ".join(said)) from None
