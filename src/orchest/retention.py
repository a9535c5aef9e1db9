"""Forgets old pipeline runs of jobs that keep only the newest, and tells."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchest.models import CronRun, Job, JobStatus, PipelineRun, Status
from orchest.platform import Platform
from orchest.runs import erase_run, lock_run, remove_files
from orchest.site import Site

BATCH = 20
"""Runs forgotten in one transaction, so that it is short."""
ENDED = (Status.SUCCESS, Status.FAILURE, Status.ABORTED)


def trim(platform: Platform) -> int:
    """Forget every run that is to be forgotten, with its files; how many there were."""
    with platform.readers() as session:
        jobs = session.scalars(select(Job.uuid).where(Job.max_retained_pipeline_runs >= 0)).all()
    forgotten = 0
    for job_uuid in jobs:
        while True:
            with platform.readers() as session:
                if not excess(session, job_uuid, 1):
                    break
            with platform.sessions.begin() as session:
                gone = forget(session, platform.site, job_uuid)
            remove_files(platform.site, gone)
            forgotten += len(gone)
            if not gone:
                break
    return forgotten


def forget(session: Session, site: Site, job_uuid: str) -> list[str]:
    """Delete the oldest runs of a job beyond those it keeps, a batch at most; their uuids."""
    gone = []
    for uuid in excess(session, job_uuid, BATCH):
        run = lock_run(session, uuid)
        if run is not None:
            erase_run(session, site, run)
            gone.append(uuid)
    return gone


def excess(session: Session, job_uuid: str, most: int) -> list[str]:
    """The ended runs beyond the newest that the job keeps, the oldest first.

    What has come of a batch is decided when its last run ends, so until then none of its runs is forgotten.
    """
    job = session.get(Job, job_uuid)
    if (
        job is None
        or job.max_retained_pipeline_runs < 0
        or (not job.is_cron and job.status in (JobStatus.PENDING, JobStatus.STARTED))
    ):
        return []
    ended = (PipelineRun.job_uuid == job_uuid, PipelineRun.status.in_(ENDED))
    count = session.scalar(select(func.count()).select_from(PipelineRun).where(*ended)) or 0
    over = count - job.max_retained_pipeline_runs
    if over <= 0:
        return []
    oldest = select(PipelineRun.uuid, CronRun.status).outerjoin(CronRun).where(*ended)
    found = session.execute(oldest.order_by(PipelineRun.number).limit(over)).all()
    return [uuid for uuid, status in found if status is not Status.STARTED][:most]
