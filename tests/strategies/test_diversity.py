"""Strategies that spread a batch out: diverse-entropy, diverse-batch, k-means and core-set."""

from __future__ import annotations

import numpy as np
import pytest
import skactiveml.pool
from asking import ask, labels, made

import skal
from skal.strategies import (
    CoreSet,
    KMeansSampling,
)
from skal.strategies.scores import Scores
from skal.strategies.uncertainty import MEASURES, entropy
from skal.testing import example_scores


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
