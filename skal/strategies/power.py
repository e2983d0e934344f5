"""Stochastic batch acquisition: perturb uncertainty to diversify batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.base import MISSING_LABEL
from .bald import mutual_information
from .base import N_SAMPLES, RandomState, Rows, ScoreStrategy, Seed, ToFill, fill
from .parameters import Number, allowed
from .scores import Scores
from .uncertainty import margin


class PowerStrategy(ScoreStrategy):
    r"""Sample a batch without replacement in proportion to a power of the scores [1]_.

    The weights :math:`s^\beta` are sampled by the Gumbel trick: the batch has the highest
    :math:`\log s + \epsilon / \beta`, with standard Gumbel noise :math:`\epsilon`. Images of score
    0 come last. Subclasses implement `score`, which must not be negative.

    Parameters
    ----------
    beta : float, default=1
        The power: 0 samples uniformly, infinity picks the highest scores.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] A. Kirsch, S. Farquhar, P. Atighehchian, A. Jesson, F. Branchaud-Charron and Y. Gal.
       Stochastic Batch Acquisition: A Simple Baseline for Deep Active Learning. TMLR 2023.
    """

    constraints = allowed(beta=Number(0, infinite=True))

    def __init__(
        self, beta: float = 1.0, missing_label: Any = MISSING_LABEL, random_state: Seed = None
    ) -> None:
        super().__init__(missing_label, random_state)
        self.beta = beta

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        """Sample a batch; the utilities are the perturbed log scores."""
        beta = float(self.beta)
        chances = np.maximum(self.score(scores), np.finfo(np.float64).tiny)
        # scale log s by beta rather than the noise by 1 / beta: also works for beta = 0
        noise = random_state.gumbel(size=len(chances))
        perturbed = np.log(chances) if np.isinf(beta) else beta * np.log(chances) + noise
        picks = np.lexsort((noise, -perturbed))[:batch_size]
        if utilities is not None:
            fill(utilities, perturbed, picks)
        return picks


class PowerMargin(PowerStrategy):
    """Power sampling by one minus the margin; see `PowerStrategy`."""

    reads = ("proba",)

    def score(self, scores: Scores) -> NDArray[np.float64]:
        return margin(scores.proba)


class PowerBALD(PowerStrategy):
    """Power sampling by the mutual information of label and weights; see `PowerStrategy`.

    Parameters
    ----------
    beta : float, default=1
        The power.
    n_samples : int, default=20
        Number of dropout samples.
    missing_label, random_state
        See `BatchStrategy`.
    """

    reads = ("mc_proba",)
    constraints = allowed(
        **PowerStrategy.constraints,
        n_samples=N_SAMPLES,
    )

    def __init__(
        self,
        beta: float = 1.0,
        n_samples: int = 20,
        missing_label: Any = MISSING_LABEL,
        random_state: Seed = None,
    ) -> None:
        super().__init__(beta, missing_label, random_state)
        self.n_samples = n_samples

    def score(self, scores: Scores) -> NDArray[np.float64]:
        assert scores.mc_proba is not None
        return mutual_information(scores.mc_proba)
