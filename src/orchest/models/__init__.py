"""The platform's tables. Times are aware UTC, uuids are texts, states are closed enumerations.

A foreign key without ``ON DELETE CASCADE`` is deliberate: what emits a ``deleted`` event must be deleted by
the service that records it, never by the database on its own.
"""

from orchest.models.base import Base, new_uuid
from orchest.models.builds import EnvironmentImageBuild, ImageBuild, JupyterImageBuild
from orchest.models.jobs import CronRun, Job
from orchest.models.projects import Environment, Pipeline, Project
from orchest.models.requests import KeptAnswer
from orchest.models.runs import PipelineRun, PipelineRunStep
from orchest.models.sessions import InteractiveSession, ServiceProcess
from orchest.models.settings import SchedulerLease, Setting
from orchest.states import JobStatus, Language, SessionStatus, Status

__all__ = [
    "Base",
    "CronRun",
    "Environment",
    "EnvironmentImageBuild",
    "ImageBuild",
    "InteractiveSession",
    "Job",
    "JobStatus",
    "JupyterImageBuild",
    "KeptAnswer",
    "Language",
    "Pipeline",
    "PipelineRun",
    "PipelineRunStep",
    "Project",
    "SchedulerLease",
    "ServiceProcess",
    "SessionStatus",
    "Setting",
    "Status",
    "new_uuid",
]
