"""`ImageDataset`, `load_dataset` and the datasets known by name."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

import skal
from skal.core.errors import (
    DataError,
    DatasetNotFoundError,
    FolderNotFoundError,
    MissingExtraError,
    ParameterError,
    UnknownNameError,
    UsageError,
)
from skal.datasets import ImageDataset, builtin, data_folder, load_dataset
from skal.datasets.base import resize, stratified_split

FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


@pytest.fixture(autouse=True)
def no_system_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests see no Debian package, whether it is installed or not."""
    folder = tmp_path / "system"
    monkeypatch.setattr(builtin, "SYSTEM_DATASETS", folder)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every download by torchvision fail as it does without a network."""
    import torchvision.datasets.cifar as cifar
    import torchvision.datasets.mnist as mnist

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network\nin this test")

    for module in (mnist, cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)


# ------------------------------------------------------------------ ImageDataset


def arrays(n: int = 4, **changes: Any) -> dict[str, Any]:
    X = np.zeros((n, 1, 8, 8), np.uint8)
    return {"X": X, "y": np.arange(n) % 2, "classes": ("a", "b"), **changes}


def test_dataset_keeps_what_it_is_given_and_fills_in_the_rest() -> None:
    data = ImageDataset(**arrays())
    assert data.X.shape == (4, 1, 8, 8)
    assert data.image_size == 8
    assert len(data.X_test) == len(data.y_test) == len(data.X_unlabeled) == 0
    assert "4 images" in repr(data) and "2 classes" in repr(data)


def test_dataset_is_frozen() -> None:
    data = ImageDataset(**arrays())
    with pytest.raises(AttributeError):
        data.name = "other"  # type: ignore[misc]


def test_image_size_of_a_dataset_without_labels_is_that_of_its_unlabelled_images() -> None:
    nothing = np.empty((0, 3, 16, 16), np.uint8)
    data = ImageDataset(
        nothing, np.empty(0, np.int64), (), X_unlabeled=np.zeros((2, 3, 16, 16), np.uint8)
    )
    assert data.image_size == 16


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"X": np.zeros((4, 1, 8, 8))}, "expected uint8"),
        ({"X": np.zeros((4, 8, 8), np.uint8)}, r"\(n, channels, height, width\)"),
        ({"y": np.zeros(3, np.int64)}, r"expected \(4,\)"),
        ({"y": np.zeros((4, 1), np.int64)}, r"expected \(4,\)"),
        ({"y": np.zeros(4)}, "expected integers"),
        ({"y": np.array([0, 1, 2, 0])}, "0 to 2; expected -1 to 1"),
        ({"y": np.array([0, 1, -2, 0])}, "-2 to 1"),
        ({"X_test": np.zeros((1, 1, 8, 8), np.uint8)}, "y_test has shape"),
        ({"y_test": np.zeros(1, np.int64)}, "y_test has shape"),
        (
            {"X_test": np.zeros((1, 1, 8, 8), np.uint8), "y_test": np.array([-1])},
            "expected 0 to 1",
        ),
        (
            {"X_test": np.zeros((1, 3, 8, 8), np.uint8), "y_test": np.array([0])},
            "expected .* as X has",
        ),
        ({"X": np.zeros((4, 8, 8, 1), np.uint8)}, r"channels come first: use np.moveaxis\(X, -1"),
        ({"X": np.zeros((4, 8, 9, 3))}, r"np.moveaxis\(X, -1, 1\).* np.asarray\(X, np.uint8\)"),
        (
            {"X_test": np.zeros((1, 8, 8, 1), np.uint8), "y_test": [0]},
            r"np.moveaxis\(X_test, -1, 1\)",
        ),
        ({"X": np.zeros((4, 8, 8), np.uint8)}, r"for grey images use np.expand_dims\(X, 1\)"),
        ({"X": np.zeros((4, 64), np.uint8)}, r"np.reshape\(X, \(-1, channels"),
        ({"X": [np.zeros((1, 8, 8)), np.zeros((1, 8, 9))]}, "X is a list that is not array-like"),
        ({"X": None}, "X is object of shape"),
        ({"y": ["a", "b", "a", "b"]}, r"expected integers.*np.unique\(names"),
        ({"y": None}, "y has shape"),
        ({"y": [[0], [1, 0], 0, 0]}, "y is a list that is not array-like"),
        ({"classes": ("a",) * 10}, "classes has 'a' 10 times"),
        ({"classes": (1, "1")}, "classes has '1' 2 times"),
        ({"classes": "ab"}, "classes is 'ab'; expected class names"),
        ({"classes": 2}, "classes is 2; expected class names"),
        ({"X_unlabeled": np.zeros((1, 1, 9, 9), np.uint8)}, "as X has"),
        ({"X_unlabeled": np.zeros((1, 1, 8, 8), np.int16)}, "X_unlabeled is int16"),
        ({"paths": ("a.png",)}, "1 path for 4 images"),
        ({"paths_unlabeled": ("a.png",)}, "1 path for 0 images"),
    ],
)
def test_dataset_says_what_does_not_fit(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        ImageDataset(**arrays(**changes))


def test_dataset_takes_what_numpy_makes_arrays_of() -> None:
    images = [np.full((1, 8, 8), k, np.uint8) for k in range(4)]
    data = ImageDataset(images, [0, 1, 0, -1], ["a", "b"], images[:2], [0, 1], X_unlabeled=[])
    assert data.X.dtype == np.uint8 and data.X.shape == (4, 1, 8, 8) and data.X[3].max() == 3
    assert data.y.tolist() == [0, 1, 0, -1] and data.y_test.dtype == np.int64
    tensors = ImageDataset(torch.from_numpy(data.X), torch.from_numpy(data.y), data.classes)
    assert isinstance(tensors.X, np.ndarray) and np.array_equal(tensors.X, data.X)
    assert isinstance(tensors.y, np.ndarray) and np.array_equal(tensors.y, data.y)
    empty = ImageDataset([], [], ("a", "b"), X_unlabeled=images)
    assert len(empty.X) == len(empty.y) == len(empty.X_test) == 0 and empty.image_size == 8


def test_dataset_leaves_arrays_as_they_are() -> None:
    given = arrays()
    data = ImageDataset(**given)
    assert data.X is given["X"] and data.y is given["y"]
    hyperspectral = np.zeros((4, 100, 3, 3), np.uint8)  # channels first already, of few pixels
    assert ImageDataset(**arrays(X=hyperspectral)).X.shape == (4, 100, 3, 3)


def test_split_takes_a_share_of_every_class_and_never_its_only_image() -> None:
    y = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    train, test = stratified_split(y, 0.2, seed=0)
    assert sorted([*train, *test]) == list(range(63))
    assert np.bincount(y[test], minlength=4).tolist() == [10, 2, 1, 0]
    assert np.array_equal(train, np.sort(train)) and np.array_equal(test, np.sort(test))


def test_split_of_nothing_is_two_empty_parts() -> None:
    train, test = stratified_split(np.empty(0, np.int64), 0.2, seed=0)
    assert len(train) == len(test) == 0


def test_resize_averages_when_it_shrinks() -> None:
    stripes = np.zeros((2, 1, 16, 16), np.uint8)
    stripes[:, :, :, ::2] = 200
    small = resize(stripes, 8)
    assert small.shape == (2, 1, 8, 8) and small.dtype == np.uint8
    assert np.all(np.abs(small[:, :, :, 2:-2].astype(int) - 100) <= 20)


def test_resize_leaves_alone_what_has_the_size() -> None:
    images = np.zeros((2, 1, 16, 16), np.uint8)
    assert resize(images, 16) is images and resize(images, None) is images


# ------------------------------------------------------------------ load_dataset


def test_unknown_dataset_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'digit'; did you mean digits"):
        load_dataset("digit")


@pytest.mark.parametrize("what", [np.zeros((2, 1, 8, 8), np.uint8), 3, None])
def test_what_is_no_name_is_told_by_its_type(what: object) -> None:
    told = rf"dataset: got {type(what).__name__}; expected a name or a folder"
    with pytest.raises(ParameterError, match=told):
        load_dataset(what)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=told):
        skal.run(what, n_rounds=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "no-such-dataset", "x" * 3000, "\0"])
def test_what_is_neither_a_dataset_nor_a_folder_is_an_unknown_name(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown dataset"):
        load_dataset(name)


@pytest.mark.parametrize("place", ["./nowhere", "some/where", "~/no-such-folder", "~nobody-here/x"])
def test_what_looks_like_a_path_is_looked_for_as_a_folder(place: str) -> None:
    with pytest.raises(DatasetNotFoundError, match="does not exist"):
        load_dataset(place)


def test_name_of_a_dataset_wins_over_a_folder_unless_it_is_written_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits/one").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save("digits/one/a.png")
    Image.new("RGB", (8, 8)).save("digits/one/b.png")
    assert len(load_dataset("digits").classes) == 10
    assert load_dataset("./digits").classes == ("one",)
    assert load_dataset(Path("digits")).classes == ("one",)
    Path("digits").rename("mine")
    assert load_dataset("mine").classes == ("one",)


@pytest.mark.parametrize("size", [7, 0, -1])
def test_image_size_below_8_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"image_size: got {size}; expected a whole number from 8"):
        load_dataset("digits", image_size=size)


def test_data_folder_is_the_argument_else_the_variable_else_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SKAL_DATA_DIR", "/elsewhere")
    assert data_folder("given") == Path("given")
    assert data_folder() == Path("/elsewhere")
    monkeypatch.delenv("SKAL_DATA_DIR")
    assert data_folder() == Path("data")
    assert data_folder("~/x") == Path.home() / "x"


# ------------------------------------------------------------------ digits


def test_digits_are_built_in() -> None:
    data = load_dataset("digits")
    assert data.X.dtype == np.uint8 and data.X.shape[1:] == (1, 8, 8)
    assert data.y.dtype == np.int64 and data.y_test.dtype == np.int64
    assert len(data.X) + len(data.X_test) == 1797
    assert data.classes == tuple("0123456789")
    assert data.X.min() == 0 and data.X.max() == 255


def test_digits_are_the_real_ones_scaled_to_255() -> None:
    from sklearn.datasets import load_digits

    truth = load_digits()
    data = load_dataset("digits")
    pixels = np.concatenate([data.X, data.X_test]).reshape(-1, 64).astype(float) * 16 / 255
    images = {tuple(row): label for row, label in zip(truth.data, truth.target, strict=True)}
    found = [images[tuple(row)] for row in np.rint(pixels)]
    assert found == [*data.y, *data.y_test]


def test_digits_are_split_by_seed_class_by_class() -> None:
    first, again, other = (load_dataset("digits", seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.X, again.X) and np.array_equal(first.y_test, again.y_test)
    assert not np.array_equal(first.X_test, other.X_test)
    in_test, in_train = np.bincount(first.y_test), np.bincount(first.y)
    assert np.all(np.abs(in_test - 0.2 * (in_test + in_train)) <= 0.5)


def test_digits_are_resized_on_request() -> None:
    data = load_dataset("digits", image_size=16)
    assert data.X.shape[1:] == data.X_test.shape[1:] == (1, 16, 16)
    assert abs(float(data.X.mean()) - float(load_dataset("digits").X.mean())) < 2


# ------------------------------------------------------------------ MNIST, Fashion-MNIST


def idx(array: np.ndarray) -> bytes:
    """Write an IDX file as its specification has it."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def mnist_files() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (12, 28, 28)),
        "train-labels-idx1-ubyte": np.arange(12) % 10,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (5, 28, 28)),
        "t10k-labels-idx1-ubyte": np.arange(5),
    }


