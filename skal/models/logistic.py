"""Multinomial logistic regression, with C chosen by cross-validation and solved to its optimum."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cholesky, qr, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import ThreadpoolController

from ..core.errors import DataError
from .folds import stratified_folds

STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Candidate values of C, on scikit-learn's scale."""
FIRST, WITHOUT_CHOICE = 10.0, 30.0
"""The C to start the search at, and the C where labels are too few for cross-validation."""
SHARES = (0.0, 0.5, 0.8)
"""Candidate shares of features of earlier stages in the squared length of an image's features."""
MOST_COMPARED = 300
"""Labels to choose the share with, a random subset if there are more."""
RANK = 128
"""Leading principal components used in the search; the others hardly change its result."""
SPARE, ITERATIONS = 16, 2
"""Additional directions, and iterations, of the subspace iteration that finds them."""
SEARCH_STEPS, MOST_STEPS = 30, 1000
SEARCH_GRADIENT = 2e-3
LAST: tuple[tuple[type[np.floating[Any]], float], ...] = ((np.float32, 3e-5), (np.float64, 1e-5))
"""Precisions of the final solution, each with the gradient norm to stop at. float32 is twice as
fast; float64 follows if rounding hides the steps that still lower the loss in float32."""
LEAST_GAIN = 1e-10
"""Least relative decrease of the loss per step; float32 cannot resolve less."""
MEMORY = 5
"""History of L-BFGS, in steps: a longer one saves no steps, and makes each slower."""
LARGEST_WEIGHT = 1e9
GRAMS: tuple[tuple[type[np.floating[Any]], float], ...] = ((np.float32, 1e-5), (np.float64, 1e-9))
"""Precisions of the Gram matrix, tried in turn, each with the share of the mean variance added to
the diagonal so that the Cholesky factor exists."""
MOST_UNEVEN = 10.0
"""Largest weight of an image for which the share added in float32 changes no probability."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """Weights (n_classes, n_features), bias (n_classes,), the chosen `C` (inverse regularisation
    strength, as in scikit-learn), the mean cross entropy on the training labels, and the chosen
    `share` of the second part.
    """

    weights: Array
    bias: Array
    C: float
    loss: float
    share: float


def solve(
    parts: Sequence[NDArray[Any]], y: NDArray[np.int64], n_classes: int, sample_weight: Array
) -> Solution:
    r"""Minimise :math:`\frac12(\|W\|^2 + \|b\|^2) + C \sum_i s_i L(W x_i + b, y_i)`.

    L is the cross entropy, x the centred features of a labelled image, y the column of its label,
    and s its positive weight, with mean 1. The penalty on b keeps the probability of classes
    without a label above 0. C is the value in `STRENGTHS` with the lowest cross entropy in a
    stratified cross-validation over the labels, found by hill climbing from `FIRST`; this makes
    the probabilities well calibrated.

    `parts` is one array (n, n_features), or two, of the last layer and of earlier stages, each with
    rows of length 1. With two, the same cross-validation chooses the second part's share of the
    squared length, trying `SHARES` in order, from the last layer only, while the loss falls. W
    applies to the parts as given.

    L-BFGS works in at most n coordinates that span the images; the search uses only their leading
    principal components. The result is deterministic.
    """
    with _one_thread():  # also so that the result does not depend on their number
        everything = _Features(parts, sample_weight)
        share, choice = _best_share(everything, y, n_classes)
        space = everything.space(share)
        if choice is None:
            choice = _Search(y, n_classes, sample_weight).choose(space)
        theta = choice.near
        for kind, gradient in LAST:
            problem = _Problem(space.inputs(kind), y, n_classes)
            start = np.zeros((n_classes, 1, problem.inputs.shape[1]))
            start[..., : theta.shape[2]] = theta
            weights = sample_weight[None]
            theta, slope = problem.solve(choice.C, weights, MOST_STEPS, gradient, start)
            if slope <= gradient:
                break
        theta = theta[:, 0]
        theta -= theta.mean(axis=0)  # the optimum has mean 0 over classes
        known = 1 + space.directions.shape[1]
        found = theta[:, 1:known] @ space.directions.T
        if theta.shape[1] > known:
            found += theta[:, known:]
        weights_of_parts, bias = everything.as_given(space, found, theta[:, 0])
        each = np.split(weights_of_parts, np.cumsum([part.shape[1] for part in parts])[:-1], axis=1)
        logits = sum(part @ w.T.astype(part.dtype) for part, w in zip(parts, each, strict=True))
    logs = log_softmax(logits + bias, axis=1)
    loss = -float(np.average(logs[np.arange(len(y)), y], weights=sample_weight))
    return Solution(weights_of_parts, bias, choice.C, loss, share)


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _one_thread() -> AbstractContextManager[Any]:
    """Limit BLAS to one thread, which is several times as fast for matrices this small."""
    limited: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limited


class _Space(NamedTuple):
    """Coordinates (n, r) with r <= n and the inner products of the centred features; their
    approximate leading principal directions (r, k); and the components along these (n, k), float32.
    """

    share: float
    coordinates: NDArray[Any]
    directions: NDArray[np.float32]
    components: NDArray[np.float32]

    def inputs(self, kind: type[np.floating[Any]]) -> NDArray[Any]:
        """Return ones, the components, and what of the coordinates is not along the directions."""
        coordinates = self.coordinates.astype(kind, copy=False)
        directions = self.directions.astype(kind, copy=False)
        components = coordinates @ directions
        if directions.shape[1] == coordinates.shape[1]:
            return _with_ones(components)
        beyond = components @ directions.T
        return _with_ones(components, np.subtract(coordinates, beyond, out=beyond))


class _Features:
    """Features of images in one part, or in two with any share for the second."""

    def __init__(self, parts: Sequence[NDArray[Any]], sample_weight: Array) -> None:
        self.parts, self.sample_weight = parts, sample_weight
        self.weights = sample_weight / sample_weight.sum()
        self.centres = [self.weights.astype(part.dtype) @ part for part in parts]
        self.n_images, self.n_features = len(sample_weight), sum(part.shape[1] for part in parts)
        self._precisions = GRAMS if sample_weight.max() <= MOST_UNEVEN else GRAMS[1:]
        self._grams: dict[type[np.floating[Any]], list[NDArray[Any]]] = {}

    def of(self, rows: NDArray[np.int64]) -> _Features:
        return _Features([part[rows] for part in self.parts], self.sample_weight[rows])

    def prepare(self) -> None:
        """Compute what `space` needs whatever the share."""
        if self.n_images < self.n_features:
            with _one_thread():
                self._inner_products(self._precisions[0][0])

    def _inner_products(self, kind: type[np.floating[Any]]) -> list[NDArray[Any]]:
        """Return the images' inner products, of centred features to keep small differences."""
        if kind not in self._grams:
            pairs = zip(self.parts, self.centres, strict=True)
            centred = (part.astype(kind, copy=False) - centre for part, centre in pairs)
            self._grams[kind] = [one @ one.T for one in centred]
        return self._grams[kind]

    def space(self, share: float) -> _Space:
        scale = factors(share, len(self.parts))
        coordinates: NDArray[Any]
        if self.n_images >= self.n_features:
            each = zip(scale, self.parts, self.centres, strict=True)
            scaled = [factor * (part - centre) for factor, part, centre in each]
            coordinates = np.concatenate(scaled, axis=1)
        else:
            coordinates = self._spanned(scale)
        single = coordinates.astype(np.float32, copy=False)
        directions = _leading(single)
        return _Space(share, coordinates, directions, single @ directions)

    def _spanned(self, scale: list[float]) -> Array:
        """Return coordinates with the inner products of the images, lower triangular."""
        for kind, jitter in self._precisions[:-1]:
            with suppress(LinAlgError):  # rounding is larger than differences between images
                return self._root(scale, kind, jitter)
        return self._root(scale, *GRAMS[-1])

    def _root(self, scale: list[float], kind: type[np.floating[Any]], jitter: float) -> Array:
        gram = np.zeros((self.n_images, self.n_images))
        for factor, one in zip(scale, self._inner_products(kind), strict=True):
            gram += factor**2 * one
        mean_variance = float(gram.trace()) / self.n_images
        gram.flat[:: self.n_images + 1] += max(jitter * mean_variance, 1e-300)
        root: Array = cholesky(gram, lower=True)
        return root

    def as_given(self, space: _Space, weights: Array, bias: Array) -> tuple[Array, Array]:
        """Convert weights of the coordinates, (n_classes, r), to weights of the original parts."""
        scale = factors(space.share, len(self.parts))
        if self.n_images >= self.n_features:
            weights = weights * np.repeat(scale, [part.shape[1] for part in self.parts])
        else:
            of_images = solve_triangular(space.coordinates, weights.T, trans=1, lower=True).T
            of_parts = zip(scale, self.parts, self.centres, strict=True)
            each = [
                factor**2 * (of_images.astype(part.dtype) @ (part - centre))
                for factor, part, centre in of_parts
            ]
            weights = np.concatenate(each, axis=1)
        return weights, bias - weights @ np.concatenate(self.centres)


