"""The states things can be in: closed enumerations, stored and sent by their values."""

from enum import StrEnum


class Status(StrEnum):
    """The state of a pipeline run, a step, a cron run or a build. The last three are final."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    ABORTED = "ABORTED"

    @property
    def final(self) -> bool:
        """Whether nothing leaves this state: a late or repeated transition changes nothing."""
        return self in (Status.SUCCESS, Status.FAILURE, Status.ABORTED)


class JobStatus(StrEnum):
    """The state of a job; SUCCESS, FAILURE and ABORTED are final. Only a cron job is ever PAUSED."""

    DRAFT = "DRAFT"
    PENDING = "PENDING"
    STARTED = "STARTED"
    PAUSED = "PAUSED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    ABORTED = "ABORTED"

    @property
    def final(self) -> bool:
        """Whether nothing leaves this state: a late or repeated transition changes nothing."""
        return self in (JobStatus.SUCCESS, JobStatus.FAILURE, JobStatus.ABORTED)


class SessionStatus(StrEnum):
    """The state of an interactive session. A session that has ended has no row."""

    LAUNCHING = "LAUNCHING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"


class Language(StrEnum):
    """What an environment's kernel speaks."""

    PYTHON = "python"
    R = "r"
    JULIA = "julia"
    OTHER = "other"
