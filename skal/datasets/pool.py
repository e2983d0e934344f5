"""`Pool`: the images, and the labels that are known so far."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.errors import DataError
from ..core.seeding import derive_seed
from ..core.text import counted
from .base import MISSING_LABEL, Images, Labels


def draw_held_out(n: int, n_valid: int, seed: int) -> NDArray[np.int64]:
    """Draw the images that are held out for validation, as sorted indices."""
    draw = np.random.default_rng(derive_seed(seed, "valid"))
    return np.sort(draw.permutation(n)[:n_valid])


class Pool:
    """The pool of images, which are never copied, and their labels, which start as -1. Only the
    pool writes labels. Held-out and excluded images are neither trained on nor chosen; `y` does not
    have the labels of held-out images.
    """

    def __init__(self, X: Images, n_classes: int) -> None:
        if X.flags.writeable:
            X = X.view()
            X.flags.writeable = False  # so that a GPU may keep a copy, see `iterators.resident`
        self.X = X
        self.n_classes = n_classes
        self._y: Labels = np.full(len(X), MISSING_LABEL, dtype=np.int64)
        self._y_valid = self._y.copy()
        self._excluded: NDArray[np.bool_] = np.zeros(len(X), dtype=bool)
        self._withheld = self._excluded.copy()
        self._memo: tuple[NDArray[np.int64] | None, dict[Any, Any]] = (None, {})

    def __len__(self) -> int:
        return len(self.X)

    @property
    def y(self) -> Labels:
        """Labels, shape (n,), -1 where unlabelled; read-only."""
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
        free = (self._y == MISSING_LABEL) & (self._y_valid == MISSING_LABEL)
        return np.flatnonzero(free & ~self._excluded & ~self._withheld)

    @property
    def valid(self) -> NDArray[np.int64]:
        """Sorted indices of the images held out for validation."""
        return np.flatnonzero(self._y_valid != MISSING_LABEL)

    @property
    def y_valid(self) -> Labels:
        """Labels of the held-out images, in the order of `valid`."""
        return self._y_valid[self.valid]

    @property
    def in_play(self) -> NDArray[np.int64]:
        """Sorted indices of the images that are neither held out nor excluded."""
        return np.flatnonzero((self._y_valid == MISSING_LABEL) & ~self._excluded)

    @property
    def shown(self) -> NDArray[np.int64] | None:
        """Sorted indices of the images that a strategy sees, labelled and unlabelled; None for all,
        so that nothing need be gathered.
        """
        in_play = (self._y_valid == MISSING_LABEL) & ~self._excluded
        rows = np.flatnonzero(in_play & ((self._y != MISSING_LABEL) | ~self._withheld))
        return None if len(rows) == len(self.X) else rows

    def memo(self, rows: NDArray[np.int64] | None) -> dict[Any, Any]:
        """Return a cache of results on some images (None for all) that do not depend on labels; it
        is emptied when the images change.
        """
        before = self._memo[0]
        same = before is rows or (
            before is not None and rows is not None and np.array_equal(before, rows)
        )
        if not same:
            self._memo = rows, {}
        return self._memo[1]

    def label(self, indices: ArrayLike, labels: ArrayLike) -> None:
        """Label unlabelled images; raise a `DataError`, before writing, if one is invalid."""
        self.check(indices, labels)
        self._y[np.atleast_1d(indices).astype(np.int64)] = labels

    def hold_out(self, indices: ArrayLike, labels: ArrayLike) -> None:
        """Hold images out for validation; parameters and errors are those of `label`."""
        self.check(indices, labels)
        self._y_valid[np.atleast_1d(indices).astype(np.int64)] = labels

    def restrict(self, excluded: ArrayLike = (), withheld: ArrayLike = ()) -> None:
        """Set which images take no part (`excluded`) or are not chosen for now (`withheld`)."""
        for mask, rows in ((self._excluded, excluded), (self._withheld, withheld)):
            mask[:] = False
            mask[np.asarray(rows, dtype=np.int64)] = True

    def check(self, indices: ArrayLike, labels: ArrayLike) -> None:
        """Raise the errors of `label` without writing."""
        where, what = np.atleast_1d(indices), np.atleast_1d(labels)
        if where.shape != what.shape or where.ndim != 1:
            raise DataError(f"got {counted(what.size, 'label')} for {counted(where.size, 'image')}")
        if not len(where):
            return
        for name, values, most in (("index", where, len(self.X)), ("label", what, self.n_classes)):
            if not np.issubdtype(values.dtype, np.integer):
                raise DataError(f"{name} of type {values.dtype}; expected integers")
            if values.min() < 0 or values.max() >= most:
                wrong = values[(values < 0) | (values >= most)][0]
                raise DataError(f"{name} {wrong} is out of range; expected 0 to {most - 1}")
        found, counts = np.unique(where, return_counts=True)
        if len(found) != len(where):
            raise DataError(f"index {found[counts > 1][0]} occurs twice in one batch of labels")
        known = np.maximum(self._y[where], self._y_valid[where])
        taken = known != MISSING_LABEL
        if taken.any():
            raise DataError(f"image {where[taken][0]} already has the label {known[taken][0]}")
