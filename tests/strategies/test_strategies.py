"""What is picked, against computations of its own."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import skactiveml.pool
import torch
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skactiveml.classifier import ParzenWindowClassifier, SklearnClassifier
from skactiveml.pool import SubSamplingWrapper
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import normalize

import skal
from skal.core.errors import ParameterError, SkalError, UnknownNameError
from skal.core.memory import bytes_needed
from skal.strategies import (
    STRATEGIES,
    TCM,
    Badge,
    BatchStrategy,
    CommitteeVariance,
    CoreSet,
    DiverseBatch,
    DiverseEntropy,
    ExpectedGradientLength,
    KMeansSampling,
    MCDropoutBALD,
    PowerBALD,
    PowerMargin,
    ScoreStrategy,
    TypiClust,
    check_strategy_works,
    resolve_strategy,
    select,
    selection,
    uncertainty,
)
from skal.strategies.badge import kmeanspp_gradients
from skal.strategies.bald import mutual_information
from skal.strategies.base import pick_highest
from skal.strategies.coverage import pure_radius
from skal.strategies.scores import ScoredClassifier, Scores
from skal.strategies.uncertainty import MEASURES, entropy, least_confidence, margin
from skal.testing import N_IMAGES, check_strategy, example_scores

INDEX = np.arange(N_IMAGES)[:, None]
NONE_LABELED = np.full(N_IMAGES, -1)


def gradients(scores: Scores) -> np.ndarray:
    """The gradient embeddings, spelt out: (n, C * D)."""
    error = scores.proba.astype(float) - np.eye(3)[scores.proba.argmax(1)]
    return np.einsum("nc,nd->ncd", error, scores.embeddings.astype(float)).reshape(N_IMAGES, -1)


def ask(strategy: object, **params: object) -> np.ndarray:
    scores = params.pop("scores", example_scores())
    n = params.pop("n", 8)
    y = params.pop("y", np.full(len(scores), -1))
    seed = params.pop("seed", 0)
    chosen = resolve_strategy(strategy, params)
    return select(chosen, y, n, scores=scores, n_classes=len(scores.classes), seed=seed)


def utilities(query: SingleAnnotatorPoolQueryStrategy, scores: Scores, n: int = 1) -> np.ndarray:
    """What a strategy, asked as scikit-activeml's users do, says that its picks were chosen by."""
    X, y = np.arange(len(scores))[:, None], np.full(len(scores), -1)
    clf = ScoredClassifier(scores)
    _, rows = query.query(X, y, clf, fit_clf=False, batch_size=n, return_utilities=True)
    return rows


def made(
    proba: object, embeddings: object = None, samples: object = None, **others: object
) -> Scores:
    """Scores written out by hand."""
    proba, embeddings, samples = (
        None if values is None else np.asarray(values, np.float32)
        for values in (proba, embeddings, samples)
    )
    return Scores(np.arange(proba.shape[1]), proba, embeddings, samples, **others)


def labels(n: int = N_IMAGES, n_labeled: int = 9) -> np.ndarray:
    return np.where(np.arange(n) < n_labeled, np.arange(n) % 3, -1)


