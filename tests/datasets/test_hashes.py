"""Hashes of images, by which their features are found again without looking at the pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

import skal
from skal.core.kept import forget, put
from skal.datasets.hashes import hashes_of, known_hashes
from skal.datasets.noise import add_noise


def folder_of(place: Path, n: int = 12, first: int = 0) -> Path:
    rng = np.random.default_rng(first)
    for label in ("cat", "dog"):
        (place / label).mkdir(parents=True, exist_ok=True)
        for k in range(first, first + n):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / label / f"{k}.png")
    return place


def load(root: Path, data_dir: Path, seed: int = 0) -> skal.ImageDataset:
    return skal.load_dataset(root, image_size=16, data_dir=data_dir, seed=seed)


def test_hashes_that_are_kept_are_those_of_the_pixels(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets")
    for seed in (0, 1):
        data = load(root, tmp_path / "data", seed)
        for images in (data.X, data.X_test):
            assert known_hashes(images) is not None
            assert hashes_of(images).tolist() == hashes_of(images.copy()).tolist()


def test_hashes_are_found_again_without_the_pixels(tmp_path: Path) -> None:
    root, data_dir = folder_of(tmp_path / "pets"), tmp_path / "data"
    before = hashes_of(load(root, data_dir).X)
    (pixels,) = data_dir.rglob("pixels.npy")
    data = load(root, data_dir)
    content = pixels.read_bytes()
    pixels.write_bytes(content[:200] + bytes(len(content) - 200))  # after the dataset was opened
    assert hashes_of(data.X).tolist() == before.tolist()


def test_another_image_has_another_hash(tmp_path: Path) -> None:
    root, data_dir = folder_of(tmp_path / "pets"), tmp_path / "data"
    before = set(hashes_of(load(root, data_dir).X))
    folder_of(root, n=2, first=0)
    folder_of(root, n=2, first=50)
    data = load(root, data_dir)
    assert hashes_of(data.X).tolist() == hashes_of(data.X.copy()).tolist()
    assert set(hashes_of(data.X)) != before


def test_what_is_made_of_images_has_hashes_of_its_own(tmp_path: Path) -> None:
    data = load(folder_of(tmp_path / "pets"), tmp_path / "data")
    noisy = add_noise(data, "gaussian", 0.5, seed=0, folder=tmp_path)
    for images in (noisy.X, data.X + np.uint8(1), data.X[::2], data.X[:3]):
        assert known_hashes(images) is None
    assert hashes_of(data.X[:3]).tolist() == hashes_of(data.X)[:3].tolist()
    assert hashes_of(noisy.X).tolist() != hashes_of(data.X).tolist()


def test_hashes_of_pixels_that_were_removed_are_made_again(tmp_path: Path) -> None:
    root, data_dir = folder_of(tmp_path / "pets"), tmp_path / "data"
    hashes_of(load(root, data_dir).X)
    (file,) = data_dir.rglob("*.hashes.npy")
    (pixels,) = data_dir.rglob("pixels.npy")
    shutil.rmtree(pixels.parent)
    forget(file)
    np.save(file, np.zeros(3, "S16"))
    put(file, file.with_suffix(".moved"))
    file.with_suffix(".moved").rename(file)
    data = load(root, data_dir)
    assert hashes_of(data.X).tolist() == hashes_of(data.X.copy()).tolist()
