"""Disagreement of networks trained on bootstrap samples of the labelled images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.base import MISSING_LABEL
from .base import N_SAMPLES, ScoreStrategy, Seed
from .parameters import allowed
from .scores import Scores
from .uncertainty import by_blocks


class CommitteeVariance(ScoreStrategy):
    r"""The variance of the probabilities over a committee, summed over the classes.

    The utility is :math:`\sum_c \frac1M \sum_m (p_{mc} - \bar p_c)^2`. `skal.run` trains the
    committee on bootstrap samples of the labelled images; elsewhere, pass a `skal.Committee` as
    `clf`, or any classifier with ``sample_proba(X, n_samples)``.

    Parameters
    ----------
    n_samples : int, default=5
        Number of committee members, M.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] B. Lakshminarayanan, A. Pritzel and C. Blundell. Simple and Scalable Predictive
       Uncertainty Estimation using Deep Ensembles. NeurIPS 2017.
    .. [2] W. H. Beluch, T. Genewein, A. Nürnberger and J. M. Köhler. The Power of Ensembles for
       Active Learning in Image Classification. CVPR 2018.
    """

    reads = ("mc_proba",)
    constraints = allowed(n_samples=N_SAMPLES)

    def __init__(
        self, n_samples: int = 5, missing_label: Any = MISSING_LABEL, random_state: Seed = None
    ) -> None:
        super().__init__(missing_label, random_state)
        self.n_samples = n_samples

    def score(self, scores: Scores) -> NDArray[np.float64]:
        assert scores.mc_proba is not None
        return by_blocks(lambda part: part.var(axis=0).sum(axis=1), scores.mc_proba)
