"""Metrics of true class ids `y`, shape (n,), and probabilities `proba`, shape (n, n_classes)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, recall_score

from ..core.errors import blame
from ..core.registry import Registry
from ..datasets.base import Labels

ECE_BINS = 15
MACRO: Mapping[str, Any] = {"average": "macro", "zero_division": 0.0}

METRICS: Registry[Callable[[Labels, NDArray[Any]], float]] = Registry("metric")
"""Functions of `y` and `proba`, each computed in every round as a column of ``rounds.csv``."""


@METRICS.register("accuracy", summary="share of images whose most probable class is correct")
def accuracy(y: Labels, proba: NDArray[Any]) -> float:
    """Return the share of correct predictions."""
    return float((proba.argmax(axis=1) == y).mean())


@METRICS.register("balanced_accuracy", summary="mean recall of the classes that occur")
def balanced_accuracy(y: Labels, proba: NDArray[Any]) -> float:
    """Return the mean recall over the classes that occur in `y`."""
    return float(recall_score(y, proba.argmax(axis=1), labels=np.unique(y), **MACRO))


@METRICS.register("macro_f1", summary="mean F1 of the classes that occur")
def macro_f1(y: Labels, proba: NDArray[Any]) -> float:
    """Return the mean F1 over the classes that occur in `y`."""
    return float(f1_score(y, proba.argmax(axis=1), labels=np.unique(y), **MACRO))


@METRICS.register("nll", summary="mean negative log-likelihood, in nats")
def negative_log_likelihood(y: Labels, proba: NDArray[Any]) -> float:
    """Return the mean negative log-likelihood, in nats."""
    likelihood = np.maximum(proba[np.arange(len(y)), y], np.finfo(np.float32).tiny)
    return float(-np.log(likelihood, dtype=np.float64).mean())


def evaluate(y: Labels, proba: NDArray[Any]) -> dict[str, float]:
    """Compute all `METRICS`; raise a `SkalError` if one from an outside package fails."""
    values = {}
    for entry in METRICS:
        try:
            values[entry.name] = float(entry.load()(y, proba))
        except Exception as error:
            blame(error, f"the metric {entry.name} failed")
    return values


@METRICS.register("ece", summary="mean gap between confidence and accuracy")
def expected_calibration_error(y: Labels, proba: NDArray[Any], n_bins: int = ECE_BINS) -> float:
    """Return the mean gap between confidence and accuracy over bins of equal width (equation 3 of
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017).
    """
    right, confidence, bins = _binned(y, proba, n_bins)
    gap = right - confidence
    return float(np.abs(np.bincount(bins, weights=gap, minlength=n_bins)).sum() / len(y))


def _binned(
    y: Labels, proba: NDArray[Any], n_bins: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]:
    """Return whether each prediction is correct, its confidence, and its confidence bin."""
    confidence = proba.max(axis=1).astype(np.float64)
    # the bins are open on the left, as in the paper
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    return proba.argmax(axis=1) == y, confidence, bins


def describe_errors(
    y: Labels, proba: NDArray[Any], classes: Sequence[str], n_bins: int = ECE_BINS
) -> dict[str, Any]:
    """Return the content of ``evaluation.json``: `classes`; `confusion`, counts with true classes
    as rows and predicted ones as columns; `calibration` with n_bins + 1 `edges` and each bin's
    `count`, mean `confidence` and `accuracy`, both None in empty bins.
    """
    n = len(classes)
    pairs = np.asarray(y) * n + proba.argmax(axis=1)
    right, confidence, bins = _binned(y, proba, n_bins)
    edges = [number / n_bins for number in range(n_bins + 1)]
    counts = (np.bincount(bins, of, minlength=n_bins) for of in (None, confidence, right))
    return {
        "classes": list(classes),
        "confusion": np.bincount(pairs, minlength=n * n).reshape(n, n).tolist(),
        "calibration": _describe_bins(edges, *counts),
    }


def pool_errors(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the results of `describe_errors` on several test sets."""
    bins = [evaluation["calibration"] for evaluation in evaluations]
    counts = np.array([one["count"] for one in bins])
    sums = (
        np.array([one[name] for one in bins], dtype=float) * counts
        for name in ("confidence", "accuracy")
    )
    sums = (np.nansum(total, axis=0) for total in sums)
    return {
        "classes": evaluations[0]["classes"],
        "confusion": np.sum([one["confusion"] for one in evaluations], axis=0).tolist(),
        "calibration": _describe_bins(bins[0]["edges"], counts.sum(axis=0), *sums),
    }


def _describe_bins(
    edges: Sequence[float], count: NDArray[Any], confidence: NDArray[Any], right: NDArray[Any]
) -> dict[str, Any]:
    """Return the bins with means computed from sums, None in empty bins."""
    means = (
        [float(total / n) if n else None for total, n in zip(sums, count, strict=True)]
        for sums in (confidence, right)
    )
    names = ("edges", "count", "confidence", "accuracy")
    return dict(zip(names, (list(edges), count.tolist(), *means), strict=True))


def area_under_curve(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean accuracy over the range of label counts: the area under the learning curve
    (trapezoidal rule) divided by that range. With one round it is that round's accuracy.
    """
    labels = np.array([row["n_labeled"] for row in rounds], dtype=float)
    accuracy = np.array([row["accuracy"] for row in rounds], dtype=float)
    span = labels[-1] - labels[0]
    if not span:
        return float(accuracy[-1])
    # numpy before 2.0 has no trapezoid, later ones no trapz
    return float((np.diff(labels) * (accuracy[1:] + accuracy[:-1]) / 2).sum() / span)
