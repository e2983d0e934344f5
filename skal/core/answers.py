"""Validation of the values that third-party code returns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def integers(answer: Any, n: int) -> tuple[NDArray[np.int64] | None, str]:
    """Return an answer as `n` int64 values, or None if it is not that, and a description of it."""
    try:
        values = np.asarray(answer)
    except ValueError:  # ragged
        return None, f"{type(answer).__name__} with rows of different lengths"
    if values.dtype == object and values.ndim == 0:
        return None, "None" if answer is None else type(answer).__name__
    got = f"{values.dtype} of shape {values.shape}"
    if values.shape == (n,) and np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int64), got
    example = values.ravel()[:1].tolist()  # as a plain Python number
    return None, got + (f", such as {example[0]!r}" if example else "")
