"""BALD by Monte-Carlo dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy, SkactivemlClassifier
from skactiveml.utils import check_equal_missing_label, check_scalar, check_type
from sklearn.base import clone

from ..datasets.base import MISSING_LABEL

ROWS_AT_ONCE = 65536


class MCDropoutBALD(SingleAnnotatorPoolQueryStrategy):
    r"""Bayesian active learning by disagreement [1]_, with dropout as the posterior [2]_.

    The utility is the mutual information between label and weights,
    :math:`H[\frac1T \sum_t p_t] - \frac1T \sum_t H[p_t]`, in nats, over T thinned networks. The
    batch is the images of highest utility; ties fall at random.

    Parameters
    ----------
    n_samples : int, default=20
        Thinned networks, T.
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Breaks ties.

    References
    ----------
    .. [1] N. Houlsby, F. Huszár, Z. Ghahramani and M. Lengyel. Bayesian Active Learning for
       Classification and Preference Learning. arXiv:1112.5745, 2011.
    .. [2] Y. Gal, R. Islam and Z. Ghahramani. Deep Bayesian Active Learning with Image Data.
       ICML 2017.
    """

    def __init__(
        self,
        n_samples: int = 20,
        missing_label: Any = MISSING_LABEL,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.n_samples = n_samples

    def query(
        self,
        X: Any,
        y: ArrayLike,
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
            With ``sample_proba(X, n_samples)``, which returns (n_samples, n, n_classes).
        fit_clf : bool, default=True
            Whether to train a clone of `clf` first.

        Returns
        -------
        query_indices : ndarray of int, shape (batch_size,)
        utilities : ndarray of float, shape (batch_size, n), if asked for
            Mutual information; nan where labelled or picked before.

        Raises
        ------
        TypeError
            If `clf` has no `sample_proba`.
        """
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities
        )
        X_cand, mapping = self._transform_candidates(candidates, X, y)
        check_type(clf, "clf", SkactivemlClassifier)
        check_equal_missing_label(clf.missing_label, self.missing_label_)
        check_scalar(fit_clf, "fit_clf", bool)
        check_scalar(self.n_samples, "n_samples", int, min_val=2)
        if not hasattr(clf, "sample_proba"):
            raise TypeError(
                f"{type(clf).__name__} has no sample_proba(X, n_samples), which MCDropoutBALD "
                "needs; skal.ImageClassifier has"
            )
        if fit_clf:
            weights = () if sample_weight is None else (sample_weight,)
            clf = clone(clf).fit(X, y, *weights)

        information = mutual_information(clf.sample_proba(X_cand, n_samples=self.n_samples))
        picks = top_batch(information, batch_size, self.random_state_)
        indices = picks if mapping is None else mapping[picks]
        if not return_utilities:
            return indices
        utilities = np.full(len(X_cand) if mapping is None else len(X), np.nan)
        utilities[slice(None) if mapping is None else mapping] = information
        return indices, without_earlier_picks(utilities, indices)


def mutual_information(mc_proba: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mutual information between label and network, in nats.

    Parameters
    ----------
    mc_proba : ndarray of float, shape (n_samples, n, n_classes)
        Class probabilities of each sampled network.

    Returns
    -------
    ndarray of float64, shape (n,)
        Equation 2 of Gal et al. (2017); zero or more, up to rounding.
    """
    parts = [
        _entropy(part.mean(axis=0)) - _entropy(part).mean(axis=0)
        for start in range(0, max(mc_proba.shape[1], 1), ROWS_AT_ONCE)
        for part in [mc_proba[:, start : start + ROWS_AT_ONCE].astype(np.float64)]
    ]
    return np.concatenate(parts)


def _entropy(proba: NDArray[np.float64]) -> NDArray[np.float64]:
    positive = np.maximum(proba, np.finfo(np.float64).tiny)
    entropy: NDArray[np.float64] = -(proba * np.log(positive)).sum(axis=-1)
    return entropy


def top_batch(
    utilities: NDArray[np.float64], batch_size: int, random_state: np.random.RandomState
) -> NDArray[np.int64]:
    """Return the indices of the highest utilities, best first; ties in random order."""
    order = np.lexsort((random_state.random_sample(len(utilities)), -utilities))
    return order[:batch_size]


def without_earlier_picks(
    utilities: NDArray[np.float64], picks: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Repeat utilities for every pick, with nan at the picks before it, as scikit-activeml does."""
    rows = np.repeat(utilities[None], len(picks), axis=0)
    for number in range(1, len(picks)):
        rows[number, picks[:number]] = np.nan
    return rows
