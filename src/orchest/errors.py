"""The platform's own errors, below those of `clarion.errors`: each knows its HTTP status.

ClarionError
├── InvalidInput                  422
│   ├── InvalidDefinition         422   orchest.definition: every problem, each with its place
│   └── InvalidFields             422   several fields at once, each with what is wrong
└── Refused                       403   not from here, not without a token
"""

from collections.abc import Sequence
from dataclasses import dataclass

from clarion.errors import ClarionError, InvalidInput


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with a request: ``field`` is a JSON pointer into its body, or a parameter's name."""

    field: str
    message: str
    location: str = "body"
    """``body``, ``query``, ``path`` or ``header``."""


class InvalidFields(InvalidInput):
    """Fields of a request cannot be used."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


class Refused(ClarionError):
    """A request that is not answered from where it comes."""

    status = 403
