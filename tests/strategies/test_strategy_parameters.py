"""What a strategy's parameters may be."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from asking import utilities

import skal
from skal.core.errors import ParameterError, SkalError
from skal.strategies import STRATEGIES, BatchStrategy, check_strategy_works, resolve_strategy
from skal.strategies.parameters import Number
from skal.testing import example_scores

NAN, INFINITY = float("nan"), float("inf")
SET_BY_SKAL = {"missing_label", "random_state"}
OWN = {
    name: STRATEGIES.get(name)
    for name in STRATEGIES.names()
    if issubclass(STRATEGIES.get(name), BatchStrategy)
}


def numeric_parameters(name: str) -> list[str]:
    """The parameters that are numbers by default."""
    chosen = resolve_strategy(name)
    takes = inspect.signature(chosen.cls).parameters
    defaults = {param: takes[param].default for param in takes} | dict(chosen.params)
    numbers = [p for p, value in defaults.items() if type(value) in (int, float)]
    aliases = [a for a, target in chosen.facts.get("aliases", {}).items() if "n_samples" in target]
    return sorted({*numbers, *aliases, *(["delta"] if "delta" in takes else [])} - SET_BY_SKAL)


NUMERIC = [(name, param) for name in STRATEGIES.names() for param in numeric_parameters(name)]

WRONG = [
    (
        "diverse-batch",
        {"temperature": 2},
        "temperature=2 of DiverseBatch; expected a number from 0",
    ),
    ("diverse-batch", {"measure": "entrop"}, "measure of DiverseBatch 'entrop'; did you mean ent"),
    ("diverse-batch", {"measure": "x"}, "'x'; known: entropy, least-confidence, margin"),
    ("diverse-batch", {"measure": 3}, "measure of DiverseBatch '3'; known: entropy"),
    ("diverse-entropy", {"factor": 0}, "factor=0 of DiverseEntropy; expected a whole number, 1 or"),
    ("diverse-entropy", {"factor": 2.5}, "factor=2.5 of DiverseEntropy; expected a whole number"),
    ("power-margin", {"beta": -1}, "beta=-1 of PowerMargin; expected a number, 0 or more"),
    ("power-margin", {"beta": -INFINITY}, "beta=-inf of PowerMargin; expected a number, 0 or more"),
    ("k-means", {"pick_from": "nearer"}, "'nearer'; did you mean nearest"),
    ("expected-gradient-length", {"layers": "lst"}, "did you mean last?"),
    ("typiclust", {"k": 0}, "k=0 of TypiClust; expected a whole number, 1 or more"),
    ("typiclust", {"k": -3}, "k=-3 of TypiClust; expected"),
    ("typiclust", {"k": 2.5}, "k=2.5 of TypiClust; expected a whole number"),
    ("tcm", {"k": 0}, "k=0 of TCM; expected a whole number, 1 or more"),
    ("tcm", {"coverage": 2}, "coverage=2 of TCM; expected a number from 0 to 1"),
    ("tcm", {"coverage": -1}, "coverage=-1 of TCM; expected a number from 0 to 1"),
    ("tcm", {"clusters_per_class": 0}, "clusters_per_class=0 of TCM; expected a whole number, 1"),
    ("tcm", {"clusters_per_class": 2.5}, "clusters_per_class=2.5 of TCM; expected a whole number"),
    ("max-herding", {"gamma": INFINITY}, "gamma=inf of MaxHerding; expected a number above 0"),
    ("uncertainty-herding", {"sigma": 0}, "sigma=0 of UncertaintyHerding; expected a number above"),
    ("uncertainty-herding", {"width": 0}, "width=0 of UncertaintyHerding; expected a whole number"),
    ("uncertainty-herding", {"uncertainty": "margn"}, "did you mean margin?"),
    ("probcover", {"alpha": 1}, "alpha=1 of ProbCover; expected a number above 0 and below 1"),
    ("probcover", {"delta": 0}, "delta=0 of ProbCover; expected a number above 0, or None"),
]


@pytest.mark.parametrize(("name", "params", "message"), WRONG)
def test_a_wrong_parameter_gives_one_clear_line(
    name: str, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        check_strategy_works(resolve_strategy(name, params), 3)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"the strategy {name} does not work with these parameters")
    assert "\n" not in str(caught.value)
    with pytest.raises(SkalError) as caught:
        utilities(OWN[name](**params), example_scores())
    assert message in str(caught.value)


@pytest.mark.parametrize("wrong", [NAN, -1e9, "a", True])
@pytest.mark.parametrize(("name", "param"), NUMERIC)
def test_no_number_of_any_strategy_may_be_nonsense(name: str, param: str, wrong: object) -> None:
    with pytest.raises(ParameterError) as caught:
        check_strategy_works(resolve_strategy(name, {param: wrong}), 3)
    message = str(caught.value)
    assert param in message
    assert repr(wrong) in message or type(wrong).__name__ in message
    assert "\n" not in message
    if name in OWN:
        expected = rf"{param}=.* of {OWN[name].__name__}; expected"
        with pytest.raises(ParameterError, match=expected):
            utilities(OWN[name](**{param: wrong}), example_scores())


@pytest.mark.parametrize("name", OWN)
def test_every_parameter_of_skals_own_classes_has_a_rule_that_its_default_keeps(name: str) -> None:
    takes = inspect.signature(OWN[name]).parameters
    stated = OWN[name].constraints
    assert stated.keys() == takes.keys() - SET_BY_SKAL - {"clf_embedding_flag_name"}
    for param, rule in stated.items():
        rule.check(param, name, takes[param].default)
        if isinstance(rule, Number):
            rule.check(param, name, np.float32(0.75) if not rule.whole else np.int64(7))


def test_a_wrong_parameter_ends_a_run_before_anything_is_trained(
    tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skal.ImageClassifier, "fit", None)
    with pytest.raises(ParameterError, match="KMeansSampling 'far'; did you mean fart") as caught:
        skal.run(tiny, "k-means", strategy_params={"pick": "far"}, steps=1)
    assert caught.value.exit_code == 2
