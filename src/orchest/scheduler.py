"""The scheduler: of many processes that would, one fires what has come due.

Who fires is decided by a lease (`SchedulerLease`): its holder renews it, and when the holder dies another
process takes it once it has run out, `TTL` after its last renewal. The lease only spares work: it is checked
in the transaction that fires, under a lock of its row, so a holder that was asleep while it lost the lease
does nothing; and the job's next time is moved on by whoever fires, under the job's lock, so that a time
fires once even if two should try. The unique (job, scheduled) of cron runs is the last line.

What was missed while no scheduler ran is made up for by one cron run, for the latest time missed (see
`orchest.cron`).
"""

import time
from datetime import datetime, timedelta

from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from clarion.errors import Conflict, InvalidInput
from clarion.observe import log
from orchest import cron
from orchest.batches import end_job, hold_project, lock_job
from orchest.jobs import MOST_OPEN_RUNS, start_cron_run, start_runs
from orchest.models import CronRun, Job, JobStatus, SchedulerLease, Status
from orchest.platform import Platform
from orchest.pollers import Poller
from orchest.site import Site

LEASE = "schedules"
TTL = timedelta(seconds=6)
"""How long a lease holds after it was taken or renewed; renewed when half of it is left."""
POLL = 1.0
"""Seconds between two looks, at most, when nothing nudges; what is due earlier is fired at its time."""
BATCH = 50
"""Jobs fired between two looks at the lease."""
FIRING = (JobStatus.PENDING, JobStatus.STARTED)


def hold_lease(session: Session, holder: str, now: datetime, ttl: timedelta = TTL, name: str = LEASE) -> bool:
    """Take the lease if it is free or has run out, or renew it. False: someone else has it."""
    mine = or_(SchedulerLease.holder == holder, SchedulerLease.holder.is_(None), SchedulerLease.until <= now)
    held = update(SchedulerLease).where(SchedulerLease.name == name, mine)
    taken = session.execute(held.values(holder=holder, until=now + ttl))
    if taken.rowcount == 1:  # type: ignore[attr-defined]
        return True
    if session.get(SchedulerLease, name) is not None:
        return False
    session.execute(insert(SchedulerLease).values(name=name, holder=holder, until=now + ttl))
    return True


def give_up_lease(session: Session, holder: str, now: datetime, name: str = LEASE) -> None:
    """Let the next one have it at once."""
    mine = update(SchedulerLease).where(SchedulerLease.name == name, SchedulerLease.holder == holder)
    session.execute(mine.values(holder=None, until=now))


def holds_lease(session: Session, holder: str, now: datetime, name: str = LEASE) -> bool:
    """Whether the lease is still ``holder``'s; it stays so until the transaction ends."""
    query = select(SchedulerLease.name).where(
        SchedulerLease.name == name, SchedulerLease.holder == holder, SchedulerLease.until > now
    )
    return session.scalar(query.with_for_update()) is not None


def due_jobs(session: Session, now: datetime) -> list[str]:
    """The jobs whose time has come, the longest due first."""
    due = select(Job.uuid).where(Job.next_scheduled_time <= now, Job.status.in_(FIRING))
    return list(session.scalars(due.order_by(Job.next_scheduled_time).limit(BATCH)))


def next_time(session: Session) -> datetime | None:
    """When the next job comes due."""
    query = select(Job.next_scheduled_time).where(
        Job.next_scheduled_time.is_not(None), Job.status.in_(FIRING)
    )
    return session.scalar(query.order_by(Job.next_scheduled_time).limit(1))


