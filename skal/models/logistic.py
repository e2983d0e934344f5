"""Multinomial logistic regression, solved to its optimum, its strength chosen by the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from ..core.errors import DataError
from .folds import stratified_folds

STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""What C may be; scikit-learn has the same scale."""
FIRST, WITHOUT_CHOICE = 30.0, 30.0
"""Where the search begins, and what is taken where labels cannot tell."""
RANK = 128
"""Principal components of the features in the search: what lies beyond them hardly moves it."""
SEARCH_STEPS, MOST_STEPS = 30, 1000
SEARCH_GRADIENT, LAST_GRADIENT = 1e-3, 1e-6
LARGEST_WEIGHT = 1e9
SMALLEST_SHARE = 1e-10
"""Of the largest variance: components below it are rounding."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """What was found: the weights (n_classes, n_features), the bias (n_classes,), the chosen `C`
    (the inverse of the strength of regularisation, as scikit-learn has it), and the mean cross
    entropy on the labels it was fitted to.
    """

    weights: Array
    bias: Array
    C: float
    loss: float


def solve(features: Array, y: NDArray[np.int64], n_classes: int, sample_weight: Array) -> Solution:
    r"""Minimise :math:`\frac12(\|W\|^2 + \|b\|^2) + C \sum_i s_i L(W x_i + b, y_i)`.

    L is the cross entropy. The features (n, n_features) are those of the labelled images, x less
    their mean, y their columns, the weights s positive, of mean 1. Without the pull on b a class
    that no label is of yet would get the probability 0. C is the one of `STRENGTHS` of the lowest
    cross entropy in a stratified cross-validation over the labels, found by climbing from `FIRST`;
    so the probabilities are about as sure as they are right.

    Of n images only the part of W within the span of their features is ever moved: the problem is
    solved in the principal components, each scaled by its curvature, by L-BFGS. It is the same on
    each call.
    """
    center = np.average(features, axis=0, weights=sample_weight)
    # of matrices so small several threads make it slower, by several times
    with threadpool_limits(limits=1, user_api="blas"):
        components, basis = _components(features - center)
        problem = _Problem(components, np.eye(n_classes)[y])
        C, near = _choose(problem, y, sample_weight)
        start = np.zeros((problem.Z.shape[1], 1, n_classes))
        start[: len(near) - 1], start[-1] = near[:-1], near[-1]
        theta = problem.solve(C, sample_weight[None], MOST_STEPS, LAST_GRADIENT, start)
    weights = (basis @ theta[:-1, 0]).T
    weights -= weights.mean(axis=0)  # which is so at the optimum
    bias = theta[-1, 0] - theta[-1, 0].mean()
    losses = -log_softmax(problem.Z @ theta[:, 0], axis=1)[np.arange(len(y)), y]
    return Solution(
        weights, bias - weights @ center, C, float(np.average(losses, weights=sample_weight))
    )


def _components(features: Array) -> tuple[Array, Array]:
    """Return the principal components Z (n, r), and a basis B with features' W = B theta."""
    n, n_features = features.shape
    wide = n <= n_features
    gram = features @ features.T if wide else features.T @ features
    variances, vectors = eigh(gram)
    kept = np.flatnonzero(variances > SMALLEST_SHARE * max(float(variances[-1]), 1e-300))[::-1]
    lengths, vectors = np.sqrt(variances[kept]), vectors[:, kept]
    if wide:
        return vectors * lengths, features.T @ (vectors / lengths)
    return features @ vectors, vectors


