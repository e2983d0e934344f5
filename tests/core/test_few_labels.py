from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import skal


@pytest.mark.parametrize("strategy", ["margin", "discriminative", "query-by-committee"])
def test_as_many_labels_as_classes_are_no_regression_problem(strategy: str, tmp_path: Path) -> None:
    y = np.arange(80) % 20
    X = np.random.default_rng(0).integers(0, 256, (80, 1, 8, 8), dtype=np.uint8)
    data = skal.ImageDataset(X, y, [f"kind {k}" for k in range(20)], X[:20], y[:20], name="kinds")
    settings = {"n_init": 20, "n_query": 5, "n_rounds": 1, "steps": 2, "model": "lenet"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = skal.run(data, strategy, **settings, init_strategy="stratified")
    assert len({row["label"] for row in run.queries[:20]}) == 20
