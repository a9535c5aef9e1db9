"""What an update changed: the list subscribers see, and the counts that telemetry gets instead."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NotRequired

from typing_extensions import TypedDict

from orchest.events.redaction import REDACTED

MISSING = object()


class ChangeType(StrEnum):
    CREATED = "CREATED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"


class ChangedObject(StrEnum):
    """What of a project, a pipeline or a job can change."""

    NAME = "NAME"
    PATH = "PATH"
    ENVIRONMENT_VARIABLE = "ENVIRONMENT_VARIABLE"
    DEFINITION = "DEFINITION"
    PARAMETERS = "PARAMETERS"
    STRATEGY = "STRATEGY"
    SCHEDULE = "SCHEDULE"
    TIMEZONE = "TIMEZONE"
    NEXT_SCHEDULED_TIME = "NEXT_SCHEDULED_TIME"
    MAX_RETAINED_PIPELINE_RUNS = "MAX_RETAINED_PIPELINE_RUNS"
    STATUS = "STATUS"
    OTHER = "OTHER"


class Change(TypedDict):
    """One thing that was created, updated or deleted. Values are absent where they would say too much."""

    type: ChangeType
    changed_object: ChangedObject
    old_value: NotRequired[Any]
    new_value: NotRequired[Any]


Counts = dict[ChangedObject, dict[ChangeType, int]]


def change(changed_object: ChangedObject, old: Any = MISSING, new: Any = MISSING) -> list[Change]:
    """The change from ``old`` to ``new``, as a list: empty when they are equal.

    Leave ``old`` out for something created, ``new`` for something deleted; leave both out for an update
    whose values nobody should read (a definition, parameters). Lists of several add up.
    """
    if old is not MISSING and new is not MISSING and old == new:
        return []
    kind = ChangeType.UPDATED
    if old is MISSING and new is not MISSING:
        kind = ChangeType.CREATED
    elif new is MISSING and old is not MISSING:
        kind = ChangeType.DELETED
    made = Change(type=kind, changed_object=changed_object)
    if old is not MISSING:
        made["old_value"] = old
    if new is not MISSING:
        made["new_value"] = new
    return [made]


def variable_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """How environment variables changed: their names, and never a value, since they often hold secrets."""
    changes: list[Change] = []
    for name in sorted(old.keys() | new.keys()):
        if name in old and name in new and old[name] == new[name]:
            continue
        hidden = {name: REDACTED}
        made = change(
            ChangedObject.ENVIRONMENT_VARIABLE,
            hidden if name in old else MISSING,
            hidden if name in new else MISSING,
        )
        if not made:  # both hidden values are alike
            made = [
                Change(
                    type=ChangeType.UPDATED,
                    changed_object=ChangedObject.ENVIRONMENT_VARIABLE,
                    old_value=hidden,
                    new_value=hidden,
                )
            ]
        changes += made
    return changes


def count_changes(changes: Iterable[Mapping[str, Any]]) -> Counts:
    """How many changes there are of each type to each kind of object; their values play no part."""
    counts: Counts = {}
    for made in changes:
        by_type = counts.setdefault(ChangedObject(made["changed_object"]), {})
        kind = ChangeType(made["type"])
        by_type[kind] = by_type.get(kind, 0) + 1
    return counts
