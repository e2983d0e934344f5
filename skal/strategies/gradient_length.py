"""Expected gradient length: how much a label is expected to change the network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.base import MISSING_LABEL
from .base import ScoreStrategy, Seed
from .parameters import OneOf, allowed
from .scores import Scores


class ExpectedGradientLength(ScoreStrategy):
    r"""Norm of the loss gradient, expected over the predicted labels [1]_.

    For the last layer, weights and bias, the gradient of the cross entropy with label y is
    :math:`(p - e_y) (h, 1)^T`, so that the utility has the closed form

    .. math:: \sqrt{|h|^2 + 1} \sum_y p_y |p - e_y|.

    Parameters
    ----------
    layers : {"last", "all"}, default="last"
        Layers of the gradient. "all" costs one backward pass per class, and needs a classifier
        with ``expected_gradient_length(X)``, such as `skal.ImageClassifier`.
    missing_label, random_state
        See `BatchStrategy`.

    References
    ----------
    .. [1] B. Settles, M. Craven and S. Ray. Multiple-Instance Active Learning. NeurIPS 2007.
    """

    constraints = allowed(layers=OneOf(("last", "all")))

    def __init__(
        self, layers: str = "last", missing_label: Any = MISSING_LABEL, random_state: Seed = None
    ) -> None:
        super().__init__(missing_label, random_state)
        self.layers = layers

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("gradient_length",) if self.layers == "all" else ("proba", "embeddings")

    def score(self, scores: Scores) -> NDArray[np.float64]:
        if self.layers == "all":
            assert scores.gradient_length is not None
            return np.asarray(scores.gradient_length, np.float64)
        assert scores.embeddings is not None
        proba = np.asarray(scores.proba, np.float64)
        # |p - e_y|^2 = |p|^2 - 2 p_y + 1
        squared = (proba**2).sum(axis=1, keepdims=True) - 2 * proba + 1
        errors = np.sqrt(np.maximum(squared, 0))
        lengths = np.sqrt((scores.embeddings.astype(np.float64) ** 2).sum(axis=1) + 1)
        return np.asarray((proba * errors).sum(axis=1) * lengths)
