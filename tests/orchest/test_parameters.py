import json
from pathlib import Path
from typing import Any

import pytest

from orchest.definition import parse
from orchest.parameters import InvalidGrid, RunParameters, expand

from .building import document, uuid_of

EXAMPLE = Path(__file__).parents[2] / "examples/penguins"
STEP = uuid_of("Fit")
PIPELINE = parse(document({"Fit": {"parameters": {"folds": 5}}}, parameters={"k": 5, "seed": 7}))


def test_every_combination_is_a_run() -> None:
    runs = expand(PIPELINE, {"pipeline_parameters": {"k": [1, 9]}, STEP: {"folds": [3, 5]}})
    assert [(run.pipeline, run.steps) for run in runs] == [
        ({"k": k}, {STEP: {"folds": folds}}) for k in (1, 9) for folds in (3, 5)
    ]


def test_an_empty_grid_is_one_run_as_defined() -> None:
    assert expand(PIPELINE, {}) == [RunParameters()]


def test_the_example() -> None:
    definition = parse((EXAMPLE / "penguins.orchest").read_text())
    runs = expand(definition, json.loads((EXAMPLE / "grid.json").read_text()))
    assert len(runs) == 6
    assert runs[0].pipeline == {"k": 1, "target": "body_mass_g"}


@pytest.mark.parametrize(
    ("grid", "path", "message"),
    [
        ([], "", "must be a JSON object, not a list"),
        ({"nobody": {}}, "/nobody", "the pipeline has no step nobody"),
        ({"pipeline_parameters": [1]}, "/pipeline_parameters", "must be a JSON object, not a list"),
        ({"pipeline_parameters": {"q": [1]}}, "/pipeline_parameters/q", "no parameter 'q'; it has k, seed"),
        ({"pipeline_parameters": {"k": 5}}, "/pipeline_parameters/k", "must be a non-empty list"),
        ({"pipeline_parameters": {"k": []}}, "/pipeline_parameters/k", "must be a non-empty list"),
        ({STEP: {"x": [1]}}, f"/{STEP}/x", "step 'Fit'"),
        ({"pipeline_parameters": {"k": ["y" * 70_000]}}, "/pipeline_parameters/k", "larger than"),
        ({"pipeline_parameters": {"k": ["\0"]}}, "/pipeline_parameters/k/0", "NUL"),
        ({"pipeline_parameters": {"k": [float("inf")]}}, "/pipeline_parameters/k/0", "not a JSON number"),
        (
            {"pipeline_parameters": {"k": list(range(40)), "seed": list(range(40))}},
            "",
            "1600 runs; at most 1000",
        ),
    ],
)
def test_a_grid_that_does_not_fit_names_the_place(grid: Any, path: str, message: str) -> None:
    with pytest.raises(InvalidGrid) as raised:
        expand(PIPELINE, grid)
    assert raised.value.problems[0].path == path
    assert message in raised.value.problems[0].message
    assert raised.value.status == 422
