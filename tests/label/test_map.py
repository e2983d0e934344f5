"""All images as points, those that are alike near each other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from skal.core.kept import CACHE_TAG
from skal.label.image_map import KINDS, SIDE, ImageMap, lay_out
from skal.label.layout import Layout, by_pca, by_tsne, on_grid
from skal.label.learning import Failure, Guesses
from skal.label.project import LabelProject
from skal.label.service import LabelService


def groups(n: int = 150, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of three groups, and of which each is."""
    draw = np.random.default_rng(0)
    group = np.arange(n) % 3
    middles = draw.normal(size=(3, width)) * 8
    return (middles[group] + draw.normal(size=(n, width))).astype(np.float32), group


def same_group_nearest(points: np.ndarray, group: np.ndarray) -> float:
    """The share of points whose nearest other point is of the same group."""
    far = ((points[:, None] - points[None]) ** 2).sum(-1)
    np.fill_diagonal(far, np.inf)
    return float((group[far.argmin(1)] == group).mean())


def test_principal_components_are_those_of_scikit_learn() -> None:
    embeddings, _ = groups()
    expected = PCA(2).fit_transform(embeddings)
    found = by_pca(embeddings)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)
    assert by_pca(embeddings[:, :1]).shape == (150, 2)


@pytest.mark.parametrize("most", [1000, 90])
def test_a_t_sne_keeps_groups_together_and_is_kept_on_the_disk(tmp_path: Path, most: int) -> None:
    embeddings, group = groups()
    points = by_tsne(embeddings, 0, tmp_path, most)
    assert same_group_nearest(points, group) > 0.95
    (kept,) = tmp_path.glob("map-*.npy")
    assert (tmp_path / CACHE_TAG).is_file()
    written = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(by_tsne(embeddings, 0, tmp_path, most), points)
    assert kept.stat().st_mtime_ns == written


def test_places_are_whole_numbers_of_one_scale() -> None:
    places = on_grid(np.array([[0, 0], [4, 1], [2, 2]], np.float32), 100)
    assert places.tolist() == [[0, 25], [100, 50], [50, 75]]
    assert on_grid(np.ones((3, 2), np.float32), 100).tolist() == [[50, 50]] * 3


@pytest.fixture
def service(tmp_path: Path) -> LabelService:
    (tmp_path / "images").mkdir()
    for i in range(40):
        Image.new("L", (8, 8), 6 * i).save(tmp_path / "images" / f"{i:02}.png")
    return LabelService(LabelProject.open(tmp_path / "images", ["a", "b"]))


def test_the_map_tells_what_people_and_network_say_of_each_point(service: LabelService) -> None:
    project, found = service.project, ImageMap(service)
    assert found.look()["images"] == []
    images = np.array(sorted(project.paths))
    sure = np.linspace(0.5, 1, 40).astype(np.float32)
    embeddings = np.stack([images, images % 7], axis=1).astype(np.float32)
    project.guesses = Guesses(images, np.stack([1 - sure, sure], axis=1), embeddings, 5, "x")
    first, second = service.next("me")[:2]
    service.act("me", [{"action": "label", "image": first, "label": 0}])

    told = found.look()

    assert told["method"] == "PCA"
    assert told["images"] == images.tolist()
    assert {*told["x"], *told["y"]} <= set(range(SIDE + 1))
    by_image = {
        name: dict(zip(images.tolist(), told[name], strict=True))
        for name in told
        if name in ("label", "guess", "unsure", "why")
    }
    assert [n for n, label in by_image["label"].items() if label == 0] == [first]
    assert by_image["guess"][39] == 1
    assert (by_image["unsure"][0], by_image["unsure"][39]) == (100, 0)
    assert KINDS[by_image["why"][second]] == service.project.store.batches()[1].kind
    assert by_image["why"][first] == -1
    unasked = found.look(suggest=False)["guess"]
    assert [n for n, guess in zip(told["images"], unasked, strict=True) if guess >= 0] == [first]


def test_without_its_package_no_better_map_is_asked_for_nor_warned_of(
    service: LabelService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    asked: list[Any] = []
    found = ImageMap(service, lambda *job: asked.append(job))
    found.ask()
    assert not asked and not caplog.records
    assert found.state == "a map by t-SNE needs the package 'openTSNE': pip install 'skal[map]'"


def test_the_better_map_is_asked_for_once_and_taken_when_it_is_there(
    service: LabelService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skal.label.image_map.check_tsne", lambda: None)
    nobodys = ImageMap(service)
    nobodys.ask()
    assert nobodys.state == "none"
    asked: list[Any] = []
    found = ImageMap(service, lambda *job: asked.append(job))
    found.ask()
    found.ask()
    ((job, take, fail),) = asked
    assert job is lay_out
    assert found.state == "computing"
    fail(Failure("no space"))
    assert found.state == "failed: no space"
    images = np.array([*sorted(service.project.paths), 999])  # one that is gone
    take(Layout(images, np.random.default_rng(0).normal(size=(41, 2)).astype("f"), "t-SNE"))
    told = found.look()
    assert (told["state"], told["method"]) == ("ready", "t-SNE")
    assert told["images"] == images[:-1].tolist()
