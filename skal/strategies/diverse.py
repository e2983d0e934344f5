"""Uncertain and diverse, by two simple combinations."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParameterError
from ..datasets.base import MISSING_LABEL
from .base import BatchStrategy, fill, pick_highest
from .geometry import NearestCentre, as_points, cluster
from .k_means import one_of_each
from .scores import Scores
from .uncertainty import entropy, measure


class DiverseEntropy(BatchStrategy):
    """The most uncertain of each cluster of the most uncertain [1]_.

    The ``factor * batch_size`` candidates of highest entropy are clustered by their embeddings
    into `batch_size` clusters by k-means; each cluster gives its image of highest entropy.

    Parameters
    ----------
    factor : int, default=3
        How many times the batch is kept before the clustering.
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Seeds the clustering and breaks ties.

    References
    ----------
    .. [1] F. Zhdanov. Diverse mini-batch Active Learning. arXiv:1901.05954, 2019 (who takes the
       image nearest to the centre).
    """

    reads = ("proba", "embeddings")

    def __init__(
        self,
        factor: int = 3,
        missing_label: Any = MISSING_LABEL,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.factor = factor

    def pick(
        self,
        scores: Scores,
        batch_size: int,
        random_state: np.random.RandomState,
        utilities: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Pick one of each cluster; the utilities are the entropies of what was kept, else 0."""
        assert scores.embeddings is not None
        if isinstance(self.factor, bool) or not isinstance(self.factor, int) or self.factor < 1:
            raise ParameterError(f"factor={self.factor!r}; expected a whole number, 1 or more")
        values = entropy(scores.proba)
        ties = random_state.random_sample(len(values))
        kept = np.lexsort((ties, -values))[: self.factor * batch_size]
        _, labels = cluster(scores.embeddings[kept], batch_size, random_state)
        picks = kept[one_of_each(labels, values[kept], batch_size, random_state)]
        if utilities is not None:
            known = np.zeros(len(values))
            known[kept] = values[kept]
            fill(utilities, known, picks)
        return picks


class DiverseBatch(BatchStrategy):
    r"""Greedy on a weighted sum of uncertainty and distance to what is picked [1]_.

    The utility is :math:`(1 - t) u + t d`: u, the uncertainty, is scaled to [0, 1] over the
    candidates; d, the distance of the embedding to the nearest pick, is divided by the largest
    before each pick. The first pick is the most uncertain image.

    Parameters
    ----------
    temperature : float, default=0.5
        t, from 0 (uncertainty alone) to 1 (after the first pick, distance alone).
    measure : {"entropy", "margin", "least-confidence"}, default="entropy"
        Of uncertainty.
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Breaks ties.

    References
    ----------
    .. [1] K. Brinker. Incorporating Diversity in Active Learning with Support Vector Machines.
       ICML 2003 (the weighted sum, there with angles).
    """

    reads = ("proba", "embeddings")

    def __init__(
        self,
        temperature: float = 0.5,
        measure: str = "entropy",
        missing_label: Any = MISSING_LABEL,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.temperature = temperature
        self.measure = measure

    def pick(
        self,
        scores: Scores,
        batch_size: int,
        random_state: np.random.RandomState,
        utilities: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Pick greedily by the weighted sum."""
        assert scores.embeddings is not None
        t = self.temperature
        if isinstance(t, bool) or not isinstance(t, Real) or not 0 <= t <= 1:
            raise ParameterError(f"temperature={t!r}; expected a number from 0 to 1")
        uncertainty = measure(self.measure, scores.proba)
        uncertainty -= uncertainty.min()
        uncertainty /= uncertainty.max() or 1
        points = NearestCentre(as_points(scores.embeddings, scores.device), capacity=batch_size)
        picks = np.empty(batch_size, dtype=np.int64)
        values = uncertainty
        for number in range(batch_size):
            if number:
                distance = np.sqrt(points.squared.cpu().numpy().astype(np.float64))
                values = (1 - t) * uncertainty + t * distance / (distance.max() or 1)
            points.add(pick_highest(picks, number, values, random_state, utilities))
        return picks
