"""Fit: tell the species from the measurements, by the k nearest birds; cross-validated."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from folds import folds

import orchest

FEATURES = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")


def scales(birds: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """Mean and deviation of each feature: millimetres and grams must weigh the same."""
    columns = [[bird[name] for bird in birds] for name in FEATURES]
    return [(statistics.fmean(column), statistics.stdev(column)) for column in columns]


def accuracy(train: list[dict[str, Any]], test: list[dict[str, Any]], k: int) -> float:
    scale = scales(train)

    def point(bird: dict[str, Any]) -> list[float]:
        return [(bird[name] - mean) / spread for name, (mean, spread) in zip(FEATURES, scale, strict=True)]

    known = [(point(bird), bird["species"]) for bird in train]
    right = 0
    for bird in test:
        here = point(bird)
        near = sorted(known, key=lambda entry: sum((a - b) ** 2 for a, b in zip(entry[0], here, strict=True)))
        votes = Counter(species for _, species in near[:k])
        right += votes.most_common(1)[0][0] == bird["species"]
    return right / len(test)


def main() -> None:
    k, seed = int(orchest.get_pipeline_param("k")), int(orchest.get_pipeline_param("seed"))
    count = int(orchest.get_step_param("folds"))
    birds = orchest.get_inputs()["clean"]["birds"]
    scores = [accuracy(train, test, k) for train, test in folds(birds, count, seed)]
    for number, score in enumerate(scores, 1):
        print(f"fold {number}: {score:.3f} right", flush=True)
    orchest.output({"k": k, "accuracy": statistics.fmean(scores), "folds": scores}, name="species")


main()
