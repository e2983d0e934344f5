"""Distances, clusters and typicality, against computations of their own in float64."""

from __future__ import annotations

import numpy as np
import pytest
import skactiveml.pool
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from skal.strategies.clustering import ManyMeans, cluster, typicality
from skal.strategies.core_set import CoreSet
from skal.strategies.geometry import (
    NUMBERS_AT_ONCE,
    ROWS_AT_ONCE,
    NearestCentre,
    as_points,
    blocks,
    centred,
    squared_distances,
)

N = 200


def points(kind: str, width: int = 6) -> np.ndarray:
    """Return N points as float32 holds them, in float64."""
    rng = np.random.default_rng(len(kind))
    values = rng.normal(size=(N, width))
    if kind == "clustered":
        values = 10 * rng.normal(size=(8, width))[rng.integers(0, 8, N)] + 0.05 * values
    elif kind == "duplicates":
        values = values[rng.integers(0, 12, N)]
    elif kind == "with zeros":
        values[::3] = 0
    elif kind == "of many scales":
        values *= 10.0 ** rng.integers(-4, 5, (N, 1))
    return values.astype(np.float32).astype(np.float64)


KINDS = ["random", "clustered", "duplicates", "with zeros", "of many scales"]


class Dense:
    """Squared distances to the nearest centre, each computed from the coordinates."""

    def __init__(self, dense: np.ndarray) -> None:
        self.dense = dense
        self.nearest = np.full(len(dense), np.inf)
        self.longest = 0.0

    def add(self, centre: np.ndarray) -> None:
        self.nearest = np.minimum(self.nearest, ((self.dense - centre) ** 2).sum(1))
        self.longest = max(self.longest, (centre**2).sum())

    def check(self, squared: torch.Tensor) -> None:
        # up to the rounding of a distance, and of what float64 can tell apart beside the lengths
        allowed = 5e-4 * self.nearest + 1e-13 * ((self.dense**2).sum(1) + self.longest)
        assert (np.abs(squared.numpy() - self.nearest) <= allowed).all()