def _best_share(
    features: _Features, y: NDArray[np.int64], n_classes: int
) -> tuple[float, _Choice | None]:
    """Return the best share, and its choice of C if all images were used to find it."""
    n = features.n_images
    if len(features.parts) == 1:
        return 0.0, None
    drawn = np.random.default_rng(0).permutation(n)[:MOST_COMPARED]
    compared = features.of(drawn) if n > MOST_COMPARED else features
    of_compared = y[drawn] if n > MOST_COMPARED else y
    found: dict[float, _Choice] = {}
    search = _Search(of_compared, n_classes, compared.sample_weight)
    with ThreadPoolExecutor(1) as beside:
        if compared is not features:
            # needed next, and the longest part on one thread; an error occurs there again
            beside.submit(features.prepare)
        for share in SHARES:
            found[share] = search.choose(compared.space(share))
            if found[share].loss > min(choice.loss for choice in found.values()):
                break
    best = min(found, key=lambda share: found[share].loss)
    return best, None if n > MOST_COMPARED else found[best]


def factors(share: float, n_parts: int) -> list[float]:
    """Return the factors by which two unit-length parts are scaled to give the second a share of
    the squared length; [1.0] for one part.
    """
    return [(1 - share) ** 0.5, share**0.5] if n_parts > 1 else [1.0]


