"""Uncertainty herding, against a greedy search of all pairs in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from asking import ask, directions, labels, made
from scipy.spatial.distance import cdist
from skactiveml.classifier import SklearnClassifier
from sklearn.linear_model import LogisticRegression

import skal
from skal.strategies import MaxHerding, UncertaintyHerding
from skal.strategies.geometry import SMALL
from skal.strategies.herding import KEPT, SIDE, Herd, pick_greedily
from skal.strategies.scores import ScoredClassifier, Scores
from skal.testing import example_scores

KINDS = ["random", "clustered", "duplicates", "far from the origin", "of many lengths"]


def problem(kind: str, seed: int, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings and probabilities; of images that coincide, the same."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 12))
    if kind == "clustered":
        values = 3 * rng.normal(size=(6, 12))[rng.integers(0, 6, n)] + 0.3 * values
    elif kind == "duplicates":
        values = values[rng.integers(0, n // 3, n)]
    elif kind == "far from the origin":
        values += 1e3
    elif kind == "of many lengths":
        values *= 10.0 ** rng.integers(-3, 4, (n, 1))
    embeddings = values.astype(np.float32)
    logits = (values / np.linalg.norm(values, axis=1, keepdims=True)) @ rng.normal(size=(12, 4))
    powers = np.exp(3 * logits)
    return embeddings, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def unit(embeddings: np.ndarray) -> np.ndarray:
    values = embeddings.astype(np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def naive(points: np.ndarray, known: np.ndarray, weights: np.ndarray, n_picks: int) -> list[int]:
    """Pick greedily from the whole matrix of similarities, the first of equals."""
    sigma = 1.0
    if len(known) > 1:
        apart = cdist(known, known)
        apart[apart < 1e-9] = np.inf
        sigma = float(apart.min(axis=1).mean())
    similarity = np.exp(-((cdist(points, points) / sigma) ** 2))
    covered = np.zeros(len(points))
    if len(known):
        covered = np.exp(-((cdist(points, known) / sigma) ** 2)).max(axis=1)
    picks: list[int] = []
    for _ in range(n_picks):
        gains = np.maximum(similarity - covered, 0) @ weights
        gains[picks] = -1
        picks.append(int(gains.argmax()))
        covered = np.maximum(covered, similarity[picks[-1]])
    return picks


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("n_labeled", [0, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_picks_are_those_of_a_naive_search_in_float64(kind: str, n_labeled: int, seed: int) -> None:
    embeddings, proba = problem(kind, seed)
    y = labels(len(proba), n_labeled)
    picks = ask("uncertainty-herding", scores=made(proba, embeddings), y=y, n=25, seed=seed)
    points, top = unit(embeddings), np.sort(proba.astype(np.float64), axis=1)
    weights = 1 - (top[:, -1] - top[:, -2])
    expected = naive(points[n_labeled:], points[:n_labeled], weights[n_labeled:], 25)
    # of images that coincide either may be picked
    assert np.array_equal(embeddings[picks], embeddings[n_labeled:][expected])
    assert len(set(picks.tolist())) == 25


def test_equal_weights_are_those_of_max_herding_of_the_same_radius() -> None:
    scores, y = example_scores(), labels()
    for sigma in (0.5, 1.0):
        expected = MaxHerding(sigma**-2, random_state=0).query(scores.embeddings, y, batch_size=9)
        ours = UncertaintyHerding("equal", sigma, random_state=0)
        assert ours.query(scores.embeddings, y, batch_size=9).tolist() == expected.tolist()


def test_where_all_is_certain_all_is_worth_the_same() -> None:
    scores, group = directions((20, 30, 25))
    certain = made(np.eye(3)[group], scores.embeddings)
    expected = ask("uncertainty-herding", scores=certain, n=6, uncertainty="equal")
    assert ask("uncertainty-herding", scores=certain, n=6).tolist() == expected.tolist()
    assert set(group[expected[:3]].tolist()) == {0, 1, 2}


def test_what_the_classifier_is_sure_of_is_not_covered() -> None:
    scores, group = directions((20, 30, 25))
    proba = np.where((group == 1)[:, None], [1.0, 0.0, 0.0], [0.5, 0.3, 0.2])
    picks = ask("uncertainty-herding", scores=made(proba, scores.embeddings), n=4)
    assert 1 not in group[picks]


def test_the_radius_falls_as_labels_grow_and_the_most_uncertain_come_first() -> None:
    embeddings, proba = problem("random", 0)
    scores = made(proba, embeddings)
    narrow = ask("uncertainty-herding", scores=scores, n=10, sigma=1e-3)
    assert narrow.tolist() == ask("margin", scores=scores, n=10).tolist()
    few, many = (ask("uncertainty-herding", scores=scores, y=labels(150, n), n=1) for n in (5, 90))
    assert few.tolist() != many.tolist()


def test_utilities_are_the_gains_of_all_images() -> None:
    embeddings, proba = problem("clustered", 3)
    clf, X = ScoredClassifier(made(proba, embeddings)), np.arange(150)[:, None]
    query, y = UncertaintyHerding(random_state=0), labels(150, 20)
    picks, rows = query.query(X, y, clf, fit_clf=False, batch_size=9, return_utilities=True)
    again = UncertaintyHerding(random_state=0).query(X, y, clf, fit_clf=False, batch_size=9)
    assert picks.tolist() == again.tolist()
    for number, pick in enumerate(picks):
        assert rows[number, pick] == np.nanmax(rows[number])
        assert np.isnan(rows[number]).sum() == 20 + number
    falls = np.diff(rows, axis=0)
    assert (falls[np.isfinite(falls)] <= 1e-9).all()


class TestInScikitActiveml:
    def test_any_classifier_of_embeddings_will_do(self) -> None:
        X, proba = problem("clustered", 5)
        y = np.where(np.arange(150) < 30, proba.argmax(axis=1), -1)
        clf = SklearnClassifier(LogisticRegression(), classes=range(4), missing_label=-1)
        query = UncertaintyHerding(random_state=0)
        picks = query.query(X, y, clf, batch_size=7)
        assert len(set(picks.tolist())) == 7
        assert (y[picks] == -1).all()
        fitted = clf.fit(X, y)
        assert query.query(X, y, fitted, fit_clf=False, batch_size=7).tolist() == picks.tolist()
        some = np.arange(40, 90)
        among = query.query(X, y, clf, candidates=some, batch_size=7)
        assert np.isin(among, some).all()
        rows = query.query(X, y, clf, candidates=X[some], batch_size=7)
        assert some[rows].tolist() == among.tolist()

    def test_images_are_embedded_by_the_network(self, tiny: skal.ImageDataset) -> None:
        y = np.where(np.arange(90) < 30, tiny.y, -1)
        fitted = skal.ImageClassifier(classes=[0, 1, 2], steps=5, random_state=0).fit(tiny.X, y)
        picks = UncertaintyHerding(random_state=0).query(
            tiny.X, y, fitted, fit_clf=False, batch_size=8
        )
        assert len(set(picks.tolist())) == 8
        assert (y[picks] == -1).all()


class TestWideEmbeddings:
    def test_what_lies_in_few_directions_is_picked_as_if_it_were_narrow(self) -> None:
        embeddings, proba = problem("clustered", 1)
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 12)))[0]
        params = {"y": labels(150, 20), "n": 20}
        wide = ask("uncertainty-herding", scores=made(proba, embeddings @ turn.T), **params)
        narrow = ask("uncertainty-herding", scores=made(proba, embeddings), **params)
        assert wide.tolist() == narrow.tolist()

    def test_fewer_directions_still_find_the_clusters(self) -> None:
        scores, group = directions((20, 30, 25))
        wide = np.hstack([scores.embeddings, np.zeros((75, 50), np.float32)])
        picks = ask("uncertainty-herding", scores=made(np.full((75, 3), 1 / 3), wide), n=3, width=4)
        assert set(group[picks].tolist()) == {0, 1, 2}


class TestEmbeddingsThatStayTheSame:
    def test_what_was_found_of_them_serves_the_next_round(self) -> None:
        rng = np.random.default_rng(0)
        embeddings = rng.normal(size=(150, 300))
        first, second = (made(rng.dirichlet(np.ones(3), 150), embeddings) for _ in range(2))
        ask("uncertainty-herding", scores=first, y=labels(150, 20), n=20)
        then = {"y": labels(150, 40), "n": 20}
        again = ask("uncertainty-herding", scores=second.remembering(first.memo), **then)
        assert again.tolist() == ask("uncertainty-herding", scores=second, **then).tolist()
        assert first.unit_points(128) is second.remembering(first.memo).unit_points(128)
        assert first.unit_points(128).shape == (150, 128)

    def test_others_are_not_taken_for_them(self) -> None:
        first = example_scores(n_features=300, n_images=200)
        before = first.unit_points(128)
        few = first.remembering(first.memo).take(np.arange(50))
        assert few.unit_points(128).shape == (50, 128)
        other = replace(first, embeddings=first.embeddings[:, ::-1] ** 2)
        assert not np.allclose(other.unit_points(128), before)

    def test_a_strategy_may_see_them_otherwise(self) -> None:
        class Stretched(UncertaintyHerding):
            def pick(self, scores: Scores, batch_size: int, *others: Any) -> Any:
                factors = np.where(np.arange(300) < 5, 100, 1).astype(np.float32)
                assert scores.embeddings is not None and scores.labeled is not None
                labeled = replace(scores.labeled, embeddings=scores.labeled.embeddings * factors)
                stretched = replace(scores, embeddings=scores.embeddings * factors, labeled=labeled)
                return super().pick(stretched, batch_size, *others)

        scores, params = example_scores(n_features=300, n_images=200), {"y": labels(200, 20)}
        plain = ask("uncertainty-herding", scores=scores, **params)
        assert ask(Stretched, scores=scores, **params).tolist() != plain.tolist()

    @pytest.mark.parametrize("n", [400, 2 * SMALL + 500])
    def test_any_classifier_with_the_same_answers_gives_the_same_picks(self, n: int) -> None:
        class Other(ScoredClassifier):
            """Answers alike, and is not known to have scores of all."""

        scores = example_scores(n_images=n, n_features=200)
        X, y = np.arange(n)[:, None], labels(n, 30)
        picks = [
            UncertaintyHerding(random_state=0).query(X, y, clf, fit_clf=False, batch_size=10)
            for clf in (ScoredClassifier(scores), Other(scores))
        ]
        assert picks[0].tolist() == picks[1].tolist()


@pytest.mark.parametrize("gamma", [1e-4, 4.0, 1e4])
def test_gains_of_all_pairs_in_blocks_are_those_of_single_points(gamma: float) -> None:
    rng = np.random.default_rng(0)
    n = 2 * SIDE + 90
    points = torch.from_numpy(rng.normal(size=(n, 3)).astype(np.float32))
    herd = Herd(points, gamma, torch.from_numpy(rng.random(n)))
    herd.cover(points[:5] + 0.1)
    np.testing.assert_allclose(herd.all_gains(), herd.gains(np.arange(n)), rtol=1e-4, atol=1e-9)


def test_similarities_that_are_no_longer_kept_are_computed_again() -> None:
    n = KEPT // 4 // 600  # so that 600 rows of them are kept
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32))
    herd, rows = Herd(points, 1.0), np.arange(1000)
    once = herd.gains(rows)
    np.testing.assert_allclose(herd.gains(rows[::-1])[::-1], once, rtol=1e-6)
    alone = [Herd(points, 1.0).gains(np.array([row]))[0] for row in (0, 700, 999)]
    np.testing.assert_allclose(once[[0, 700, 999]], alone, rtol=1e-6)


def test_more_picks_than_there_are_distinct_points_are_each_made_once() -> None:
    points = torch.zeros(40, 2)
    points[::2] += 1
    picks = pick_greedily(Herd(points, 1.0), 40, np.random.RandomState(0))
    assert sorted(picks.tolist()) == list(range(40))


class TestASampleStandsForAll:
    """As it does where there are more points than `small`."""

    def clusters(self, n: int = 1500) -> torch.Tensor:
        rng = np.random.default_rng(0)
        centres = 2 * rng.normal(size=(12, 8))
        points = centres[rng.integers(0, 12, n)] + rng.normal(size=(n, 8))
        return torch.from_numpy(points.astype(np.float32))

    def pick(self, points: torch.Tensor, gamma: float, weights: torch.Tensor, n: int) -> list[int]:
        state = np.random.RandomState(0)
        herd = Herd(points, gamma, weights, state, small=1000, sample=400)
        return pick_greedily(herd, n, state).tolist()

    @pytest.mark.parametrize("gamma", [0.02, 0.1, 1.0])
    def test_the_coverage_of_all_is_almost_that_of_an_exact_search(self, gamma: float) -> None:
        points = self.clusters()
        weights = torch.from_numpy(np.random.default_rng(1).random(1500))

        def coverage(picks: list[int]) -> float:
            similar = np.exp(-gamma * cdist(points, points[picks], "sqeuclidean"))
            return float(similar.max(axis=1) @ weights.numpy())

        exact = Herd(points, gamma, weights)
        best = pick_greedily(exact, 20, np.random.RandomState(0)).tolist()
        sampled = self.pick(points, gamma, weights, 20)
        assert coverage(sampled) >= 0.98 * coverage(best)
        assert sampled == self.pick(points, gamma, weights, 20)

    def test_where_the_radius_is_small_the_heaviest_of_all_come_first(self) -> None:
        points, weights = self.clusters(), torch.rand(1500, generator=torch.manual_seed(0))
        picks = self.pick(points, 1e4, weights, 15)
        assert picks == weights.argsort(descending=True)[:15].tolist()

    def test_gains_of_blocks_are_those_of_single_points(self) -> None:
        state, points = np.random.RandomState(0), self.clusters()
        herd = Herd(points, 0.1, torch.rand(1500), state, small=1000, sample=400)
        herd.cover(points[:5] + 0.1)
        herd.add(7)
        alone = [herd.gains(np.array([row]))[0] for row in range(1500)]
        np.testing.assert_allclose(herd.all_gains(), alone, rtol=1e-4, atol=1e-8)
        assert alone[7] == pytest.approx(0, abs=1e-6)

    def test_it_is_drawn_by_the_weights(self) -> None:
        points = self.clusters()
        weights = (4 * points[:, 0]).sigmoid()  # elsewhere next to nothing
        herd = Herd(points, 0.1, weights, np.random.RandomState(0), small=1000, sample=800)
        rows = np.arange(0, 1500, 50)
        exact = herd.exact_gains(rows)
        off = np.abs(herd.gains(rows) - exact).max() / float(weights.sum() / 1500)
        assert off < 0.02  # 0.034 where all are drawn alike

    @pytest.mark.parametrize("name", ["max-herding", "uncertainty-herding"])
    def test_large_pools_give_equal_picks_with_equal_seeds(self, name: str) -> None:
        rng = np.random.default_rng(0)
        embeddings = rng.normal(size=(SMALL + 60, 140)).astype(np.float32)
        scores = made(rng.dirichlet(np.ones(3), len(embeddings)), embeddings)
        y = labels(len(embeddings), 20)
        first, again = (ask(name, scores=scores, y=y, n=4, seed=3) for _ in range(2))
        assert first.tolist() == again.tolist()
        assert (y[first] == -1).all()
