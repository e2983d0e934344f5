"""BALD and BatchBALD, against computations of their own."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import skactiveml.pool
import torch
from asking import INDEX, NONE_LABELED, ask, labels, made
from skactiveml.classifier import ParzenWindowClassifier, SklearnClassifier
from sklearn.naive_bayes import GaussianNB

from skal.strategies import CommitteeVariance, MCDropoutBALD, PowerBALD
from skal.strategies.bald import mutual_information
from skal.strategies.scores import ScoredClassifier
from skal.strategies.uncertainty import by_blocks
from skal.testing import N_IMAGES, example_scores


class TestBald:
    def test_utilities_are_the_mutual_information(self) -> None:
        samples = example_scores().mc_proba.astype(float)
        expected = []
        for image in range(N_IMAGES):
            mean = samples[:, image].mean(0)
            within = np.mean([-(p * np.log(p)).sum() for p in samples[:, image]])
            expected.append(-(mean * np.log(mean)).sum() - within)
        np.testing.assert_allclose(mutual_information(samples), expected, atol=1e-9)
        assert ask("bald").tolist() == np.argsort(expected)[::-1][:8].tolist()

    @pytest.mark.parametrize("numbers", [1, 20 * 3, 7 * 20 * 3 + 1, 2**20])
    def test_many_images_and_classes_are_looked_at_in_parts(self, numbers: int) -> None:
        samples = example_scores().mc_proba
        heights = []

        def watched(part: np.ndarray) -> np.ndarray:
            heights.append(part.shape[1])
            return mutual_information(part)

        found = by_blocks(watched, samples, numbers)
        np.testing.assert_allclose(found, mutual_information(samples), rtol=1e-12)
        assert max(heights) == min(max(numbers // (20 * 3), 1), N_IMAGES)

    def test_certain_and_agreeing_networks_give_no_information(self) -> None:
        samples = np.zeros((5, 4, 3))
        samples[..., 1] = 1
        np.testing.assert_allclose(mutual_information(samples), 0, atol=1e-12)
        disagreeing = np.eye(2)[np.array([0, 1])][:, None]
        np.testing.assert_allclose(mutual_information(disagreeing), np.log(2), atol=1e-12)

    def test_it_agrees_with_scikit_activemls_greedy_bald(self) -> None:
        theirs = ask("skactiveml.pool:GreedyBALD", n=15)
        assert theirs.tolist() == ask("bald", n=15).tolist()

    def test_ties_fall_at_random(self) -> None:
        scores = example_scores(ties=True)
        assert len({int(ask("bald", scores=scores, n=1, seed=s)[0]) for s in range(200)}) > 40

    def test_it_works_with_any_classifier_that_samples(self) -> None:
        class Sampling(ParzenWindowClassifier):  # type: ignore[misc]
            def sample_proba(self, X: np.ndarray, n_samples: int) -> np.ndarray:
                return np.random.default_rng(0).dirichlet(np.ones(3), (n_samples, len(X)))

        X, y = np.random.default_rng(0).normal(size=(40, 2)), np.full(40, -1)
        y[:3] = [0, 1, 2]
        query = MCDropoutBALD(n_samples=7, random_state=0)
        picks = query.query(X, y, Sampling(classes=[0, 1, 2], missing_label=-1), batch_size=4)
        assert len(set(picks.tolist())) == 4

    def test_a_classifier_that_draws_its_samples_is_seeded_by_the_strategy(self) -> None:
        X, y = np.random.default_rng(0).normal(size=(40, 2)), np.full(40, -1)
        y[:3] = [0, 1, 2]
        clf = ParzenWindowClassifier(classes=[0, 1, 2], missing_label=-1, class_prior=1)

        def picks(seed: int) -> list[int]:
            return MCDropoutBALD(random_state=seed).query(X, y, clf, batch_size=10).tolist()

        assert picks(0) == picks(0)
        assert picks(0) != picks(1)

    @pytest.mark.parametrize("kind", ["own", "numpy", "python", "torch"])
    def test_who_samples_by_whatever_generator_does_so_by_the_strategys_seed(
        self, kind: str
    ) -> None:
        def numbers(size: int, random_state: int | None = None) -> np.ndarray:
            if kind == "own":
                return np.random.default_rng(random_state).random(size)
            if kind == "numpy":
                return np.random.random(size)  # noqa: NPY002
            if kind == "python":
                return np.array([random.random() for _ in range(size)])
            return torch.rand(size).numpy()

        class Sampling(ParzenWindowClassifier):  # type: ignore[misc]
            def sample_proba(
                self, X: np.ndarray, n_samples: int, random_state: int | None = None
            ) -> np.ndarray:
                drawn = numbers(n_samples * len(X), random_state).reshape(n_samples, len(X))
                return np.stack([drawn, 1 - drawn], axis=2)

        X, y = np.random.default_rng(0).normal(size=(60, 2)), np.full(60, -1)
        y[:2] = [0, 1]
        clf = Sampling(classes=[0, 1], missing_label=-1)

        def picks(strategy: Any, seed: int) -> list[int]:
            chosen: np.ndarray = strategy(random_state=seed).query(X, y, clf, batch_size=4)
            return chosen.tolist()

        before = np.random.get_state()[1].copy()  # noqa: NPY002
        for strategy in (MCDropoutBALD, PowerBALD, CommitteeVariance):
            assert picks(strategy, 3) == picks(strategy, 3)
            assert len({tuple(picks(strategy, seed)) for seed in range(6)}) > 1
        assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002

    def test_it_says_what_the_classifier_lacks(self) -> None:
        with pytest.raises(TypeError, match="needs a classifier with sample_proba"):
            MCDropoutBALD().query(
                INDEX, NONE_LABELED, SklearnClassifier(GaussianNB(), [0, 1], missing_label=-1)
            )


class TestBatchBald:
    def test_picks_are_those_of_scikit_activeml_where_nothing_ties(self) -> None:
        for seed in (0, 1):
            theirs = skactiveml.pool.BatchBALD(
                n_MC_samples=200,
                sample_predictions_method_name="sample_proba",
                sample_predictions_dict={"n_samples": 20},
                missing_label=-1,
                random_state=seed,
            ).query(
                INDEX, labels(), ScoredClassifier(example_scores()), fit_ensemble=False,
                batch_size=6,
            )  # fmt: skip
            assert ask("batch-bald", y=labels(), n=6, seed=seed).tolist() == theirs.tolist()

    def test_the_first_pick_has_the_highest_mutual_information(self) -> None:
        first = mutual_information(example_scores().mc_proba).argmax()
        assert {int(ask("batch-bald", n=2, seed=seed)[0]) for seed in range(5)} == {first}

    def test_images_that_tie_are_picked_once_each_and_at_random(self) -> None:
        tied = example_scores(ties=True)
        batches = [ask("batch-bald", scores=tied, n=6, seed=seed) for seed in range(12)]
        assert all(len(set(batch.tolist())) == 6 for batch in batches)
        assert len({int(batch[0]) for batch in batches}) > 5

    def test_of_two_images_alike_the_second_tells_less_than_another(self) -> None:
        # three networks that agree on nothing: images 0 and 1 split them in the same way
        sure = np.array([[0.98, 0.02], [0.02, 0.98]])
        samples = np.stack([sure[[0, 0, 0]], sure[[1, 1, 0]], sure[[1, 1, 1]]])
        inner = {"sample_predictions_dict": {"n_samples": 3}}
        scores = made(samples.mean(0), samples=samples)
        picks = ask("batch-bald", scores=scores, n=2, **inner).tolist()
        assert 2 in picks
