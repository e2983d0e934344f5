"""What a type checker sees of skal from outside: `mypy --strict typed.py`, `pyright typed.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import skal
from skal.strategies.base import ScoreStrategy
from skal.strategies.scores import Scores


def accuracy_of(strategy: str, seed: int) -> float:
    """Return the last accuracy of a small run on the digits."""
    data: skal.ImageDataset = skal.load_dataset("digits")
    run: skal.Run = skal.run(data, strategy, n_rounds=1, seed=seed, steps=20, model="lenet")
    rows: list[dict[str, Any]] = run.rounds
    proba: NDArray[np.float32] = run.classifier.predict_proba(data.X_test)
    assert proba.shape == (len(data.X_test), len(data.classes))
    return float(rows[-1]["accuracy"])


class Unlike(ScoreStrategy):
    """Picks images least like the first class."""

    reads = ("proba",)

    def score(self, scores: Scores) -> NDArray[np.float64]:
        return -scores.proba[:, 0].astype(np.float64)


if __name__ == "__main__":
    print(f"{accuracy_of('margin', 0):.2f}")
