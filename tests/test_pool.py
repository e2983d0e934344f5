from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from skal.errors import DataError
from skal.pool import Pool


@pytest.fixture
def pool() -> Pool:
    pool = Pool(np.zeros((10, 1, 8, 8), np.uint8), n_classes=3)
    pool.label([7, 2], [0, 2])
    return pool


def test_labels_are_kept_and_all_others_are_missing(pool: Pool) -> None:
    assert pool.y.tolist() == [-1, -1, 2, -1, -1, -1, -1, 0, -1, -1]
    assert pool.y.dtype == np.int64
    assert pool.labeled.tolist() == [2, 7]
    assert pool.unlabeled.tolist() == [0, 1, 3, 4, 5, 6, 8, 9]
    assert len(pool) == 10


def test_nobody_else_can_write_labels(pool: Pool) -> None:
    with pytest.raises(ValueError, match="read-only"):
        pool.y[0] = 1
    with pytest.raises(AttributeError):
        pool.y = np.zeros(10, np.int64)  # type: ignore[misc]
    assert pool.y[0] == -1


def test_images_are_not_copied() -> None:
    X = np.zeros((3, 1, 8, 8), np.uint8)
    assert Pool(X, 2).X is X


@pytest.mark.parametrize(
    ("indices", "labels", "message"),
    [
        ([0, 1], [0], "1 labels for 2 images"),
        ([[0, 1]], [[0, 1]], "labels for"),
        ([10], [0], "index 10 is out of range; expected 0 to 9"),
        ([-1], [0], "index -1 is out of range"),
        ([0], [3], "label 3 is out of range; expected 0 to 2"),
        ([0], [-1], "label -1 is out of range"),
        ([0], [1.0], "label of type float64; expected integers"),
        ([0], ["a"], "expected integers"),
        ([True], [1], "index of type bool"),
        ([3, 3], [0, 1], "twice"),
        ([0, 7], [1, 1], "image 7 has a label already"),
    ],
)
def test_bad_labels_are_refused_and_nothing_is_written(
    pool: Pool, indices: Any, labels: Any, message: str
) -> None:
    before = pool.y.copy()
    with pytest.raises(DataError, match=message):
        pool.label(indices, labels)
    assert np.array_equal(pool.y, before)


def test_no_labels_at_all_and_single_ones_are_fine(pool: Pool) -> None:
    pool.label([], [])
    pool.label(4, 1)
    assert pool.labeled.tolist() == [2, 4, 7]
