"""Batches that represent the pool: ProbCover and MaxHerding, in memory that grows with n alone."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import ParameterError
from ..datasets.base import MISSING_LABEL
from .base import BatchStrategy, pick_highest
from .geometry import as_points, blocks, cluster, unit_length
from .scores import Scores

SAMPLE = 5000


class ProbCover(BatchStrategy):
    r"""Covers as many images as it can with balls around what is labelled [1]_.

    The embeddings are scaled to unit length. Each pick is the image whose ball of radius `delta`
    holds most images that are in no ball yet; ties fall at random. Picks as
    `skactiveml.pool.ProbCover` does for the same radius, without its n x n matrices: an image is
    covered once, and only then are the distances to it computed again.

    Parameters
    ----------
    delta : float, optional
        The radius. By default the largest at which the balls of a share `alpha` of the images are
        pure, that is, hold images of one cluster alone, the clusters being those of k-means into
        as many as there are classes; of many images, 5,000 are drawn for this.
    alpha : float, default=0.95
        That share.
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Seeds the clustering and breaks ties.

    References
    ----------
    .. [1] O. Yehuda, A. Dekel, G. Hacohen and D. Weinshall. Active Learning Through a Covering
       Lens. NeurIPS 2022. Algorithm 1; the radius as in section 4.1.
    """

    reads = ("embeddings", "labeled")

    def __init__(
        self,
        delta: float | None = None,
        alpha: float = 0.95,
        missing_label: Any = MISSING_LABEL,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.delta = delta
        self.alpha = alpha

    def pick(
        self,
        scores: Scores,
        batch_size: int,
        random_state: np.random.RandomState,
        utilities: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Pick greedily; the utilities are the numbers of images newly covered."""
        assert scores.embeddings is not None and scores.labeled is not None
        unit = unit_length(scores.embeddings)
        points = as_points(unit, scores.device)
        squared = self._radius(unit, scores, random_state) ** 2
        n = len(points)
        uncovered = torch.ones(n, dtype=torch.bool, device=points.device)
        if len(scores.labeled):
            known = as_points(unit_length(scores.labeled.embeddings), scores.device)
            for rows, distance in _distances(points, known):
                uncovered[rows] = ~(distance <= squared).any(dim=1)
        degree = _count_within(points, points[uncovered], squared)
        picks = np.empty(batch_size, dtype=np.int64)
        for number in range(batch_size):
            pick = pick_highest(picks, number, degree.cpu().numpy(), random_state, utilities)
            ((_, distance),) = _distances(points[pick : pick + 1], points)
            new = uncovered & (distance[0] <= squared)
            uncovered &= ~new
            degree -= _count_within(points, points[new], squared)
        return picks

    def _radius(
        self, unit: NDArray[np.float32], scores: Scores, random_state: np.random.RandomState
    ) -> float:
        if _above_zero("alpha", self.alpha) >= 1:
            raise ParameterError(f"alpha={self.alpha!r}; expected a number below 1")
        if self.delta is not None:
            return _above_zero("delta", self.delta)
        known = np.unique(scores.labeled.y) if scores.labeled is not None else ()
        n_clusters = min(max(scores.proba.shape[1], len(known), 2), len(unit))
        if len(unit) > SAMPLE:
            unit = unit[random_state.choice(len(unit), SAMPLE, replace=False)]
        return pure_radius(unit, n_clusters, self.alpha, random_state, scores.device)


def pure_radius(
    points: NDArray[np.float32],
    n_clusters: int,
    alpha: float,
    random_state: np.random.RandomState,
    device: str = "cpu",
) -> float:
    """Return the largest radius at which a share `alpha` of all balls is pure.

    A ball is pure below the distance from its centre to the nearest point of another cluster, so
    that the radius is a quantile of these distances.

    Parameters
    ----------
    points : ndarray of float32, shape (n, n_features)
        The centres of the balls, and what they hold.
    n_clusters : int
        Of k-means.
    alpha : float
        In (0, 1).
    random_state : RandomState
        Seeds the clustering.
    device : str
        Where to compute.

    Returns
    -------
    float
        0 where clusters coincide.
    """
    _, labels = cluster(points, n_clusters, random_state)
    there = as_points(points, device)
    own = torch.from_numpy(labels).to(there.device)
    foreign = torch.empty(len(points))
    for rows, distance in _distances(there, there):
        distance[own[rows, None] == own] = torch.inf
        foreign[rows] = distance.min(dim=1).values.cpu()
    values = np.sort(np.sqrt(foreign.numpy().astype(np.float64)))
    # the balls below this one are at most 1 - alpha of all; the radius stays just under it
    limit = values[int(np.floor((1 - alpha) * len(values)))]
    return float(np.nextafter(limit, 0)) if np.isfinite(limit) else 2.0


