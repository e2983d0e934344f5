"""Core-set: pick batches that leave no image far from a labelled one."""

from __future__ import annotations

import numpy as np

from .base import BatchStrategy, GreedyBatch, RandomState, Rows, ToFill
from .geometry import NearestCentre, as_points, centred
from .scores import Scores


class CoreSet(BatchStrategy):
    """Greedy k-centres in embedding space [1]_.

    Each pick is the image farthest from all labelled and picked ones; the first is random if none
    is labelled. Equivalent to `skactiveml.pool.CoreSet`, but recomputes only the distances that a
    pick can change.

    Parameters
    ----------
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] O. Sener and S. Savarese. Active Learning for Convolutional Neural Networks: A Core-Set
       Approach. ICLR 2018. Algorithm 1.
    """

    reads = ("embeddings", "labeled")

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        """Pick greedily; the utilities are distances to the nearest centre."""
        assert scores.embeddings is not None and scores.labeled is not None
        known = scores.labeled
        candidates, labelled = centred(scores.embeddings, known.embeddings)
        capacity = batch_size + len(known)
        points = NearestCentre(as_points(candidates, scores.device), capacity=capacity)
        if len(known):
            points.add_points(as_points(labelled, scores.device))
        batch = GreedyBatch(batch_size, random_state, utilities)
        for _ in range(batch_size):
            points.add(batch.pick(points.squared.cpu().numpy()))
        if utilities is not None:
            utilities[np.isinf(utilities)] = 0  # there was no centre yet
            np.sqrt(utilities, out=utilities)
        return batch.picks