class TestThreeImages:
    """Each measure, worked out by hand."""

    # no two measures rank these alike
    PROBA = np.array([[0.50, 0.25, 0.25], [0.52, 0.47, 0.01], [0.60, 0.20, 0.20]])
    # two networks: both unsure; both sure of different classes; one sure, one not
    TWO_NETWORKS = np.array([
        [[0.5, 0.5], [1.0, 0.0], [0.9, 0.1]],
        [[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]],
    ])  # fmt: skip

    @pytest.mark.parametrize(
        ("name", "measure", "expected", "ranking"),
        [
            ("least-confidence", least_confidence, [0.50, 0.48, 0.40], [0, 1]),
            ("margin", margin, [0.75, 0.95, 0.60], [1, 0]),
            ("entropy", entropy, [1.039721, 0.740954, 0.950271], [0, 2]),
        ],
    )
    def test_uncertainty(
        self, name: str, measure: Callable[..., Any], expected: list[float], ranking: list[int]
    ) -> None:
        np.testing.assert_allclose(measure(self.PROBA), expected, atol=1e-6)
        assert ask(name, scores=made(self.PROBA), n=2).tolist() == ranking

    def test_certain_images_are_not_uncertain_by_any_measure(self) -> None:
        for name, measure in MEASURES.items():
            np.testing.assert_allclose(measure(np.eye(3)), 0, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(entropy(np.full((1, 4), 0.25)), np.log(4))
        np.testing.assert_allclose(margin(np.ones((2, 1))), 0)

    def test_mutual_information_of_label_and_network(self) -> None:
        # H(mean) - mean H: ln 2 - ln 2; ln 2 - 0; H(0.7) - (H(0.9) + ln 2) / 2
        expected = [0, 0.693147, 0.101749]
        scores = made(self.TWO_NETWORKS.mean(0), samples=self.TWO_NETWORKS)
        np.testing.assert_allclose(mutual_information(self.TWO_NETWORKS), expected, atol=1e-6)
        found = utilities(MCDropoutBALD(n_samples=2), scores)
        np.testing.assert_allclose(found[0], expected, atol=1e-6)
        for name in ("bald", "power-bald"):
            beta = {"beta": np.inf} if name == "power-bald" else {}
            assert ask(name, scores=scores, n=2, n_samples=2, **beta).tolist() == [1, 2]
        inner = {"sample_predictions_dict": {"n_samples": 2}}
        assert ask("greedy-bald", scores=scores, n=2, **inner).tolist() == [1, 2]

    def test_variance_of_a_committee(self) -> None:
        # of each class: 0; 0.5^2; 0.2^2; and of both classes, twice that
        scores = made(self.TWO_NETWORKS.mean(0), samples=self.TWO_NETWORKS)
        found = utilities(CommitteeVariance(n_samples=2), scores)
        np.testing.assert_allclose(found[0], [0, 0.5, 0.08], atol=1e-6)
        assert ask("committee-variance", scores=scores, n=2, n_samples=2).tolist() == [1, 2]

    @pytest.mark.parametrize(
        ("method", "expected", "ranking"),
        [
            ("vote_entropy", [0.693147, 0.867563, 0.450561], [1, 0]),
            ("variation_ratios", [1 / 2, 1 / 3, 1 / 6], [0, 1]),
            ("KL_divergence", [0.033980, 0.035047, 0.396320], [2, 1]),
        ],
    )
    def test_disagreement_of_a_committee_of_six(
        self, method: str, expected: list[float], ranking: list[int]
    ) -> None:
        # the votes of six networks on three images: 3 to 3, 4 to 1 to 1, 5 to 1; of the last
        # image each network is sure, so that its mean probabilities are 0.81, 0.17, 0.01, 0.01
        votes = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 2, 1]])
        high, low = np.array([0.4, 0.4, 0.97]), np.array([0.2, 0.2, 0.01])
        voted = np.eye(4)[votes]
        samples = voted * high[:, None] + (1 - voted) * low[:, None]
        scores = made(samples.mean(0), samples=samples)
        params = {"method": method, "sample_predictions_dict": {"n_samples": 6}}
        chosen = resolve_strategy("query-by-committee", params)
        found = chosen.cls(**chosen.params, missing_label=-1, random_state=0).query(
            INDEX[:3], NONE_LABELED[:3], ScoredClassifier(scores), False, return_utilities=True
        )[1]
        np.testing.assert_allclose(found[0], expected, atol=1e-5)
        assert ask("query-by-committee", scores=scores, n=2, **params).tolist() == ranking

    def test_expected_gradient_length(self) -> None:
        proba = [[0.8, 0.2], [0.5, 0.5], [1.0, 0.0]]
        embeddings = [[2.0, 2.0], [0.0, 0.0], [9.0, 9.0]]
        # sqrt(|h|^2 + 1) times: 0.8 * 0.2 sqrt 2 + 0.2 * 0.8 sqrt 2; 0.5 sqrt 2; nothing
        expected = [3 * 0.32 * 2**0.5, 1 * 0.5 * 2**0.5, 0]
        scores = made(proba, embeddings)
        found = utilities(ExpectedGradientLength(), scores)
        np.testing.assert_allclose(found[0], expected, atol=1e-6)
        assert ask("expected-gradient-length", scores=scores, n=2).tolist() == [0, 1]

    def test_expected_gradient_length_is_that_of_autograd(self) -> None:
        generator = torch.Generator().manual_seed(0)
        layer = torch.nn.Linear(5, 4, dtype=torch.float64)
        embeddings = torch.randn(3, 5, generator=generator, dtype=torch.float64)
        embeddings = embeddings.float().double()  # as the scores hold them
        proba = layer(embeddings).softmax(-1).detach()
        expected = []
        for h, p in zip(embeddings, proba, strict=True):
            total = 0.0
            for label in range(4):
                loss = torch.nn.functional.cross_entropy(layer(h[None]), torch.tensor([label]))
                found = torch.autograd.grad(loss, list(layer.parameters()))
                total += float(p[label] * torch.cat([g.flatten() for g in found]).norm())
            expected.append(total)
        found = utilities(ExpectedGradientLength(), made(proba.numpy(), embeddings.numpy()))
        np.testing.assert_allclose(found[0], expected, rtol=1e-6)

    @pytest.mark.parametrize(
        ("temperature", "second", "expected"),
        [(0.0, 1, [0.5, 0.0]), (0.2, 1, [0.45, 0.2]), (0.5, 2, [0.375, 0.5]), (1.0, 2, [0.25, 1])],
    )
    def test_uncertainty_and_distance_in_one_sum(
        self, temperature: float, second: int, expected: list[float]
    ) -> None:
        # least confidence 0.5, 0.3, 0.1, which is 1, 1/2, 0 when scaled; the first pick is the
        # first image, from which the others are 1 and 4 away: 1/4 and 1
        scores = made([[0.5, 0.5], [0.7, 0.3], [0.9, 0.1]], [[0.0], [1.0], [4.0]])
        params = {"temperature": temperature, "measure": "least-confidence"}
        rows = utilities(DiverseBatch(**params), scores, n=2)
        np.testing.assert_allclose(rows[0], [1, 0.5, 0], atol=1e-6)
        np.testing.assert_allclose(rows[1], [np.nan, *expected], atol=1e-6)
        assert ask("diverse-batch", scores=scores, n=2, **params).tolist() == [0, second]

    def test_the_farthest_from_what_is_labelled(self) -> None:
        # at 0 with a label; 3, 4 and 10 without: 10 is farthest, then 4 (4 away, and 3 is 3)
        scores = made(np.full((4, 2), 0.5), [[0.0], [3.0], [4.0], [10.0]])
        y = np.array([0, -1, -1, -1])
        assert ask("core-set", scores=scores, y=y, n=2).tolist() == [3, 2]
        rows = CoreSet(random_state=0).query(
            scores.embeddings, y, batch_size=2, return_utilities=True
        )[1]
        np.testing.assert_allclose(rows, [[np.nan, 3, 4, 10], [np.nan, 3, 4, np.nan]], atol=1e-6)


class TestPower:
    # one minus the margin is 0.2, 0.4 and 0.8
    SCORES = made([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])

    def draws(self, beta: float, n: int = 1, times: int = 5000) -> np.ndarray:
        rng, query = np.random.RandomState(0), PowerMargin(beta=beta)
        return np.array([query.pick(self.SCORES, n, rng) for _ in range(times)])

    @pytest.mark.parametrize("beta", [0, 0.5, 1, 2])
    def test_an_images_chance_is_in_proportion_to_a_power_of_its_score(self, beta: float) -> None:
        seen = np.bincount(self.draws(beta)[:, 0], minlength=3) / 5000
        chances = np.array([0.2, 0.4, 0.8]) ** beta
        np.testing.assert_allclose(seen, chances / chances.sum(), atol=0.025)

    def test_later_picks_are_drawn_from_what_is_left_by_the_same_chances(self) -> None:
        draws = self.draws(1, n=2)
        second = draws[draws[:, 0] == 2, 1]
        assert abs((second == 1).mean() - 2 / 3) < 0.03

    def test_power_zero_is_even_and_infinity_is_the_ranking(self) -> None:
        scores = example_scores()
        first = [ask("power-margin", beta=0, n=1, seed=seed)[0] for seed in range(150)]
        assert len(set(first)) > 45  # of 60
        for seed in (0, 1):
            picks = ask("power-margin", beta=np.inf, seed=seed)
            assert picks.tolist() == np.argsort(-margin(scores.proba))[:8].tolist()
            picks = ask("power-bald", beta=np.inf, seed=seed)
            expected = np.argsort(-mutual_information(scores.mc_proba))[:8]
            assert picks.tolist() == expected.tolist()

    def test_of_equal_scores_infinity_draws(self) -> None:
        tied = example_scores(ties=True)
        picks = {ask("power-margin", beta=np.inf, n=1, scores=tied, seed=s)[0] for s in range(40)}
        assert len(picks) > 15

    def test_images_of_score_zero_come_last(self) -> None:
        proba = np.full((60, 2), 0.5)
        proba[:50] = [1, 0]
        for seed in range(20):
            assert min(ask("power-margin", scores=made(proba), n=10, seed=seed)) >= 50

    def test_power_bald_draws_by_mutual_information(self) -> None:
        scores = example_scores(n_images=3)
        rng, query = np.random.RandomState(0), PowerBALD(beta=1)
        draws = [query.pick(scores, 1, rng)[0] for _ in range(3000)]
        chances = mutual_information(scores.mc_proba)
        seen = np.bincount(draws, minlength=3) / 3000
        np.testing.assert_allclose(seen, chances / chances.sum(), atol=0.03)


