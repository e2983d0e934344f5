"""BADGE without materialising the gradient embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.base import MISSING_LABEL
from .base import BatchStrategy, RandomState, Rows, Seed, ToFill
from .geometry import NearestCentre, as_points
from .scores import Scores


class Badge(BatchStrategy):
    r"""Batch active learning by diverse gradient embeddings [1]_.

    Picks by k-means++ among the gradients of the cross entropy with respect to the last layer, with
    the predicted class as label. Each gradient is the outer product :math:`g = a h^T` of the error
    :math:`a = p - e_{\hat y}` and the embedding :math:`h`, so that

    .. math:: |g - g'|^2 = |a|^2 |h|^2 + |a'|^2 |h'|^2 - 2 (a \cdot a') (h \cdot h')

    and neither the n x (C * D) matrix nor a distance matrix is needed. A pick takes O(n) memory and
    at most O(n (C + D)) time, usually far less, since bounds exclude most images whose distance
    cannot change. The first pick has the longest gradient; further picks are drawn in proportion to
    the squared distance to the nearest earlier pick.

    Unlike `skactiveml.pool.Badge` it never picks an image twice, and does not use the origin as a
    centre.

    Parameters
    ----------
    clf_embedding_flag_name : dict or str, optional
        Keyword(s) with which `clf.predict_proba` also returns embeddings; see `BatchStrategy`.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] J. T. Ash, C. Zhang, A. Krishnamurthy, J. Langford and A. Agarwal. Deep Batch Active
       Learning by Diverse, Uncertain Gradient Lower Bounds. ICLR 2020.
    """

    reads = ("proba", "embeddings")

    def __init__(
        self,
        clf_embedding_flag_name: Mapping[str, Any] | str | None = None,
        missing_label: Any = MISSING_LABEL,
        random_state: Seed = None,
    ) -> None:
        super().__init__(missing_label, random_state)
        self.clf_embedding_flag_name = clf_embedding_flag_name

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        """Pick by k-means++; the utilities are the probabilities of being drawn.

        Once all remaining images coincide with picks, they are drawn uniformly.
        """
        assert scores.embeddings is not None
        errors = np.array(scores.proba, dtype=np.float32)
        errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
        factors = (as_points(values, scores.device) for values in (errors, scores.embeddings))
        gradients = NearestCentre(*factors, capacity=batch_size)
        picks = np.empty(batch_size, dtype=np.int64)
        chosen = np.zeros(len(errors), dtype=bool)
        for number in range(batch_size):
            squared = gradients.squared if number else gradients.lengths
            cumulated = np.cumsum(squared.cpu().numpy(), dtype=np.float64)
            longest = number == 0 and cumulated[-1] > 0
            if not cumulated[-1] > 0:
                cumulated = np.cumsum(~chosen, dtype=np.float64)
            if utilities is not None:
                utilities[number] = np.diff(cumulated, prepend=0) / cumulated[-1]
                utilities[number, chosen] = np.nan
            pick = int(squared.argmax()) if longest else _draw(cumulated, random_state)
            picks[number], chosen[pick] = pick, True
            gradients.add(pick)
        return picks


def _draw(cumulated: NDArray[np.float64], random_state: RandomState) -> int:
    level = random_state.random_sample() * cumulated[-1]
    return int(np.searchsorted(cumulated, min(level, np.nextafter(cumulated[-1], 0)), "right"))
