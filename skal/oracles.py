"""Who answers when a label is asked for. Once a run has started, true labels live here alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .datasets.base import MISSING_LABEL, ImageDataset, Labels
from .errors import DataError, ParameterError
from .registry import Registry

ORACLES: Registry[Callable[[ImageDataset, int], Oracle]] = Registry("oracle")
"""Functions, or classes, that take the dataset and a seed and return an `Oracle`."""


class Oracle(ABC):
    """Labels images by index."""

    @abstractmethod
    def label(self, indices: NDArray[np.int64]) -> ArrayLike:
        """Return the class ids of images.

        Parameters
        ----------
        indices : ndarray of int64, shape (b,)
            Which images of the pool.

        Returns
        -------
        array-like of int, shape (b,)
        """

    def draw_stratified(
        self, indices: NDArray[np.int64], n: int, random_state: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw images with as even numbers of each class as there are.

        Parameters
        ----------
        indices : ndarray of int64
            Where from.
        n : int
            How many; all of them when that is less.
        random_state : Generator
            Source of the draw.

        Returns
        -------
        ndarray of int64, shape (n,)

        Raises
        ------
        ParameterError
            If this oracle does not know labels before it is asked for them, as most do not.
        """
        raise ParameterError(
            f"{type(self).__name__} does not know the labels beforehand, so that the initial set "
            "cannot be stratified; take another init_strategy, such as random"
        )


class TrueLabels(Oracle):
    """Answers from known labels: simulated annotation.

    Parameters
    ----------
    y : ndarray of int64, shape (n,)
        True class ids; all must be known.

    Raises
    ------
    DataError
        If some are not.
    """

    def __init__(self, y: Labels) -> None:
        unknown = int((y == MISSING_LABEL).sum())
        if unknown:
            raise DataError(
                f"{unknown} of {len(y)} images have no known label, so that labelling cannot be "
                "simulated; remove them from X, or pass an oracle that can label them"
            )
        self._y = np.array(y)

    def label(self, indices: NDArray[np.int64]) -> Labels:
        return self._y[indices]

    def draw_stratified(
        self, indices: NDArray[np.int64], n: int, random_state: np.random.Generator
    ) -> NDArray[np.int64]:
        shuffled = random_state.permutation(indices)
        labels = self._y[shuffled]
        # each image's place among those of its class: the first of all classes, then the second ...
        place = np.empty(len(labels), dtype=np.int64)
        for label in np.unique(labels):
            place[labels == label] = np.arange((labels == label).sum())
        return shuffled[np.argsort(place, kind="stable")[:n]]


class FunctionOracle(Oracle):
    """Asks a function.

    Parameters
    ----------
    function : callable
        Takes the indices, an int64 array of shape (b,), and returns b class ids.
    """

    def __init__(self, function: Callable[[NDArray[np.int64]], ArrayLike]) -> None:
        self._function = function

    def label(self, indices: NDArray[np.int64]) -> ArrayLike:
        return self._function(indices)


@ORACLES.register("true", summary="the labels that the dataset came with")
def true_labels(data: ImageDataset, seed: int) -> Oracle:
    """Return the oracle of simulated annotation."""
    return TrueLabels(data.y)


def make_oracle(
    oracle: Oracle | Callable[[NDArray[np.int64]], ArrayLike] | str | None,
    data: ImageDataset,
    seed: int,
) -> Oracle:
    """Return the oracle that is meant.

    Parameters
    ----------
    oracle : Oracle, callable, str or None
        An oracle, a function of indices, a name of `ORACLES`, or None for the true labels.
    data : ImageDataset
        What is labelled.
    seed : int
        For oracles that draw.

    Returns
    -------
    Oracle

    Raises
    ------
    ParameterError, UnknownNameError
        If it is none of these.
    """
    if oracle is None or isinstance(oracle, str):
        return ORACLES.get(oracle or "true")(data, seed)
    if isinstance(oracle, Oracle):
        return oracle
    if callable(oracle):
        return FunctionOracle(oracle)
    raise ParameterError(
        f"oracle: got {type(oracle).__name__}; expected an Oracle, a function of indices, or one "
        f"of {', '.join(ORACLES.names())}"
    )
