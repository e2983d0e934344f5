"""Strategies that others write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import skactiveml.pool
from asking import INDEX, ask, labels

import skal
from skal.core.errors import ParameterError, SkalError
from skal.strategies import (
    STRATEGIES,
    BatchStrategy,
    ScoreStrategy,
    resolve_strategy,
)
from skal.strategies.scores import Scores
from skal.testing import N_IMAGES, check_strategy, example_scores


@pytest.fixture
def register() -> Iterator[Callable[..., type]]:
    """Register a class as "test-plugin", for one test."""

    def add(cls: type, **facts: Any) -> type:
        STRATEGIES.add("test-plugin", cls, **facts)
        return cls

    yield add
    if "test-plugin" in STRATEGIES:
        STRATEGIES.remove("test-plugin")


class Variance(ScoreStrategy):
    """Reads samples."""

    reads = ("mc_proba",)

    def score(self, scores: Scores) -> np.ndarray:
        assert scores.mc_proba is not None
        assert len(scores.mc_proba) == self.n_samples
        return scores.mc_proba.var(axis=0).sum(axis=1)


class Anything(BatchStrategy):
    """Reads nothing, and tells no utilities."""

    reads = ()

    def pick(self, scores: Scores, b: int, rng: np.random.RandomState) -> list[int]:
        return rng.permutation(len(scores))[:b].tolist()


class TestPlugins:
    @pytest.mark.parametrize("facts", [{}, {"needs": "scores"}, {"summary": "the variance"}])
    def test_what_a_class_reads_decides_what_it_needs(
        self, register: Callable[..., type], facts: dict[str, str], tiny: skal.ImageDataset
    ) -> None:
        register(Variance, **facts)
        settings = {"model": "lenet", "n_init": 6, "n_query": 4, "n_rounds": 1, "steps": 1}
        for strategy in ("test-plugin", Variance):
            chosen = resolve_strategy(strategy)
            assert (chosen.needs, chosen.n_samples, chosen.request.embeddings) == ("samples", 20, 0)
            check_strategy(strategy)
            assert skal.run(tiny, strategy, **settings).summary["n_labeled"] == 10

    def test_a_committee_is_only_had_by_asking(self, register: Callable[..., type]) -> None:
        register(Variance, needs="committee")
        assert resolve_strategy("test-plugin").n_samples == 20
        assert resolve_strategy("committee-variance").n_samples == 5

    @pytest.mark.parametrize("name", STRATEGIES.names())
    def test_a_strategy_needs_what_the_table_says(self, name: str) -> None:
        assert resolve_strategy(name).needs == STRATEGIES.resolve(name).facts["needs"]

    def test_a_class_that_reads_nothing_needs_nothing(self) -> None:
        assert resolve_strategy(Anything).needs == "nothing"
        check_strategy(Anything)

    def test_one_that_cannot_be_made_is_refused_at_once(self) -> None:
        class Unfinished(ScoreStrategy):
            pass

        with pytest.raises(ParameterError, match=r"Unfinished.* does not work .* abstract"):
            resolve_strategy(Unfinished)

    def test_a_batch_strategy_may_tell_no_utilities(self) -> None:
        query = Anything(random_state=0)
        picks, rows = query.query(INDEX, labels(), batch_size=3, return_utilities=True)
        again = Anything(random_state=0).query(INDEX, labels(), batch_size=3)
        assert picks.tolist() == again.tolist()
        expected = np.zeros((3, N_IMAGES))
        expected[:, :9] = np.nan  # labelled
        expected[:, picks] = [3, 2, 1]
        expected[1:, picks[0]] = expected[2, picks[1]] = np.nan
        np.testing.assert_array_equal(rows, expected)

    def test_the_checks_hand_over_as_many_samples_as_a_run(self) -> None:
        for name in ("bald", "query-by-committee"):
            check_strategy(name, {"n_samples": 50})

        class Five(Variance):
            def score(self, scores: Scores) -> np.ndarray:
                return scores.mc_proba[:5].var(axis=0).sum(axis=1)[:5]

        with pytest.raises(SkalError):
            check_strategy(Five)

    @pytest.mark.parametrize("field", ["embeddings", "mc_proba", "gradient_length"])
    def test_the_checks_find_a_class_that_reads_what_it_does_not_say(self, field: str) -> None:
        class Silent(ScoreStrategy):
            def score(self, scores: Scores) -> np.ndarray:
                values = getattr(scores, field)
                return values.reshape(len(scores), -1)[:, 0]

        with pytest.raises(SkalError, match=r"Silent.* failed: AttributeError: .NoneType"):
            check_strategy(Silent)

    def test_the_checks_find_scores_of_scikit_activemls_kind_that_nobody_computes(
        self, register: Callable[..., type]
    ) -> None:
        register(skactiveml.pool.ContrastiveAL, needs="scores", embeddings=False)
        with pytest.raises(ParameterError, match="the scores have no output 'emb'"):
            check_strategy("test-plugin", {"clf_embedding_flag_name": {"extra_outputs": "emb"}})


def test_a_plugin_of_few_lines_passes_the_checks() -> None:
    @STRATEGIES.register("test-plugin", needs="scores", summary="the probability of class 1")
    class Plugin(ScoreStrategy):
        def score(self, scores: Scores) -> np.ndarray:
            return scores.proba[:, 1]

    try:
        check_strategy("test-plugin")
        assert "test-plugin" in STRATEGIES
        assert ask("test-plugin").tolist() == np.argsort(-example_scores().proba[:, 1])[:8].tolist()
    finally:
        STRATEGIES.remove("test-plugin")
    assert "test-plugin" not in STRATEGIES
    assert skal.STRATEGIES is STRATEGIES
