"""ProbCover and MaxHerding, in memory linear in the number of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..datasets.base import MISSING_LABEL
from .balls import Balls
from .base import BatchStrategy, GreedyBatch, RandomState, Rows, Seed, ToFill
from .clustering import cluster
from .geometry import (
    CANCELLED,
    SMALL,
    WIDTH,
    Shift,
    as_points,
    centred,
    squared_distances,
    squared_norms,
)
from .herding import Herd, pick_greedily
from .parameters import Number, allowed
from .scores import Scores

SAMPLE = 5000


class ProbCover(BatchStrategy):
    r"""Cover as many images as possible by balls around labelled images [1]_.

    The embeddings are scaled to unit length. Each pick is the image whose ball of radius `delta`
    contains the most uncovered images. Equivalent to `skactiveml.pool.ProbCover` with the same
    radius, but without n x n matrices: only pairs within the radius are stored, and most others
    are excluded by a few leading principal directions.

    Parameters
    ----------
    delta : float, optional
        The radius. By default the largest at which a share `alpha` of the balls is pure, i.e.
        contains images of one cluster only. The clusters are those of k-means, as many as there
        are classes, on at most 5,000 randomly drawn images.
    alpha : float, default=0.95
        Share of balls that must be pure.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] O. Yehuda, A. Dekel, G. Hacohen and D. Weinshall. Active Learning Through a Covering
       Lens. NeurIPS 2022. Algorithm 1; the radius as in section 4.1.
    """

    reads = ("embeddings", "labeled")
    constraints = allowed(
        delta=Number(0, ends=False, optional=True),
        alpha=Number(0, 1, ends=False),
    )

    def __init__(
        self,
        delta: float | None = None,
        alpha: float = 0.95,
        missing_label: Any = MISSING_LABEL,
        random_state: Seed = None,
    ) -> None:
        super().__init__(missing_label, random_state)
        self.delta = delta
        self.alpha = alpha

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        """Pick greedily; the utilities are the numbers of newly covered images."""
        points, known = unit_points(scores)
        squared = self._radius(points, scores, random_state) ** 2
        if squared < CANCELLED * float(squared_norms(points).max()):
            points, known = points.double(), known.double()
        uncovered = torch.ones(len(points), dtype=torch.bool, device=points.device)
        if len(known):
            for rows, distance in squared_distances(points, known):
                uncovered[rows] = ~(distance <= squared).any(dim=1)
        balls = Balls(points, squared)
        degree = balls.count(uncovered.nonzero().squeeze(1))
        batch = GreedyBatch(batch_size, random_state, utilities)
        for _ in range(batch_size):
            within = balls.of(batch.pick(degree.cpu().numpy()))
            new = within[uncovered[within]]
            uncovered[new] = False
            degree -= balls.count(new)
        return batch.picks

    def _radius(self, points: Tensor, scores: Scores, random_state: RandomState) -> float:
        if self.delta is not None:
            return float(self.delta)
        known = np.unique(scores.labeled.y) if scores.labeled is not None else ()
        n_clusters = min(max(scores.proba.shape[1], len(known), 2), len(points))
        if len(points) > SAMPLE:
            points = points[random_state.choice(len(points), SAMPLE, replace=False)]
        return pure_radius(points, n_clusters, self.alpha, random_state)


def pure_radius(points: Tensor, n_clusters: int, alpha: float, random_state: RandomState) -> float:
    """Return the largest radius at which a share `alpha` of the balls around points is pure.

    A ball is pure up to the distance from its centre to the nearest point of another k-means
    cluster, so the radius is a quantile of these distances; 0 if clusters coincide.
    """
    labels, _ = cluster(points.cpu().numpy(), n_clusters, random_state)
    own = torch.from_numpy(labels).to(points.device)
    for precise in (points, points.double()):
        foreign = torch.empty(len(points), dtype=precise.dtype)
        for rows, distance in squared_distances(precise, precise):
            distance[own[rows, None] == own] = torch.inf
            foreign[rows] = distance.min(dim=1).values.cpu()
        # at most a share 1 - alpha of the distances is smaller; the radius stays just below it
        limit = float(np.sort(foreign.numpy())[int(np.floor((1 - alpha) * len(points)))])
        if limit >= CANCELLED * float(squared_norms(points).max()):
            break
    return float(np.nextafter(np.sqrt(limit), 0)) if np.isfinite(limit) else 2.0


class MaxHerding(BatchStrategy):
    r"""Maximise the mean similarity of images to their most similar labelled image [1]_.

    The embeddings are scaled to unit length; the similarity is
    :math:`\exp(-\gamma |x - x'|^2)`. Equivalent to `skactiveml.pool.MaxHerding` with the same
    :math:`\gamma`, but without an n x n matrix, and recomputes gains only where they may be the
    highest. With more than 10,000 images the mean is taken over a sample, see
    `skal.strategies.herding`, and embeddings are reduced to 128 leading principal directions.

    Parameters
    ----------
    gamma : float, default=1
        Parameter of the similarity. (scikit-activeml's default, one over the number of features,
        makes all unit vectors similar.)
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] W. Bae, J. Noh and D. J. Sutherland. Generalized Coverage for More Robust Low-Budget
       Active Learning. ECCV 2024.
    """

    reads = ("embeddings", "labeled")
    constraints = allowed(gamma=Number(0, ends=False))

    def __init__(
        self, gamma: float = 1.0, missing_label: Any = MISSING_LABEL, random_state: Seed = None
    ) -> None:
        super().__init__(missing_label, random_state)
        self.gamma = gamma

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        """Pick greedily; the utilities are the gains."""
        points, known = unit_points(scores, WIDTH if len(scores) > SMALL else None)
        herd = Herd(points, float(self.gamma), random_state=random_state)
        herd.cover(known)
        return pick_greedily(herd, batch_size, random_state, utilities)


def unit_points(scores: Scores, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Return embeddings of candidates and labelled images, scaled to length 1, centred and, if
    wider than `width`, reduced to that many leading principal directions of both.
    """
    assert scores.embeddings is not None and scores.labeled is not None
    known, place = scores.labeled.embeddings, scores.place
    if width is None:
        moved = centred(scores.embeddings, known, unit_length=True)
    elif place is not None and place.whole is not None:
        points = place.whole.unit_points(width)
        moved = points[place.rows], points[place.known]
    else:
        shift = Shift(_some_of_all(scores), unit_length=True, width=width)
        moved = shift(scores.embeddings), shift(known if len(known) else scores.embeddings[:0])
    candidates, labelled = (as_points(values, scores.device) for values in moved)
    return candidates, labelled


def _some_of_all(scores: Scores) -> NDArray[np.floating]:
    """Return embeddings of candidates and labelled images in pool order, thinned out if there are
    more than `SMALL`.
    """
    assert scores.embeddings is not None and scores.labeled is not None
    candidates, known, place = scores.embeddings, scores.labeled.embeddings, scores.place
    n, n_known = len(candidates) + len(known), len(known)
    order = np.arange(n) if place is None else np.argsort(np.concatenate([place.known, place.rows]))
    order = order[:: max(1, n // SMALL)]
    of_known = order < n_known
    some = np.empty((len(order), candidates.shape[1]), candidates.dtype)
    some[~of_known] = candidates[order[~of_known] - n_known]
    if n_known:
        some[of_known] = known[order[of_known]]
    return some
