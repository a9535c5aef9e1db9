"""A job's parameter grid: every combination of the listed values is one pipeline run. Pure.

A grid is JSON: ``{"pipeline_parameters": {"k": [1, 5, 9]}, "<step uuid>": {"folds": [5]}}``. What it does not
list keeps the definition's value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from clarion.errors import InvalidInput
from orchest.definition import MAX_PARAMETERS_BYTES, Definition
from orchest.documents import Problem, json_size, kind, pointer, unusable_values

PIPELINE = "pipeline_parameters"
MAX_RUNS = 1000
"""Most runs of one grid: a mistyped list must not flood the platform."""


class InvalidGrid(InvalidInput):
    """The parameter grid does not fit the pipeline."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


@dataclass(frozen=True, slots=True)
class RunParameters:
    """Values of one run over the definition's, for `RunSpec` as they are."""

    pipeline: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def expand(definition: Definition, grid: Any) -> list[RunParameters]:
    """The runs of a grid, the last listed parameter varying fastest; an empty grid is one run.

    Raises `InvalidGrid` naming the place: an unknown step or parameter, no list, an empty one, too many runs.
    """
    if not isinstance(grid, dict):
        raise InvalidGrid([Problem("", f"a parameter grid must be a JSON object, not {kind(grid)}")])
    problems = list(unusable_values(grid))
    if problems:
        raise InvalidGrid(problems)
    axes: list[tuple[str, str, list[Any]]] = []
    for owner, values in grid.items():
        known = _parameters(definition, owner)
        if known is None:
            problems.append(Problem(pointer(owner), f"the pipeline has no step {owner}"))
        elif not isinstance(values, dict):
            problems.append(Problem(pointer(owner), f"{owner} must be a JSON object, not {kind(values)}"))
        else:
            axes.extend((owner, name, choices) for name, choices in values.items())
            problems.extend(_wrong(_called(definition, owner), owner, values, known))
    if not problems:
        runs = prod(len(choices) for _, _, choices in axes)
        if runs > MAX_RUNS:
            problems.append(Problem("", f"the grid has {runs} runs; at most {MAX_RUNS} are allowed"))
    if problems:
        raise InvalidGrid(problems)
    return [_run(axes, chosen) for chosen in product(*(choices for _, _, choices in axes))]


def _parameters(definition: Definition, owner: str) -> Mapping[str, Any] | None:
    if owner == PIPELINE:
        return definition.parameters
    step = definition.steps.get(owner)
    return None if step is None else step.parameters


def _called(definition: Definition, owner: str) -> str:
    return "the pipeline" if owner == PIPELINE else f"step '{definition.steps[owner].title}' ({owner})"


def _wrong(who: str, owner: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> list[Problem]:
    problems = []
    for name, choices in values.items():
        at = pointer(owner, name)
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            problems.append(Problem(at, f"{who} has no parameter {name!r}; it has {listed}"))
        elif not isinstance(choices, list) or not choices:
            problems.append(Problem(at, f"{who}: {name!r} must be a non-empty list of values"))
        elif json_size(choices) > MAX_PARAMETERS_BYTES:
            message = f"{who}: the values of {name!r} are larger than {MAX_PARAMETERS_BYTES} bytes"
            problems.append(Problem(at, message))
    return problems


def _run(axes: list[tuple[str, str, list[Any]]], chosen: tuple[Any, ...]) -> RunParameters:
    by_owner: dict[str, dict[str, Any]] = {}
    for (owner, name, _), value in zip(axes, chosen, strict=True):
        by_owner.setdefault(owner, {})[name] = value
    pipeline = by_owner.pop(PIPELINE, {})
    return RunParameters(pipeline, by_owner)
