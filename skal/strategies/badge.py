"""BADGE, without ever building the gradient embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy, SkactivemlClassifier
from skactiveml.utils import check_equal_missing_label, check_scalar, check_type, is_unlabeled
from sklearn.base import clone

from ..datasets.base import MISSING_LABEL


class Badge(SingleAnnotatorPoolQueryStrategy):
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
        with `X` alone, and if it returns no embeddings, `X` itself is used.
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Seeds the draws.

    References
    ----------
    .. [1] J. T. Ash, C. Zhang, A. Krishnamurthy, J. Langford and A. Agarwal. Deep Batch Active
       Learning by Diverse, Uncertain Gradient Lower Bounds. ICLR 2020.
    """

    def __init__(
        self,
        clf_embedding_flag_name: Mapping[str, Any] | str | None = None,
        missing_label: Any = MISSING_LABEL,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.clf_embedding_flag_name = clf_embedding_flag_name

    def query(
        self,
        X: Any,
        y: Any,
        clf: SkactivemlClassifier,
        fit_clf: bool = True,
        sample_weight: ArrayLike | None = None,
        candidates: ArrayLike | None = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> NDArray[np.int64] | tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Pick a batch; see `skactiveml.base.SingleAnnotatorPoolQueryStrategy.query`.

        Parameters
        ----------
        clf : SkactivemlClassifier
            Its `predict_proba` may also return embeddings.
        fit_clf : bool, default=True
            Whether to train a clone of `clf` first.

        Returns
        -------
        query_indices : ndarray of int, shape (batch_size,)
        utilities : ndarray of float, shape (batch_size, n), if asked for
            Probabilities of being drawn; nan where labelled or picked before.
        """
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities
        )
        X_cand, mapping = self._transform_candidates(candidates, X, y)
        if mapping is not None and candidates is not None:
            open_ = is_unlabeled(y[mapping], missing_label=self.missing_label_)
            X_cand, mapping = X_cand[open_], mapping[open_]
        proba, embeddings = self._predict(clf, fit_clf, X, y, sample_weight, X_cand)

        batch_size = min(batch_size, len(proba))
        weights = np.empty((batch_size, len(proba))) if return_utilities else None
        picks = kmeanspp_gradients(proba, embeddings, batch_size, self.random_state_, weights)
        indices = picks if mapping is None else mapping[picks]
        if weights is None:
            return indices
        if mapping is None:
            return indices, weights
        utilities = np.full((batch_size, len(X)), np.nan)
        utilities[:, mapping] = weights
        return indices, utilities

    def _predict(
        self, clf: Any, fit_clf: bool, X: Any, y: Any, sample_weight: Any, X_cand: Any
    ) -> tuple[Any, Any]:
        """Return probabilities and embeddings of the candidates."""
        check_type(clf, "clf", SkactivemlClassifier)
        check_equal_missing_label(clf.missing_label, self.missing_label_)
        check_scalar(fit_clf, "fit_clf", bool)
        flag = self.clf_embedding_flag_name
        if flag is not None:
            check_type(flag, "clf_embedding_flag_name", dict, str)
        if fit_clf:
            weights = () if sample_weight is None else (sample_weight,)
            clf = clone(clf).fit(X, y, *weights)
        out = clf.predict_proba(X_cand, **({flag: True} if isinstance(flag, str) else flag or {}))
        proba, embeddings = out if isinstance(out, tuple) else (out, X_cand)
        return proba, np.asarray(embeddings).reshape(len(embeddings), -1)


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
