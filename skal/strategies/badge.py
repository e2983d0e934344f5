"""BADGE, without ever building the gradient embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.base import MISSING_LABEL
from .base import BatchStrategy
from .geometry import NearestCentre, as_points
from .scores import Scores


class Badge(BatchStrategy):
    r"""Batch active learning by diverse gradient embeddings [1]_.

    Picks by k-means++ among the gradients of the cross entropy with respect to the last layer,
    taken at the predicted class. Such a gradient is an outer product :math:`g = a h^T` of the
    error :math:`a = p - e_{\hat y}` and the embedding :math:`h`, so that

    .. math:: |g - g'|^2 = |a|^2 |h|^2 + |a'|^2 |h'|^2 - 2 (a \cdot a') (h \cdot h')

    and neither the n x (C * D) matrix nor any distance matrix is needed. A pick costs O(n (C + D))
    time at most, most often far less, since bounds tell whose distance cannot change, and O(n)
    memory. The first pick is the longest gradient, each further one is
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
            scores.proba,
            scores.embeddings,
            batch_size,
            random_state,
            utilities,
            scores.device,
        )


def kmeanspp_gradients(
    proba: NDArray[Any],
    embeddings: NDArray[Any],
    n_picks: int,
    random_state: np.random.RandomState,
    weights: NDArray[np.float64] | None = None,
    device: str = "cpu",
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
    device : str, default="cpu"
        Where the distances are computed; the draws are always made on the CPU.

    Returns
    -------
    ndarray of int64, shape (n_picks,)
        Without repetition. Once all that is left coincides with a pick, the rest is drawn evenly.
    """
    errors = np.array(proba, dtype=np.float32)
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    gradients = NearestCentre(
        as_points(errors, device), as_points(embeddings, device), capacity=n_picks
    )
    picks = np.empty(n_picks, dtype=np.int64)
    chosen = np.zeros(len(errors), dtype=bool)
    for number in range(n_picks):
        squared = gradients.squared if number else gradients.lengths
        cumulated = np.cumsum(squared.cpu().numpy(), dtype=np.float64)
        longest = number == 0 and cumulated[-1] > 0
        if not cumulated[-1] > 0:
            cumulated = np.cumsum(~chosen, dtype=np.float64)
        if weights is not None:
            weights[number] = np.diff(cumulated, prepend=0) / cumulated[-1]
            weights[number, chosen] = np.nan
        pick = int(squared.argmax()) if longest else _draw(cumulated, random_state)
        picks[number], chosen[pick] = pick, True
        gradients.add(pick)
    return picks


def _draw(cumulated: NDArray[np.float64], random_state: np.random.RandomState) -> int:
    """Draw an index in proportion to weights given by their cumulated sum."""
    level = random_state.random_sample() * cumulated[-1]
    return int(np.searchsorted(cumulated, min(level, np.nextafter(cumulated[-1], 0)), "right"))
