"""The plain values every service takes: where the platform is, what time it is, how much it may do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from orchest.links import Links


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many of each may be under way at once; what comes beyond waits its turn."""

    interactive_runs: int = 1
    job_runs: int = 1
    builds: int = 1

    def __post_init__(self) -> None:
        for name in ("interactive_runs", "job_runs", "builds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


@dataclass(frozen=True, slots=True)
class Site:
    """One installation, as its services see it. Services take the time from ``clock`` and nowhere else.

    ``base_url`` is the address users reach it at, ``data`` the directory in which it keeps files.
    """

    base_url: str
    data: Path
    clock: Callable[[], datetime] = utc_now
    limits: Limits = field(default_factory=Limits)

    @property
    def links(self) -> Links:
        """What makes the addresses that events lead to: ``about_project(project, site.links)``."""
        return Links(self.base_url)

    @property
    def projects(self) -> Path:
        """The directories of projects that were created without a path of their own."""
        return self.data / "projects"

    @property
    def jobs(self) -> Path:
        """Snapshots of jobs, one directory a job."""
        return self.data / "jobs"

    @property
    def runs(self) -> Path:
        """Logs and data of pipeline runs, one directory a run."""
        return self.data / "runs"

    @property
    def environments(self) -> Path:
        """Built environments, one directory an environment, one below it a build."""
        return self.data / "environments"

    @property
    def sessions(self) -> Path:
        """Logs of interactive sessions' services, one directory a session."""
        return self.data / "sessions"
