"""Multinomial logistic regression, solved to its optimum, its strength chosen by the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cholesky, solve_triangular
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
SHARES = (0.0, 0.5, 0.8)
"""What features of earlier stages may have of the squared length of an image's features."""
MOST_COMPARED = 300
"""Of more labels so many, drawn, choose the share."""
RANK = 128
"""Principal components of the features in the search: what lies beyond them hardly moves it."""
SPARE, ITERATIONS = 16, 2
"""Directions looked at beside them, and how often, while they are found."""
FEW = 256
"""So many directions or fewer are found exactly."""
SEARCH_STEPS, MOST_STEPS = 30, 1000
SEARCH_GRADIENT, LAST_GRADIENT = 1e-3, 1e-6
LARGEST_WEIGHT = 1e9
JITTER = 1e-9
"""Of the mean variance, which is added to each image's own so that coordinates can be found."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """What was found: the weights (n_classes, n_features), the bias (n_classes,), the chosen `C`
    (the inverse of the strength of regularisation, as scikit-learn has it), the mean cross entropy
    on the labels it was fitted to, and the chosen `share` of a second part.
    """

    weights: Array
    bias: Array
    C: float
    loss: float
    share: float


def solve(
    parts: Sequence[Array], y: NDArray[np.int64], n_classes: int, sample_weight: Array
) -> Solution:
    r"""Minimise :math:`\frac12(\|W\|^2 + \|b\|^2) + C \sum_i s_i L(W x_i + b, y_i)`.

    L is the cross entropy. The features (n, n_features) are those of the labelled images, x less
    their mean, y their columns, the weights s positive, of mean 1. Without the pull on b a class
    that no label is of yet would get the probability 0. C is the one of `STRENGTHS` of the lowest
    cross entropy in a stratified cross-validation over the labels, found by climbing from `FIRST`;
    so the probabilities are about as sure as they are right.

    Features of two parts, each at unit length, those of the last layer and those of earlier stages,
    get the share of the squared length for these that has the lowest cross entropy in the same
    cross-validation, found by climbing from the first of `SHARES`, the last layer alone. W is that
    of the parts as they are given.

    The search knows the leading principal components alone. Then all is solved by L-BFGS, in these
    components and coordinates of what lies beyond them, each scaled by its curvature. It is the
    same on each call.
    """
    # of matrices so small several threads make it slower, by several times
    with threadpool_limits(limits=1, user_api="blas"):
        space, choice = _searched(parts, y, n_classes, sample_weight)
        components, known = space.components, space.components.shape[1]
        rest = space.features - components @ space.directions.T
        beyond, back = _coordinates(rest if known < min(rest.shape) else rest[:, :0])
        problem = _Problem(np.concatenate([components, beyond], axis=1), y, n_classes)
        near, start = choice.near, np.zeros((n_classes, 1, problem.inputs.shape[1]))
        start[..., : near.shape[2] - 1], start[..., -1] = near[..., :-1], near[..., -1]
        theta = problem.solve(choice.C, sample_weight[None], MOST_STEPS, LAST_GRADIENT, start)[:, 0]
        logs = log_softmax(problem.inputs @ theta.T, axis=1)
        theta -= theta.mean(axis=0)  # which is so at the optimum
        weights = theta[:, :known] @ space.directions.T
        if beyond.shape[1]:
            weights += back(theta[:, known:-1])
    loss = -float(np.average(logs[np.arange(len(y)), y], weights=sample_weight))
    bias = theta[:, -1] - weights @ space.center
    return Solution(weights * space.scale, bias, choice.C, loss, space.share)


class _Space(NamedTuple):
    """Features (n, n_features) whose second part has a share, less their mean `center`; nearly
    their leading principal directions (n_features, r), the components along these (n, r), and the
    factors (n_features,) that the features were multiplied by.
    """

    share: float
    features: Array
    center: Array
    directions: NDArray[np.float32]
    components: Array
    scale: Array


def _space(parts: Sequence[Array], sample_weight: Array, share: float) -> _Space:
    scale = np.repeat(factors(share, len(parts)), [part.shape[1] for part in parts])
    features = np.concatenate(parts, axis=1) * scale
    center = np.average(features, axis=0, weights=sample_weight)
    moved = features - center
    directions = _leading(moved.astype(np.float32))
    return _Space(share, moved, center, directions, moved @ directions, scale)


def _searched(
    parts: Sequence[Array], y: NDArray[np.int64], n_classes: int, sample_weight: Array
) -> tuple[_Space, _Choice]:
    """Return the features with the best share, and what was found of them."""

    def look(rows: NDArray[np.int64] | slice, share: float) -> tuple[_Space, _Choice]:
        space = _space([part[rows] for part in parts], sample_weight[rows], share)
        leading = space.components[:, :RANK].astype(np.float32)
        return space, _choose(_Problem(leading, y[rows], n_classes), sample_weight[rows])

    everything, is_many = slice(None), len(y) > MOST_COMPARED
    if len(parts) == 1:
        return look(everything, 0)
    drawn = np.random.default_rng(0).permutation(len(y))[:MOST_COMPARED]
    best = look(drawn if is_many else everything, SHARES[0])
    for share in SHARES[1:]:
        found = look(drawn if is_many else everything, share)
        if found[1].loss >= best[1].loss:
            break
        best = found
    return look(everything, best[0].share) if is_many else best


def factors(share: float, n_parts: int) -> list[float]:
    """Return the factors that give the second of two parts, each of unit length, a share of the
    squared length; one of 1 for one part.
    """
    return [(1 - share) ** 0.5, share**0.5] if n_parts > 1 else [1.0]


def _leading(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return nearly the leading principal directions of centred features, (n_features, r), or all
    where they are few, by subspace iteration: to find them exactly takes several times as long.
    """
    if min(X.shape) <= FEW:
        all_of_few: NDArray[np.float32] = np.linalg.svd(X, full_matrices=False)[2].T
        return all_of_few
    components = np.random.default_rng(0).standard_normal((len(X), RANK + SPARE), np.float32)
    for _ in range(ITERATIONS):
        basis = np.linalg.qr(X.T @ components)[0]
        components = X @ basis
    rotation = np.linalg.eigh(components.T @ components)[1][:, ::-1]
    directions: NDArray[np.float32] = basis @ rotation
    return directions


