"""The folds of a cross-validation over few labels."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from ..core.few_labels import FEW_LABELS

N_FOLDS = 5


def stratified_folds(y: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    """Return which labels each fold holds out, with each class in the same share.

    There are five folds, or as many as the largest class has labels if those are fewer; that must
    be two or more.
    """
    n_folds = min(N_FOLDS, int(np.unique(y, return_counts=True)[1].max()))
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", FEW_LABELS, UserWarning)
        return [test for _, test in splitter.split(y, y)]
