"""The platform's own settings, from ``ORCHEST_...`` variables; the library's are in `clarion.settings`.

========================================  ================================================================
``ORCHEST_DATA``                          the directory for files: projects, runs, logs (``.data``)
``ORCHEST_BASE_URL``                      the address users reach the platform at, for links in notifications
``ORCHEST_ALLOWED_HOSTS``                 further host names it answers to, commas
``ORCHEST_INTERACTIVE_RUNS``              interactive pipeline runs at once
``ORCHEST_JOB_RUNS``                      pipeline runs of jobs at once
``ORCHEST_BUILDS``                        image builds at once
========================================  ================================================================
"""

from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

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

    @field_validator("base_url")
    @classmethod
    def check_base_url(cls, value: str | None) -> str | None:
        if value is not None:
            Links(value)
        return value

    @property
    def limits(self) -> Limits:
        return Limits(self.interactive_runs, self.job_runs, self.builds)


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
