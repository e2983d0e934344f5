"""What a strategy's parameters may be."""

from __future__ import annotations

from typing import Any

import pytest
from asking import utilities

import skal
from skal.core.errors import ParameterError, SkalError
from skal.strategies import (
    DiverseBatch,
    DiverseEntropy,
    ExpectedGradientLength,
    KMeansSampling,
    PowerBALD,
    PowerMargin,
    check_strategy_works,
    resolve_strategy,
)
from skal.testing import example_scores

WRONG = [
    ("diverse-batch", DiverseBatch, {"temperature": 2}, "temperature=2; expected a number from 0"),
    ("diverse-batch", DiverseBatch, {"temperature": "x"}, "temperature='x'; expected a number"),
    ("diverse-batch", DiverseBatch, {"measure": "entrop"}, "'entrop'; did you mean entropy?"),
    ("diverse-batch", DiverseBatch, {"measure": "x"}, "'x'; known: entropy, least-confidence, mar"),
    ("diverse-entropy", DiverseEntropy, {"factor": 0}, "factor=0; expected a whole number, 1 or"),
    ("diverse-entropy", DiverseEntropy, {"factor": 1.5}, "factor=1.5; expected a whole number"),
    ("power-margin", PowerMargin, {"beta": -1}, "beta=-1; expected a number, 0 or more"),
    ("power-margin", PowerMargin, {"beta": float("nan")}, "beta=nan; expected a number, 0 or mo"),
    ("power-bald", PowerBALD, {"beta": "x"}, "beta='x'; expected a number, 0 or more"),
    ("k-means", KMeansSampling, {"pick_from": "nearer"}, "'nearer'; did you mean nearest"),
    ("expected-gradient-length", ExpectedGradientLength, {"layers": "lst"}, "did you mean last?"),
]


@pytest.mark.parametrize(("name", "cls", "params", "message"), WRONG)
def test_a_wrong_parameter_gives_one_clear_line(
    name: str, cls: type, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        check_strategy_works(resolve_strategy(name, params), 3)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"the strategy {name} does not work with these parameters")
    assert "\n" not in str(caught.value)
    with pytest.raises(SkalError) as caught:
        utilities(cls(**params), example_scores())
    assert message in str(caught.value)


def test_a_wrong_parameter_ends_a_run_before_anything_is_trained(
    tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skal.ImageClassifier, "fit", None)
    with pytest.raises(ParameterError, match="k-means 'far'; did you mean farthest") as caught:
        skal.run(tiny, "k-means", strategy_params={"pick": "far"}, steps=1)
    assert caught.value.exit_code == 2