class TestUncertainty:
    def test_picks_are_those_of_the_formulas(self) -> None:
        proba = np.sort(example_scores().proba.astype(float), axis=1)
        utilities = {
            "least-confidence": 1 - proba[:, -1],
            "margin": proba[:, -2] - proba[:, -1],
            "entropy": -(proba * np.log(proba)).sum(1),
        }
        for name, utility in utilities.items():
            assert ask(name).tolist() == np.argsort(-utility)[:8].tolist(), name


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def naive_badge(scores: Scores, n: int, seed: int) -> list[int]:
    """k-means++ among gradients that are built, n x (C * D), in float64."""
    draw = np.random.RandomState(seed)
    proba = scores.proba.astype(np.float64)
    error = proba - np.eye(proba.shape[1])[proba.argmax(1)]
    g = (error[:, :, None] * scores.embeddings[:, None].astype(np.float64)).reshape(len(proba), -1)
    picks = [int((g**2).sum(1).argmax())]
    squared = np.full(len(g), np.inf)
    while len(picks) < n:
        squared = np.minimum(squared, ((g - g[picks[-1]]) ** 2).sum(1))
        cumulated = np.cumsum(squared)
        level = draw.random_sample() * cumulated[-1]
        picks.append(int(np.searchsorted(cumulated, level, "right")))
    return picks


