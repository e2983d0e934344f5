from __future__ import annotations

import numpy as np
import pytest

import skal
from skal.errors import DataError, ParameterError, UnknownNameError
from skal.oracles import FunctionOracle, TrueLabels, make_oracle


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
    data = skal.load_dataset("digits")
    assert isinstance(make_oracle(None, data, 0), TrueLabels)
    assert isinstance(make_oracle("true", data, 0), TrueLabels)
    assert isinstance(make_oracle(lambda indices: indices * 0, data, 0), FunctionOracle)
    with pytest.raises(UnknownNameError, match="unknown oracle 'tru'; did you mean true"):
        make_oracle("tru", data, 0)
    with pytest.raises(ParameterError, match="got int; expected an Oracle"):
        make_oracle(5, data, 0)  # type: ignore[arg-type]
