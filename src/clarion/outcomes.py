"""What an attempt came to: a closed sum type, matched once."""

from dataclasses import dataclass

from clarion.errors import Reason


@dataclass(frozen=True, slots=True)
class Delivered:
    """The subscriber has it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now. ``after`` is how many seconds the subscriber asked us to wait at least (Retry-After).

    ``halve`` says that one message of several may be to blame: they are sent again at once in two halves,
    until what is to blame stands alone.
    """

    reason: Reason
    detail: str = ""
    after: float | None = None
    halve: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """Never: another attempt cannot change the answer. Stays visible and can be redelivered by hand."""

    reason: Reason
    detail: str = ""


Outcome = Delivered | Retry | Dead
