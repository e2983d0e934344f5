"""BALD by Monte-Carlo dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.base import MISSING_LABEL
from .base import N_SAMPLES, ScoreStrategy, Seed
from .parameters import allowed
from .scores import Scores
from .uncertainty import by_blocks, entropy


class MCDropoutBALD(ScoreStrategy):
    r"""Bayesian active learning by disagreement [1]_, with dropout as the posterior [2]_.

    The utility is the epistemic uncertainty, the mutual information between label and weights:
    :math:`H[\frac1T \sum_t p_t] - \frac1T \sum_t H[p_t]`, in nats, over T dropout samples. The
    classifier must have ``sample_proba(X, n_samples)``, which returns probabilities of shape
    (n_samples, n, n_classes).

    Parameters
    ----------
    n_samples : int, default=20
        Number of dropout samples, T.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] N. Houlsby, F. Huszár, Z. Ghahramani and M. Lengyel. Bayesian Active Learning for
       Classification and Preference Learning. arXiv:1112.5745, 2011.
    .. [2] Y. Gal, R. Islam and Z. Ghahramani. Deep Bayesian Active Learning with Image Data.
       ICML 2017.
    """

    reads = ("mc_proba",)
    constraints = allowed(n_samples=N_SAMPLES)

    def __init__(
        self, n_samples: int = 20, missing_label: Any = MISSING_LABEL, random_state: Seed = None
    ) -> None:
        super().__init__(missing_label, random_state)
        self.n_samples = n_samples

    def score(self, scores: Scores) -> NDArray[np.float64]:
        assert scores.mc_proba is not None
        return mutual_information(scores.mc_proba)


def mutual_information(mc_proba: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mutual information of label and weights, in nats: Gal et al. (2017), equation 2.

    `mc_proba` has shape (n_samples, n, n_classes); the result (n,) is >= 0 up to rounding.
    """
    return by_blocks(lambda part: entropy(part.mean(axis=0)) - entropy(part).mean(axis=0), mc_proba)
