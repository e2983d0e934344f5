"""Uncertainty herding: coverage of the pool weighted by uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..datasets.base import MISSING_LABEL
from .base import BatchStrategy, RandomState, Rows, Seed, ToFill
from .coverage import unit_points
from .geometry import WIDTH, squared_distances
from .herding import Herd, pick_greedily
from .parameters import Number, OneOf, allowed
from .scores import Scores
from .uncertainty import MEASURES

FIRST_RADIUS = 1.0  # the paper's
EQUAL = "equal"


class UncertaintyHerding(BatchStrategy):
    r"""Maximise the uncertainty-weighted coverage of the pool [1]_.

    The batch greedily maximises :math:`\sum_i u_i \max_j \exp(-|x_i - x_j|^2 / \sigma^2)` over
    candidates i with uncertainties u, and labelled or picked images j. The embeddings x are scaled
    to unit length. While labels are few, the radius :math:`\sigma` is large, and the batch
    represents the pool; with more labels it falls, and the batch moves to the most uncertain
    images.

    With more than 10,000 candidates the sum is estimated from a sample, see
    `skal.strategies.herding`; all candidates can still be picked.

    The paper calibrates probabilities first, as ``--calibrate temperature`` does; this class uses
    them as they are.

    Parameters
    ----------
    uncertainty : {"margin", "entropy", "least-confidence", "equal"}, default="margin"
        The uncertainty measure. "equal" weights all images equally and needs no classifier.
    sigma : float, optional
        The radius; by default the mean distance of labelled images to the nearest other one, and
        1 while fewer than two are labelled. (The paper uses the smallest distance, which a single
        pair of near duplicates determines.)
    width : int, default=128
        Wider embeddings are first reduced to that many leading principal directions.
    clf_embedding_flag_name : dict or str, optional
        Keyword(s) with which `clf.predict_proba` also returns embeddings; see `BatchStrategy`.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] W. Bae, G. L. Oliveira and D. J. Sutherland. Uncertainty Herding: One Active Learning
       Method for All Label Budgets. ICLR 2025.
    """

    constraints = allowed(
        uncertainty=OneOf((*MEASURES, EQUAL)),
        sigma=Number(0, ends=False, optional=True),
        width=Number(1, whole=True),
    )

    def __init__(
        self,
        uncertainty: str = "margin",
        sigma: float | None = None,
        width: int = WIDTH,
        clf_embedding_flag_name: Mapping[str, Any] | str | None = None,
        missing_label: Any = MISSING_LABEL,
        random_state: Seed = None,
    ) -> None:
        super().__init__(missing_label, random_state)
        self.uncertainty = uncertainty
        self.sigma = sigma
        self.width = width
        self.clf_embedding_flag_name = clf_embedding_flag_name

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        geometry = ("embeddings", "labeled")
        return geometry if self.uncertainty == EQUAL else ("proba", *geometry)

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        """Pick greedily; the utilities are the gains divided by the number of candidates."""
        points, known = unit_points(scores, self.width)
        sigma = adaptive_radius(known) if self.sigma is None else float(self.sigma)
        herd = Herd(points, sigma**-2, self._weights(scores), random_state)
        herd.cover(known)
        return pick_greedily(herd, batch_size, random_state, utilities)

    def _weights(self, scores: Scores) -> Tensor | None:
        if self.uncertainty == EQUAL:
            return None
        uncertain = MEASURES[self.uncertainty](scores.proba)
        # equal weights if no prediction is uncertain
        return torch.from_numpy(uncertain) if uncertain.max() > 0 else None


def adaptive_radius(known: Tensor) -> float:
    """Return the mean distance of labelled images to the nearest one that does not coincide."""
    precise = known.double()
    nearest = [
        distance.masked_fill_(distance == 0, torch.inf).amin(dim=1)
        for _, distance in squared_distances(precise, precise)
    ]
    squared = torch.cat([*nearest, precise.new_empty(0)])
    apart = squared[squared.isfinite()]
    return float(apart.sqrt().mean()) if len(apart) else FIRST_RADIUS
