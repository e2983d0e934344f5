"""k-means clustering and typicality."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from .geometry import (
    NUMBERS_IN_CACHE,
    ROWS_AT_ONCE,
    SMALL,
    WIDTH,
    Shift,
    as_points,
    blocks,
    centred,
    squared_distances,
)

PER_CLUSTER = 20  # least points per cluster in the subset that is clustered first
STEPS_OF_SOME, STEPS_OF_ALL = 25, 2


class ManyMeans(KMeans):  # type: ignore[misc]
    """scikit-learn's k-means, with fewer steps and less memory for more than `small` points.

    These are reduced to `WIDTH` leading principal directions. A subset, drawn in proportion to the
    weights, is clustered first; then a few steps on all points move the centres.
    """

    small = SMALL

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> ManyMeans:
        if len(X) <= self.small:
            super().fit(X, sample_weight=sample_weight)
            return self
        weights = None if sample_weight is None else np.asarray(sample_weight, np.float64)
        points, _ = centred(X, width=WIDTH)
        found = self._of_some(points, weights)
        centres, own = torch.from_numpy(found.cluster_centers_), np.ones(len(X))
        weights = own if weights is None else weights
        for _ in range(STEPS_OF_ALL):
            labels = nearest(points, centres)
            means, empty = means_of(points, labels, weights, len(centres))
            centres = torch.where(empty[:, None], centres, means.float())
        self.labels_ = nearest(points, centres)
        means, empty = means_of(X, self.labels_, weights, len(centres))
        self.cluster_centers_ = means.numpy()
        lost = np.flatnonzero(empty.numpy())
        if len(lost):  # use the nearest point, which belongs to another cluster
            self.cluster_centers_[lost] = X[nearest(centres[lost].numpy(), as_points(points))]
        self.n_iter_ = found.n_iter_ + STEPS_OF_ALL
        return self

    def _of_some(self, points: NDArray[np.float32], weights: NDArray[np.float64] | None) -> KMeans:
        draw = np.random.RandomState(self.random_state)
        n = min(max(self.small, PER_CLUSTER * self.n_clusters), len(points))
        if weights is None:
            drawn = draw.choice(len(points), n, replace=False)
        else:
            drawn = draw.choice(len(points), n, p=weights / weights.sum())
        options = {"n_init": 1, "max_iter": STEPS_OF_SOME, "random_state": self.random_state}
        return KMeans(self.n_clusters, **options).fit(points[np.sort(drawn)])

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> NDArray[Any]:
        """Return the distances of all points to all centres, shape (n, n_clusters)."""
        if len(X) <= self.small:
            distances: NDArray[Any] = super().fit_transform(X, sample_weight=sample_weight)
            return distances
        self.fit(X, sample_weight=sample_weight)
        shift, distances = Shift(X), np.empty((len(X), self.n_clusters), np.float32)
        centres = torch.from_numpy(shift(self.cluster_centers_))
        for rows in blocks(*X.shape):
            distances[rows] = torch.cdist(torch.from_numpy(shift(X[rows])), centres).numpy()
        return distances


def nearest(points: NDArray[np.float32], centres: Tensor) -> NDArray[np.int64]:
    """Return the index of the nearest centre of each point, shape (n,)."""
    labels = np.empty(len(points), dtype=np.int64)
    for rows, distance in squared_distances(torch.from_numpy(points), centres):
        labels[rows] = distance.argmin(dim=1).cpu().numpy()
    return labels


def means_of(
    points: NDArray[np.floating],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    n_clusters: int,
) -> tuple[Tensor, Tensor]:
    """Return the weighted mean of each cluster, float64, and which clusters have no weight."""
    sums = torch.zeros(n_clusters, points.shape[1], dtype=torch.float64)
    for rows in blocks(len(points), points.shape[1], numbers=NUMBERS_IN_CACHE):
        part = torch.from_numpy(points[rows] * weights[rows, None])
        sums.index_add_(0, torch.from_numpy(labels[rows]), part)
    total = torch.from_numpy(np.bincount(labels, weights, n_clusters))
    return sums / total.clamp(min=np.finfo(np.float64).tiny)[:, None], total == 0


def cluster(
    points: NDArray[np.floating],
    n_clusters: int,
    random_state: np.random.RandomState,
    *,
    small: int = SMALL,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Cluster at least `n_clusters` points by k-means; see `ManyMeans` for more than `small`.

    Returns each point's cluster and its distance to the cluster's centre, both of shape (n,). If
    points coincide, clusters may be empty.
    """
    means = ManyMeans(n_clusters, random_state=int(random_state.randint(2**31 - 1)), n_init=1)
    means.small = small
    if len(points) <= small:
        points, _ = centred(points)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        means.fit(points)
    distances = np.empty(len(points), dtype=np.float32)
    for rows in blocks(len(points), points.shape[1], numbers=NUMBERS_IN_CACHE):
        offsets = points[rows] - means.cluster_centers_[means.labels_[rows]]
        distances[rows] = np.linalg.norm(offsets, axis=1)
    return means.labels_.astype(np.int64), distances


def typicality(points: NDArray[np.floating], n_neighbors: int, device: str) -> NDArray[np.float64]:
    """Return the typicality of the points of one cluster, shape (n,); 1 for a single point.

    It is the inverse mean distance to at most n - 1 nearest neighbours: equation 1 of Hacohen et
    al. (2022).
    """
    n_neighbors = min(n_neighbors, len(points) - 1)
    if n_neighbors < 1:
        return np.ones(len(points))
    tensor, means = as_points(centred(points)[0], device), []
    if len(tensor) <= ROWS_AT_ONCE:
        tensor = tensor.double()
    for rows, distance in squared_distances(tensor, tensor):
        distance.diagonal(rows.start).fill_(0)  # exact distance of a point to itself
        nearest = distance.topk(n_neighbors + 1, largest=False).values.sqrt_()
        means.append(nearest.sum(dim=1) / n_neighbors)
    mean: NDArray[np.float64] = torch.cat(means).double().cpu().numpy()
    return np.asarray(1 / np.maximum(mean, np.finfo(np.float32).tiny))