def _coordinates(features: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Return coordinates (n, r) of features in an orthonormal basis of no more directions than
    there are images, and what turns weights (n_classes, r) of these into weights of the features.
    """
    n, n_features = features.shape
    if n >= n_features:
        return features, lambda theta: theta
    gram = features @ features.T
    gram.flat[:: n + 1] += max(JITTER * float(gram.trace()) / n, 1e-300)
    factor = cholesky(gram, lower=True)
    return factor, lambda theta: solve_triangular(factor, theta.T, trans=1, lower=True).T @ features


class _Problem:
    """Logistic regressions on the same inputs, several at once, which differ in the weights of
    images. Solutions are (n_classes, k, n_inputs + 1), the bias last.
    """

    def __init__(self, inputs: NDArray[Any], y: NDArray[np.int64], n_classes: int) -> None:
        self.inputs = np.concatenate([inputs, np.ones((len(y), 1), inputs.dtype)], axis=1)
        self.y, self.n_classes = y, n_classes

    def solve(
        self,
        C: float,
        weights: Array,
        most_steps: int,
        gradient: float,
        start: Array | None = None,
    ) -> Array:
        """Return the solutions for k rows of weights of the images, (k, n)."""
        X, n, k = self.inputs, len(self.y), len(weights)
        shape = (self.n_classes, k, X.shape[1])
        true = (self.y, np.arange(k)[:, None], np.arange(n))
        totals = weights.sum(axis=1)
        shares = (weights / totals[:, None]).astype(X.dtype)
        pull = 1 / (C * totals)[:, None]

        curvature = np.square(X).mean(axis=0) * (shape[0] - 1) / shape[0] ** 2
        scale = 1 / np.sqrt(curvature + pull.mean())

        def loss(flat: Array) -> tuple[float, Array]:
            theta = flat.reshape(shape) * scale
            # classes first: what is taken over them goes along the rows of memory
            values = (theta.reshape(-1, shape[2]).astype(X.dtype) @ X.T).reshape(-1, k, n)
            values -= values.max(axis=0)
            of_true = values[true]
            np.exp(values, out=values)
            sums = values.sum(axis=0)
            value = (shares * (np.log(sums) - of_true)).sum(dtype=np.float64)
            values *= shares / sums
            values[true] -= shares
            slope = (values.reshape(-1, n) @ X).reshape(shape) + pull * theta
            return float(value + 0.5 * (pull * theta**2).sum()), (slope * scale).ravel()

        first = np.zeros(shape) if start is None else start / scale
        options = {"maxiter": most_steps, "maxfun": 2 * most_steps, "gtol": gradient, "ftol": 0}
        found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
        solutions: Array = found.x.reshape(shape) * scale
        return solutions


class _Choice(NamedTuple):
    """The C that was chosen, what is near the solution, (n_classes, 1, n_inputs + 1), and the cross
    entropy of labels that were held out, 0 if there were none.
    """

    C: float
    near: Array
    loss: float


def _choose(problem: _Problem, sample_weight: Array) -> _Choice:
    """Return the C of the lowest cross entropy of labels that were held out, by folds."""
    y = problem.y
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2 or counts.max() < 2:
        zeros = np.zeros((problem.n_classes, 1, problem.inputs.shape[1]))
        return _Choice(WITHOUT_CHOICE, zeros, 0.0)
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
            theta = problem.solve(STRENGTHS[place], weights, SEARCH_STEPS, SEARCH_GRADIENT, start)
            found[place] = theta
            total = 0.0
            for test, fold in held_out:
                logs = log_softmax(problem.inputs[test] @ theta[:, fold].T, axis=1)
                total -= float((sample_weight[test] * logs[np.arange(len(test)), y[test]]).sum())
            losses[place] = total
        return losses[place]

    place = STRENGTHS.index(FIRST)
    for step in (1, -1):
        while 0 <= place + step < len(STRENGTHS) and loss(place + step) < loss(place):
            place += step
    return _Choice(STRENGTHS[place], found[place].mean(axis=1, keepdims=True), losses[place])


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
