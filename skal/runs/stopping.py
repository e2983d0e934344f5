"""When further labels change little any more, told from predictions alone."""

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
"""Lower than the 0.99 of the paper: a network that is trained anew differs by its seed alone."""

_log = logging.getLogger("skal")


class StopMonitor:
    """Tells when the predictions have stabilised [1]_.

    After each training the classes of the same images, drawn from the pool once, are predicted;
    no label is read. The agreement of two rounds is Cohen's kappa of their predictions for those
    of the images that neither network was trained on. (In a stream these are also images that have
    passed by.) Once the mean of the last three is high enough, returns have diminished.

    Parameters
    ----------
    pool : Pool
        Whose images are predicted.
    seed : int
        The run's; draws the images.
    agreements : sequence of float or None
        Those of the rounds so far, if the run is gone on with; None where there was none.
    predicted : sequence of int, optional
        The last of their predictions.

    Attributes
    ----------
    stop_round : int or None
        The first round after which one could have stopped.

    References
    ----------
    .. [1] M. Bloodgood and K. Vijay-Shanker. A Method for Stopping Active Learning Based on
       Stabilizing Predictions and the Need for User-Adjustable Stopping. CoNLL 2009.
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
        """Predict with the network of the next round; return its agreement with the last.

        Returns
        -------
        float or None
            None if there is no network before, or no image is left that has no label.
        """
        proba = score_pool(classifier, self._pool.X, rows=self._rows).proba
        predicted = proba.argmax(axis=1)
        # what has no label now had none before
        unknown = np.isin(self._rows, self._pool.unlabeled)
        agreement = None
        if self.predicted is not None and unknown.any():
            agreement = kappa(self.predicted[unknown], predicted[unknown])
        self.predicted = predicted
        if self._note(agreement):
            _log.warning(
                "further labels change the predictions little: agreement of the last %d rounds is "
                "%.3f on average; one could stop here (stop=end does)",
                WINDOW,
                np.mean([a for a in self._agreements[-WINDOW:] if a is not None]),
            )
        return agreement

    def _note(self, agreement: float | None) -> bool:
        """Take down a round's agreement; tell whether it is the first to stop after."""
        self._agreements.append(agreement)
        if self.stop_round is not None or not stabilised(self._agreements[1:]):
            return False
        self.stop_round = len(self._agreements) - 1
        return True


def stabilised(agreements: Sequence[float | None]) -> bool:
    """Tell whether the mean of the last agreements is high enough."""
    last = [value for value in agreements[-WINDOW:] if value is not None]
    return len(last) == WINDOW and float(np.mean(last)) >= AGREEMENT


def kappa(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return Cohen's kappa of two predictions; 1 if all are equal, of one class too."""
    if np.array_equal(one, other):
        return 1.0
    return float(cohen_kappa_score(one, other))
