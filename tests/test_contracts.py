"""What holds for everything that is registered."""

from __future__ import annotations

import numpy as np
import pytest

import skal
from skal.models import MODELS
from skal.strategies import STRATEGIES
from skal.testing import check_classifier, check_dataset, check_model, check_strategy

RESTING = {"resnet18": {"image_sizes": (8, 64), "channels": (3,)}}


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_keeps_its_contract(name: str) -> None:
    check_model(name, **RESTING.get(name, {}))


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_makes_a_classifier(name: str, tiny: skal.ImageDataset) -> None:
    check_classifier(skal.ImageClassifier(name, classes=[0, 1, 2], steps=2, random_state=0), tiny)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_keeps_its_contract(name: str) -> None:
    check_strategy(name)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_runs(name: str, tiny: skal.ImageDataset) -> None:
    result = skal.run(tiny, name, n_init=6, n_query=5, n_rounds=2, steps=3)
    assert [row["n_labeled"] for row in result.rounds] == [6, 11, 16]
    picked = [row["index"] for row in result.queries]
    assert len(set(picked)) == 16
    again = skal.run(tiny, name, n_init=6, n_query=5, n_rounds=2, steps=3)
    assert picked == [row["index"] for row in again.queries]


@pytest.mark.parametrize("registry", [MODELS, STRATEGIES, skal.DATASETS])
def test_every_entry_says_what_it_is(registry: object) -> None:
    for entry in registry:  # type: ignore[attr-defined]
        assert entry.facts["summary"], entry.name
        assert entry.load() is not None


def test_digits_keeps_the_contract_of_datasets() -> None:
    check_dataset(skal.load_dataset("digits"))


def test_the_checks_find_what_is_wrong(tiny: skal.ImageDataset) -> None:
    twice = skal.ImageDataset(tiny.X, tiny.y, tiny.classes, tiny.X[:9], tiny.y[:9])
    with pytest.raises(AssertionError, match="also in X"):
        check_dataset(twice)
    one = skal.ImageDataset(tiny.X, np.zeros_like(tiny.y), ("a",), tiny.X_test[:1], tiny.y[:1] * 0)
    with pytest.raises(AssertionError, match="needs two"):
        check_dataset(one)
