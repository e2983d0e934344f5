"""What libraries warn of that is usual here: about as many classes as labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_labels_a_class() -> Iterator[None]:
    """Silence scikit-learn's warnings of few labels a class inside the block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        yield