def _leading(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the leading principal directions of centred features, (n_features, r).

    They are exact where they are few; otherwise subspace iteration approximates them, several times
    as fast.
    """
    basis = np.eye(X.shape[1], dtype=np.float32)
    if min(X.shape) > RANK + SPARE:
        components = np.random.default_rng(0).standard_normal((len(X), RANK + SPARE), np.float32)
        for _ in range(ITERATIONS):
            basis = qr(X.T @ components, mode="economic", overwrite_a=True, check_finite=False)[0]
            components = X @ basis
    else:
        components = X
    rotation = np.linalg.eigh(components.T @ components)[1][:, ::-1]
    directions: NDArray[np.float32] = basis @ rotation
    return directions


def _with_ones(*inputs: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([np.ones((len(inputs[0]), 1), inputs[0].dtype), *inputs], axis=1)


class _Problem:
    """Several logistic regressions on the same inputs with different image weights.

    The first input is 1, so the first weight is the bias. Solutions are (n_classes, k, n_inputs).
    """

    def __init__(self, inputs: NDArray[Any], y: NDArray[np.int64], n_classes: int) -> None:
        self.inputs, self.y, self.n_classes = inputs, y, n_classes

    def solve(
        self, C: float, weights: Array, most_steps: int, gradient: float, start: Array
    ) -> tuple[Array, float]:
        """Return the solutions for image weights of shape (k, n), and the gradient norm there."""
        X, n, k = self.inputs, len(self.y), len(weights)
        true = (self.y, np.arange(k)[:, None], np.arange(n))
        totals = weights.sum(axis=1)
        shares = (weights / totals[:, None]).astype(X.dtype)
        pull = 1 / (C * totals)[:, None]

        def probabilities(theta: Array) -> tuple[NDArray[Any], NDArray[Any]]:
            # classes first, so that reductions over classes read contiguous memory
            values = (theta.reshape(-1, X.shape[1]).astype(X.dtype) @ X.T).reshape(-1, k, n)
            values -= values.max(axis=0)
            of_true = values[true]
            np.exp(values, out=values)
            sums = values.sum(axis=0)
            values /= sums
            return values, np.log(sums) - of_true

        # precondition: scale each weight to similar curvature
        values, _ = probabilities(start)
        curvature = (shares * (values - np.square(values)).mean(axis=0)).mean(axis=0)
        scale = 1 / np.sqrt(curvature.astype(X.dtype) @ np.square(X) + pull.mean())

        def loss(flat: Array) -> tuple[float, Array]:
            theta = flat.reshape(start.shape) * scale
            values, losses = probabilities(theta)
            values *= shares
            values[true] -= shares
            slope = (values.reshape(-1, n) @ X).reshape(start.shape) + pull * theta
            value = (shares * losses).sum(dtype=np.float64) + 0.5 * (pull * theta**2).sum()
            return float(value), (slope * scale).ravel()

        options = {"maxiter": most_steps, "gtol": gradient, "ftol": LEAST_GAIN, "maxcor": MEMORY}
        first = (start / scale).ravel()
        found = minimize(loss, first, jac=True, method="L-BFGS-B", options=options)
        return found.x.reshape(start.shape) * scale, float(np.abs(found.jac).max())


class _Choice(NamedTuple):
    """The chosen C, an approximate solution (n_classes, 1, n_inputs), and the cross entropy of
    the held-out labels, 0 if there were none.
    """

    C: float
    near: Array
    loss: float


class _Search:
    """The search for the C with the lowest cross-validated cross entropy."""

    def __init__(self, y: NDArray[np.int64], n_classes: int, sample_weight: Array) -> None:
        self.y, self.n_classes, self.sample_weight = y, n_classes, sample_weight
        counts = np.unique(y, return_counts=True)[1]
        self.is_possible = len(counts) > 1 and counts.max() > 1
        folds = stratified_folds(y, seed=0) if self.is_possible else []
        self.weights = np.tile(sample_weight, (len(folds), 1))
        for fold, test in enumerate(folds):
            self.weights[fold, test] = 0
        # a class that is held out completely would only measure confidence on unseen classes
        self.held_out = [test[np.isin(y[test], np.delete(y, test))] for test in folds]

    def choose(self, space: _Space) -> _Choice:
        inputs = _with_ones(space.components[:, :RANK])
        if not self.is_possible:
            return _Choice(WITHOUT_CHOICE, np.zeros((self.n_classes, 1, inputs.shape[1])), 0.0)
        problem = _Problem(inputs, self.y, self.n_classes)
        losses: dict[int, float] = {}
        start = np.zeros((self.n_classes, len(self.weights), inputs.shape[1]))
        found = {-1: start}  # in order of the search

        def loss(place: int) -> float:
            if place not in losses:
                start, steps = next(reversed(found.values())), (SEARCH_STEPS, SEARCH_GRADIENT)
                found[place], _ = problem.solve(STRENGTHS[place], self.weights, *steps, start)
                losses[place] = self._loss(inputs, found[place])
            return losses[place]

        place = STRENGTHS.index(FIRST)
        loss(place)
        for step in (1, -1):
            while 0 <= place + step < len(STRENGTHS) and loss(place + step) < loss(place):
                place += step
        return _Choice(STRENGTHS[place], found[place].mean(axis=1, keepdims=True), losses[place])

    def _loss(self, inputs: NDArray[np.float32], theta: Array) -> float:
        """Return the cross entropy of the held-out labels, summed over the folds."""
        total = 0.0
        for fold, test in enumerate(self.held_out):
            logs = log_softmax(inputs[test] @ theta[:, fold].T, axis=1)
            of_true = logs[np.arange(len(test)), self.y[test]]
            total -= float((self.sample_weight[test] * of_true).sum())
        return total


def weights_of(
    labels: NDArray[Any],
    labeled: NDArray[np.bool_],
    sample_weight: ArrayLike | None,
    balanced: bool,
) -> Array:
    """Return the weights of the labelled images, of mean 1, balanced by class if asked for.

    Raises DataError if a given weight is not a positive number.
    """
    weights = np.ones(int(labeled.sum()))
    if sample_weight is not None:
        try:
            given = np.asarray(sample_weight, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError("sample_weight: expected one number per image") from error
        if given.shape != labels.shape:
            raise DataError(
                f"sample_weight has shape {given.shape}; expected {labels.shape}, one number per "
                "image"
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
