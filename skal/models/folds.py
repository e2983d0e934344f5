"""Folds for cross-validation over few labels."""

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
    """Return the indices of the labels that each stratified fold holds out.

    There are five folds, or as many as the largest class has labels if that is fewer; it must have
    at least two. With `groups`, no group is split between folds, groups are counted instead of
    labels, and stratification is approximate.
    """
    one_each = np.arange(len(y)) if groups is None else groups
    of_class = [len(np.unique(one_each[y == label])) for label in np.unique(y)]
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(min(N_FOLDS, max(of_class)), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", FEW_LABELS, UserWarning)
        return [test for _, test in splitter.split(y, y, groups) if len(test)]