class _Problem:
    """Logistic regressions on the same components, several at once, which differ in weights."""

    def __init__(self, components: NDArray[Any], labels: NDArray[Any]) -> None:
        ones = np.ones((len(components), 1), components.dtype)
        self.Z = np.concatenate([components, ones], axis=1)
        self.labels = labels

    def truncated(self, rank: int) -> _Problem:
        """Return the problem of the first components alone, in float32."""
        components = self.Z[:, : min(rank, self.Z.shape[1] - 1)].astype(np.float32)
        return _Problem(components, self.labels.astype(np.float32))

    def solve(
        self,
        C: float,
        weights: Array,
        most_steps: int,
        gradient: float,
        start: Array | None = None,
    ) -> Array:
        """Return theta (r + 1, k, n_classes) for k rows of weights of the images, (k, n)."""
        (n, r), n_classes = self.Z.shape, self.labels.shape[1]
        k = len(weights)
        totals = weights.sum(axis=1)
        shares = (weights / totals[:, None]).T[:, :, None].astype(self.Z.dtype)
        curvature = np.square(self.Z).mean(axis=0) * (n_classes - 1) / n_classes**2
        scale = 1 / np.sqrt(curvature + 1 / (C * totals.mean()))
        Z = (self.Z * scale).astype(self.Z.dtype)
        pull = (scale**2)[:, None, None] / (C * totals)[None, :, None]
        labels = self.labels[:, None, :]

        def loss(flat: Array) -> tuple[float, Array]:
            theta = flat.reshape(r, k, n_classes)
            logits = Z @ theta.reshape(r, -1).astype(Z.dtype)
            logs = log_softmax(logits.reshape(n, k, n_classes), axis=2)
            value = 0.5 * (pull * theta**2).sum() - (shares * labels * logs).sum(dtype=np.float64)
            errors = (np.exp(logs) - labels) * shares
            slope = (Z.T @ errors.reshape(n, -1)).reshape(theta.shape) + pull * theta
            return float(value), slope.ravel()

        first = np.zeros((r, k, n_classes)) if start is None else start / scale[:, None, None]
        found = minimize(
            loss,
            first.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": most_steps, "maxfun": 2 * most_steps, "gtol": gradient, "ftol": 0},
        )
        solved: Array = found.x.reshape(r, k, n_classes) * scale[:, None, None]
        return solved


def _choose(problem: _Problem, y: NDArray[np.int64], sample_weight: Array) -> tuple[float, Array]:
    """Return the C of the lowest cross entropy of labels that were held out, by folds, and what is
    near the solution: theta (fewer + 1, 1, n_classes) of the first components.
    """
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2 or counts.max() < 2:
        return WITHOUT_CHOICE, np.zeros((1, 1, problem.labels.shape[1]))
    small = problem.truncated(RANK)
    folds = stratified_folds(y, seed=0)
    weights = np.tile(sample_weight, (len(folds), 1))
    for fold, test in enumerate(folds):
        weights[fold, test] = 0
    # a class that is held out whole tells how sure to be of what was never seen, and nothing else
    held_out = [
        (test[np.isin(y[test], np.delete(y, test))], fold) for fold, test in enumerate(folds)
    ]
    losses: dict[int, float] = {}
    found: dict[int, Array] = {}  # in the order of the search

    def loss(place: int) -> float:
        if place not in losses:
            start = next(reversed(found.values()), None)
            theta = small.solve(STRENGTHS[place], weights, SEARCH_STEPS, SEARCH_GRADIENT, start)
            found[place] = theta
            total = 0.0
            for test, fold in held_out:
                logs = log_softmax(small.Z[test] @ theta[:, fold], axis=1)
                total -= float((sample_weight[test] * logs[np.arange(len(test)), y[test]]).sum())
            losses[place] = total
        return losses[place]

    place = STRENGTHS.index(FIRST)
    for step in (1, -1):
        while 0 <= place + step < len(STRENGTHS) and loss(place + step) < loss(place):
            place += step
    return STRENGTHS[place], found[place].mean(axis=1, keepdims=True)


def weights_of(
    labels: NDArray[Any],
    labeled: NDArray[np.bool_],
    sample_weight: ArrayLike | None,
    balanced: bool,
) -> Array:
    """Return how much each labelled image counts, of mean 1: as given, by default alike, and times
    what balances the classes; DataError if the weights are not a positive number for each.
    """
    weights = np.ones(int(labeled.sum()))
    if sample_weight is not None:
        try:
            given = np.asarray(sample_weight, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError("sample_weight: expected a number for each image") from error
        if given.shape != labels.shape:
            raise DataError(
                f"sample_weight has the shape {given.shape}; expected a number for each image, "
                f"{labels.shape}"
            )
        weights = given[labeled]
        if not ((weights > 0) & (weights <= LARGEST_WEIGHT)).all():
            raise DataError(
                "sample_weight of a labelled image is 0, negative, NaN or above "
                f"{LARGEST_WEIGHT:g}; expected a positive number"
            )
    if balanced:
        weights = weights * compute_sample_weight("balanced", labels[labeled])
    return weights / weights.mean() if len(weights) else weights
