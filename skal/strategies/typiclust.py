"""TypiClust, and TCM, which switches from TypiClust to margin sampling."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.base import MISSING_LABEL
from .base import BatchStrategy, RandomState, Rows, Seed, ToFill, highest
from .clustering import cluster, typicality
from .geometry import SMALL, WIDTH, centred
from .parameters import Number, allowed
from .scores import Scores
from .uncertainty import margin

MOST_CLUSTERS = 500
SMALLEST_CLUSTER = 5

_log = logging.getLogger("skal")


class TypiClust(BatchStrategy):
    r"""The most typical image of each cluster without a label [1]_.

    The embeddings of all images, labelled ones included, are scaled to unit length and clustered by
    k-means. There are as many clusters as labels after the batch, at most 500. Clusters are visited
    in turn, those with the fewest labels first, then the largest, and the image of highest
    typicality is picked, the inverse mean distance to its nearest neighbours within the cluster.

    Parameters
    ----------
    k : int, default=20
        Number of nearest neighbours, at most half the cluster's images.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] G. Hacohen, A. Dekel and D. Weinshall. Active Learning on a Budget: Opposite Strategies
       Suit High and Low Budgets. ICML 2022.
    """

    reads: tuple[str, ...] = ("embeddings", "labeled")
    constraints = allowed(k=Number(1, whole=True))

    def __init__(
        self, k: int = 20, missing_label: Any = MISSING_LABEL, random_state: Seed = None
    ) -> None:
        super().__init__(missing_label, random_state)
        self.k = k

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        """Pick cluster by cluster; the utilities are the typicality, 0 outside the cluster."""
        assert scores.embeddings is not None and scores.labeled is not None
        n = len(scores)
        points = _all_points(scores)
        n_clusters = min(len(scores.labeled) + batch_size, MOST_CLUSTERS, len(points))
        labels, _ = cluster(points, n_clusters, random_state)
        order = _visits(labels[:n], labels[n:], n_clusters)
        left = labels[:n].copy()
        picks = np.empty(batch_size, dtype=np.int64)
        visit = 0
        for number in range(batch_size):
            while not (left == order[visit % len(order)]).any():
                visit += 1
            rows = np.flatnonzero(left == order[visit % len(order)])
            visit += 1
            typical = typicality(points[rows], min(self.k, max(len(rows) // 2, 1)), scores.device)
            # break ties at random
            best = np.flatnonzero(typical == typical.max())
            picks[number] = rows[best[random_state.randint(len(best))]]
            if utilities is not None:
                utilities[number] = 0
                utilities[number, rows] = typical
                utilities[number, picks[:number]] = np.nan
            left[picks[number]] = -1
        return picks


def _all_points(scores: Scores) -> NDArray[np.float32]:
    """Return the embeddings of candidates, then of labelled images, scaled to length 1, centred,
    and reduced to leading principal directions if there are many candidates.
    """
    assert scores.embeddings is not None and scores.labeled is not None
    width = WIDTH if len(scores) > SMALL else None
    known = scores.labeled.embeddings
    return np.concatenate(centred(scores.embeddings, known, unit_length=True, width=width))


def _visits(labels: Rows, known: Rows, n_clusters: int) -> Rows:
    """Return the clusters in the order in which to visit them; small ones come last."""
    sizes = np.bincount(labels, minlength=n_clusters)
    covered = np.bincount(known, minlength=n_clusters)
    order = np.lexsort((-sizes, covered, sizes < SMALLEST_CLUSTER))
    return order[sizes[order] > 0].astype(np.int64)


class TCM(TypiClust):
    r"""TypiClust while labels are few, then the smallest margins [1]_.

    The embeddings of all images, labelled ones included, are scaled to unit length and clustered by
    k-means into ``clusters_per_class`` clusters per class. TypiClust picks while less than a share
    `coverage` of the candidates is in clusters with a labelled image. The paper instead switches
    after a fixed number of rounds.

    Parameters
    ----------
    clusters_per_class : int, default=3
        Number of clusters per class.
    coverage : float, default=0.9
        Share of candidates in clusters with a labelled image at which to switch to margin.
    k : int, default=20
        See `TypiClust`.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] P. Doucet, B. Estermann, T. Aczel and R. Wattenhofer. Bridging Diversity and
       Uncertainty in Active Learning with Self-Supervised Pre-Training. ICLR 2024 Workshop on
       Practical Machine Learning for Low Resource Settings.
    """

    reads = ("proba", "embeddings", "labeled")
    constraints = allowed(
        **TypiClust.constraints,
        clusters_per_class=Number(1, whole=True),
        coverage=Number(0, 1),
    )

    def __init__(
        self,
        clusters_per_class: int = 3,
        coverage: float = 0.9,
        k: int = 20,
        missing_label: Any = MISSING_LABEL,
        random_state: Seed = None,
    ) -> None:
        super().__init__(k, missing_label, random_state)
        self.clusters_per_class = clusters_per_class
        self.coverage = coverage

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        share = self.covered(scores, random_state)
        by_margin = share >= self.coverage
        _log.info(
            "tcm: %.0f%% of the pool is in clusters with a label; using %s",
            100 * share,
            "margin" if by_margin else "typiclust",
        )
        if not by_margin:
            return super().pick(scores, batch_size, random_state, utilities)
        return highest(margin(scores.proba), batch_size, random_state, utilities)

    def covered(self, scores: Scores, random_state: RandomState) -> float:
        """Return the share of candidates in a cluster with a labelled image."""
        assert scores.embeddings is not None and scores.labeled is not None
        n, known = len(scores), scores.labeled
        if not len(known):
            return 0.0
        points = _all_points(scores)
        n_clusters = min(self.clusters_per_class * scores.proba.shape[1], len(points))
        labels, _ = cluster(points, n_clusters, random_state)
        return float(np.isin(labels[:n], labels[n:]).mean())
