"""Telemetry that is no event of the API: what the browser and the web server send by themselves."""

from enum import StrEnum

from clarion.captured import Captured, prop
from clarion.events import Event
from orchest.events.upkeep import kept


class View(StrEnum):
    """The views of the web application."""

    PROJECTS = "projects"
    PROJECT = "project"
    PIPELINES = "pipelines"
    PIPELINE = "pipeline"
    INTERACTIVE_RUN = "interactive-run"
    JUPYTER = "jupyter"
    ENVIRONMENTS = "environments"
    ENVIRONMENT = "environment"
    JOBS = "jobs"
    JOB = "job"
    JOB_RUN = "job-run"
    LOGS = "logs"
    NOTIFICATIONS = "notifications"
    EVENTS = "events"
    TELEMETRY = "telemetry"
    SETTINGS = "settings"
    HELP = "help"
    OTHER = "other"


class Dialog(StrEnum):
    """The dialogs of the web application, alerts and questions."""

    DELETE_PROJECT = "delete-project"
    DELETE_PIPELINE = "delete-pipeline"
    DELETE_ENVIRONMENT = "delete-environment"
    DELETE_JOB = "delete-job"
    DELETE_RUN = "delete-run"
    DELETE_SUBSCRIBER = "delete-subscriber"
    CANCEL_BUILD = "cancel-build"
    CANCEL_JOB = "cancel-job"
    CANCEL_RUN = "cancel-run"
    STOP_SESSION = "stop-session"
    RESTART_SERVICE = "restart-service"
    DISCARD_CHANGES = "discard-changes"
    IMPORT_FAILED = "import-failed"
    BUILD_REQUIRED = "build-required"
    SAVE_FAILED = "save-failed"
    REQUEST_FAILED = "request-failed"
    INVALID_INPUT = "invalid-input"
    OTHER = "other"


class DebugPingEvent(Event, kind="debug-ping"):
    """A ping that shows whether the analytics backend can be reached."""

    upkeep = kept("orchest/api/pings.py", "orchest/subscribers.py")

    verbs = {"": "Ping"}


class ViewLoaded(Captured, kind="view:loaded", source="browser"):
    """A view of the web application was opened."""

    upkeep = kept("clients/browser/src/react.ts", "orchest/web/static/view.js")

    name: View = prop(doc="Which view.", purpose="Which parts of the application are used.")


class AlertShown(Captured, kind="alert:shown", source="browser"):
    """The web application told its user something."""

    upkeep = kept("orchest/web/static/view.js")

    dialog: Dialog = prop(doc="Which dialog.", purpose="Where people run into trouble.")


class ConfirmShown(Captured, kind="confirm:shown", source="browser"):
    """The web application asked its user something."""

    upkeep = kept("orchest/web/static/view.js")

    dialog: Dialog = prop(doc="Which dialog.", purpose="Which decisions people have to take.")


class HeartbeatTrigger(Captured, kind="heartbeat-trigger", source="webserver"):
    """The platform runs; sent every 15 minutes by one process of the installation."""

    upkeep = kept("orchest/heartbeat.py")

    active: bool = prop(
        doc="Whether anyone used the platform since the last one.", purpose="How many installations are used."
    )


class OneOffJobDuplicated(Captured, kind="project:one-off-job:duplicated", source="webserver"):
    """A job that runs once was copied."""

    upkeep = kept("orchest/api/jobs.py")


class CronJobDuplicated(Captured, kind="project:cron-job:duplicated", source="webserver"):
    """A job that runs on a schedule was copied."""

    upkeep = kept("orchest/api/jobs.py")


class PipelineSaved(Captured, kind="project:pipeline:saved", source="webserver"):
    """A pipeline definition was saved."""

    upkeep = kept("orchest/api/pipelines.py")
