"""One image from each cluster of the pool."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.base import MISSING_LABEL
from .base import BatchStrategy, RandomState, Rows, Seed, ToFill, fill
from .clustering import cluster
from .parameters import OneOf, allowed
from .scores import Scores


class KMeansSampling(BatchStrategy):
    """Cluster the candidates into `batch_size` clusters by k-means and pick one image of each [1]_.

    Parameters
    ----------
    pick_from : {"nearest", "farthest"}, default="nearest"
        Whether to pick the image nearest to the cluster's centre, a typical one, or the farthest,
        an atypical one. On the command line this is ``pick``.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] Z. Bodó, Z. Minier and L. Csató. Active Learning with Clustering. JMLR Workshop and
       Conference Proceedings 16, 2011.
    """

    reads = ("embeddings",)
    constraints = allowed(pick_from=OneOf(("nearest", "farthest")))

    def __init__(
        self,
        pick_from: str = "nearest",
        missing_label: Any = MISSING_LABEL,
        random_state: Seed = None,
    ) -> None:
        super().__init__(missing_label, random_state)
        self.pick_from = pick_from

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        """Pick one image per cluster, the largest cluster first; the utilities are the distances
        to the centre, negative for "nearest".
        """
        assert scores.embeddings is not None
        labels, distance = cluster(scores.embeddings, batch_size, random_state)
        score = -distance if self.pick_from == "nearest" else distance
        picks = one_of_each(labels, score, batch_size, random_state)
        if utilities is not None:
            fill(utilities, score, picks)
        return picks


def one_of_each(
    labels: Rows, score: NDArray[np.floating[Any]], n_picks: int, random_state: RandomState
) -> Rows:
    """Return the best row of each cluster, largest cluster first, then the second best, and so on.

    `labels` and `score`, the higher the better, have shape (n,); ties are broken at random.
    """
    order = np.lexsort((random_state.random_sample(len(labels)), -score, labels))
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(labels), dtype=np.int64)  # within the cluster, 0 for the best
    rank[order] = np.arange(len(labels)) - starts[labels[order]]
    return np.asarray(np.lexsort((labels, -sizes[labels], rank))[:n_picks])
