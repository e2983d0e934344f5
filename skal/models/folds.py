"""The folds of a cross-validation over few labels."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ..core.few_labels import FEW_LABELS

N_FOLDS = 5


def stratified_folds(
    y: NDArray[np.int64], seed: int, groups: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """Return which labels each fold holds out, with each class in the same share.

    There are five folds, or as many as the largest class has labels if those are fewer; that must
    be two or more. With `groups` no fold divides one, groups are counted in place of labels, and
    the shares are as near as that allows.
    """
    one_each = np.arange(len(y)) if groups is None else groups
    of_class = [len(np.unique(one_each[y == label])) for label in np.unique(y)]
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(min(N_FOLDS, max(of_class)), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", FEW_LABELS, UserWarning)
        return [test for _, test in splitter.split(y, y, groups) if len(test)]
