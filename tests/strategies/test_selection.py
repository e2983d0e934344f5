"""From names and scores to checked indices."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from typing import Any

import numpy as np
import pytest
import skactiveml.pool
from asking import INDEX, NONE_LABELED, ask, labels
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

from skal.core.errors import ParameterError, SkalError, UnknownNameError
from skal.strategies import (
    STRATEGIES,
    Badge,
    MCDropoutBALD,
    PowerMargin,
    check_strategy_works,
    resolve_strategy,
)
from skal.strategies.scores import ScoredClassifier, Scores
from skal.testing import N_IMAGES, example_scores


def ranked(method: str) -> SingleAnnotatorPoolQueryStrategy:
    return skactiveml.pool.UncertaintySampling(method, missing_label=-1, random_state=0)


SAMPLED = {"sample_predictions_method_name": "sample_proba", "missing_label": -1, "random_state": 0}


@pytest.mark.parametrize(
    ("name", "query", "model"),
    [
        ("least-confidence", ranked("least_confident"), "clf"),
        ("margin", ranked("margin_sampling"), "clf"),
        ("entropy", ranked("entropy"), "clf"),
        (
            "contrastive",
            skactiveml.pool.ContrastiveAL(
                clf_embedding_flag_name={"extra_outputs": "emb"}, missing_label=-1, random_state=0
            ),
            "clf",
        ),
        (
            "query-by-committee",
            skactiveml.pool.QueryByCommittee(
                sample_predictions_dict={"n_samples": 5}, **SAMPLED
            ),
            "ensemble",
        ),
        (
            "greedy-bald",
            skactiveml.pool.GreedyBALD(sample_predictions_dict={"n_samples": 20}, **SAMPLED),
            "ensemble",
        ),
    ],
)  # fmt: skip
def test_a_ranking_picks_as_scikit_activeml_asked_for_the_whole_batch(
    name: str, query: SingleAnnotatorPoolQueryStrategy, model: str
) -> None:
    assert STRATEGIES.resolve(name).facts["batch"] == "ranked"
    given = {model: ScoredClassifier(example_scores()), f"fit_{model}": False}
    expected = query.query(INDEX, labels(), batch_size=12, **given)
    assert ask(name, y=labels(), n=12).tolist() == expected.tolist()


def test_random_picks_each_image_as_often_as_any_other() -> None:
    picks = np.concatenate([ask("random", y=labels(20, 5), n=3, seed=s) for s in range(400)])
    seen = np.bincount(picks, minlength=20) / 400
    assert seen[:5].sum() == 0
    np.testing.assert_allclose(seen[5:], 3 / 15, atol=0.07)


class TestSelect:
    def test_what_is_left_is_taken_when_more_is_asked(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        y = np.zeros(N_IMAGES, int)
        y[[3, 8, 9]] = -1
        assert ask("badge", y=y, n=5).tolist() == [3, 8, 9]
        assert "only 3 are left" in caplog.text

    def test_parameters_reach_the_strategy_and_wrong_ones_are_named(self) -> None:
        assert resolve_strategy("bald", {"n_samples": 7}).n_samples == 7
        with pytest.raises(UnknownNameError, match="n_sample'; did you mean n_samples"):
            resolve_strategy("bald", {"n_sample": 7})
        with pytest.raises(SkalError, match=r"strategy margin failed: .*methd") as caught:
            ask("margin", method="methd")
        assert caught.value.exit_code == 1

    @pytest.mark.parametrize("wrong", ["abc", 0, 1, 2.5, None])
    def test_a_wrong_number_of_samples_is_found_at_once(self, wrong: object) -> None:
        with pytest.raises(ParameterError, match=r"n_samples=.*expected a whole number, 2 or more"):
            resolve_strategy("bald", {"n_samples": wrong})
        inner = {"sample_predictions_dict": {"n_samples": wrong}}
        with pytest.raises(ParameterError, match="expected a whole number, 2 or more"):
            resolve_strategy("skactiveml.pool:GreedyBALD", inner)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("bagde", "unknown strategy 'bagde'; did you mean badge"),
            ("skactiveml.pool:Falcn", "did you mean Falcun"),
            ("no.such.module:Thing", "cannot import 'no.such.module:Thing'"),
            ("skactiveml.pool:uncertainty_scores", "is not a query strategy"),
            ("skactiveml.pool:ExpectedModelChangeMaximization", "cannot be used here"),
        ],
    )
    def test_names_that_cannot_be_used_are_explained(self, name: str, message: str) -> None:
        with pytest.raises(SkalError, match=message):
            resolve_strategy(name)

    def test_an_instance_brings_its_parameters(self) -> None:
        chosen = resolve_strategy(MCDropoutBALD(n_samples=5, random_state=3))
        assert dict(chosen.given) == {"n_samples": 5}
        assert chosen.n_samples == 5
        assert not chosen.request.embeddings
        assert resolve_strategy(Badge).params == resolve_strategy("badge").params

    def test_auto_is_another_name_of_clue(self) -> None:
        assert resolve_strategy("auto", {"method": "entropy"}) == (
            resolve_strategy("clue", {"method": "entropy"})
        )
        assert resolve_strategy("auto").name == "clue"
        assert ask("auto", y=labels()).tolist() == ask("clue", y=labels()).tolist()

    @pytest.mark.parametrize("name", ["query-by-committee", "greedy-bald", "batch-bald"])
    def test_the_number_of_samples_has_the_same_name_everywhere(self, name: str) -> None:
        chosen = resolve_strategy(name, {"n_samples": 7})
        assert chosen.n_samples == 7
        assert dict(chosen.given) == {"n_samples": 7}
        assert chosen.params["sample_predictions_dict"] == {"n_samples": 7}
        theirs = resolve_strategy(name, {"sample_predictions_dict": {"n_samples": 7}})
        assert chosen.params == theirs.params
        scores = example_scores(n_samples=7)
        assert ask(name, scores=scores, n_samples=7).tolist() == (
            ask(name, scores=scores, **theirs.given).tolist()
        )
        with pytest.raises(ParameterError, match=r"n_samples='x'.*2 or more"):
            resolve_strategy(name, {"n_samples": "x"})

    def test_nothing_is_kept_of_an_argument_that_is_none_by_default(self) -> None:
        assert not resolve_strategy("probcover", {"delta": None}).given
        assert resolve_strategy("probcover", {"alpha": None}).given == {"alpha": None}

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            ([1, 1, 2], "picked 1 of 3 images more than once"),
            ([1, 2], r"returned int64 of shape \(2,\)"),
            ([0, 1, 2], "labelled already"),
            ([1, 2, 99], "picked index 99; expected indices from 0 to 59"),
            ([0.5, 1, 2], "returned float64"),
        ],
    )
    def test_a_strategy_that_breaks_its_promise_is_caught(
        self, answer: list[float], message: str
    ) -> None:
        class Broken(SingleAnnotatorPoolQueryStrategy):  # type: ignore[misc]
            def query(self, X: object, y: object, **kwargs: object) -> np.ndarray:
                return np.array(answer)

        y = NONE_LABELED.copy()
        y[0] = 1
        with pytest.raises(SkalError, match=message):
            ask(Broken, y=y, n=3)


def defaults(name: str) -> dict[str, Any]:
    """The arguments that a strategy has when none is given, but for those that skal sets."""
    chosen = resolve_strategy(name)
    takes = inspect.signature(chosen.cls).parameters
    values = {param: facts.default for param, facts in takes.items()} | dict(chosen.params)
    return {k: v for k, v in values.items() if k not in ("missing_label", "random_state")}


class TestTryingOut:
    @pytest.mark.parametrize("n_classes", [1, 2, 10, 200])
    @pytest.mark.parametrize("name", [name for name in STRATEGIES.names() if defaults(name)])
    def test_every_strategy_works_with_its_own_arguments(self, name: str, n_classes: int) -> None:
        chosen = resolve_strategy(name, defaults(name))
        tried = chosen.given and chosen.needs != "own model"
        assert check_strategy_works(chosen, n_classes) == bool(tried)

    def test_without_arguments_of_ones_own_nothing_is_tried(self) -> None:
        assert not check_strategy_works(resolve_strategy("badge"), 3)

    def test_wrong_parameters_are_found_before_anything_is_trained(self) -> None:
        wrong = "margin does not work with these parameters: .*methd"
        with pytest.raises(ParameterError, match=wrong):
            check_strategy_works(resolve_strategy("margin", {"method": "methd"}), 3)

    def test_parameters_that_go_by_the_classes_are_taken(self) -> None:
        costs = {"method": "least_confident", "cost_matrix": 1 - np.eye(10)}
        check_strategy_works(resolve_strategy("skactiveml.pool:UncertaintySampling", costs), 10)

    def test_warnings_of_made_up_scores_are_not_shown(self) -> None:
        class Warning_(PowerMargin):
            def score(self, scores: Scores) -> np.ndarray:
                warnings.warn("few images", stacklevel=1)
                return scores.proba[:, 1]

        check_strategy_works(resolve_strategy(Warning_, {"beta": 2}), 3)


@pytest.mark.parametrize(
    ("name", "spoilt"), [("badge", "proba"), ("badge", "embeddings"), ("bald", "mc_proba")]
)
def test_a_network_that_diverged_is_named(name: str, spoilt: str) -> None:
    scores = example_scores()
    values = getattr(scores, spoilt).copy()
    values[..., 20, 0] = np.nan
    with pytest.raises(SkalError, match=f"the {spoilt} read by .* are NaN or infinite: .*diverged"):
        ask(name, scores=dataclasses.replace(scores, **{spoilt: values}))


NAMED_BY_PATH = [
    "ProbabilisticAL", "UncertaintySampling", "QueryByCommittee", "Quire", "FourDs",
    "CostEmbeddingAL", "DiscriminativeAL", "BatchBALD", "GreedyBALD", "Clue", "DropQuery",
    "CoreSet", "TypiClust", "Badge", "ProbCover", "ContrastiveAL", "Falcun", "MaxHerding",
    "RandomSampling", "GreedySamplingX",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMED_BY_PATH)
@pytest.mark.filterwarnings("ignore::Warning")  # theirs, of clusters that stay empty and the like
def test_scikit_activemls_classes_work_by_import_path(name: str) -> None:
    y = NONE_LABELED.copy()
    y[:9] = np.arange(9) % 3
    path = f"skactiveml.pool:{name}"
    picks = ask(path, y=y, n=4)
    assert len(set(picks.tolist())) == 4
    assert picks.tolist() == ask(path, y=y, n=4).tolist()
    check_strategy_works(resolve_strategy(path), 3)
