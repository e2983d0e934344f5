"""Distances, clusters and typicality, against computations of their own in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skal.strategies import geometry
from skal.strategies.geometry import NearestCentre, as_points, blocks, cluster, typicality

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
        # what float32 can tell apart depends on the lengths, not on the distance
        rounding = 2e-6 * ((self.dense**2).sum(1) + self.longest)
        assert (np.abs(squared.numpy() - self.nearest) <= rounding).all()


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
    def test_of_outer_products_they_are_too(
        self, narrow: str, wide: str, many: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(geometry, "LEADING", 2)
        monkeypatch.setattr(geometry, "MANY", many)
        a, h = points(narrow, 3), points(wide, 8)
        products = np.einsum("nc,nd->ncd", a, h).reshape(N, -1)
        # the order in which the factors are given makes no difference
        ours = NearestCentre(as_points(a), as_points(h), capacity=40)
        swapped = NearestCentre(as_points(h), as_points(a), capacity=40)
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
    @pytest.mark.parametrize(("rows", "numbers"), [(7, 2**23), (4096, 2**23), (4096, 100)])
    def test_centres_may_be_other_points(
        self, kind: str, rows: int, numbers: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(geometry, "ROWS_AT_ONCE", rows)
        monkeypatch.setattr(geometry, "NUMBERS_AT_ONCE", numbers)
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

    def test_few_factors_are_read_where_the_centres_are_far_apart(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = []
        rows = geometry._rows

        def watched(values: torch.Tensor, chosen: torch.Tensor | None) -> torch.Tensor:
            read.append(len(values) if chosen is None else len(chosen))
            return rows(values, chosen)

        values = points("clustered")
        ours, dense = NearestCentre(as_points(values), capacity=40), Dense(values)
        for row in range(20):  # of 8 clusters, each has a centre by then
            ours.add(row)
            dense.add(values[row])
        monkeypatch.setattr(geometry, "_rows", watched)
        for row in range(20, 40):
            ours.add(row)
            dense.add(values[row])
        dense.check(ours.squared)
        assert max(read) < N / 3

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
    n_points: int, n_others: int, heights: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometry, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(geometry, "NUMBERS_AT_ONCE", 100)
    rows = np.arange(n_points)
    parts = [rows[part] for part in blocks(n_points, n_others)]
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
    @pytest.mark.parametrize("small", [1000, 50])  # by k-means, and by its mini-batches
    def test_obvious_clusters_are_found(self, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(geometry, "SMALL", small)
        truth = np.arange(90) % 3
        rng = np.random.default_rng(0)
        values = 100 * np.eye(3)[truth] + rng.normal(size=(90, 3))
        centres, labels = cluster(values.astype(np.float32), 3, np.random.RandomState(0))
        assert centres.shape == (3, 3)
        assert len({(a, b) for a, b in zip(truth, labels, strict=True)}) == 3
        np.testing.assert_allclose(
            centres[labels[:3]], [values[truth == k].mean(0) for k in range(3)], atol=0.5
        )
        again = cluster(values.astype(np.float32), 3, np.random.RandomState(0))[1]
        assert again.tolist() == labels.tolist()

    @pytest.mark.parametrize("small", [1000, 10])
    def test_fewer_distinct_points_than_clusters_are_no_news(
        self, small: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(geometry, "SMALL", small)
        values = np.eye(4, dtype=np.float32)[np.arange(40) % 4]  # warnings are errors here
        centres, labels = cluster(values, 12, np.random.RandomState(0))
        assert centres.shape == (12, 4)
        assert labels.max() < 12
        assert len(set(labels.tolist())) == 4
        assert [len(set(labels[k::4].tolist())) for k in range(4)] == [1, 1, 1, 1]


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

    def test_a_large_cluster_is_computed_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = points("random").astype(np.float32)
        whole = typicality(values, 20, "cpu")
        distance = np.linalg.norm(values[:, None].astype(float) - values, axis=2)
        np.testing.assert_allclose(whole, 20 / np.sort(distance)[:, 1:21].sum(1), rtol=1e-5)
        for name in ("ROWS_AT_ONCE", "NUMBERS_AT_ONCE"):
            with monkeypatch.context() as patch:
                patch.setattr(geometry, name, 7)
                np.testing.assert_allclose(typicality(values, 20, "cpu"), whole, rtol=1e-6)
