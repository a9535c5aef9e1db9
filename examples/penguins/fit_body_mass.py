"""Fit: predict one measurement from others by least squares; cross-validated. Fails on an unknown target."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from folds import folds

import orchest


def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gaussian elimination with partial pivoting."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(column + 1, size):
            factor = rows[row][column] / rows[column][column]
            rows[row] = [a - factor * b for a, b in zip(rows[row], rows[column], strict=True)]
    found = [0.0] * size
    for row in reversed(range(size)):
        rest = sum(rows[row][column] * found[column] for column in range(row + 1, size))
        found[row] = (rows[row][size] - rest) / rows[row][row]
    return found


def least_squares(points: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Coefficients of the normal equations, the constant first."""
    rows = [[1.0, *point] for point in points]
    width = range(len(rows[0]))
    normal = [[sum(row[i] * row[j] for row in rows) for j in width] for i in width]
    return solve(
        normal, [sum(row[i] * value for row, value in zip(rows, values, strict=True)) for i in width]
    )


def main() -> None:
    target, seed = orchest.get_pipeline_param("target"), int(orchest.get_pipeline_param("seed"))
    features = [name for name in orchest.get_step_param("features") if name != target]
    birds: list[dict[str, Any]] = orchest.get_inputs()["clean"]["birds"]
    for name in (target, *features):
        if not isinstance(birds[0].get(name), float):
            known = sorted(key for key, value in birds[0].items() if isinstance(value, float))
            raise SystemExit(f"no column {name!r} to fit; columns of numbers are {', '.join(known)}")

    errors: list[float] = []
    for train, test in folds(birds, int(orchest.get_step_param("folds")), seed):
        points = [[bird[name] for name in features] for bird in train]
        fit = least_squares(points, [bird[target] for bird in train])
        for bird in test:
            guess = fit[0] + sum(c * bird[name] for c, name in zip(fit[1:], features, strict=True))
            errors.append(guess - bird[target])
    squares = sum(error**2 for error in errors)
    values = [bird[target] for bird in birds]
    total = sum((value - statistics.fmean(values)) ** 2 for value in values)
    result = {"target": target, "rmse": math.sqrt(squares / len(errors)), "r2": 1 - squares / total}
    print(f"{target}: off by {result['rmse']:.1f} (root mean square), R2 {result['r2']:.3f}")
    orchest.output(result, name="body_mass")


main()
