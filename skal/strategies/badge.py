"""BADGE, without ever building the gradient embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skactiveml.utils import check_type

from ..datasets.base import MISSING_LABEL
from ..scoring import Scores
from .base import BatchStrategy


class Badge(BatchStrategy):
    r"""Batch active learning by diverse gradient embeddings [1]_.

    Picks by k-means++ among the gradients of the cross entropy with respect to the last layer,
    taken at the predicted class. Such a gradient is an outer product :math:`g = a h^T` of the
    error :math:`a = p - e_{\hat y}` and the embedding :math:`h`, so that

    .. math:: |g - g'|^2 = |a|^2 |h|^2 + |a'|^2 |h'|^2 - 2 (a \cdot a') (h \cdot h')

    and neither the n x (C * D) matrix nor any distance matrix is needed: a pick costs
    O(n (C + D)) time and O(n) memory. The first pick is the longest gradient, each further one is
    drawn in proportion to the squared distance to the nearest pick before.

    It takes the place of `skactiveml.pool.Badge`, with three differences: no image is picked
    twice, the origin is not a centre, and the above.

    Parameters
    ----------
    clf_embedding_flag_name : dict or str, optional
        Keyword(s) by which `clf.predict_proba` also returns embeddings; without, it is called
        with `X` alone, and if it returns no embeddings, `X` itself is used. Where `X` is images
        (of more than two dimensions), ``extra_outputs="emb"`` is asked for if it is taken.
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Seeds the draws.

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
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.clf_embedding_flag_name = clf_embedding_flag_name

    def pick(
        self,
        scores: Scores,
        batch_size: int,
        random_state: np.random.RandomState,
        utilities: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Pick by k-means++; the utilities are the probabilities of being drawn."""
        assert scores.embeddings is not None
        return kmeanspp_gradients(
            scores.proba, scores.embeddings, batch_size, random_state, utilities
        )

    def _embedding_keywords(self, clf: Any, X: Any) -> dict[str, Any]:
        flag = self.clf_embedding_flag_name
        if flag is None:
            takes = inspect.signature(clf.predict_proba).parameters
            images = np.ndim(X) > 2 and "extra_outputs" in takes
            return {"extra_outputs": "emb"} if images else {}
        check_type(flag, "clf_embedding_flag_name", dict, str)
        return {flag: True} if isinstance(flag, str) else dict(flag)


def kmeanspp_gradients(
    proba: NDArray[Any],
    embeddings: NDArray[Any],
    n_picks: int,
    random_state: np.random.RandomState,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Draw by k-means++ among last-layer gradients given by their factors.

    Parameters
    ----------
    proba : ndarray of float, shape (n, n_classes)
        Class probabilities.
    embeddings : ndarray of float, shape (n, n_features)
        Input of the last layer.
    n_picks : int
        At most n.
    random_state : RandomState
        Source of the draws.
    weights : ndarray of float64, shape (n_picks, n), optional
        Filled with the probabilities that each pick was drawn with; nan for picks before.

    Returns
    -------
    ndarray of int64, shape (n_picks,)
        Without repetition. Once all that is left coincides with a pick, the rest is drawn evenly.
    """
    H = np.ascontiguousarray(embeddings, dtype=np.result_type(embeddings, np.float32))
    A = np.array(proba, dtype=H.dtype)
    A[np.arange(len(A)), A.argmax(axis=1)] -= 1
    length = np.einsum("ij,ij->i", A, A) * np.einsum("ij,ij->i", H, H)
    rounding = 8 * np.finfo(H.dtype).eps

    picks = np.empty(n_picks, dtype=np.int64)
    chosen = np.zeros(len(A), dtype=bool)
    nearest = length.copy()
    for number in range(n_picks):
        nearest[chosen] = 0
        cumulated = np.cumsum(nearest, dtype=np.float64)
        if not cumulated[-1] > 0:
            cumulated = np.cumsum(~chosen, dtype=np.float64)
        if weights is not None:
            weights[number] = np.diff(cumulated, prepend=0) / cumulated[-1]
            weights[number, chosen] = np.nan
        if number == 0 and nearest.any():
            pick = int(nearest.argmax())
        else:
            pick = _draw(cumulated, random_state)
        picks[number], chosen[pick] = pick, True
        both = length + length[pick]
        distance = both - 2 * (A @ A[pick]) * (H @ H[pick])
        distance[distance < rounding * both] = 0
        nearest = distance if number == 0 else np.minimum(nearest, distance)
    return picks


def _draw(cumulated: NDArray[np.float64], random_state: np.random.RandomState) -> int:
    """Draw an index in proportion to weights given by their cumulated sum."""
    level = random_state.random_sample() * cumulated[-1]
    return int(np.searchsorted(cumulated, min(level, np.nextafter(cumulated[-1], 0)), "right"))
