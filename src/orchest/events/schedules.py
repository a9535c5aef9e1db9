"""How often a cron expression fires, as the one word telemetry gets of it."""

import re
from enum import StrEnum


class ScheduleKind(StrEnum):
    """How often a cron job runs."""

    SUB_HOURLY = "sub-hourly"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    OTHER = "other"


NICKNAMES = {
    "@hourly": ScheduleKind.HOURLY,
    "@daily": ScheduleKind.DAILY,
    "@midnight": ScheduleKind.DAILY,
    "@weekly": ScheduleKind.WEEKLY,
    "@monthly": ScheduleKind.MONTHLY,
}
SINGLE = re.compile(r"[a-z0-9]+(#\d)?", re.IGNORECASE)
ANY = ("*", "?")


def schedule_kind(schedule: str) -> ScheduleKind:
    """The kind of a cron expression of five fields, or of six with seconds first; never raises."""
    text = schedule.strip().lower()
    fields = text.split()
    if text in NICKNAMES:
        return NICKNAMES[text]
    if len(fields) == 6:
        if not SINGLE.fullmatch(fields[0]):
            return ScheduleKind.SUB_HOURLY
        fields = fields[1:]
    if len(fields) != 5:
        return ScheduleKind.OTHER
    minute, hour, day, month, weekday = fields
    if not SINGLE.fullmatch(minute):
        return ScheduleKind.SUB_HOURLY
    if hour == "*" or hour.startswith("*/"):
        return ScheduleKind.HOURLY
    if not SINGLE.fullmatch(hour) or month not in ANY:
        return ScheduleKind.OTHER
    if day in ANY:
        if weekday in ANY:
            return ScheduleKind.DAILY
        return ScheduleKind.WEEKLY if SINGLE.fullmatch(weekday) else ScheduleKind.OTHER
    return ScheduleKind.MONTHLY if SINGLE.fullmatch(day) and weekday in ANY else ScheduleKind.OTHER
