"""Settings, from ``CLARION_...`` variables. Only roofs (the command line, engines, apps) read them.

======================================  ====================================================================
``CLARION_DATABASE_URL``                ``sqlite:///path/to/file.db`` or ``postgresql://user@host/name``
``CLARION_APP``                         the modules that declare events and kinds of subscribers (commas)
``CLARION_MIGRATIONS``                  the application's own migrations; by default ``migrations/`` beside
                                        the first module's package
``CLARION_EGRESS_ALLOWED_NETWORKS``     private networks that webhooks may call: CIDRs, commas
``CLARION_EGRESS_ALLOWED_HOSTS``        host names that webhooks may call whatever their address, commas
``CLARION_BROKER_URL``                  the broker of the Celery engine
``CLARION_LOG_FORMAT``                  ``text`` or ``json``
``CLARION_LOG_LEVEL``                   ``debug``, ``info``, ``warning`` or ``error``
``CLARION_RELAY_IN_FLIGHT``             requests one relay has under way at once
``CLARION_RELAY_GRACE``                 seconds a relay that ends lets them go on
``CLARION_TELEMETRY_ROTATION_DAYS``     days after which telemetry's id and key are replaced (365), unless the
                                        id was given; 0: never
======================================  ====================================================================

What no variable says is looked up in the table ``[tool.clarion]`` of ``pyproject.toml`` in the current
directory, so that a checkout works by itself: ``app = ["shop.events"]``.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from clarion.addresses import EgressPolicy
from clarion.database import normalise_url
from clarion.errors import ConfigurationError

PREFIX = "CLARION_"

DATABASE_URL = "sqlite:///.data/clarion.db"

MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")

SCHEMES = ("amqp://", "amqps://", "redis://", "rediss://")


def split(value: Any) -> Any:
    """``"a, b"`` as ``("a", "b")``; what is a list already stays one."""
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)]


class Settings(BaseSettings):
    """What an installation is set to. Make one with `read_settings`, whose errors name the variable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        pyproject_toml_table_header=("tool", "clarion"),
    )

    database_url: str = DATABASE_URL
    app: Words = ()
    migrations: Path | None = None
    egress_allowed_networks: Words = ()
    egress_allowed_hosts: Words = ()
    broker_url: str | None = Field(None, repr=False)
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    relay_in_flight: int = Field(1000, ge=1, le=20_000)
    relay_grace: float = Field(20.0, ge=0, le=600)
    telemetry_rotation_days: int = Field(365, ge=0, le=36_500)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, PyprojectTomlConfigSettingsSource(settings_cls)

    @field_validator("database_url")
    @classmethod
    def check_database_url(cls, value: str) -> str:
        try:
            normalise_url(value)
        except ConfigurationError as error:
            raise ValueError(error.message) from None
        return value

    @field_validator("app")
    @classmethod
    def check_app(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not MODULE.fullmatch(name):
                raise ValueError(f"{name!r} is not a module; write dotted names such as shop.events")
        return value

    @field_validator("broker_url")
    @classmethod
    def check_broker_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(SCHEMES):
            raise ValueError(f"a broker's URL begins with {', '.join(SCHEMES)}")
        return value

    @cached_property
    def egress(self) -> EgressPolicy:
        """Where webhooks may go. Raises ConfigurationError, which names the setting."""
        return EgressPolicy.of(self.egress_allowed_networks, self.egress_allowed_hosts)

    @property
    def telemetry_rotation(self) -> timedelta | None:
        """How long telemetry's id and key stay the same; None: for ever."""
        return timedelta(days=self.telemetry_rotation_days) if self.telemetry_rotation_days else None

    @cached_property
    def shown_database_url(self) -> str:
        """The database's URL without its password."""
        return normalise_url(self.database_url).render_as_string(hide_password=True)


def read_settings(**given: Any) -> Settings:
    """The settings; ``given`` ones stand above variables and files.

    Raises:
        ConfigurationError: names the variable, what is wrong with it and what is allowed.
    """
    try:
        settings = Settings(**given)
        assert settings.egress is not None
        return settings
    except ValidationError as error:
        raise ConfigurationError("; ".join(explain(error))) from None
    except SettingsError as error:
        raise ConfigurationError(f"the settings cannot be read: {error}") from None


def explain(error: ValidationError) -> Iterator[str]:
    """One sentence for each thing that is wrong; a value that may hold a password is not repeated."""
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        variable = f"{PREFIX}{name.upper()}"
        if problem["type"] == "extra_forbidden":
            known = ", ".join(Settings.model_fields)
            yield f"[tool.clarion] has no setting {name!r}; there are {known}"
            continue
        said = problem["msg"].removeprefix("Value error, ")
        secret = name in ("database_url", "broker_url")
        yield f"{variable}: {said}" + ("" if secret else f", not {problem['input']!r}")


def import_app(modules: tuple[str, ...]) -> None:
    """Import the modules that declare an application's events and kinds of subscribers.

    The current directory is looked in too, as for ``python -m``.

    Raises:
        ConfigurationError: one of them cannot be imported; says why.
    """
    here = str(Path.cwd())
    if modules and here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigurationError(f"{PREFIX}APP: cannot import {name}: {error}") from error


def migrations_directory(settings: Settings) -> Path | None:
    """Where the application's own revisions lie; None if there is no application."""
    if settings.migrations is not None:
        return settings.migrations
    if not settings.app:
        return None
    root = settings.app[0].partition(".")[0]
    spec = importlib.util.find_spec(root)
    if spec is None or not (spec.submodule_search_locations or spec.origin):
        raise ConfigurationError(f"{PREFIX}APP: cannot find {root}")
    places = list(spec.submodule_search_locations or [])
    return Path(places[0]) / "migrations" if places else Path(str(spec.origin)).parent / "migrations"
