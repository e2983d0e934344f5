"""Each measure and draw, against figures worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from asking import INDEX, NONE_LABELED, ask, made, utilities

from skal.strategies import (
    CommitteeVariance,
    CoreSet,
    DiverseBatch,
    ExpectedGradientLength,
    MCDropoutBALD,
    PowerBALD,
    PowerMargin,
    resolve_strategy,
)
from skal.strategies.bald import mutual_information
from skal.strategies.scores import ScoredClassifier
from skal.strategies.uncertainty import MEASURES, entropy, least_confidence, margin
from skal.testing import example_scores


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

    @pytest.mark.parametrize("measure", MEASURES.values())
    def test_a_networks_float32_is_measured_in_float64(
        self, measure: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        proba = example_scores().proba
        assert proba.dtype == np.float32
        found = measure(proba)
        assert found.dtype == np.float64
        assert np.array_equal(found, measure(proba.astype(np.float64)))

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
