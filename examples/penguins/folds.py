"""Cross-validation: cut the data into folds, so that nothing is judged on what it was fitted to."""

import random
from collections.abc import Iterator, Sequence
from typing import Any


def folds(birds: Sequence[Any], count: int, seed: int) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield (train, test) for each of ``count`` folds; the same seed gives the same folds."""
    order = list(birds)
    random.Random(seed).shuffle(order)
    for fold in range(count):
        yield [bird for n, bird in enumerate(order) if n % count != fold], order[fold::count]