class TestNearestCentre:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_points_the_distances_are_exact_after_every_centre(self, kind: str) -> None:
        values = points(kind)
        ours, dense = NearestCentre(as_points(values), capacity=60), Dense(values)
        np.testing.assert_allclose(ours.lengths.numpy(), (values**2).sum(1), rtol=1e-6)
        for row in np.random.default_rng(0).permutation(N)[:60]:
            ours.add(int(row))
            dense.add(values[row])
            dense.check(ours.squared)
            assert ours.squared[row] == 0

    @pytest.mark.parametrize("many", [40, 200], ids=["leading-directions", "without"])
    @pytest.mark.parametrize("narrow", KINDS)
    @pytest.mark.parametrize("wide", KINDS)
    def test_of_outer_products_they_are_too(self, narrow: str, wide: str, many: int) -> None:
        options = {"capacity": 40, "leading": 2, "many": many}
        a, h = points(narrow, 3), points(wide, 8)
        products = np.einsum("nc,nd->ncd", a, h).reshape(N, -1)
        # the order in which the factors are given makes no difference
        ours = NearestCentre(as_points(a), as_points(h), **options)
        swapped = NearestCentre(as_points(h), as_points(a), **options)
        dense = Dense(products)
        np.testing.assert_allclose(ours.lengths.numpy(), (products**2).sum(1), rtol=1e-5)
        for row in np.random.default_rng(1).permutation(N)[:40]:
            dense.add(products[row])
            for distances in (ours, swapped):
                distances.add(int(row))
                dense.check(distances.squared)

    def test_errors_of_one_class_and_embeddings_of_one_feature_are_enough(self) -> None:
        a, h = points("random", 1), points("clustered", 1)
        ours = NearestCentre(as_points(a), as_points(h), capacity=9)
        dense = Dense(a * h)
        for row in range(9):
            ours.add(row)
            dense.add((a * h)[row])
            dense.check(ours.squared)

    @pytest.mark.parametrize("kind", KINDS)
    def test_centres_may_be_other_points(self, kind: str) -> None:
        values = points(kind)
        ours, dense = NearestCentre(as_points(values[50:]), capacity=90), Dense(values[50:])
        ours.add_points(as_points(values[:20]))
        for centre in values[:20]:
            dense.add(centre)
        dense.check(ours.squared)
        # whichever comes next builds on the owners that were found
        for row in range(10):
            ours.add(row)
            dense.add(values[50 + row])
            dense.check(ours.squared)
        ours.add_points(as_points(values[20:50]))
        for centre in values[20:50]:
            dense.add(centre)
        dense.check(ours.squared)
        for row in range(60, 90):
            ours.add(row)
            dense.add(values[50 + row])
            dense.check(ours.squared)

    def test_before_the_first_centre_all_is_infinitely_far(self) -> None:
        assert torch.isinf(NearestCentre(as_points(points("random")), capacity=1).squared).all()

    def test_points_that_coincide_with_a_centre_have_distance_zero(self) -> None:
        values = 100 + points("random")
        values[1::2] = values[::2]
        ours = NearestCentre(as_points(values), capacity=N)
        for row in range(0, N, 2):
            ours.add(row)
        assert (ours.squared == 0).all()

    def test_many_points_are_compared_with_other_points_in_parts(self) -> None:
        rng = np.random.default_rng(0)
        values = rng.normal(size=(ROWS_AT_ONCE + 900, 3)).astype(np.float32).astype(float)
        ours, dense = NearestCentre(as_points(values), capacity=50), Dense(values)
        ours.add_points(as_points(values[:50] + 0.25))
        for centre in values[:50] + 0.25:
            dense.add(centre)
        dense.check(ours.squared)

    def test_few_points_are_compared_where_the_centres_are_far_apart(self) -> None:
        values = points("clustered")
        ours, dense = NearestCentre(as_points(values), capacity=40), Dense(values)
        compared = []
        for row in range(40):
            ours.add(row)
            dense.add(values[row])
            compared.append(ours.n_compared)
        dense.check(ours.squared)
        assert compared[0] == N
        assert max(compared[20:]) < N / 3  # each of the 8 clusters has a centre by then

    def test_what_is_handed_over_is_not_written_to(self) -> None:
        values = points("random").astype(np.float32)
        before = values.copy()
        ours = NearestCentre(as_points(values), capacity=5)
        for row in range(5):
            ours.add(row)
        assert np.array_equal(values, before)


@pytest.mark.parametrize(
    ("n_points", "n_others", "heights"),
    [
        (10, 3, [4, 4, 2]),  # as many rows as are taken at once
        (10, 50, [2] * 5),  # as many numbers
        (3, 1000, [1, 1, 1]),  # one row at least
        (5, 0, [4, 1]),
        (0, 7, []),
    ],
)
def test_a_matrix_is_computed_in_parts_of_few_rows_and_few_numbers(
    n_points: int, n_others: int, heights: list[int]
) -> None:
    rows = np.arange(n_points)
    parts = [rows[part] for part in blocks(n_points, n_others, 4, 100)]
    assert [len(part) for part in parts] == heights
    assert np.concatenate([*parts, rows[:0]]).tolist() == rows.tolist()


def test_points_for_apples_gpus_stay_on_the_cpu() -> None:
    assert as_points(np.ones((2, 3)), "mps:0").device.type == "cpu"


def test_points_are_taken_from_read_only_and_strided_arrays() -> None:
    values = points("random").astype(np.float32)
    expected = torch.from_numpy(values.copy())
    values.flags.writeable = False
    assert torch.equal(as_points(values), expected)
    assert torch.equal(as_points(values[::2]), expected[::2])
    assert torch.equal(as_points(values.astype(np.float64)), expected)


