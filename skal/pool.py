"""The pool of images: which are labelled, and with what."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .datasets.base import MISSING_LABEL, Images, Labels
from .errors import DataError


class Pool:
    """Images, and labels that start out as -1; the only writer of labels.

    Parameters
    ----------
    X : ndarray of uint8, shape (n, channels, height, width)
        The images; never copied.
    n_classes : int
        Labels are ``0 .. n_classes - 1``.
    """

    def __init__(self, X: Images, n_classes: int) -> None:
        self.X = X
        self.n_classes = n_classes
        self._y: Labels = np.full(len(X), MISSING_LABEL, dtype=np.int64)

    def copy(self) -> Pool:
        """Return a pool of the same images with labels of its own."""
        other = Pool(self.X, self.n_classes)
        other._y[:] = self._y
        return other

    def __len__(self) -> int:
        return len(self.X)

    @property
    def y(self) -> Labels:
        """Labels, shape (n,), -1 where there is none; read-only."""
        view = self._y.view()
        view.flags.writeable = False
        return view

    @property
    def labeled(self) -> NDArray[np.int64]:
        """Sorted indices of the labelled images."""
        return np.flatnonzero(self._y != MISSING_LABEL)

    @property
    def unlabeled(self) -> NDArray[np.int64]:
        """Sorted indices of the others."""
        return np.flatnonzero(self._y == MISSING_LABEL)

    def label(self, indices: ArrayLike, labels: ArrayLike) -> None:
        """Write labels.

        Parameters
        ----------
        indices : array-like of int, shape (b,)
            Unlabelled images, each once.
        labels : array-like of int, shape (b,)
            Their class ids.

        Raises
        ------
        DataError
            If an index or a label is not valid; nothing is written then.
        """
        where, what = np.atleast_1d(indices), np.atleast_1d(labels)
        if where.shape != what.shape or where.ndim != 1:
            raise DataError(f"got {what.size} labels for {where.size} images")
        if not len(where):
            return
        for name, values, most in (("index", where, len(self)), ("label", what, self.n_classes)):
            if not np.issubdtype(values.dtype, np.integer):
                raise DataError(f"{name} of type {values.dtype}; expected integers")
            if values.min() < 0 or values.max() >= most:
                wrong = values[(values < 0) | (values >= most)][0]
                raise DataError(f"{name} {wrong} is out of range; expected 0 to {most - 1}")
        if len(np.unique(where)) != len(where):
            raise DataError("an index occurs twice in one batch of labels")
        taken = where[self._y[where] != MISSING_LABEL]
        if len(taken):
            raise DataError(f"image {taken[0]} has a label already ({self._y[taken[0]]})")
        self._y[where] = what
