"""What must be said of every type that telemetry sends: who answers for it, how long, where it comes from.

    upkeep = Upkeep(owner="shop team", since="1.4", expires=date(2027, 6, 1), triggers=("shop.orders",))

A class hands it on to its subclasses, which say their own where it differs.
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta

from clarion.anonymous import VERSION
from clarion.errors import DeclarationError

AHEAD = timedelta(days=14)
"""How long before an event expires `expiring` names it (Glean warns as early)."""


@dataclass(frozen=True, slots=True)
class Never:
    """An event that does not expire, and why that is right."""

    reason: str


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Who answers for an event type, and how long.

    ``owner`` is a person or a team; ``since`` the version of the application that sent it first; from
    ``expires`` on it may no longer be collected, unless somebody says anew that it is needed; ``triggers``
    are the modules that record or send it.

    Raises:
        DeclarationError: one of them says nothing, or ``since`` is not a version.
    """

    owner: str
    since: str
    expires: date | Never
    triggers: tuple[str, ...]

    def __post_init__(self) -> None:
        said = {
            "owner": self.owner.strip(),
            "since": re.fullmatch(VERSION, self.since),
            "expires": self.expires.reason.strip() if isinstance(self.expires, Never) else self.expires,
            "triggers": self.triggers and all(self.triggers),
        }
        if empty := [name for name, value in said.items() if not value]:
            raise DeclarationError(
                f"an Upkeep must say {', '.join(empty)}: who answers for the event, since which version it "
                "is sent (1.4), a date or Never(reason), and the modules it comes from"
            )

    def expires_by(self, day: date) -> bool:
        """Whether it has expired on ``day``."""
        return not isinstance(self.expires, Never) and self.expires <= day


def require_upkeep(name: str, upkeep: Upkeep | None) -> None:
    """Refuse an event class that sends something nobody answers for. Raises DeclarationError."""
    if upkeep is None:
        raise DeclarationError(
            f"{name} has fields that telemetry sends: say who answers for them, with "
            "upkeep = Upkeep(owner=..., since=..., expires=..., triggers=...)"
        )
