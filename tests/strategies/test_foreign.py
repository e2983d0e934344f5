"""Strategies of somebody else: named by import path, made without ritual, tried beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

import skal
from skal.core.errors import ParameterError, SkalError, UnknownNameError
from skal.runs.config import read_config
from skal.strategies import (
    STRATEGIES,
    BatchStrategy,
    ScoreStrategy,
    check_strategy_works,
    resolve_strategy,
    select,
)
from skal.strategies.scores import Scores
from skal.testing import check_strategy, example_scores

FAST: dict[str, Any] = {"model": "lenet", "steps": 2, "n_init": 6, "n_query": 4, "n_rounds": 2}


class Powered(ScoreStrategy):
    """Takes nothing but an argument of its own, and does not call its base class's constructor."""

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def score(self, scores: Scores) -> np.ndarray:
        ratio: np.ndarray = np.sort(scores.proba, axis=1)[:, -2] ** self.power
        return ratio


class FirstOnes(SingleAnnotatorPoolQueryStrategy):
    """Of scikit-activeml's interface alone."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset

    def query(self, X: Any, y: Any, batch_size: int = 1, **options: Any) -> Any:
        return np.flatnonzero(np.asarray(y) == self.missing_label)[self.offset :][:batch_size]


def test_a_constructor_needs_no_ritual(tiny: skal.ImageDataset) -> None:
    check_strategy(Powered, {"power": 2.0})
    for spec in (f"{__name__}:Powered?power=2", f"{__name__}:FirstOnes?offset=1"):
        run, again = (skal.run(tiny, spec, **FAST) for _ in range(2))
        assert run.queries == again.queries
    assert Powered().missing_label == -1


def test_arguments_in_the_name_are_kept_in_the_settings_and_repeat_the_run(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    spec = f"{__name__}:Powered?power=0.5"
    run = skal.run(tiny, spec, **FAST, out=tmp_path / "run")
    kept = read_config(tmp_path / "run/config.toml")
    assert kept["strategy"] == f"{__name__}:Powered"
    assert kept["strategy_params"] == {"power": 0.5}
    again = skal.run(tiny, kept["strategy"], strategy_params=kept["strategy_params"], **FAST)
    assert again.queries == run.queries
    assert resolve_strategy("k-means?pick=farthest").given == {"pick_from": "farthest"}
    assert resolve_strategy(spec, {"power": 3}).params == {"power": 3}
    with pytest.raises(UnknownNameError, match="'pwer'; did you mean power"):
        resolve_strategy(f"{__name__}:Powered?pwer=1")


def answers(answer: Any) -> type:
    class Wrong(BatchStrategy):
        def pick(self, scores: Scores, batch_size: int, random_state: Any) -> Any:
            raise AssertionError

        def query(self, X: Any, y: Any, *args: Any, batch_size: int = 1, **options: Any) -> Any:
            return answer(np.asarray(y), batch_size)

    return Wrong


WRONG: tuple[tuple[Any, str], ...] = (
    (lambda y, n: np.arange(n) + 0.5, r"returned float64 of shape \(2,\), such as 0.5; expected 2"),
    (lambda y, n: np.flatnonzero(y == -1)[: n - 1], r"returned int64 of shape \(1,\).*expected 2"),
    (lambda y, n: np.full((n, 1), 30), r"returned int64 of shape \(2, 1\)"),
    (lambda y, n: None, "returned None; expected 2 integers"),
    (lambda y, n: ([30, 31], [[1.0]]), "returned tuple with rows of different lengths"),
    (lambda y, n: [30] * n, "picked 1 of 2 images more than once"),
    (lambda y, n: np.flatnonzero(y != -1)[:n], "picked an image that is labelled already"),
    (lambda y, n: np.arange(n) + len(y), "picked index 40; expected indices from 0 to 39"),
    (lambda y, n: {}["nothing"], "failed: KeyError: 'nothing'"),
    (lambda y, n: 1 / 0, "failed: ZeroDivisionError"),
    (lambda y, n: [].colour, "failed: AttributeError"),
)


@pytest.mark.parametrize(("answer", "message"), WRONG)
def test_what_is_wrong_is_found_before_anything_is_trained(
    answer: Any, message: str, tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    wrong = answers(answer)
    with pytest.raises(ParameterError, match=f"the strategy .*Wrong.* {message}"):
        check_strategy_works(resolve_strategy(wrong), 3)
    with pytest.raises(ParameterError, match=message):
        skal.run(tiny, wrong, **FAST, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("pick", "message"),
    [
        (
            lambda n: np.linspace(0, 1, n),
            r"Batch.pick returned float64 of shape \(2,\), such as 0.0",
        ),
        (lambda n: None, "Batch.pick returned None; expected 2 integers, rows of .scores"),
        (lambda n: np.arange(n + 1), r"Batch.pick returned int64 of shape \(3,\)"),
        (lambda n: np.zeros(n, int), "picked 1 of 2 images more than once"),
        (lambda n: np.arange(n) + 99, "IndexError: index 99 is out of bounds"),
    ],
)
def test_what_pick_returns_is_told(pick: Any, message: str) -> None:
    class Batch(BatchStrategy):
        def pick(self, scores: Scores, batch_size: int, random_state: Any) -> Any:
            return pick(batch_size)

    with pytest.raises(ParameterError, match=message):
        check_strategy_works(resolve_strategy(Batch), 3)


@pytest.mark.parametrize(
    ("score", "got"),
    [
        (lambda proba: proba, r"float32 of shape \(30, 3\)"),
        (lambda proba: proba.sum(), r"float32 of shape \(\)"),
        (lambda proba: None, r"object of shape \(\)"),
        (lambda proba: ["high"] * len(proba), r"<U4 of shape \(30,\)"),
    ],
)
def test_what_score_returns_is_told(score: Any, got: str) -> None:
    class Each(ScoreStrategy):
        def score(self, scores: Scores) -> Any:
            return score(scores.proba)

    with pytest.raises(ParameterError, match=f"Each.score returned {got}; expected 30 numbers"):
        check_strategy_works(resolve_strategy(Each), 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_utilities_that_rank_nothing_are_an_error_and_no_choice_at_random(bad: float) -> None:
    class Each(ScoreStrategy):
        def score(self, scores: Scores) -> Any:
            return np.where(np.arange(len(scores)) < 7, bad, 0.5)

    with pytest.raises(SkalError, match=r"Each\.score returned NaN or infinity for 7 of 60 images"):
        select(resolve_strategy(Each), np.full(60, -1), 4, scores=example_scores(), seed=0)


@pytest.mark.parametrize(("answer", "message"), WRONG[-3:])
def test_whatever_it_raises_later_names_it(answer: Any, message: str) -> None:
    with pytest.raises(SkalError, match=f"the strategy .*Wrong.* {message}"):
        select(
            resolve_strategy(answers(answer)), np.full(60, -1), 4, scores=example_scores(), seed=0
        )


def test_a_registered_one_is_called_by_its_name_and_its_class() -> None:
    STRATEGIES.add("wrong", answers(lambda y, n: None))
    STRATEGIES.add("needy", answers(lambda y, n: None), needs="everything")
    try:
        with pytest.raises(ParameterError, match=r"the strategy wrong \(.*Wrong\) returned None"):
            check_strategy_works(resolve_strategy("wrong"), 3)
        with pytest.raises(ParameterError, match="needs 'everything'; expected one of nothing, sc"):
            resolve_strategy("needy")
    finally:
        STRATEGIES.remove("wrong")
        STRATEGIES.remove("needy")


def test_an_initial_set_strategy_of_ones_own(tiny: skal.ImageDataset) -> None:
    init = f"{__name__}:FirstOnes?offset=3"
    run = skal.run(tiny, "random", **FAST, init_strategy=init)
    assert [row["index"] for row in run.queries][:6] == [3, 4, 5, 6, 7, 8]
    with pytest.raises(ParameterError, match="needs scores, but no network is trained yet"):
        skal.run(tiny, "random", **FAST, init_strategy="skal.strategies.badge:Badge")
    with pytest.raises(UnknownNameError, match="init strategy 'kmeans'; did you mean k-means"):
        skal.run(tiny, "random", **FAST, init_strategy="kmeans")
