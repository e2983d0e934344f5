"""What an `ImageClassifier` is given: images or features, labels, seeds; checked before use."""

from __future__ import annotations

from numbers import Integral
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike
from skactiveml.utils import is_labeled
from sklearn.utils import check_random_state

from ..core.errors import DataError
from ..datasets.base import Images


def is_whole(value: Any) -> TypeGuard[int]:
    """Tell whether a value is a whole number, and not True or False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_seed(random_state: int | np.random.RandomState | None) -> int:
    """Return an integer seed: the one given, or one drawn from a RandomState."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def check_input(X: Any, features: bool = False) -> None:
    """Check that `X` is images, as `check_images` does, or, if they will do, features.

    Raises
    ------
    DataError
        If it is neither.
    """
    if features and isinstance(X, np.ndarray) and X.ndim == 2:
        if X.dtype not in (np.float16, np.float32):
            raise DataError(f"X is {X.dtype} of shape {X.shape}; expected features from skal.embed")
        return
    check_images(X)


def check_images(X: Images) -> None:
    """Check that `X` is uint8 of shape (n, 1 or 3, size, size); raise DataError if not."""
    if not isinstance(X, np.ndarray) or X.dtype != np.uint8 or X.ndim != 4:
        got = f"{X.dtype} of shape {X.shape}" if isinstance(X, np.ndarray) else type(X).__name__
        raise DataError(
            f"X is {got}; expected uint8 pixels of shape (n, channels, height, width), which the "
            "network scales itself"
        )
    if X.shape[1] not in (1, 3):
        raise DataError(
            f"the images of X have {X.shape[1]} channels; expected 1 (grey) or 3 (colour), in "
            "shape (n, channels, height, width)"
        )
    if X.shape[2] != X.shape[3]:
        raise DataError(f"the images of X are {X.shape[2]}x{X.shape[3]}; expected square ones")


def check_labels(y: ArrayLike, n: int, classes: ArrayLike, missing_label: int) -> None:
    """Check that there is a label, of one of the classes or missing, for each of `n` images.

    Raises
    ------
    DataError
        If not.
    """
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise DataError(f"y has the shape {labels.shape}; expected a label for each image, ({n},)")
    labels = labels[is_labeled(labels, missing_label=missing_label)]
    unknown = np.setdiff1d(labels, np.asarray(classes))
    if len(unknown):
        raise DataError(
            f"y has the label {unknown[0].item()!r}; expected one of the classes "
            f"{np.asarray(classes).tolist()}, or {missing_label!r} for none"
        )