def write_mnist(folder: Path, zipped: bool = False) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    files = mnist_files()
    for name, array in files.items():
        content = gzip.compress(idx(array)) if zipped else idx(array)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(content)
    return files


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("place", [".", "{name}", "{torchvision}/raw"])
@pytest.mark.parametrize("name", FOLDERS)
def test_idx_files_are_found(data_dir: Path, name: str, place: str, zipped: bool) -> None:
    folder = data_dir / place.format(name=name, torchvision=FOLDERS[name])
    files = write_mnist(folder, zipped)
    data = load_dataset(name)
    assert data.X.shape == (12, 1, 28, 28) and data.X.dtype == np.uint8
    assert np.array_equal(data.X[:, 0], files["train-images-idx3-ubyte"])
    assert data.y.tolist() == files["train-labels-idx1-ubyte"].tolist()
    assert np.array_equal(data.X_test[:, 0], files["t10k-images-idx3-ubyte"])
    assert data.y_test.tolist() == [0, 1, 2, 3, 4] and data.y_test.dtype == np.int64
    assert len(data.classes) == 10 and data.name == name


def test_fashion_mnist_is_found_where_debian_puts_it(no_system_datasets: Path) -> None:
    write_mnist(no_system_datasets / "fashion-mnist", zipped=True)
    assert load_dataset("fashion-mnist").classes[9] == "Ankle boot"