class TestCluster:
    @pytest.mark.parametrize("offset", [0, 1e4])
    @pytest.mark.parametrize("small", [1000, 50])  # all at once, and some first
    def test_obvious_clusters_are_found(self, small: int, offset: float) -> None:
        truth = np.arange(90) % 3
        rng = np.random.default_rng(0)
        values = 100 * np.eye(3)[truth] + rng.normal(size=(90, 3)) + offset
        values = values.astype(np.float32)
        labels, distances = cluster(values, 3, np.random.RandomState(0), small=small)
        assert len({(a, b) for a, b in zip(truth, labels, strict=True)}) == 3
        centres = np.stack([values[truth == k].astype(float).mean(0) for k in range(3)])
        expected = np.linalg.norm(values - centres[truth], axis=1)
        np.testing.assert_allclose(distances, expected, atol=0.5)
        again = cluster(values, 3, np.random.RandomState(0), small=small)
        assert again[0].tolist() == labels.tolist()

    @pytest.mark.parametrize("small", [1000, 10])
    def test_fewer_distinct_points_than_clusters_are_no_news(self, small: int) -> None:
        values = np.eye(4, dtype=np.float32)[np.arange(40) % 4]  # warnings are errors here
        labels, distances = cluster(values, 12, np.random.RandomState(0), small=small)
        assert labels.max() < 12
        assert len(set(labels.tolist())) == 4
        assert [len(set(labels[k::4].tolist())) for k in range(4)] == [1, 1, 1, 1]
        np.testing.assert_allclose(distances, 0, atol=1e-6)


class TestManyMeans:
    """k-means as scikit-learn has it, and of many points."""

    def blobs(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        centres = 0.5 * rng.normal(size=(20, 150))
        values = centres[rng.integers(0, 20, 3000)] + rng.normal(size=(3000, 150)) + 30
        return values.astype(np.float32), rng.random(3000)

    def test_few_points_are_clustered_by_scikit_learn(self) -> None:
        values, weights = self.blobs()
        theirs = KMeans(8, random_state=3).fit_transform(values, sample_weight=weights)
        ours = ManyMeans(8, random_state=3).fit_transform(values, sample_weight=weights)
        np.testing.assert_array_equal(ours, theirs)

    @pytest.mark.parametrize("n_clusters", [20, 60])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_of_many_the_centres_are_as_good(self, n_clusters: int, weighted: bool) -> None:
        values, weights = self.blobs()
        sample_weight = weights if weighted else None
        many = ManyMeans(n_clusters, random_state=0)
        many.small = 600
        distances = many.fit_transform(values, sample_weight=sample_weight)
        np.testing.assert_allclose(
            distances, cdist(values, many.cluster_centers_), rtol=1e-3, atol=0.05
        )
        theirs = KMeans(n_clusters, random_state=0).fit_transform(
            values, sample_weight=sample_weight
        )
        counted = weights if weighted else np.ones(3000)
        squared = [counted @ found.min(axis=1) ** 2 for found in (distances, theirs)]
        assert squared[0] <= 1.05 * squared[1]
        again = ManyMeans(n_clusters, random_state=0)
        again.small = 600
        assert again.fit(values, sample_weight=sample_weight).labels_.tolist() == (
            many.labels_.tolist()
        )


class TestTypicality:
    def test_it_is_one_over_the_mean_distance_to_the_nearest(self) -> None:
        values = np.array([[0.0], [3.0], [4.0]], np.float32)
        np.testing.assert_allclose(typicality(values, 1, "cpu"), [1 / 3, 1, 1])
        np.testing.assert_allclose(typicality(values, 2, "cpu"), [1 / 3.5, 1 / 2, 1 / 2.5])

    def test_no_more_neighbours_count_than_there_are(self) -> None:
        values = np.array([[0.0], [3.0], [4.0]], np.float32)
        assert np.array_equal(typicality(values, 20, "cpu"), typicality(values, 2, "cpu"))
        assert typicality(values[:1], 20, "cpu").tolist() == [1]

    def test_points_that_coincide_are_typical_and_finite(self) -> None:
        values = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [9.0, 9.0]], np.float32)
        found = typicality(values, 2, "cpu")
        assert np.isfinite(found).all()
        assert found[:3].min() > 1e30
        np.testing.assert_allclose(found[3], 1 / np.sqrt(64 + 49))

    def test_a_large_cluster_is_computed_in_parts(self) -> None:
        values = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
        assert len(values) ** 2 > NUMBERS_AT_ONCE
        distance = cdist(values.astype(float), values.astype(float))
        expected = 20 / np.sort(distance)[:, 1:21].sum(1)
        np.testing.assert_allclose(typicality(values, 20, "cpu"), expected, rtol=1e-5)


