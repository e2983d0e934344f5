"""What somebody else's code answers, and whether it is what was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def integers(answer: Any, n: int) -> tuple[NDArray[np.int64] | None, str]:
    """Return an answer as n int64 values, else None, and what it is in words."""
    try:
        values = np.asarray(answer)
    except ValueError:  # rows of different lengths
        return None, f"{type(answer).__name__} of unequal rows"
    if values.dtype == object and values.ndim == 0:
        return None, "None" if answer is None else type(answer).__name__
    got = f"{values.dtype} of shape {values.shape}"
    if values.shape == (n,) and np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int64), got
    example = values.ravel()[:1].tolist()  # an object as it is, a number as Python's
    return None, got + (f", such as {example[0]!r}" if example else "")
