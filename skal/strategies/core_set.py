"""Core-set: the batch that leaves no image far from a labelled one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import BatchStrategy, pick_highest
from .geometry import NearestCentre, as_points
from .scores import Scores


class CoreSet(BatchStrategy):
    """Greedy k-centres in embedding space [1]_.

    Each pick is the image farthest from all that are labelled or picked; ties fall at random. With
    nothing labelled the first is drawn. Picks as `skactiveml.pool.CoreSet` does, without computing
    anew the distances that a pick cannot have changed.

    Parameters
    ----------
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Breaks ties.

    References
    ----------
    .. [1] O. Sener and S. Savarese. Active Learning for Convolutional Neural Networks: A Core-Set
       Approach. ICLR 2018. Algorithm 1.
    """

    reads = ("embeddings", "labeled")

    def pick(
        self,
        scores: Scores,
        batch_size: int,
        random_state: np.random.RandomState,
        utilities: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Pick greedily; the utilities are distances to the nearest centre."""
        assert scores.embeddings is not None and scores.labeled is not None
        known = scores.labeled
        points = NearestCentre(
            as_points(scores.embeddings, scores.device), capacity=batch_size + len(known)
        )
        if len(known):
            points.add_points(as_points(known.embeddings, scores.device))
        return farthest_first(points, batch_size, random_state, utilities)


def farthest_first(
    points: NearestCentre,
    n_picks: int,
    random_state: np.random.RandomState,
    utilities: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Pick the farthest point again and again, each becoming a centre.

    Parameters
    ----------
    points : NearestCentre
        With the centres that there are.
    n_picks : int
        How many.
    random_state : RandomState
        Breaks ties.
    utilities : ndarray of float64, shape (n_picks, n), optional
        Filled with the distances.

    Returns
    -------
    ndarray of int64, shape (n_picks,)
    """
    picks = np.empty(n_picks, dtype=np.int64)
    for number in range(n_picks):
        squared = points.squared.cpu().numpy()
        points.add(pick_highest(picks, number, squared, random_state, utilities))
    if utilities is not None:
        utilities[np.isinf(utilities)] = 0  # while there is no centre
        np.sqrt(utilities, out=utilities)
    return picks
