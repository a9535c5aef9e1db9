"""What happens on the platform: the event types, and how to make an event from rows.

record(session, OneOffJobEvent("failed", **about_one_off_job(job, links)))
"""

from orchest.events.about import (
    about_cron_job,
    about_cron_pipeline_run,
    about_cron_run,
    about_environment,
    about_environment_build,
    about_interactive_run,
    about_jupyter_build,
    about_one_off_job,
    about_one_off_pipeline_run,
    about_pipeline,
    about_project,
    about_session,
)
from orchest.events.builds import EnvironmentEvent, EnvironmentImageBuildEvent, JupyterImageBuildEvent
from orchest.events.captures import (
    AlertShown,
    ConfirmShown,
    CronJobDuplicated,
    DebugPingEvent,
    Dialog,
    HeartbeatTrigger,
    OneOffJobDuplicated,
    PipelineSaved,
    View,
    ViewLoaded,
)
from orchest.events.catalogue import CATALOGUE
from orchest.events.changes import Change, ChangedObject, ChangeType, change, variable_changes
from orchest.events.jobs import (
    CronJobEvent,
    CronJobPipelineRunEvent,
    CronRunEvent,
    JobEvent,
    OneOffJobEvent,
    OneOffJobPipelineRunEvent,
)
from orchest.events.making import job_event, pipeline_run_event
from orchest.events.projects import PipelineEvent, ProjectEvent
from orchest.events.sessions import InteractivePipelineRunEvent, SessionEvent
from orchest.links import Links

__all__ = [
    "CATALOGUE",
    "AlertShown",
    "Change",
    "ChangeType",
    "ChangedObject",
    "ConfirmShown",
    "CronJobDuplicated",
    "CronJobEvent",
    "CronJobPipelineRunEvent",
    "CronRunEvent",
    "DebugPingEvent",
    "Dialog",
    "EnvironmentEvent",
    "EnvironmentImageBuildEvent",
    "HeartbeatTrigger",
    "InteractivePipelineRunEvent",
    "JobEvent",
    "JupyterImageBuildEvent",
    "Links",
    "OneOffJobDuplicated",
    "OneOffJobEvent",
    "OneOffJobPipelineRunEvent",
    "PipelineEvent",
    "PipelineSaved",
    "ProjectEvent",
    "SessionEvent",
    "View",
    "ViewLoaded",
    "about_cron_job",
    "about_cron_pipeline_run",
    "about_cron_run",
    "about_environment",
    "about_environment_build",
    "about_interactive_run",
    "about_jupyter_build",
    "about_one_off_job",
    "about_one_off_pipeline_run",
    "about_pipeline",
    "about_project",
    "about_session",
    "change",
    "job_event",
    "pipeline_run_event",
    "variable_changes",
]
