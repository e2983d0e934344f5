"""The pool of images: which are labelled, and with what."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.errors import DataError
from ..core.seeding import derive_seed
from .base import MISSING_LABEL, Images, Labels


def rows_apart(n: int, n_valid: int, seed: int) -> NDArray[np.int64]:
    """Draw the images of a pool that are set apart to validate on.

    Parameters
    ----------
    n : int
        Images of the pool.
    n_valid : int
        How many are drawn.
    seed : int
        The run's.

    Returns
    -------
    ndarray of int64, shape (n_valid,)
        Sorted indices.
    """
    draw = np.random.default_rng(derive_seed(seed, "valid"))
    return np.sort(draw.permutation(n)[:n_valid])


class Pool:
    """Images, and labels that start out as -1; the only writer of labels.

    Some images may be set apart to validate on: they are neither trained on nor chosen from, and
    their labels are not in `y`.

    Parameters
    ----------
    X : ndarray of uint8, shape (n, channels, height, width)
        The images; never copied.
    n_classes : int
        Labels are ``0 .. n_classes - 1``.
    """

    def __init__(self, X: Images, n_classes: int) -> None:
        if X.flags.writeable:
            X = X.view()
            X.flags.writeable = False  # so that a GPU may keep a copy, see `batches.resident`
        self.X = X
        self.n_classes = n_classes
        self._y: Labels = np.full(len(X), MISSING_LABEL, dtype=np.int64)
        self._y_valid = self._y.copy()

    def copy(self) -> Pool:
        """Return a pool of the same images with labels of its own."""
        other = Pool(self.X, self.n_classes)
        other._y[:] = self._y
        other._y_valid[:] = self._y_valid
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
        """Sorted indices of the images that may still be labelled."""
        return np.flatnonzero((self._y == MISSING_LABEL) & (self._y_valid == MISSING_LABEL))

    @property
    def valid(self) -> NDArray[np.int64]:
        """Sorted indices of the images set apart."""
        return np.flatnonzero(self._y_valid != MISSING_LABEL)

    @property
    def y_valid(self) -> Labels:
        """Their labels, in the same order."""
        return self._y_valid[self.valid]

    @property
    def in_play(self) -> NDArray[np.int64]:
        """Sorted indices of the images that are not set apart."""
        return np.flatnonzero(self._y_valid == MISSING_LABEL)

    @property
    def rows(self) -> NDArray[np.int64] | None:
        """The same; None for all of them, so that nothing need be gathered."""
        return self.in_play if len(self.valid) else None

    @property
    def n_labeled(self) -> int:
        """How many labels were spent, on training and on validation."""
        return len(self.labeled) + len(self.valid)

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
        self._write(self._y, indices, labels)

    def set_apart(self, indices: ArrayLike, labels: ArrayLike) -> None:
        """Set images apart to validate on; parameters and errors are those of `label`."""
        self._write(self._y_valid, indices, labels)

    def _write(self, y: Labels, indices: ArrayLike, labels: ArrayLike) -> None:
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
        known = np.maximum(self._y[where], self._y_valid[where])
        taken = known != MISSING_LABEL
        if taken.any():
            raise DataError(f"image {where[taken][0]} has a label already ({known[taken][0]})")
        y[where] = what
