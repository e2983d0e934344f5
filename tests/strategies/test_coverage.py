"""Strategies that represent the pool: TypiClust, TCM, ProbCover and MaxHerding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import skactiveml.pool
import torch
from asking import ask, directions, labels, most_typical
from scipy.spatial.distance import cdist
from sklearn.preprocessing import normalize

from skal.core.errors import ParameterError
from skal.strategies import (
    STRATEGIES,
    check_strategy_works,
    resolve_strategy,
)
from skal.strategies.balls import Balls
from skal.strategies.coverage import MaxHerding, ProbCover, pure_radius
from skal.strategies.geometry import centred
from skal.strategies.uncertainty import margin
from skal.testing import example_scores


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
        assert "tcm: 0% of the pool is in clusters with a label; using typiclust" in caplog.text


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
        radius = pure_radius(torch.from_numpy(points), 3, alpha, np.random.RandomState(0))
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
            ("probcover", {"delta": -1}, "delta=-1 of ProbCover; expected a number above 0"),
            (
                "probcover",
                {"alpha": 1.5},
                "alpha=1.5 of ProbCover; expected a number above 0 and",
            ),
            ("max-herding", {"gamma": 0}, "gamma=0 of MaxHerding; expected a number above 0"),
        ],
    )
    def test_wrong_parameters_are_named(
        self, name: str, params: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ParameterError, match=message):
            check_strategy_works(resolve_strategy(name, params), 3)


class TestBalls:
    @pytest.mark.parametrize("most", [10**6, 10])  # pairs kept, or distances computed again
    @pytest.mark.parametrize("width", [5, 60])
    def test_they_hold_what_is_within_the_radius(self, width: int, most: int) -> None:
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(10, width))
        X = centres[rng.integers(0, 10, 700)] + 0.5 * rng.normal(size=(700, width))
        squared = cdist(X, X, "sqeuclidean")
        near = np.unique(squared)[7000:7050]
        widest = int(np.diff(near).argmax())  # no pair is on the edge
        radius = float(near[widest : widest + 2].mean())
        balls = Balls(torch.from_numpy(X.astype(np.float32)), radius, most=most)
        for row in (0, 1, 699):
            inside = np.flatnonzero(squared[row] <= radius)
            assert sorted(balls.of(row).tolist()) == inside.tolist()
        rows = rng.permutation(700)[:90]
        expected = (squared[:, rows] <= radius).sum(axis=1)
        assert balls.count(torch.from_numpy(rows)).tolist() == expected.tolist()
        assert not balls.count(torch.empty(0, dtype=torch.int64)).any()


class TestFarFromTheOrigin:
    """Embeddings that share an offset point almost the same way: after scaling, all are near."""

    @pytest.mark.parametrize("offset", [0, 100, 1e3, 1e4])
    @pytest.mark.parametrize("cls", [ProbCover, MaxHerding])
    def test_the_first_utilities_are_those_of_float64(self, cls: type, offset: float) -> None:
        X = (np.random.default_rng(0).normal(size=(120, 6)) + offset).astype(np.float32)
        unit = normalize(X.astype(float))
        squared = cdist(unit, unit, "sqeuclidean")
        typical = float(np.median(squared))
        if cls is ProbCover:
            params: dict[str, float] = {"delta": typical**0.5}
            expected = (squared <= typical).sum(axis=1)
            tolerance = {"atol": 1}  # what lies on the edge of a ball may fall on either side
        else:
            params = {"gamma": 1.0}
            expected = np.exp(-squared).mean(axis=1)
            tolerance = {"rtol": 1e-3 * (expected.max() - expected.min())}
        query = cls(**params, random_state=0)
        rows = query.query(X, np.full(120, -1), return_utilities=True)[1]
        np.testing.assert_allclose(rows[0], expected, **tolerance)

    @pytest.mark.parametrize("offset", [0, 100, 1e3, 1e4])
    def test_the_radius_is_that_of_float64(self, offset: float) -> None:
        scores, _ = directions((30, 40, 30))
        X = (scores.embeddings + offset).astype(np.float32)
        unit = normalize(X.astype(float))
        points, _ = centred(X, unit_length=True)
        squared = cdist(unit, unit, "sqeuclidean")
        radius = pure_radius(torch.from_numpy(points), 3, 0.805, np.random.RandomState(0))
        assert radius < 2.0
        assert abs(radius**2 - squared).min() < 1e-3 * radius**2  # a distance between two images
