"""When a cron job runs. Pure: the time comes in.

A schedule is a cron expression of five fields, or of six with the seconds first, or a nickname such as
``@daily``; it is read in the job's time zone, as Debian's cron reads it. When clocks are put forward, a
time that does not exist runs at the first moment after the gap; when they are put back, a time that exists
twice runs once. Expressions with ``*`` hours or minutes, or with seconds, run at every moment that matches.

Times missed while the platform was down are not run one after the other: `latest` is the newest of them,
and the job catches up with one run for it. A paused job misses nothing.
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from orchest.errors import FieldProblem, InvalidFields

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Unusable(ValueError):
    """A schedule or a time zone that names no time; says why in a user's words."""


def zone(timezone: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises Unusable."""
    try:
        return ZoneInfo(timezone)
    except (ValueError, OSError, LookupError):
        raise Unusable(f"there is no time zone {timezone!r}; take a name such as Europe/Amsterdam") from None


def simulation(schedule: str, start: datetime, timezone: str, *, reverse: bool = False) -> CronSim:
    text = NICKNAMES.get(schedule.strip().lower(), schedule)
    try:
        return CronSim(text, start.astimezone(zone(timezone)), reverse=reverse)
    except (CronSimError, ValueError) as error:
        if isinstance(error, Unusable):
            raise
        what = "five fields (minute hour day month weekday), or six with seconds first"
        raise Unusable(f"{schedule!r} is not a cron expression ({error}); it has {what}") from None


def following(schedule: str, timezone: str, after: datetime) -> datetime:
    """The first time after ``after``, in UTC.

    Raises:
        Unusable: it is no schedule, there is no such zone, or there is no such time within 50 years.
    """
    for found in simulation(schedule, after, timezone):
        moment: datetime = found.astimezone(UTC)
        # around a change of the clocks a found time can lie before the one it was asked for
        if moment > after:
            return moment
    raise Unusable(f"{schedule!r} never comes")


def latest(schedule: str, timezone: str, due: datetime, now: datetime) -> datetime:
    """The newest scheduled time up to ``now``, given that ``due`` was one. Raises Unusable."""
    for found in simulation(schedule, now, timezone, reverse=True):
        moment: datetime = found.astimezone(UTC)
        if moment <= now:
            break
    else:
        return due
    # forward from there: backwards around a change of the clocks one can be left out
    moment = max(moment, due)
    while (later := following(schedule, timezone, moment)) <= now:
        moment = later
    return moment


def check(schedule: str, timezone: str, now: datetime) -> datetime:
    """The next time of a schedule that a request brings. Raises InvalidFields."""
    try:
        zone(timezone)
    except Unusable as error:
        raise InvalidFields([FieldProblem("/timezone", str(error))]) from None
    try:
        return following(schedule, timezone, now)
    except Unusable as error:
        raise InvalidFields([FieldProblem("/schedule", str(error))]) from None