def fire(session: Session, site: Site, job_uuid: str) -> bool:
    """Do what a job is due for, if it still is. False: it was done, or the job was changed, meanwhile.

    A job that cannot go on, because its schedule has become unusable or no run of it can be created, fails.
    """
    project_uuid = session.scalar(select(Job.project_uuid).where(Job.uuid == job_uuid))
    if project_uuid is None or not hold_project(session, project_uuid):
        return False
    job, now = lock_job(session, job_uuid), site.clock()
    if job is None or job.status not in FIRING:
        return False
    due = job.next_scheduled_time
    if due is None or due > now:
        return False
    try:
        with session.begin_nested():
            if job.schedule is None:
                start_runs(session, site, job)
            else:
                fire_cron(session, site, job, job.schedule, due, now)
    except (cron.Unusable, Conflict, InvalidInput) as error:
        session.refresh(job)
        end_job(session, site, job, JobStatus.FAILURE, f"no run could be created: {error}")
    return True


def fire_cron(session: Session, site: Site, job: Job, schedule: str, due: datetime, now: datetime) -> None:
    """One cron run for the latest time that has come, and the next time. Raises Unusable, Conflict."""
    scheduled = cron.latest(schedule, job.timezone, due, now)
    job.next_scheduled_time = cron.following(schedule, job.timezone, max(scheduled, now))
    unfinished = (CronRun.job_uuid == job.uuid, CronRun.status == Status.STARTED)
    if (session.scalar(select(func.count()).select_from(CronRun).where(*unfinished)) or 0) < MOST_OPEN_RUNS:
        start_cron_run(session, site, job, scheduled)
        return
    log.warning("a cron job runs slower than its schedule; a time is skipped", job=job.uuid)
    session.flush()


class Scheduler(Poller):
    """A `Poller`. Any number may run; the one with the lease fires."""

    kind = "scheduler"
    poll = POLL

    def __init__(self, platform: Platform, *, ttl: timedelta = TTL) -> None:
        super().__init__(platform)
        self.ttl = ttl
        self._renew_at = 0.0
        self._failing = False
        """Whether a job that is due could not be fired, and so still is."""

    def stop(self) -> None:
        super().stop()
        try:
            with self.platform.sessions.begin() as session:
                give_up_lease(session, self.owner, self.platform.site.clock())
        except SQLAlchemyError as error:
            log.warning("the scheduler's lease must run out by itself", error=type(error).__name__)

    def failed(self, error: Exception) -> None:
        super().failed(error)
        self._renew_at = 0.0

    def turn(self) -> float:
        return self.look()

    def look(self) -> float:
        """Once: hold the lease, fire what is due. The seconds until it is worth looking again."""
        if time.monotonic() >= self._renew_at and not self._hold():
            return POLL
        site = self.platform.site
        with self.platform.readers() as session:
            due = due_jobs(session, site.clock())
        self._failing = False
        for uuid in due:
            if not self._fire(uuid):
                return POLL
        if due:
            self.platform.nudge()
            return POLL if self._failing else 0.0
        with self.platform.readers() as session:
            following = next_time(session)
        if following is None:
            return POLL
        return min(max((following - site.clock()).total_seconds(), 0.0), POLL)

    def _hold(self) -> bool:
        """Take or renew the lease."""
        try:
            with self.platform.sessions.begin() as session:
                held = hold_lease(session, self.owner, self.platform.site.clock(), self.ttl)
        except IntegrityError:  # the very first lease, taken by two at once
            held = False
        self._renew_at = time.monotonic() + self.ttl.total_seconds() / 2 if held else 0.0
        return held

    def _fire(self, uuid: str) -> bool:
        """Fire one job in a transaction of its own. False: the lease was lost."""
        site = self.platform.site
        try:
            with self.platform.sessions.begin() as session:
                if not holds_lease(session, self.owner, site.clock()):
                    self._renew_at = 0.0
                    return False
                fire(session, site, uuid)
        except IntegrityError as error:
            log.warning("a time was fired by someone else", job=uuid, error=str(error.orig))
        except Exception as error:
            # one job that fails in a way it should not must not hold up the others
            self._failing = True
            log.error("a job could not be fired", job=uuid, exc_info=error)
        return True
