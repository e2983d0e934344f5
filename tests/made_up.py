"""Runs that were never run, for tests of what is made of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skal.config import RunConfig
from skal.results import Result


def made_up_results(
    strategies: Sequence[str] = ("random", "badge", "margin"),
    n_seeds: int = 3,
    *,
    n_rounds: int = 3,
    gain: float = 0.02,
    settings: Sequence[dict[str, Any]] = ({},),
) -> list[Result]:
    """Each strategy is better than the one before it by about `gain`; each curve saturates."""
    results = []
    for setting in settings:
        for number, strategy in enumerate(strategies):
            for seed in range(n_seeds):
                config = RunConfig(
                    **{"dataset": "digits", "model": "small-cnn", **setting},
                    strategy=strategy,
                    seed=seed,
                )
                draw = np.random.default_rng([seed, number])
                rounds = [
                    {
                        "round": k,
                        "n_labeled": 20 * (k + 1),
                        "accuracy": 0.9
                        - 0.4 * 0.6**k
                        + min(k, 1) * (gain * number + draw.normal(0, 0.005)),
                        "nll": 1.0 / (k + 1),
                        "fit_seconds": 0.5,
                    }
                    for k in range(n_rounds + 1)
                ]
                summary = {"dataset": config.dataset, "accuracy": rounds[-1]["accuracy"]}
                results.append(Result(config, summary, rounds))
    return results