def test_plain_and_zipped_files_may_be_mixed(data_dir: Path) -> None:
    write_mnist(data_dir)
    labels = data_dir / "t10k-labels-idx1-ubyte"
    labels.with_name(f"{labels.name}.gz").write_bytes(gzip.compress(labels.read_bytes()))
    labels.unlink()
    assert load_dataset("mnist").y_test.tolist() == [0, 1, 2, 3, 4]


def test_gz_that_a_browser_has_unpacked_already_is_read(data_dir: Path) -> None:
    write_mnist(data_dir, zipped=True)
    labels = data_dir / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.decompress(labels.read_bytes()))
    assert load_dataset("mnist").y_test.tolist() == [0, 1, 2, 3, 4]


def test_mnist_is_resized_on_request(data_dir: Path) -> None:
    write_mnist(data_dir)
    data = load_dataset("mnist", image_size=14)
    assert data.X.shape == (12, 1, 14, 14) and data.X_test.shape == (5, 1, 14, 14)


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("train-images-idx3-ubyte", lambda c: c[:-1], "is damaged: got 9407 bytes"),
        ("train-images-idx3-ubyte", lambda c: c + b"x", "expected 9408"),
        ("train-images-idx3-ubyte", lambda c: c[:10], "not an IDX file"),
        ("train-images-idx3-ubyte", lambda c: b"", "not an IDX file"),
        ("train-images-idx3-ubyte", lambda c: b"<html>not found</html>", "not an IDX file"),
        ("train-images-idx3-ubyte", lambda c: idx(np.zeros(9)), "not an IDX file"),
        ("t10k-labels-idx1-ubyte", lambda c: idx(np.zeros((5, 28, 28))), "not an IDX file"),
        ("t10k-labels-idx1-ubyte", lambda c: idx(np.zeros(4)), r"expected \(5,\)"),
        ("t10k-labels-idx1-ubyte", lambda c: idx(np.full(5, 10)), "values from 10 to 10"),
        ("t10k-labels-idx1-ubyte", lambda c: gzip.compress(c)[:-5], "damaged or truncated"),
        ("t10k-labels-idx1-ubyte", lambda c: gzip.compress(c)[:12] + b"\xff" * 9, "damaged"),
    ],
)
def test_damaged_idx_file_is_a_data_error(
    data_dir: Path, name: str, damage: Callable[[bytes], bytes], told: str
) -> None:
    write_mnist(data_dir)
    (data_dir / name).write_bytes(damage((data_dir / name).read_bytes()))
    with pytest.raises(DataError, match=told) as caught:
        load_dataset("mnist", image_size=16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
@pytest.mark.usefixtures("offline")
def test_without_files_and_network_one_line_says_what_to_put_where(
    data_dir: Path, name: str
) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        load_dataset(name)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    assert "no network in this test" in message
    files = builtin.CIFAR10_FILES if name == "cifar10" else builtin.IDX_FILES
    assert all(file in message for file in files)
    assert str(data_dir) in message and "--data-dir" in message


def test_one_missing_file_is_as_good_as_none(data_dir: Path, offline: None) -> None:
    write_mnist(data_dir)
    (data_dir / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetNotFoundError, match="t10k-labels-idx1-ubyte"):
        load_dataset("mnist")


def test_download_waits_no_longer_than_its_patience_for_a_silent_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    import torchvision.datasets

    seen = []

    def download(*args: Any, **kwargs: Any) -> None:
        seen.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(77)
    try:
        with pytest.raises(DatasetNotFoundError, match="timed out"):
            load_dataset("mnist")
        assert seen == [builtin.DOWNLOAD_PATIENCE] and socket.getdefaulttimeout() == 77
    finally:
        socket.setdefaulttimeout(before)


def test_downloaded_files_are_read(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    import torchvision.datasets

    def download(root: str, download: bool) -> None:
        write_mnist(Path(root) / "FashionMNIST" / "raw", zipped=True)

    download.classes = torchvision.datasets.FashionMNIST.classes  # type: ignore[attr-defined]
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)
    assert len(load_dataset("fashion-mnist").X) == 12


@pytest.mark.fashion_mnist
def test_real_fashion_mnist_is_read_to_the_last_pixel(
    fashion_mnist_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "fashion-mnist").symlink_to(fashion_mnist_dir)
    data = load_dataset("fashion-mnist", data_dir=tmp_path)
    assert data.X.shape == (60_000, 1, 28, 28) and data.X_test.shape == (10_000, 1, 28, 28)
    assert np.bincount(data.y).tolist() == [6000] * 10
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    # from: zcat FILE | tail -c +17 | sha256sum, and +9 for labels
    labels, labels_test = data.y.astype(np.uint8), data.y_test.astype(np.uint8)
    sums = [hashlib.sha256(a.tobytes()).hexdigest()[:16] for a in (data.X, data.X_test)]
    sums += [hashlib.sha256(a.tobytes()).hexdigest()[:16] for a in (labels, labels_test)]
    assert sums == ["2e487a6c89124f78", "c867c93ff9536059", "657fbd221bfc9f41", "3d0e6c6ea990b53b"]


# ------------------------------------------------------------------ CIFAR-10


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes byte strings as Python 2 did, which wrote the real files."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def as_python2(value: Any) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def as_python3(value: Any) -> bytes:
    return pickle.dumps(value, protocol=2)


def as_text_keys(value: dict[bytes, Any]) -> bytes:
    return pickle.dumps({key.decode(): value[key] for key in value}, protocol=2)


def as_newest(value: Any) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


CIFAR_NAMES = b"airplane automobile bird cat deer dog frog horse ship truck".split()


def cifar_batch(seed: int, n: int = 4) -> dict[bytes, Any]:
    data = np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)
    return {
        b"data": data,
        b"labels": [(seed + i) % 10 for i in range(n)],
        b"filenames": [b"picture_%d.png" % i for i in range(n)],
        b"batch_label": b"training batch",
    }


