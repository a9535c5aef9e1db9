"""The event of a job or a pipeline run, whichever kind it is of."""

from collections.abc import Iterable

from clarion.errors import InvalidEvent
from clarion.events import Event
from orchest.events.about import (
    about_cron_job,
    about_cron_pipeline_run,
    about_interactive_run,
    about_one_off_job,
    about_one_off_pipeline_run,
)
from orchest.events.changes import Change
from orchest.events.jobs import (
    CronJobEvent,
    CronJobPipelineRunEvent,
    OneOffJobEvent,
    OneOffJobPipelineRunEvent,
)
from orchest.events.sessions import InteractivePipelineRunEvent
from orchest.links import Links
from orchest.models import InteractiveSession, Job, PipelineRun


def job_event(
    verb: str, job: Job, links: Links, changes: Iterable[Change] | None = None, *, cron: bool | None = None
) -> OneOffJobEvent | CronJobEvent:
    """The event of ``job``. ``cron`` says of which kind it was before an update that changed that."""
    if job.is_cron if cron is None else cron:
        return CronJobEvent(verb, **about_cron_job(job, links, changes))
    return OneOffJobEvent(verb, **about_one_off_job(job, links, changes))


def pipeline_run_event(
    verb: str, run: PipelineRun, links: Links, session: InteractiveSession | None = None
) -> Event:
    """The event of ``run``; an interactive one needs the ``session`` it runs in.

    Raises:
        InvalidEvent: the run is interactive and there is no session.
    """
    if run.cron_run is not None:
        return CronJobPipelineRunEvent(verb, **about_cron_pipeline_run(run, links))
    if run.job is not None:
        return OneOffJobPipelineRunEvent(verb, **about_one_off_pipeline_run(run, links))
    if session is None:
        raise InvalidEvent(f"pipeline run {run.uuid} is interactive; say in which session it runs")
    return InteractivePipelineRunEvent(verb, **about_interactive_run(run, session, links))