class TestBadge:
    def test_the_first_pick_is_the_longest_gradient(self) -> None:
        assert ask("badge", n=3)[0] == np.linalg.norm(gradients(example_scores()), axis=1).argmax()

    def test_later_picks_are_drawn_by_the_squared_distance_to_the_nearest(self) -> None:
        scores, g = example_scores(), gradients(example_scores())
        weights = np.empty((6, N_IMAGES))
        rng = np.random.RandomState(0)
        picks = kmeanspp_gradients(scores.proba, scores.embeddings, 6, rng, weights)
        for number in range(1, 6):
            squared = ((g[:, None] - g[picks[:number]]) ** 2).sum(2).min(1)
            expected = squared / squared.sum()
            expected[picks[:number]] = np.nan
            np.testing.assert_allclose(weights[number], expected, atol=1e-6)

    def test_draws_follow_those_weights(self) -> None:
        scores, g, rng = example_scores(), gradients(example_scores()), np.random.RandomState(0)
        first = np.linalg.norm(g, axis=1).argmax()
        squared = ((g - g[first]) ** 2).sum(1)
        second = [
            kmeanspp_gradients(scores.proba, scores.embeddings, 2, rng)[1] for _ in range(2000)
        ]
        seen = np.bincount(second, minlength=N_IMAGES) / 2000
        np.testing.assert_allclose(seen, squared / squared.sum(), atol=0.025)

    @pytest.mark.parametrize("problem", range(20))
    def test_picks_are_those_of_the_gradients_spelt_out_in_float64(self, problem: int) -> None:
        rng = np.random.default_rng(problem)
        n, n_classes = int(rng.integers(60, 900)), int(rng.integers(2, 13))
        n_features, n_picks = int(rng.integers(1, 48)), int(rng.integers(5, 40))
        embeddings = rng.normal(size=(n, n_features))
        logits = rng.normal(size=(n, n_classes)) * rng.choice([0.5, 2, 6])
        if problem % 2:  # clusters, where a new centre is far from most images
            cluster = rng.integers(0, 10, n)
            embeddings = 3 * rng.normal(size=(10, n_features))[cluster] + 0.3 * embeddings
            logits = 4 * rng.normal(size=(10, n_classes))[cluster] + 0.3 * logits
        scores = made(softmax(logits), embeddings)
        seed = int(rng.integers(2**31))
        picks = Badge().pick(scores, n_picks, np.random.RandomState(seed))
        assert picks.tolist() == naive_badge(scores, n_picks, seed)

    def test_the_first_draw_agrees_with_scikit_activemls(self) -> None:
        # its further ones do not: there the origin stays a centre
        scores = example_scores()
        params = {"clf_embedding_flag_name": {"extra_outputs": "emb"}, "missing_label": -1}
        given = {"clf": ScoredClassifier(scores), "fit_clf": False, "return_utilities": True}
        ours, our_utilities = Badge(**params).query(INDEX, NONE_LABELED, **given)
        theirs, their_utilities = skactiveml.pool.Badge(**params).query(
            INDEX, NONE_LABELED, **given
        )
        assert ours.tolist() == list(theirs)
        np.testing.assert_allclose(our_utilities, their_utilities, atol=1e-6)

    def test_images_that_coincide_are_drawn_evenly_and_once(self) -> None:
        scores = example_scores(ties=True)
        picks = [tuple(ask("badge", scores=scores, seed=seed)) for seed in range(200)]
        assert all(len(set(batch)) == 8 for batch in picks)
        assert len({batch[1] for batch in picks}) > 40

    def test_certain_predictions_have_no_gradient_and_still_make_a_batch(self) -> None:
        proba = np.eye(3, dtype=np.float32)[np.arange(N_IMAGES) % 3]
        scores = Scores(np.arange(3), proba, example_scores().embeddings)
        assert len(set(ask("badge", scores=scores, n=20).tolist())) == 20

    def test_it_takes_the_place_of_scikit_activemls_with_any_classifier(self) -> None:
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(40, 2)), np.full(40, -1)
        y[:6] = [0, 1, 2, 0, 1, 2]
        classifier = ParzenWindowClassifier(classes=[0, 1, 2], missing_label=-1)
        query = Badge(random_state=0)
        picks = query.query(X, y, classifier, batch_size=5)
        assert len(set(picks.tolist())) == 5
        assert (y[picks] == -1).all()
        wrapped = SubSamplingWrapper(query, max_candidates=10, missing_label=-1, random_state=0)
        picks = wrapped.query(X, y, batch_size=3, clf=classifier)
        assert len(set(np.asarray(picks).tolist())) == 3
        labelled = query.query(X, y, classifier, candidates=[0, 1, 7, 9], batch_size=2)
        assert set(labelled.tolist()) == {7, 9}


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
    def test_many_images_and_classes_are_looked_at_in_parts(
        self, numbers: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        samples = example_scores().mc_proba
        expected = mutual_information(samples)
        monkeypatch.setattr(uncertainty, "NUMBERS_AT_ONCE", numbers)
        heights = []
        entropy_ = entropy

        def watched(values: np.ndarray) -> np.ndarray:
            heights.append(values.shape[-2])
            return entropy_(values)

        monkeypatch.setattr("skal.strategies.bald.entropy", watched)
        np.testing.assert_allclose(mutual_information(samples), expected, rtol=1e-12)
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

    def test_it_says_what_the_classifier_lacks(self) -> None:
        with pytest.raises(TypeError, match="has no sample_proba"):
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


class TestDiverse:
    def groups(self, n: int = 30) -> tuple[Scores, np.ndarray]:
        """Three groups of images far apart, each with images more and less certain."""
        group = np.arange(n) % 3
        rng = np.random.default_rng(0)
        embeddings = 50 * np.eye(3)[group] + rng.normal(size=(n, 3))
        high = rng.uniform(0.5, 0.99, n)
        return made(np.stack([high, 1 - high], axis=1), embeddings), group

    def test_diverse_entropy_gives_the_most_uncertain_of_each_cluster(self) -> None:
        scores, group = self.groups()
        values = entropy(scores.proba)
        best = [np.flatnonzero(group == k)[values[group == k].argmax()] for k in range(3)]
        for seed in range(3):
            assert sorted(ask("diverse-entropy", scores=scores, n=3, factor=10, seed=seed)) == (
                sorted(best)
            )

    def test_diverse_entropy_looks_at_the_most_uncertain_alone(self) -> None:
        scores, _ = self.groups()
        values = entropy(scores.proba)
        kept = set(np.argsort(-values)[:9].tolist())
        for seed in range(5):
            assert set(ask("diverse-entropy", scores=scores, n=3, seed=seed).tolist()) <= kept
        # as many kept as wanted: no clustering can choose among them
        picks = ask("diverse-entropy", scores=scores, n=3, factor=1)
        assert set(picks.tolist()) == set(np.argsort(-values)[:3].tolist())

    @pytest.mark.parametrize("name", ["entropy", "margin", "least-confidence"])
    def test_diverse_batch_without_distance_is_the_ranking_by_uncertainty(self, name: str) -> None:
        scores = example_scores()
        picks = ask("diverse-batch", temperature=0, measure=name)
        assert picks.tolist() == np.argsort(-MEASURES[name](scores.proba))[:8].tolist()

    def test_diverse_batch_of_distance_alone_goes_farthest_first(self) -> None:
        scores = example_scores()
        expected = [int(entropy(scores.proba).argmax())]
        points = scores.embeddings.astype(float)
        while len(expected) < 8:
            nearest = np.linalg.norm(points[:, None] - points[expected], axis=2).min(1)
            expected.append(int(nearest.argmax()))
        assert ask("diverse-batch", temperature=1).tolist() == expected

    @pytest.mark.parametrize("temperature", [0.3, 0.5, 0.8])
    def test_diverse_batch_is_greedy_on_the_sum(self, temperature: float) -> None:
        scores = example_scores()
        points = scores.embeddings.astype(float)
        certain = entropy(scores.proba).min()
        u = (entropy(scores.proba) - certain) / (entropy(scores.proba).max() - certain)
        expected = [int(u.argmax())]
        while len(expected) < 8:
            d = np.linalg.norm(points[:, None] - points[expected], axis=2).min(1)
            value = (1 - temperature) * u + temperature * d / d.max()
            value[expected] = -1
            expected.append(int(value.argmax()))
        assert ask("diverse-batch", temperature=temperature).tolist() == expected


class TestKMeans:
    # two clusters on a line; their centres are at 2 and 103.25
    POINTS = made(np.full((7, 2), 0.5), [[0.0], [1.0], [5.0], [100.0], [101.0], [102.0], [110.0]])

    def test_the_nearest_to_each_centre_the_larger_cluster_first(self) -> None:
        assert ask("k-means", scores=self.POINTS, n=2).tolist() == [5, 1]

    def test_the_farthest_if_asked_for(self) -> None:
        assert ask("k-means", scores=self.POINTS, n=2, pick="farthest").tolist() == [6, 2]
        query = KMeansSampling(pick_from="farthest", random_state=0)
        assert query.query(self.POINTS.embeddings, np.full(7, -1), batch_size=2).tolist() == [6, 2]

    def test_a_run_takes_the_parameter(self, tiny: skal.ImageDataset) -> None:
        settings = {"n_init": 6, "n_query": 5, "n_rounds": 1, "steps": 2}
        near, far = (
            skal.run(tiny, "k-means", strategy_params={"pick": pick}, **settings)
            for pick in ("nearest", "farthest")
        )
        assert near.config.strategy_params != far.config.strategy_params
        assert [r["index"] for r in near.queries] != [r["index"] for r in far.queries]

    def test_where_images_coincide_the_batch_is_filled_up(self) -> None:
        points = made(np.full((12, 2), 0.5), np.repeat([[0.0], [9.0]], 6, axis=0))
        assert len(set(ask("k-means", scores=points, n=5).tolist())) == 5


class TestCoreSet:
    def problem(self, seed: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng(seed)
        n, n_features, n_picks = (int(rng.integers(a, b)) for a, b in ((30, 200), (2, 20), (3, 15)))
        return rng.normal(size=(n, n_features)).astype(np.float32), n_picks

    @pytest.mark.parametrize("seed", range(6))
    def test_picks_and_distances_are_those_of_scikit_activeml(self, seed: int) -> None:
        X, n = self.problem(seed)
        y = labels(len(X), 1 + 3 * seed)
        ours, distances = CoreSet(random_state=0).query(X, y, batch_size=n, return_utilities=True)
        theirs, expected = skactiveml.pool.CoreSet(missing_label=-1, random_state=0).query(
            X, y, batch_size=n, return_utilities=True
        )
        assert ours.tolist() == theirs.tolist()
        expected[:, y != -1] = np.nan  # theirs are 0 there
        for number in range(1, n):
            expected[number, theirs[:number]] = np.nan
        np.testing.assert_allclose(distances, expected, atol=1e-5)
        scores = made(np.full((len(X), 3), 1 / 3), X)
        assert ask("core-set", scores=scores, y=y, n=n).tolist() == theirs.tolist()

    @pytest.mark.parametrize("seed", range(3))
    def test_with_nothing_labelled_the_first_is_drawn_and_the_others_follow(
        self, seed: int
    ) -> None:
        X, n = self.problem(seed)
        nothing = np.full(len(X), -1)
        ours = CoreSet(random_state=seed).query(X, nothing, batch_size=n)
        first = np.where(np.arange(len(X)) == ours[0], 0, -1)
        theirs = skactiveml.pool.CoreSet(missing_label=-1, random_state=0).query(
            X, first, batch_size=n - 1
        )
        assert ours[1:].tolist() == theirs.tolist()
        drawn = {int(CoreSet(random_state=s).query(X, nothing)[0]) for s in range(30)}
        assert len(drawn) > 10


def directions(sizes: tuple[int, ...], seed: int = 0) -> tuple[Scores, np.ndarray]:
    """Clusters of embeddings by direction, at lengths that mean nothing."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    points = np.eye(len(sizes))[cluster] + 0.05 * rng.normal(size=(len(cluster), len(sizes)))
    points *= rng.uniform(0.5, 5, (len(cluster), 1))
    high = rng.uniform(0.4, 0.99, len(cluster))
    return made(np.stack([high, *[(1 - high) / 2] * 2], axis=1), points), cluster


def most_typical(scores: Scores, rows: np.ndarray, k: int = 20) -> int:
    unit = normalize(scores.embeddings[rows].astype(float))
    distance = np.sort(np.linalg.norm(unit[:, None] - unit, axis=2), axis=1)
    k = min(k, max(len(rows) // 2, 1))
    return int(rows[distance[:, 1 : k + 1].mean(1).argmin()])


class TestTypiClust:
    def test_clusters_without_a_label_give_their_most_typical_image(self) -> None:
        scores, cluster = directions((10, 20, 15))
        y = np.full(45, -1)
        y[np.flatnonzero(cluster == 1)[3]] = 0
        expected = [most_typical(scores, np.flatnonzero(cluster == k)) for k in (2, 0)]
        for seed in range(3):  # the larger of the two first
            assert ask("typiclust", scores=scores, y=y, n=2, seed=seed).tolist() == expected

    def test_fewer_neighbours_may_count(self) -> None:
        scores, cluster = directions((10, 20, 15))
        rows = [np.flatnonzero(cluster == k) for k in (1, 2, 0)]
        picks = ask("typiclust", scores=scores, n=3, k=2)
        assert picks.tolist() == [most_typical(scores, row, k=2) for row in rows]
        assert picks.tolist() != ask("typiclust", scores=scores, n=3).tolist()

    def test_small_clusters_come_last(self) -> None:
        scores, cluster = directions((4, 20, 15))
        picks = ask("typiclust", scores=scores, n=3)
        assert cluster[picks].tolist() == [1, 2, 0]
        y = np.full(39, -1)
        y[[10, 30]] = 0  # all but the small one have a label
        assert ask("typiclust", scores=scores, y=y, n=1)[0] in np.flatnonzero(cluster != 0)


class TestTCM:
    def test_it_goes_over_to_margin_when_enough_of_the_pool_is_covered(self) -> None:
        scores, cluster = directions((40, 31, 29))
        one_each = [int(np.flatnonzero(cluster == k)[0]) for k in range(3)]
        few, many = np.full(100, -1), np.full(100, -1)
        few[one_each[0]] = 0
        many[one_each] = [0, 1, 2]
        params = {"scores": scores, "n": 2, "clusters_per_class": 1}
        typical = ask("typiclust", scores=scores, n=2, y=few)
        unsure = np.argsort(-np.where(many == -1, margin(scores.proba), -1))[:2]
        for seed in range(3):
            assert ask("tcm", y=few, seed=seed, **params).tolist() == typical.tolist()
            assert ask("tcm", y=many, seed=seed, **params).tolist() == unsure.tolist()

    def test_the_share_that_is_enough_can_be_chosen(self) -> None:
        scores, cluster = directions((41, 31, 30))
        y = np.full(102, -1)
        y[[0, 41]] = [0, 1]  # 40 and 30 of the 100 candidates share a cluster with a label
        params = {"scores": scores, "y": y, "n": 1, "clusters_per_class": 1}
        unsure = int(np.where(y == -1, margin(scores.proba), -1).argmax())
        typical = most_typical(scores, np.flatnonzero(cluster == 2))
        assert ask("tcm", coverage=0.7, **params).tolist() == [unsure]
        assert ask("tcm", coverage=0.71, **params).tolist() == [typical]

    def test_nothing_labelled_is_few(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", logger="skal")
        scores, cluster = directions((40, 31, 29))
        assert cluster[ask("tcm", scores=scores, n=3)].tolist() == [0, 1, 2]
        assert "tcm: 0% of the pool is in clusters with a label: typiclust" in caplog.text


class TestCoverage:
    """ProbCover and MaxHerding."""

    @pytest.mark.parametrize("name", ["probcover", "max-herding"])
    def test_picks_are_those_of_the_class_on_the_embeddings(self, name: str) -> None:
        query = STRATEGIES.get(name)(random_state=4)
        expected = query.query(example_scores().embeddings, labels(), batch_size=6)
        assert ask(name, y=labels(), n=6, seed=4).tolist() == expected.tolist()

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("n_labeled", [0, 7])
    @pytest.mark.filterwarnings("ignore:The maximum purity")  # theirs, of a radius that is given
    def test_probcover_covers_as_scikit_activemls_of_the_same_radius(
        self, seed: int, n_labeled: int
    ) -> None:
        scores = example_scores()
        X, delta = normalize(scores.embeddings), 0.5 + 0.1 * seed
        query = STRATEGIES.get("probcover")(delta=delta, random_state=seed)
        y = labels(n_labeled=n_labeled)
        picks, covered = query.query(scores.embeddings, y, batch_size=8, return_utilities=True)
        for number, pick in enumerate(picks):
            # of equal counts any image may be picked: theirs is asked of each state anew
            theirs = skactiveml.pool.ProbCover(
                n_classes=3, deltas=[delta], missing_label=-1, random_state=0
            ).query(X, y, return_utilities=True)[1][0]
            np.testing.assert_allclose(covered[number], theirs, atol=1e-9)
            assert theirs[pick] == np.nanmax(theirs)
            y[pick] = 0

    @pytest.mark.parametrize("alpha", [0.505, 0.805, 0.955])
    def test_probcovers_own_radius_is_the_largest_of_pure_balls(self, alpha: float) -> None:
        scores, group = directions((30, 40, 30))
        points = normalize(scores.embeddings).astype(np.float32)
        radius = pure_radius(points, 3, alpha, np.random.RandomState(0))
        distance = np.linalg.norm(points[:, None].astype(float) - points, axis=2)

        def pure(delta: float) -> float:
            return 1 - ((distance <= delta) & (group[:, None] != group)).any(axis=1).mean()

        assert pure(radius - 1e-5) >= alpha > pure(radius + 1e-5)

    @pytest.mark.parametrize("gamma", [0.5, 1.0, 5.0])
    @pytest.mark.parametrize("n_labeled", [0, 7])
    def test_max_herding_picks_as_scikit_activemls_of_the_same_gamma(
        self, gamma: float, n_labeled: int
    ) -> None:
        y, scores = labels(n_labeled=n_labeled), example_scores()
        query = STRATEGIES.get("max-herding")(gamma=gamma, random_state=0)
        picks, gains = query.query(scores.embeddings, y, batch_size=10, return_utilities=True)
        n = (y == -1).sum()
        for number, pick in enumerate(picks):
            # two images that are similar to each other alone gain the same: any may be picked
            theirs = skactiveml.pool.MaxHerding(
                metric_dict={"gamma": gamma}, missing_label=-1, random_state=0
            ).query(scores.embeddings, y, return_utilities=True)[1][0]
            theirs *= (n - number) / n  # a mean over all that were candidates at first
            np.testing.assert_allclose(theirs[pick], np.nanmax(theirs), rtol=1e-5)
            np.testing.assert_allclose(gains[number, pick], theirs[pick], rtol=1e-5)
            assert (gains[number] >= theirs - 1e-7)[y == -1].all()
            y[pick] = 0

    @pytest.mark.parametrize(
        ("name", "params", "message"),
        [
            ("probcover", {"delta": -1}, "delta=-1; expected a number above 0"),
            ("probcover", {"alpha": 1.5}, "alpha=1.5; expected a number below 1"),
            ("max-herding", {"gamma": 0}, "gamma=0; expected a number above 0"),
        ],
    )
    def test_wrong_parameters_are_named(
        self, name: str, params: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ParameterError, match=message):
            check_strategy_works(resolve_strategy(name, params), 3)


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
    assert STRATEGIES.entry(name).facts["batch"] == "ranked"
    given = {model: ScoredClassifier(example_scores()), f"fit_{model}": False}
    expected = query.query(INDEX, labels(), batch_size=12, **given)
    assert ask(name, y=labels(), n=12).tolist() == expected.tolist()


def test_random_picks_each_image_as_often_as_any_other() -> None:
    picks = np.concatenate([ask("random", y=labels(20, 5), n=3, seed=s) for s in range(400)])
    seen = np.bincount(picks, minlength=20) / 400
    assert seen[:5].sum() == 0
    np.testing.assert_allclose(seen[5:], 3 / 15, atol=0.07)


class TestMemory:
    """`skactiveml.pool:ProbCover` takes memory by the square of the images."""

    NAME = "skactiveml.pool:ProbCover"

    @pytest.fixture
    def limit(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        def set_to(n_bytes: float) -> None:
            monkeypatch.setattr(selection, "available_memory", lambda device: int(n_bytes))
            monkeypatch.setattr(selection, "UNASKED", 0)

        return set_to

    def needed(self, n: int, n_features: int = 8, scored: bool = True) -> float:
        terms = resolve_strategy(self.NAME).memory(scored=scored)
        return bytes_needed(terms, {"n": n, "b": 5, "C": 3, "D": n_features, "T": 0})

    def test_with_enough_of_it_all_images_are_seen(
        self, limit: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        expected = ask(self.NAME, y=labels(), n=5)
        limit(1.3 * self.needed(60))
        assert ask(self.NAME, y=labels(), n=5).tolist() == expected.tolist()
        assert caplog.text == ""

    def test_with_little_of_it_a_subset_is_seen_and_a_warning_says_so(
        self, limit: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        free = 1.3 * self.needed(40)  # of which a part is left to others
        limit(free)
        seen = []
        query = skactiveml.pool.ProbCover.query

        def watched(self: object, X: np.ndarray, y: np.ndarray, **options: object) -> object:
            seen.append((len(X), int((y == -1).sum())))
            return query(self, X, y, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(skactiveml.pool.ProbCover, "query", watched)
            picks = ask(self.NAME, y=labels(), n=5)
        ((n_rows, n_candidates),) = seen
        assert n_rows == n_candidates + 9  # what is labelled is always seen
        assert self.needed(n_rows) <= 0.8 * free < self.needed(60)
        assert n_rows > 35
        assert len(set(picks.tolist())) == 5
        assert (labels()[picks] == -1).all()
        (message,) = [record.getMessage() for record in caplog.records]
        assert message.startswith(f"{self.NAME} needs about {self.needed(60) / 1024:.0f} KiB")
        assert "among 51 images" in message
        assert f"and {free / 1024:.0f} KiB are free" in message
        assert f"choosing among {n_candidates} of them" in message
        assert f"(max_candidates={n_candidates} fixes that number)" in message

    def test_equal_memory_gives_equal_picks_and_another_seed_another_subset(
        self, limit: Callable[[float], None]
    ) -> None:
        limit(1.3 * self.needed(30))
        first, again, other = (ask(self.NAME, y=labels(), n=5, seed=seed) for seed in (0, 0, 1))
        assert first.tolist() == again.tolist()
        assert first.tolist() != other.tolist()

    def test_a_large_subset_has_a_round_size(
        self, limit: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        scores = example_scores(n_images=400)
        for n in (345, 349):  # much the same memory: the same subset
            limit(self.needed(n) / 0.8 + 1)
            assert len(set(ask(self.NAME, scores=scores, n=5).tolist())) == 5
        assert caplog.text.count("choosing among 340 of them") == 2

    def test_when_not_even_the_batch_fits_that_is_said(
        self, limit: Callable[[float], None]
    ) -> None:
        limit(self.needed(10))
        with pytest.raises(
            SkalError, match=r"needs \d+ KiB of memory .* \d+ KiB are free"
        ) as caught:
            ask(self.NAME, y=labels(), n=5)
        assert "another strategy or a smaller n_query" in str(caught.value)
        limit(0)
        with pytest.raises(SkalError, match="0 KiB are free"):
            ask(self.NAME, y=labels(), n=5)

    def test_what_is_little_anyway_is_not_asked_for(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(selection, "available_memory", lambda device: 0)
        for name in STRATEGIES.names():
            assert len(ask(name, y=labels(), n=5)) == 5, name
        assert caplog.text == ""

    @pytest.mark.parametrize("name", sorted(set(STRATEGIES.names()) - {"random"}))
    def test_every_strategy_that_reads_scores_is_held_to_what_is_free(
        self, name: str, limit: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        chosen = resolve_strategy(name)
        sizes = {"n": 40, "b": 5, "C": 3, "D": 8, "T": chosen.n_samples}
        limit(bytes_needed(chosen.memory(scored=True), sizes) / 0.8 + 1)
        picks = ask(name, y=labels(), n=5)
        assert len(set(picks.tolist())) == 5
        assert (labels()[picks] == -1).all()
        assert f"choosing among {40 - 9 * chosen.needs_labeled} of them" in caplog.text

    @pytest.mark.parametrize(
        ("name", "parts"),
        [
            ("margin", {"nC"}),
            ("random", {"nC"}),
            ("badge", {"nC", "nD"}),
            ("bald", {"nC", "nTC"}),
            ("query-by-committee", {"nC", "nTC"}),
            ("core-set", {"nC", "nD"}),
        ],
    )
    def test_the_scores_and_a_copy_of_them_are_part_of_what_is_needed(
        self, name: str, parts: set[str]
    ) -> None:
        chosen = resolve_strategy(name)
        own = chosen.facts.get("memory", {})
        scored, before = chosen.memory(scored=True), chosen.memory(scored=False)
        assert {letters for letters in before if scored[letters] > own.get(letters, 0)} == parts
        members = {"nTC": 4} if chosen.n_members else {}
        for letters in parts:
            assert scored[letters] == own.get(letters, 0) + 4
            assert before[letters] == scored[letters] + 4 + members.get(letters, 0)

    def test_where_skals_own_compute_on_a_gpu_its_memory_counts(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        devices = []
        monkeypatch.setattr(
            selection, "available_memory", lambda device: devices.append(device) or 2**40
        )
        sizes: dict[str, Any] = {"n_classes": 3, "n_features": 8, "device": "cuda:1"}
        for name in ("badge", "margin"):
            assert selection.affordable(resolve_strategy(name), 50, 9, 5, **sizes) == 50
        assert devices == ["cuda:1", "cpu"]

    def test_a_run_goes_on_with_the_subset(
        self,
        limit: Callable[[float], None],
        tiny: skal.ImageDataset,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        limit(1.3 * self.needed(50, n_features=84, scored=False))
        settings = {"model": "lenet", "n_init": 6, "n_query": 5, "n_rounds": 2, "steps": 2}
        first, again = (skal.run(tiny, self.NAME, **settings) for _ in range(2))
        assert [row["n_labeled"] for row in first.rounds] == [6, 11, 16]
        assert first.queries == again.queries
        assert caplog.text.count("drawn at random") == 4  # once a round: before it is scored


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
            ("skactiveml.pool:ExpectedModelChangeMaximization", "cannot be used in this loop"),
        ],
    )
    def test_names_that_cannot_be_used_are_explained(self, name: str, message: str) -> None:
        with pytest.raises(SkalError, match=message):
            resolve_strategy(name)

    def test_an_instance_brings_its_parameters(self) -> None:
        chosen = resolve_strategy(MCDropoutBALD(n_samples=5, random_state=3))
        assert dict(chosen.given) == {"n_samples": 5}
        assert chosen.n_samples == 5
        assert not chosen.needs_embeddings
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
            ([1, 2, 99], "not in 0 to 59"),
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
    def test_every_strategy_works_with_its_own_arguments(
        self, name: str, n_classes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        ask_ = selection._ask
        monkeypatch.setattr(selection, "_ask", lambda *a, **k: asked.append(a) or ask_(*a, **k))
        chosen = resolve_strategy(name, defaults(name))
        check_strategy_works(chosen, n_classes)
        tried = chosen.given and chosen.needs != "own model"
        assert len(asked) == bool(tried)

    def test_without_arguments_of_ones_own_nothing_is_tried(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(selection, "_ask", None)
        check_strategy_works(resolve_strategy("badge"), 3)

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


class Images(ParzenWindowClassifier):  # type: ignore[misc]
    """A classifier of images that tells no embeddings."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Images:
        return super().fit(np.reshape(X, (len(X), -1)), y)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return super().predict_proba(np.reshape(X, (len(X), -1)))


class TestOnImages:
    def test_badge_asks_for_embeddings_without_being_told(self, tiny: skal.ImageDataset) -> None:
        y = np.where(np.arange(90) < 30, tiny.y, -1)
        fitted = skal.ImageClassifier(classes=[0, 1, 2], steps=5, random_state=0).fit(tiny.X, y)
        told = Badge({"extra_outputs": "emb"}, random_state=0)
        expected = told.query(tiny.X, y, fitted, fit_clf=False, batch_size=8)
        picks = Badge(random_state=0).query(tiny.X, y, fitted, fit_clf=False, batch_size=8)
        assert picks.tolist() == expected.tolist()

    def test_badge_takes_no_raw_images_for_embeddings(self, tiny: skal.ImageDataset) -> None:
        y = np.where(np.arange(90) < 30, tiny.y, -1)
        clf = Images(classes=[0, 1, 2], missing_label=-1)
        message = r"Images.predict_proba does not return.*images are none; "
        with pytest.raises(ParameterError, match=f"{message}name the keyword .* by clf_embedding_"):
            Badge().query(tiny.X, y, clf)
        with pytest.raises(ParameterError, match=f"{message}take a classifier .* extra_outputs="):
            CoreSet().query(tiny.X, y, clf)

    def test_weights_that_the_classifier_does_not_take_are_refused(
        self, tiny: skal.ImageDataset
    ) -> None:
        y = np.where(np.arange(90) < 30, tiny.y, -1)
        clf = skal.ImageClassifier(classes=[0, 1, 2], steps=1)
        with pytest.raises(ParameterError, match=r"ImageClassifier.fit takes none"):
            Badge().query(tiny.X, y, clf, sample_weight=np.ones(90))

    @pytest.mark.parametrize("query", [Badge(), MCDropoutBALD()])
    @pytest.mark.filterwarnings("ignore:.*batch_size")  # scikit-activeml's own, of a lesser batch
    def test_a_pool_without_candidates_gives_an_empty_batch(
        self, tiny: skal.ImageDataset, query: skal.strategies.BatchStrategy
    ) -> None:
        clf = skal.ImageClassifier(classes=[0, 1, 2], steps=1)
        for candidates in (None, [0, 1]):
            picks, utilities = query.query(
                tiny.X, tiny.y, clf, candidates=candidates, return_utilities=True
            )
            assert picks.shape == (0,)
            assert utilities.shape == (0, 90)


OWN = [name for name in STRATEGIES.names() if resolve_strategy(name).reads is not None]


def on(device: str, name: str) -> list[int]:
    """Picks of a strategy from scores of a network that computes there."""
    scores = dataclasses.replace(example_scores(n_images=400, n_features=32), device=device)
    return ask(name, scores=scores, y=labels(400), n=30).tolist()


class TestDevices:
    @pytest.mark.parametrize("name", OWN)
    def test_on_apples_gpus_which_know_no_float64_the_cpu_computes(self, name: str) -> None:
        assert on("mps", name) == on("cpu", name)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
    @pytest.mark.parametrize("name", OWN)
    def test_a_gpu_picks_what_the_cpu_picks(self, name: str) -> None:
        assert on("cuda", name) == on("cpu", name)


class TestGreedyStep:
    def test_the_highest_that_is_left_is_picked_and_its_row_filled(self) -> None:
        values, draw = np.array([3, 9, 5], np.int64), np.random.RandomState(0)
        picks, rows = np.empty(3, np.int64), np.empty((3, 3))
        for number, (pick, row) in enumerate(
            [(1, [3, 9, 5]), (2, [3, np.nan, 5]), (0, [3, np.nan, np.nan])]
        ):
            assert pick_highest(picks, number, values, draw, rows) == pick
            np.testing.assert_array_equal(rows[number], row)
        assert picks.tolist() == [1, 2, 0]
        assert values.tolist() == [3, 9, 5]

    def test_ties_fall_at_random(self) -> None:
        draw, first = np.random.RandomState(0), np.empty(1, np.int64)
        seen = {pick_highest(first, 0, np.array([1.0, 2.0, 2.0]), draw) for _ in range(20)}
        assert seen == {1, 2}


EMBEDDED = [CoreSet, TypiClust, KMeansSampling]
LEARNING = [
    Badge, MCDropoutBALD, CoreSet, TypiClust, TCM, KMeansSampling, DiverseEntropy, DiverseBatch,
    PowerMargin, PowerBALD, CommitteeVariance, ExpectedGradientLength,
]  # fmt: skip


class TestOnTheirOwn:
    """skal's strategies as those of scikit-activeml: `query(X, y, clf)`."""

    @pytest.mark.parametrize("cls", LEARNING)
    def test_they_take_images_and_a_classifier_of_images(
        self, tiny: skal.ImageDataset, cls: type
    ) -> None:
        y = np.where(np.arange(90) < 12, tiny.y, -1)
        clf = skal.ImageClassifier("lenet", classes=[0, 1, 2], steps=2, random_state=0)
        picks, rows = cls(random_state=0).query(tiny.X, y, clf, batch_size=6, return_utilities=True)
        assert len(set(picks.tolist())) == 6
        assert (y[picks] == -1).all()
        assert rows.shape == (6, 90)
        assert np.isfinite(rows[0, 12:]).all()
        assert not hasattr(clf, "neural_net_")  # a clone was trained
        fitted = skal.ImageClassifier("lenet", classes=[0, 1, 2], steps=2, random_state=0)
        fitted.fit(tiny.X, y)
        again = cls(random_state=0).query(tiny.X, y, fitted, fit_clf=False, batch_size=6)
        assert again.tolist() == picks.tolist()

    @pytest.mark.parametrize("cls", EMBEDDED)
    def test_those_of_embeddings_alone_need_no_classifier(self, cls: type) -> None:
        X = example_scores().embeddings
        picks = cls(random_state=0).query(X, labels(), batch_size=6)
        assert len(set(picks.tolist())) == 6
        assert (labels()[picks] == -1).all()
        scored = cls(random_state=0).query(
            INDEX, labels(), ScoredClassifier(example_scores()), fit_clf=False, batch_size=6
        )
        assert scored.tolist() == picks.tolist()

    @pytest.mark.parametrize("cls", sorted(set(LEARNING) - set(EMBEDDED), key=str))
    def test_the_others_say_that_they_need_one(self, cls: type) -> None:
        with pytest.raises(TypeError, match="clf"):
            cls().query(example_scores().embeddings, labels())

    def test_what_is_labelled_counts_though_it_is_no_candidate(self) -> None:
        X = np.array([[0.0], [3.0], [4.0], [10.0]], np.float32)
        y = np.array([-1, -1, -1, 1])
        assert CoreSet().query(X, y, candidates=[1, 2]).tolist() == [1]
        assert CoreSet().query(X, y, candidates=X[1:3]).tolist() == [0]


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


@pytest.mark.parametrize(
    ("name", "spoilt"), [("badge", "proba"), ("badge", "embeddings"), ("bald", "mc_proba")]
)
def test_a_network_that_diverged_is_named(name: str, spoilt: str) -> None:
    scores = example_scores()
    values = getattr(scores, spoilt).copy()
    values[..., 20, 0] = np.nan
    with pytest.raises(SkalError, match=f"the {spoilt} that .* are no numbers.*diverged"):
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
            assert (chosen.needs, chosen.n_samples, chosen.needs_embeddings) == ("samples", 20, 0)
            check_strategy(strategy)
            assert skal.run(tiny, strategy, **settings).summary["n_labeled"] == 10

    def test_a_committee_is_only_had_by_asking(self, register: Callable[..., type]) -> None:
        register(Variance, needs="committee")
        assert resolve_strategy("test-plugin").n_members == 20
        assert resolve_strategy("committee-variance").n_members == 5

    @pytest.mark.parametrize("name", STRATEGIES.names())
    def test_a_strategy_needs_what_the_table_says(self, name: str) -> None:
        assert resolve_strategy(name).needs == STRATEGIES.entry(name).facts["needs"]

    def test_a_class_that_reads_nothing_needs_nothing(self) -> None:
        assert resolve_strategy(Anything).needs == "nothing"
        check_strategy(Anything)

    def test_one_that_cannot_be_made_is_refused_at_once(self) -> None:
        class Unfinished(ScoreStrategy):
            pass

        with pytest.raises(ParameterError, match=r"Unfinished does not work .* abstract"):
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

        with pytest.raises(AttributeError, match="NoneType"):
            check_strategy(Silent)

    def test_the_checks_find_scores_of_scikit_activemls_kind_that_nobody_computes(
        self, register: Callable[..., type]
    ) -> None:
        register(skactiveml.pool.ContrastiveAL, needs="scores", embeddings=False)
        with pytest.raises(ParameterError, match="the scores hold no output 'emb'"):
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
