"""How good predictions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, recall_score

from .datasets.base import Labels

ECE_BINS = 15


def evaluate(y: Labels, proba: NDArray[Any]) -> dict[str, float]:
    """Compute the metrics of ``rounds.csv``.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        True class ids.
    proba : ndarray of float, shape (n, n_classes)
        Predicted probabilities.

    Returns
    -------
    dict of str to float
        `accuracy`; `balanced_accuracy`, the mean recall, and `macro_f1`, the mean F1, over the
        classes that occur in `y`; `nll`, the mean negative log-likelihood in nats; `ece`, see
        `expected_calibration_error`.
    """
    predicted = proba.argmax(axis=1)
    present = np.unique(y)
    likelihood = np.maximum(proba[np.arange(len(y)), y], np.finfo(np.float32).tiny)
    average = {"labels": present, "average": "macro", "zero_division": 0.0}
    return {
        "accuracy": float((predicted == y).mean()),
        "balanced_accuracy": float(recall_score(y, predicted, **average)),
        "macro_f1": float(f1_score(y, predicted, **average)),
        "nll": float(-np.log(likelihood, dtype=np.float64).mean()),
        "ece": expected_calibration_error(y, proba),
    }


def expected_calibration_error(y: Labels, proba: NDArray[Any], n_bins: int = ECE_BINS) -> float:
    """Return the mean gap between confidence and accuracy (Guo et al., 2017, equation 3).

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        True class ids.
    proba : ndarray of float, shape (n, n_classes)
        Predicted probabilities.
    n_bins : int, default=15
        Bins of equal width.

    Returns
    -------
    float
        In [0, 1].
    """
    confidence = proba.max(axis=1).astype(np.float64)
    gap = (proba.argmax(axis=1) == y) - confidence
    # the bins are open on the left, as in the paper
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    return float(np.abs(np.bincount(bins, weights=gap, minlength=n_bins)).sum() / len(y))


def area_under_curve(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Return the area under accuracy over labels, by trapezoids, divided by the labels' span.

    Parameters
    ----------
    rounds : sequence of mappings
        With `n_labeled` and `accuracy`; at least one.

    Returns
    -------
    float
        A mean accuracy; that of the only round when there is one.
    """
    labels = np.array([row["n_labeled"] for row in rounds], dtype=float)
    accuracy = np.array([row["accuracy"] for row in rounds], dtype=float)
    span = labels[-1] - labels[0]
    if not span:
        return float(accuracy[-1])
    # numpy before 2.0 has no trapezoid, later ones no trapz
    return float((np.diff(labels) * (accuracy[1:] + accuracy[:-1]) / 2).sum() / span)
