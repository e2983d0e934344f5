"""Stopping criterion: whether predictions have stabilised."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from ..core.seeding import derive_seed
from ..datasets.pool import Pool
from ..models.classifier import ImageClassifier
from ..strategies.scores import score_pool

STOP_SET = 1000
WINDOW = 3
AGREEMENT = 0.98
"""Below the paper's 0.99, because retraining with another seed alone changes predictions."""

_log = logging.getLogger("skal")


class StopMonitor:
    """Detects when predictions have stabilised (Bloodgood and Vijay-Shanker, A Method for Stopping
    Active Learning Based on Stabilizing Predictions, CoNLL 2009): `stop_round` is the first round
    after which the mean of the last three agreements is at least `AGREEMENT`. An agreement is
    Cohen's kappa between two successive rounds' predictions on a fixed random sample of the pool,
    without images that either was trained on; no label is read. `agreements` (None: not computed)
    and `predicted` restore the state of a resumed run.
    """

    def __init__(
        self,
        pool: Pool,
        seed: int,
        agreements: Sequence[float | None] = (),
        predicted: Sequence[int] | None = None,
    ) -> None:
        draw = np.random.default_rng(derive_seed(seed, "stop"))
        n = min(STOP_SET, len(pool.in_play))
        self._rows = np.sort(draw.choice(pool.in_play, n, replace=False))
        self._pool = pool
        self.predicted: NDArray[np.int64] | None = None
        if predicted is not None:
            self.predicted = np.asarray(predicted)
        self.stop_round: int | None = None
        self._agreements: list[float | None] = []
        for agreement in agreements:
            self._note(agreement)

    def observe(self, classifier: ImageClassifier) -> float | None:
        """Predict with a round's network; return its agreement with the previous one, None if there
        is none or no unlabelled image is left.
        """
        proba = score_pool(classifier, self._pool.X, rows=self._rows).proba
        predicted = proba.argmax(axis=1)
        # images without a label now had none in the previous round
        unknown = np.isin(self._rows, self._pool.unlabeled)
        agreement = None
        if self.predicted is not None and unknown.any():
            agreement = kappa(self.predicted[unknown], predicted[unknown])
        self.predicted = predicted
        if self._note(agreement):
            _log.warning(
                "predictions have stabilised: mean agreement over the last %d rounds is %.3f; "
                "consider stopping here (stop=end does so automatically)",
                WINDOW,
                np.mean([a for a in self._agreements[-WINDOW:] if a is not None]),
            )
        return agreement

    def _note(self, agreement: float | None) -> bool:
        """Record a round's agreement; return whether the criterion is met for the first time."""
        self._agreements.append(agreement)
        if self.stop_round is not None or not stabilised(self._agreements[1:]):
            return False
        self.stop_round = len(self._agreements) - 1
        return True


def stabilised(agreements: Sequence[float | None]) -> bool:
    """Return whether the mean of the last `WINDOW` agreements is at least `AGREEMENT`."""
    last = [value for value in agreements[-WINDOW:] if value is not None]
    return len(last) == WINDOW and float(np.mean(last)) >= AGREEMENT


def kappa(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return Cohen's kappa of two predictions; 1 if they are equal, even with only one class."""
    if np.array_equal(one, other):
        return 1.0
    return float(cohen_kappa_score(one, other))
