from __future__ import annotations

import numpy as np
import pytest

from skal.errors import DataError
from skal.oracles import ORACLES, FunctionOracle, TrueLabels


def test_true_labels_answer_by_index() -> None:
    oracle = TrueLabels(np.array([2, 0, 1]))
    assert oracle.label(np.array([2, 0])).tolist() == [1, 2]


def test_true_labels_do_not_follow_later_changes() -> None:
    y = np.array([2, 0, 1])
    oracle = TrueLabels(y)
    y[:] = 0
    assert oracle.label(np.arange(3)).tolist() == [2, 0, 1]


def test_unknown_true_labels_are_counted() -> None:
    with pytest.raises(DataError, match="2 of 3 images have no known label"):
        TrueLabels(np.array([-1, 0, -1]))


def test_a_function_is_asked_for_the_indices() -> None:
    oracle = FunctionOracle(lambda indices: indices % 2)
    assert np.asarray(oracle.label(np.array([3, 4]))).tolist() == [1, 0]


def test_oracles_are_known_by_name() -> None:
    assert ORACLES.get("true") is TrueLabels
    assert ORACLES.get("function") is FunctionOracle