class MaxHerding(BatchStrategy):
    r"""Raises most the mean similarity of an image to its most similar labelled one [1]_.

    The embeddings are scaled to unit length; the similarity is
    :math:`\exp(-\gamma |x - x'|^2)`. Picks as `skactiveml.pool.MaxHerding` does for the same
    :math:`\gamma`, without its n x n matrix: a pick changes the gains by way of those images alone
    to which it is the most similar one.

    Parameters
    ----------
    gamma : float, default=1
        Of the similarity. (scikit-activeml's default, one over the number of features, makes all
        images of unit length alike.)
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Breaks ties.

    References
    ----------
    .. [1] W. Bae, J. Noh and D. J. Sutherland. Generalized Coverage for More Robust Low-Budget
       Active Learning. ECCV 2024.
    """

    reads = ("embeddings", "labeled")

    def __init__(
        self,
        gamma: float = 1.0,
        missing_label: Any = MISSING_LABEL,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.gamma = gamma

    def pick(
        self,
        scores: Scores,
        batch_size: int,
        random_state: np.random.RandomState,
        utilities: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Pick greedily; the utilities are the gains."""
        gamma = _above_zero("gamma", self.gamma)
        assert scores.embeddings is not None and scores.labeled is not None
        points = as_points(unit_length(scores.embeddings), scores.device)
        similarity = torch.zeros(len(points), device=points.device)
        if len(scores.labeled):
            known = as_points(unit_length(scores.labeled.embeddings), scores.device)
            for rows, distance in _distances(points, known):
                similarity[rows] = torch.exp(-gamma * distance.min(dim=1).values)
        gains = _loss(points, points, similarity, torch.inf, gamma)
        picks = np.empty(batch_size, dtype=np.int64)
        for number in range(batch_size):
            pick = pick_highest(picks, number, gains.cpu().numpy(), random_state, utilities)
            ((_, distance),) = _distances(points[pick : pick + 1], points)
            to_pick = torch.exp(-gamma * distance[0])
            nearer = to_pick > similarity
            gains -= _loss(points, points[nearer], similarity[nearer], to_pick[nearer], gamma)
            similarity[nearer] = to_pick[nearer]
        return picks


def _loss(
    points: Tensor, others: Tensor, before: Tensor, after: Tensor | float, gamma: float
) -> Tensor:
    """Return what each point's gain loses when the similarities of others rise."""
    loss = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    if len(others):
        for rows, distance in _distances(points, others):
            similarity = distance.mul_(-gamma).exp_()
            lost = (similarity - before).clamp_(min=0) - (similarity - after).clamp_(min=0)
            loss[rows] = lost.sum(dim=1, dtype=torch.float64) / len(points)
    return loss


def _distances(points: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield squared distances of some points to all others, and which points they are."""
    lengths = torch.einsum("ij,ij->i", others, others)
    for rows in blocks(len(points), len(others)):
        part = points[rows]
        both = torch.einsum("ij,ij->i", part, part)[:, None] + lengths
        yield rows, torch.addmm(both, part, others.T, alpha=-2).clamp_(min=0)


def _count_within(points: Tensor, others: Tensor, squared: float) -> Tensor:
    """Return how many of the others are near each point."""
    count = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    if len(others):
        for rows, distance in _distances(points, others):
            count[rows] = (distance <= squared).sum(dim=1)
    return count


def _above_zero(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < np.inf:
        raise ParameterError(f"{name}={value!r}; expected a number above 0")
    return float(value)
