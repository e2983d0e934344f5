"""Two simple combinations of uncertainty and diversity."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..datasets.base import MISSING_LABEL
from .base import BatchStrategy, GreedyBatch, RandomState, Rows, Seed, ToFill, fill
from .clustering import cluster
from .geometry import NearestCentre, as_points, centred
from .k_means import one_of_each
from .parameters import Number, OneOf, allowed
from .scores import Scores
from .uncertainty import MEASURES, entropy


class DiverseEntropy(BatchStrategy):
    """The most uncertain image of each cluster of the most uncertain images [1]_.

    The embeddings of the ``factor * batch_size`` candidates of highest entropy are clustered by
    k-means into `batch_size` clusters; the image of highest entropy in each is picked.

    Parameters
    ----------
    factor : int, default=3
        Number of candidates to cluster, in batches.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] F. Zhdanov. Diverse mini-batch Active Learning. arXiv:1901.05954, 2019 (there, the image
       nearest to the centre is picked).
    """

    reads = ("proba", "embeddings")
    constraints = allowed(factor=Number(1, whole=True))

    def __init__(
        self, factor: int = 3, missing_label: Any = MISSING_LABEL, random_state: Seed = None
    ) -> None:
        super().__init__(missing_label, random_state)
        self.factor = factor

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        """Pick one image per cluster; the utilities are the entropies, 0 for unclustered images."""
        assert scores.embeddings is not None
        values = entropy(scores.proba)
        ties = random_state.random_sample(len(values))
        kept = np.lexsort((ties, -values))[: self.factor * batch_size]
        labels, _ = cluster(scores.embeddings[kept], batch_size, random_state)
        picks = kept[one_of_each(labels, values[kept], batch_size, random_state)]
        if utilities is not None:
            known = np.zeros(len(values))
            known[kept] = values[kept]
            fill(utilities, known, picks)
        return picks


class DiverseBatch(BatchStrategy):
    r"""Greedy by a weighted sum of uncertainty and distance to earlier picks [1]_.

    The utility is :math:`(1 - t) u + t d`. The uncertainty u is scaled to [0, 1] over the
    candidates; d is the distance of the embedding to the nearest pick, divided by the largest such
    distance. The first pick is the most uncertain image.

    Parameters
    ----------
    temperature : float, default=0.5
        t, from 0 (only uncertainty) to 1 (after the first pick, only distance).
    measure : {"entropy", "margin", "least-confidence"}, default="entropy"
        The uncertainty measure.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] K. Brinker. Incorporating Diversity in Active Learning with Support Vector Machines.
       ICML 2003 (the weighted sum, there with angles).
    """

    reads = ("proba", "embeddings")
    constraints = allowed(
        temperature=Number(0, 1),
        measure=OneOf(MEASURES),
    )

    def __init__(
        self,
        temperature: float = 0.5,
        measure: str = "entropy",
        missing_label: Any = MISSING_LABEL,
        random_state: Seed = None,
    ) -> None:
        super().__init__(missing_label, random_state)
        self.temperature = temperature
        self.measure = measure

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        assert scores.embeddings is not None
        t = self.temperature
        uncertainty = MEASURES[self.measure](scores.proba)
        uncertainty -= uncertainty.min()
        uncertainty /= uncertainty.max() or 1
        embeddings, _ = centred(scores.embeddings)
        points = NearestCentre(as_points(embeddings, scores.device), capacity=batch_size)
        batch = GreedyBatch(batch_size, random_state, utilities)
        values = uncertainty
        for number in range(batch_size):
            if number:
                distance = np.sqrt(points.squared.cpu().numpy().astype(np.float64))
                values = (1 - t) * uncertainty + t * distance / (distance.max() or 1)
            points.add(batch.pick(values))
        return batch.picks
