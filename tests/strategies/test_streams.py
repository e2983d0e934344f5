"""What is decided about a stream, against computations of its own."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from skactiveml.base import SingleAnnotatorStreamQueryStrategy

from skal.core.errors import ParameterError, SkalError, UnknownNameError
from skal.strategies.scores import HeadClassifier, ScoredClassifier, Scores, example_scores
from skal.strategies.streams import STREAM_STRATEGIES, WINDOW, StreamSampler

NAMES = STREAM_STRATEGIES.names()
FACTS = {entry.name: entry.facts for entry in STREAM_STRATEGIES}
LABELED = example_scores(n_images=20, n_samples=0)
LABELS = np.arange(20) % 3
SCORES = example_scores(n_images=120, n_samples=0)
MADE_UP = dataclasses.replace(SCORES, proba=SCORES.proba**0.3 / (SCORES.proba**0.3).sum(1)[:, None])
"""Less sure of itself, so that "fixed-uncertainty" has something to choose."""

Register = Callable[[type], str]


def part(scores: Scores, start: int, stop: int) -> Scores:
    return dataclasses.replace(
        scores, proba=scores.proba[start:stop], embeddings=scores.embeddings[start:stop]
    )


def sampler(name: str, params: dict[str, Any] | None = None, **options: Any) -> StreamSampler:
    return StreamSampler(
        name, params or {}, **{"budget": 0.2, "n_classes": 3, "seed": 0, **options}
    )


def decide(chosen: StreamSampler, scores: Scores = MADE_UP) -> tuple[np.ndarray, np.ndarray]:
    return chosen.decide(len(scores), scores, LABELED, LABELS)


def of_confidences(values: list[float]) -> Scores:
    """Scores of two classes of which the likelier has these probabilities."""
    sure = np.array(values, dtype=np.float32)
    return Scores(np.arange(2), np.column_stack([sure, 1 - sure]))


@pytest.fixture
def register() -> Iterator[Register]:
    """Register a class under a name of its own, for one test."""
    added = []

    def add(cls: type) -> str:
        name = f"made-up-{cls.__name__}"
        STREAM_STRATEGIES.add(name, cls)
        added.append(name)
        return name

    yield add
    for name in added:
        STREAM_STRATEGIES.remove(name)


class Greedy(SingleAnnotatorStreamQueryStrategy):
    """Wants every image."""

    answer: Any = (0,)
    utility: Any = (0.5,)

    def __init__(self, greed: int = 1, budget: Any = None, random_state: Any = None) -> None:
        super().__init__(budget=budget, random_state=random_state)
        self.greed = greed

    def query(self, candidates: Any, *, return_utilities: bool = False) -> Any:
        if self.greed > 1:
            raise ValueError("too greedy")
        return list(self.answer), np.array(self.utility)

    def update(self, candidates: Any, queried_indices: Any) -> Any:
        return self


class TestEveryStrategy:
    @pytest.mark.parametrize("scores", [MADE_UP, example_scores(ties=True, n_samples=0)])
    @pytest.mark.parametrize("name", NAMES)
    def test_chooses_positions_in_order_and_gives_a_utility_to_each(
        self, name: str, scores: Scores
    ) -> None:
        chosen, utilities = decide(sampler(name), scores)
        assert chosen.dtype == np.int64
        assert chosen.ndim == 1
        assert np.array_equal(chosen, np.unique(chosen))
        assert np.isin(chosen, np.arange(len(scores))).all()
        assert utilities.dtype == np.float64
        assert utilities.shape == (len(scores),)
        assert np.isfinite(utilities).all()

    @pytest.mark.parametrize("name", NAMES)
    def test_chooses_some_and_leaves_some(self, name: str) -> None:
        chosen, _ = decide(sampler(name))
        assert 10 <= len(chosen) <= 0.2 * (len(MADE_UP) + WINDOW) + 1

    @pytest.mark.parametrize("name", NAMES)
    def test_equal_seeds_give_equal_decisions(self, name: str) -> None:
        (chosen, utilities), (again, same) = (decide(sampler(name, seed=7)) for _ in range(2))
        assert np.array_equal(chosen, again)
        assert np.array_equal(utilities, same)

    @pytest.mark.parametrize("name", ["random", "random-variable-uncertainty", "split"])
    def test_other_seeds_give_other_decisions_where_there_is_chance(self, name: str) -> None:
        assert (
            decide(sampler(name, seed=1))[0].tolist() != decide(sampler(name, seed=2))[0].tolist()
        )

    @pytest.mark.parametrize("size", [1, 50])
    @pytest.mark.parametrize("name", NAMES)
    def test_chunks_decide_as_the_whole_stream_does(self, name: str, size: int) -> None:
        chosen, utilities = decide(sampler(name))
        chunked, found, values = sampler(name), [], []
        for start in range(0, len(MADE_UP), size):
            positions, these = decide(chunked, part(MADE_UP, start, start + size))
            found.extend(start + positions)
            values.extend(these)
        assert found == chosen.tolist()
        assert values == utilities.tolist()

    @pytest.mark.parametrize("name", sorted(set(NAMES) - {"random-variable-uncertainty"}))
    def test_decides_as_scikit_activeml_does_of_the_first_chunk(self, name: str) -> None:
        # of the one left out, the noise depends on the size of the chunk
        classes = {"classes": np.arange(3)} if name == "fixed-uncertainty" else {}
        query = STREAM_STRATEGIES.get(name)(
            budget=0.2, random_state=0, **FACTS[name].get("params", {}), **classes
        )
        rows = np.arange(len(MADE_UP))[:, None]
        expected = {
            "nothing": lambda: query.query(rows),
            "scores": lambda: query.query(rows, ScoredClassifier(MADE_UP)),
            "embeddings": lambda: query.query(
                MADE_UP.embeddings, HeadClassifier(MADE_UP), LABELED.embeddings, LABELS
            ),
        }[FACTS[name]["needs"]]()
        assert decide(sampler(name))[0].tolist() == np.asarray(expected).tolist()

    @pytest.mark.parametrize("name", NAMES)
    def test_decisions_do_not_depend_on_later_images(self, name: str) -> None:
        half = len(MADE_UP) // 2
        late = np.arange(len(MADE_UP)) >= half
        other = dataclasses.replace(
            MADE_UP,
            proba=np.where(late[:, None], MADE_UP.proba[::-1], MADE_UP.proba),
            embeddings=np.where(late[:, None], 10 * MADE_UP.embeddings[::-1], MADE_UP.embeddings),
        )
        (chosen, utilities), (others, values) = decide(sampler(name)), decide(sampler(name), other)
        assert chosen[chosen < half].tolist() == others[others < half].tolist()
        assert utilities[:half].tolist() == values[:half].tolist()

    @pytest.mark.parametrize("budget", [0.02, 0.2])
    @pytest.mark.parametrize("name", NAMES)
    def test_replayed_from_a_journal_it_goes_on_as_the_one_that_lived(
        self, name: str, budget: float
    ) -> None:
        lived, replayed = (sampler(name, budget=budget) for _ in range(2))
        for start, stop in ((0, 1), (1, 1), (1, 30), (30, 70)):
            scores = part(MADE_UP, start, stop)
            chosen, utilities = decide(lived, scores)
            line = json.loads(json.dumps([len(scores), chosen.tolist(), utilities.tolist()]))
            replayed.replay(*line)
        for scores in (part(MADE_UP, 70, 71), MADE_UP):
            (chosen, utilities), (again, same) = decide(lived, scores), decide(replayed, scores)
            assert chosen.tolist() == again.tolist()
            assert utilities.tolist() == same.tolist()

    @pytest.mark.parametrize("name", NAMES)
    def test_decides_on_no_image(self, name: str) -> None:
        chosen, utilities = sampler(name).decide(0)
        assert (chosen.shape, chosen.dtype) == ((0,), np.int64)
        assert (utilities.shape, utilities.dtype) == ((0,), np.float64)

    @pytest.mark.parametrize(
        ("n", "budget", "ties"), [(2000, 0.01, False), (1000, 0.1, True)], ids=["long", "equal"]
    )
    @pytest.mark.parametrize("name", NAMES)
    def test_keeps_the_budget_at_any_time(
        self, name: str, n: int, budget: float, ties: bool
    ) -> None:
        n = min(n, 300) if FACTS[name]["needs"] == "embeddings" else n
        scores = example_scores(ties, n_images=n, n_samples=0)
        chosen, _ = decide(sampler(name, budget=budget), scores)
        ahead = 0 if FACTS[name]["needs"] == "nothing" else budget * WINDOW + 1
        taken, seen = np.arange(1, len(chosen) + 1), chosen + 1
        assert (taken <= budget * seen + ahead + 1e-9).all()

    @pytest.mark.parametrize("budget", [0.1, 0.13, 1.0])
    @pytest.mark.parametrize("name", NAMES)
    def test_of_a_stream_of_known_length_no_more_than_the_budget_are_chosen_in_all(
        self, name: str, budget: float
    ) -> None:
        expecting = sampler(name, budget=budget)
        expecting.expect(len(MADE_UP))
        chosen, utilities = decide(expecting)
        assert len(chosen) <= math.ceil(budget * len(MADE_UP))
        unlimited, _ = decide(sampler(name, budget=budget))
        assert chosen.tolist() == unlimited[: len(chosen)].tolist()
        replayed = sampler(name, budget=budget)
        replayed.expect(len(MADE_UP))
        replayed.replay(len(MADE_UP), chosen, utilities)
        again, same = decide(replayed, MADE_UP)
        lived, values = decide(expecting, MADE_UP)
        assert (again.tolist(), same.tolist()) == (lived.tolist(), values.tolist())

    @pytest.mark.parametrize("name", NAMES)
    def test_decides_by_what_it_says_it_needs(self, name: str) -> None:
        needs, chosen = FACTS[name]["needs"], sampler(name)
        assert chosen.needs_model == (needs != "nothing")
        assert chosen.needs_embeddings == (needs == "embeddings")
        without = dataclasses.replace(MADE_UP, embeddings=None)
        if needs == "nothing":
            chosen.decide(len(MADE_UP))
        elif needs == "scores":
            chosen.decide(len(MADE_UP), without)
        else:
            for scores, labeled in ((without, LABELED), (MADE_UP, None)):
                with pytest.raises(ParameterError, match="scores with embeddings"):
                    chosen.decide(len(MADE_UP), scores, labeled, LABELS)
        if needs != "nothing":
            with pytest.raises(ParameterError, match=f"{name} needs scores"):
                chosen.decide(len(MADE_UP))

    @pytest.mark.parametrize("name", NAMES)
    def test_is_described(self, name: str) -> None:
        assert {"summary", "cost"} <= FACTS[name].keys()

    @pytest.mark.parametrize("name", [name for name in NAMES if FACTS[name]["needs"] != "nothing"])
    def test_scores_that_are_no_numbers_end_the_run(self, name: str) -> None:
        proba = MADE_UP.proba.copy()
        proba[-1] = np.nan
        with pytest.raises(SkalError, match=r"NaN.*training diverged.*learning rate"):
            decide(sampler(name), dataclasses.replace(MADE_UP, proba=proba))


class TestPeriodic:
    @pytest.mark.parametrize(
        ("budget", "expected"), [(0.25, [3, 7, 11]), (0.4, [2, 4, 7, 9]), (1.0, list(range(12)))]
    )
    def test_takes_an_image_whenever_the_budget_reaches_the_next_whole_number(
        self, budget: float, expected: list[int]
    ) -> None:
        chosen, utilities = sampler("periodic", budget=budget).decide(12)
        assert chosen.tolist() == expected
        assert np.flatnonzero(utilities).tolist() == expected


class TestRandom:
    def test_takes_about_the_budget(self) -> None:
        assert 0.09 < len(sampler("random", budget=0.1).decide(5000)[0]) / 5000 <= 0.1


class TestFixedUncertainty:
    def test_takes_what_is_below_the_probability_of_chance_and_the_budget(self) -> None:
        # theta = 1/2 + 0.4 (1 - 1/2) = 0.7
        scores = of_confidences([0.9, 0.69, 0.5, 0.71, 0.6])
        chosen, utilities = decide(sampler("fixed-uncertainty", budget=0.4, n_classes=2), scores)
        assert chosen.tolist() == [1, 2, 4]
        np.testing.assert_allclose(utilities, [0.1, 0.31, 0.5, 0.29, 0.4], atol=1e-6)


class TestVariableUncertainty:
    def test_the_threshold_falls_with_an_image_taken_and_rises_with_others(self) -> None:
        # theta:                 1     0.5   0.75  0.375 0.5625 0.84375
        scores = of_confidences([0.90, 0.60, 0.70, 0.60, 0.60, 0.60])
        chosen, _ = decide(sampler("variable-uncertainty", {"s": 0.5}, n_classes=2), scores)
        assert chosen.tolist() == [0, 2, 5]
        # theta:                 1     0.5   0.75  1.125 0.5625 0.28125
        scores = of_confidences([0.90, 0.60, 0.80, 1.00, 0.55, 0.60])
        chosen, _ = decide(sampler("variable-uncertainty", {"s": 0.5}, n_classes=2), scores)
        assert chosen.tolist() == [0, 3, 4]

    def test_a_spent_budget_lets_images_pass_and_leaves_the_threshold(self) -> None:
        # the budget is spent while u / 2 >= 0.5; u is halved with each image, and 1 more if taken
        # u:                     0     1     0.5   0.25  1.125 0.5625
        # theta:                 1     0.9   0.9   0.99  0.891 0.891
        scores = of_confidences([0.95, 0.50, 0.95, 0.50, 0.50, 0.88])
        params = {"s": 0.1, "w": 2}
        chosen, _ = decide(sampler("variable-uncertainty", params, budget=0.5, n_classes=2), scores)
        assert chosen.tolist() == [0, 3, 5]

    def test_follows_the_algorithm_of_the_paper_over_a_stream(self) -> None:
        confidence = MADE_UP.proba.max(1)
        theta, spent, budget, expected = 1.0, 0.0, 0.3, []
        for position, sure in enumerate(confidence):
            wanted = False
            if spent / 100 < budget:
                wanted = bool(sure < theta)
                theta *= 1 - 0.01 if wanted else 1 + 0.01
            spent = spent * 99 / 100 + wanted
            if wanted:
                expected.append(position)
        chosen, _ = decide(sampler("variable-uncertainty", budget=budget))
        assert chosen.tolist() == expected


class TestProbabilistic:
    def test_images_far_from_labelled_ones_are_worth_more(self) -> None:
        embeddings = np.zeros((3, 8), dtype=np.float32)
        embeddings[1] = LABELED.embeddings[0]
        embeddings[2] = 100
        scores = dataclasses.replace(
            LABELED,
            proba=LABELED.proba[:3],
            embeddings=embeddings,
            head=lambda e: np.full((len(e), 3), 1 / 3, dtype=np.float32),
        )
        _, utilities = decide(sampler("probabilistic"), scores)
        assert utilities[2] > utilities[1]

    def test_an_utility_that_underflows_is_none(self) -> None:
        many = example_scores(ties=True, n_images=3000, n_samples=0)
        flat = dataclasses.replace(
            part(MADE_UP, 0, 5), head=lambda e: np.full((len(e), 3), 1 / 3, dtype=np.float32)
        )
        chosen, utilities = sampler("probabilistic", {"metric_dict": {"gamma": 1e-9}}).decide(
            5, flat, many, np.arange(3000) % 3
        )
        assert chosen.tolist() == []
        assert utilities.tolist() == [0.0] * 5

    def test_needs_labelled_images(self) -> None:
        with pytest.raises(ParameterError, match="needs labelled images"):
            sampler("probabilistic").decide(5, part(MADE_UP, 0, 5), part(MADE_UP, 0, 0), [])

    def test_labelled_embeddings_that_are_no_numbers_end_the_run(self) -> None:
        broken = dataclasses.replace(LABELED, embeddings=np.full_like(LABELED.embeddings, np.inf))
        with pytest.raises(SkalError, match="labelled images are NaN or infinite"):
            sampler("probabilistic").decide(len(MADE_UP), MADE_UP, broken, LABELS)

    def test_refuses_more_classes_than_it_can_bear(self) -> None:
        with pytest.raises(ParameterError, match="31 classes; expected at most 30"):
            sampler("probabilistic", n_classes=31)


class TestArguments:
    def test_an_unknown_name_gets_the_nearest_one(self) -> None:
        with pytest.raises(
            UnknownNameError, match=r"unknown stream strategy 'splitt'.*mean split\?"
        ):
            sampler("splitt")

    def test_an_unknown_parameter_gets_the_nearest_one(self) -> None:
        with pytest.raises(UnknownNameError, match=r"parameter of split 'thetta'.*mean theta"):
            sampler("split", {"thetta": 1.0})

    @pytest.mark.parametrize("name", ["budget", "random_state", "classes", "budget_manager"])
    def test_what_skal_sets_is_no_parameter(self, name: str) -> None:
        with pytest.raises(UnknownNameError, match=name):
            sampler("fixed-uncertainty", {name: 1})

    @pytest.mark.parametrize(
        ("name", "params"),
        [
            ("split", {"v": 2.0}),
            ("variable-uncertainty", {"s": -0.1}),
            ("variable-uncertainty", {"w": "long"}),
            ("random", {"allow_exceeding_budget": "maybe"}),
            ("probabilistic", {"metric": "nonsense"}),
            ("probabilistic", {"m_max": 0}),
        ],
    )
    def test_a_wrong_value_is_found_before_anything_is_decided(
        self, name: str, params: dict[str, Any]
    ) -> None:
        with pytest.raises(ParameterError, match=f"{name} does not work.*{next(iter(params))}"):
            sampler(name, params)

    @pytest.mark.parametrize("budget", [0, 0.0, -0.1, 1.01, float("nan"), True, "0.1", None])
    def test_a_wrong_budget_is_refused(self, budget: Any) -> None:
        with pytest.raises(ParameterError, match=r"budget=.*above 0 and at most 1"):
            sampler("periodic", budget=budget)

    def test_parameters_are_not_shared_with_the_caller(self) -> None:
        params = {"metric_dict": {"gamma": 0.1}}
        chosen = sampler("probabilistic", params)
        expected = decide(sampler("probabilistic", {"metric_dict": {"gamma": 0.1}}))[1]
        params["metric_dict"]["gamma"] = 5.0
        assert decide(chosen)[1].tolist() == expected.tolist()

    def test_scores_of_other_images_are_refused(self) -> None:
        with pytest.raises(ParameterError, match=r"got 120 scores of .*; expected 5"):
            sampler("split").decide(5, MADE_UP)

    @pytest.mark.parametrize(
        ("chosen", "utilities"),
        [([3], [0.1] * 3), ([-1], [0.1] * 3), ([1, 0], [0.1] * 3), ([1, 1], [0.1] * 3),
         ([1], [0.1] * 2), ([1], [0.1, float("nan"), 0.2])],
    )  # fmt: skip
    def test_a_journal_of_nonsense_is_refused(self, chosen: Any, utilities: Any) -> None:
        with pytest.raises(SkalError, match="cannot replay"):
            sampler("split").replay(3, chosen, utilities)


class TestImportPaths:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_class_by_its_path_is_the_one_of_the_table(self, name: str) -> None:
        path = STREAM_STRATEGIES.resolve(name).target
        (chosen, _), (expected, _) = decide(sampler(path)), decide(sampler(name))
        assert chosen.tolist() == expected.tolist()

    @pytest.mark.parametrize("path", ["skactiveml.pool:Falcun", "numpy:zeros"])
    def test_another_class_is_refused_in_one_line(self, path: str) -> None:
        with pytest.raises(
            ParameterError, match=r"is not a stream strategy: got.*expected"
        ) as seen:
            sampler(path)
        assert "\n" not in str(seen.value)

    @pytest.mark.parametrize("name", ["StreamDensityBasedAL", "CognitiveDualQueryStrategyVarUn"])
    def test_those_that_remember_images_are_refused(self, name: str) -> None:
        with pytest.raises(ParameterError, match="remembers images"):
            sampler(f"skactiveml.stream:{name}")

    def test_a_class_of_ones_own_works(self) -> None:
        chosen, utilities = sampler(f"{__name__}:Greedy", budget=0.5).decide(1000)
        assert chosen[:102].tolist() == [*range(101), 102]  # the head start, and then every other
        assert len(chosen) == 550
        assert set(utilities) == {0.5}

    @pytest.mark.parametrize(
        ("budget", "length", "most"), [(0.5, 1000, 500), (0.1, 84, 9), (0.1, 30, 3), (0.7, 10, 7)]
    )
    def test_one_that_wants_all_gets_the_budget_rounded_up(
        self, budget: float, length: int, most: int
    ) -> None:
        greedy = sampler(f"{__name__}:Greedy", budget=budget)
        greedy.expect(length)
        assert len(greedy.decide(length)[0]) == most

    def test_a_class_learns_of_no_image_that_the_budget_stops(self, register: Register) -> None:
        learned = []

        class Recorder(Greedy):
            def update(self, candidates: Any, queried_indices: Any) -> Any:
                learned.append((len(candidates), np.asarray(queried_indices).tolist()))

        name = register(Recorder)
        decided, replayed = (sampler(name, budget=0.5) for _ in range(2))
        learned.clear()
        answer = decided.decide(1000)
        assert learned == [(1, [0])] * 550
        replayed.replay(1000, *answer)
        assert learned == [(1, [0])] * 1100


class TestForeignStrategies:
    def test_wrong_arguments_are_found_at_once(self, register: Register) -> None:
        with pytest.raises(ParameterError, match="too greedy"):
            sampler(register(Greedy), {"greed": 2})

    @pytest.mark.parametrize("answer", [(1,), (-1,), (0, 0), (False,)])
    def test_a_wrong_choice_is_an_error(self, register: Register, answer: Any) -> None:
        name = register(Greedy)
        with pytest.MonkeyPatch.context() as patch:
            chosen = sampler(name)
            patch.setattr(Greedy, "answer", answer)
            with pytest.raises(SkalError, match="of one image; expected"):
                chosen.decide(3)

    @pytest.mark.parametrize("utility", [(), (0.1, 0.2), (float("inf"),)])
    def test_a_wrong_utility_is_an_error(self, register: Register, utility: Any) -> None:
        chosen = sampler(register(Greedy))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Greedy, "utility", utility)
            with pytest.raises(SkalError, match="expected one finite number"):
                chosen.decide(3)

    def test_a_failure_names_the_strategy(self, register: Register) -> None:
        chosen = sampler(register(Greedy))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Greedy, "utility", "none")
            with pytest.raises(SkalError, match="made-up-Greedy failed"):
                chosen.decide(3)


def test_importing_the_table_costs_no_torch_and_no_scikit_activeml() -> None:
    code = (
        "import sys, skal.strategies.streams as s; s.STREAM_STRATEGIES.names();"
        "print([name for name in ('torch', 'skactiveml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