def write_cifar10(folder: Path, dump: Callable[[Any], bytes] = as_python2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(dump(cifar_batch(number)))
    (folder / "test_batch").write_bytes(dump(cifar_batch(6)))
    meta = {b"label_names": CIFAR_NAMES, b"num_cases_per_batch": 4, b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(dump(meta))
    return folder


def check_cifar10(data: ImageDataset) -> None:
    rows = np.concatenate([cifar_batch(number)[b"data"] for number in range(1, 6)])
    assert data.X.shape == (20, 3, 32, 32) and data.X.dtype == np.uint8
    # a row is 1024 bytes of red, then green, then blue, each row by row
    assert np.array_equal(data.X[7, 2, 5], rows[7, 2048 + 5 * 32 : 2048 + 6 * 32])
    assert np.array_equal(data.X.reshape(20, -1), rows)
    assert data.y[:4].tolist() == [1, 2, 3, 4] and data.y_test.tolist() == [6, 7, 8, 9]
    assert data.y.dtype == np.int64
    assert data.classes[0] == "airplane" and data.classes[9] == "truck"


@pytest.mark.parametrize("dump", [as_python2, as_python3, as_text_keys, as_newest])
@pytest.mark.parametrize("place", ["cifar-10-batches-py", ".", "cifar10/cifar-10-batches-py"])
def test_cifar10_batches_are_found(
    data_dir: Path, place: str, dump: Callable[[Any], bytes]
) -> None:
    write_cifar10(data_dir / place, dump)
    check_cifar10(load_dataset("cifar10"))


def test_cifar10_archive_is_unpacked(data_dir: Path, tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    data_dir.mkdir()
    with tarfile.open(data_dir / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    check_cifar10(load_dataset("cifar10"))


def test_cifar10_is_resized_on_request(data_dir: Path) -> None:
    write_cifar10(data_dir)
    assert load_dataset("cifar10", image_size=16).X.shape == (20, 3, 16, 16)


@pytest.mark.usefixtures("offline")
def test_cifar10_archive_that_is_damaged_or_another_is_a_data_error(data_dir: Path) -> None:
    data_dir.mkdir()
    archive = data_dir / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(__file__, "something-else.py")
    with pytest.raises(DataError, match="does not contain cifar-10-batches-py/"):
        load_dataset("cifar10")
    for content in (archive.read_bytes()[:200], b"<html>", b""):
        archive.write_bytes(content)
        with pytest.raises(DataError, match="cannot unpack"):
            load_dataset("cifar10")


@pytest.mark.usefixtures("offline")
def test_cifar10_archive_writes_nowhere_else(data_dir: Path, tmp_path: Path) -> None:
    data_dir.mkdir()
    with tarfile.open(data_dir / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(__file__, "../outside.py")
    with pytest.raises(DataError, match="does not contain cifar-10-batches-py/"):
        load_dataset("cifar10")
    assert not (tmp_path / "outside.py").exists()


class Malice:
    """Unpickles to a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_cifar10_file_is_refused_and_runs_nothing(
    data_dir: Path, tmp_path: Path, file: str, protocol: int
) -> None:
    write_cifar10(data_dir)
    mark = tmp_path / "ran"
    attacks = [
        Malice(os.mkdir, str(mark)),
        Malice(exec, f"import os; os.mkdir({str(mark)!r})"),
        Malice(eval, f"__import__('os').mkdir({str(mark)!r})"),
        Malice(np.save, str(mark), [1]),
        Malice(pickle.loads, b"."),
    ]
    for attack in attacks:
        content = pickle.dumps({b"data": attack, b"labels": [attack]}, protocol=protocol)
        (data_dir / file).write_bytes(content)
        with pytest.raises(DataError, match="is not data") as caught:
            load_dataset("cifar10")
        assert file in str(caught.value)
    assert list(tmp_path.glob("ran*")) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"\x80\x02}q",
        pickle.dumps([1, 2]),
        pickle.dumps(7),
        pickle.dumps({b"labels": [1]}),
        pickle.dumps({b"data": np.zeros((4, 3000), np.uint8), b"labels": [0] * 4}),
        pickle.dumps({b"data": np.zeros((4, 3072), np.uint8), b"labels": [0] * 3}),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]}),
        pickle.dumps({b"data": "pixels", b"labels": [0]}),
    ],
)
def test_damaged_cifar10_batch_is_a_data_error(data_dir: Path, content: bytes) -> None:
    write_cifar10(data_dir)
    (data_dir / "data_batch_2").write_bytes(content)
    with pytest.raises(DataError, match="data_batch_2 is not a CIFAR-10 batch") as caught:
        load_dataset("cifar10")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ flowers


FLOWERS = {"daisy": "white", "dandelion": "yellow", "rose": "red", "sunflower": "gold"}


def write_flowers(root: Path, part: str = "train", n: int = 10) -> None:
    for flower, colour in {**FLOWERS, "tulip": "purple"}.items():
        (root / part / flower).mkdir(parents=True)
        for number in range(n):
            image = Image.new("RGB", (40, 30 + number), colour)
            image.save(root / part / flower / f"{number}.jpg")


@pytest.fixture
def kagglehub(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("kagglehub")
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    return module


@pytest.mark.parametrize("part", ["train", "."])
@pytest.mark.parametrize("place", ["flowers", "."])
def test_flowers_are_found_and_split_by_seed(data_dir: Path, place: str, part: str) -> None:
    write_flowers(data_dir / place, part)
    data = load_dataset("flowers", image_size=16)
    assert data.classes == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert np.bincount(data.y).tolist() == [8] * 5
    assert np.bincount(data.y_test).tolist() == [2] * 5
    assert data.X.shape[1:] == (3, 16, 16) and data.name == "flowers"
    again, other = (load_dataset("flowers", image_size=16, seed=seed) for seed in (0, 1))
    assert again.paths == data.paths and other.paths != data.paths
    rose = data.X[data.y == 2].mean(axis=(0, 2, 3))
    assert np.allclose(rose, [254, 0, 0], atol=3)


@pytest.mark.parametrize("place", ["flowers", "data/flowers/flowers"])
def test_flowers_are_found_where_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    write_flowers(tmp_path / place, "train")
    monkeypatch.chdir(tmp_path)
    data = load_dataset("flowers", image_size=16, data_dir="data")
    assert len(data.classes) == 5 and data.name == "flowers"


def test_an_error_says_where_flowers_were_looked_for_and_what_lies_near(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers-dataset.zip").touch()
    with pytest.raises(
        MissingExtraError, match=r"looked for daisy/.*'flowers'.*flowers-dataset\.zip"
    ):
        load_dataset("flowers")


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_cifar_10_as_downloaded_points_to_its_name(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    if name.endswith("gz"):
        place.touch()
    else:
        place.mkdir()
        (place / "data_batch_1").touch()
    with pytest.raises(FolderNotFoundError, match="--dataset cifar10 --data-dir"):
        load_dataset(place)


@pytest.mark.parametrize("name", ["CIFAR10", "Cifar-10", "cifar_10"])
def test_other_spellings_point_to_cifar10(name: str) -> None:
    with pytest.raises(UnknownNameError, match="did you mean cifar10"):
        load_dataset(name)


def test_unlabelled_test_folder_of_flowers_is_no_test_set(data_dir: Path) -> None:
    write_flowers(data_dir / "flowers")
    (data_dir / "flowers/test").mkdir()
    for number in range(3):
        Image.new("RGB", (30, 30)).save(data_dir / f"flowers/test/Image_{number}.jpg")
    data = load_dataset("flowers")
    assert len(data.X) == 40 and len(data.X_test) == 10 and len(data.X_unlabeled) == 3
    assert data.paths_unlabeled == tuple(f"test/Image_{number}.jpg" for number in range(3))


def test_without_flowers_and_kagglehub_one_line_says_both_ways(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(MissingExtraError) as caught:
        load_dataset("flowers")
    message = str(caught.value)
    assert "\n" not in message
    assert "pip install 'skal[kaggle]'" in message
    assert str(data_dir / "flowers") in message and "kaggle.com/datasets/imsparsh" in message


@pytest.mark.parametrize("error", [OSError("HTTP 403\nsign in " + 500 * "x"), ValueError()])
def test_when_kaggle_refuses_one_line_says_where_to_put_flowers(
    data_dir: Path, kagglehub: Any, error: Exception
) -> None:
    def dataset_download(handle: str) -> str:
        raise error

    kagglehub.dataset_download = dataset_download
    with pytest.raises(DatasetNotFoundError, match=r"cannot be fetched \((HTTP 403|Value)") as got:
        load_dataset("flowers")
    message = str(got.value)
    assert "\n" not in message and len(message) < 600
    assert str(data_dir / "flowers") in message and "kaggle.com/datasets/imsparsh" in message


def test_flowers_come_from_kaggle(tmp_path: Path, kagglehub: Any) -> None:
    asked = []

    def dataset_download(handle: str) -> str:
        asked.append(handle)
        write_flowers(tmp_path / "fetched")
        return str(tmp_path / "fetched")

    kagglehub.dataset_download = dataset_download
    data = load_dataset("flowers")
    assert asked == ["imsparsh/flowers-dataset"]
    assert len(data.X) == 40 and data.name == "flowers"


def test_loaders_are_reached_from_the_top_of_the_package() -> None:
    assert skal.load_dataset is load_dataset and skal.ImageDataset is ImageDataset
