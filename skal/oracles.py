"""Who answers when a label is asked for. Once a run has started, true labels live here alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .datasets.base import MISSING_LABEL, Labels
from .errors import DataError
from .registry import Registry

ORACLES: Registry[type[Oracle]] = Registry("oracle")


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


@ORACLES.register("true", summary="the labels that the dataset came with")
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


@ORACLES.register("function", summary="a Python function of indices")
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