OFFSETS, SCALES = [0, 100, 1e3, 1e4], [1e-3, 1, 1e3]


class TestFarFromTheOrigin:
    """Against distances in float64 of the very values that float32 holds."""

    def problem(self, offset: float, scale: float, n_features: int = 16) -> np.ndarray:
        """Five clusters far apart, somewhere."""
        rng = np.random.default_rng(0)
        centres = 100 * rng.normal(size=(5, n_features))
        values = centres[rng.integers(0, 5, 400)] + rng.normal(size=(400, n_features))
        return (scale * (values + offset)).astype(np.float32)

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("offset", OFFSETS)
    def test_nearest_centres(self, offset: float, scale: float) -> None:
        values = self.problem(offset, scale)
        here, there = centred(values[100:], values[:100])
        ours = NearestCentre(as_points(here), capacity=200)
        ours.add_points(as_points(there))
        for row in range(100):
            ours.add(row)
        dense = values.astype(float)
        expected = cdist(dense[100:], dense[:200]).min(1)
        # float32 holds what was moved to half a unit in the last place
        unit = np.spacing(np.abs(here).max())
        np.testing.assert_allclose(ours.squared.sqrt().numpy(), expected, rtol=1e-3, atol=8 * unit)

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("offset", OFFSETS)
    def test_outer_products(self, offset: float, scale: float) -> None:
        values, errors = self.problem(offset, scale, 6), points("random", 3)[:60]
        products = np.einsum("nc,nd->ncd", errors[np.arange(400) % 60], values.astype(float))
        products = products.reshape(400, -1)
        narrow = as_points(errors[np.arange(400) % 60])
        ours, dense = NearestCentre(narrow, as_points(values), capacity=100), Dense(products)
        for row in range(100):
            ours.add(row)
            dense.add(products[row])
        dense.check(ours.squared)

    @pytest.mark.parametrize("unit_length", [False, True])
    @pytest.mark.parametrize("offset", OFFSETS)
    def test_all_distances(self, offset: float, unit_length: bool) -> None:
        values = self.problem(offset, 1)
        here, there = centred(values[:300], values[300:], unit_length=unit_length)
        assert here.dtype == there.dtype == np.float32
        np.testing.assert_allclose(here.mean(axis=0), 0, atol=1e-5 * np.abs(here).max())
        found = np.empty((300, 100))
        for rows, distance in squared_distances(*map(as_points, (here, there))):
            found[rows] = distance.numpy()
        dense = normalize(values.astype(float)) if unit_length else values.astype(float)
        expected = cdist(dense[:300], dense[300:]) ** 2
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6 * expected.max())

    @pytest.mark.parametrize("offset", OFFSETS)
    def test_typicality(self, offset: float) -> None:
        values = self.problem(offset, 1)
        values[::7] = values[0]  # some coincide
        dense = values.astype(float)
        mean = np.sort(cdist(dense, dense))[:, 1:11].mean(1)
        found = typicality(values, 10, "cpu")
        np.testing.assert_allclose(found[mean > 0], 1 / mean[mean > 0], rtol=1e-4)
        assert found[mean == 0].min() > 1e30

    @pytest.mark.parametrize("spread", [1, 0.1])
    @pytest.mark.parametrize("offset", OFFSETS)
    def test_core_set_covers_as_well_as_scikit_activemls(
        self, offset: float, spread: float
    ) -> None:
        values = spread * np.random.RandomState(0).randn(500, 8) + offset
        X, y = values.astype(np.float32), np.full(500, -1)
        y[:10] = 0

        def radius(picks: np.ndarray) -> float:
            dense = X.astype(float)
            return float(cdist(np.r_[dense[:10], dense[picks]], dense).min(0).max())

        ours = radius(CoreSet(random_state=0).query(X, y, batch_size=60))
        theirs = radius(
            skactiveml.pool.CoreSet(missing_label=-1, random_state=0).query(X, y, batch_size=60)
        )
        assert ours <= 1.001 * theirs
