"""The datasets that skal knows by name."""

from __future__ import annotations

import gzip
import logging
import math
import pickle
import socket
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..core.durable import write_atomic
from ..core.errors import (
    DataError,
    DatasetNotFoundError,
    MissingExtraError,
    one_line,
    pass_on_memory,
)
from ..core.seeding import derive_seed
from .base import DATASETS as DATASETS
from .base import ImageDataset, Images, Labels, resize, stratified_split
from .folder import load_folder

_log = logging.getLogger("skal")

DIGIT_NAMES = tuple("0123456789")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
SYSTEM_DATASETS = Path("/usr/share/datasets")
"""Folder of Debian's packages `dataset-*`."""
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
FLOWERS_KAGGLE = "imsparsh/flowers-dataset"
MOST_NEAR = 3
DOWNLOAD_PATIENCE = 10.0
"""Timeout in seconds, for behind a firewall a connection could hang for minutes."""


@DATASETS.register("digits", summary="scikit-learn's 1,797 handwritten digits, 8x8, built in")
def load_digits(*, data_dir: Path, image_size: int | None, seed: int) -> ImageDataset:
    """Load scikit-learn's digits; a fifth of each class is the test set, split by seed."""
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    X = resize(np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None], image_size)
    y = digits.target.astype(np.int64)
    train, test = stratified_split(y, 0.2, derive_seed(seed, "split"))
    return ImageDataset(
        X[train], y[train], DIGIT_NAMES, X[test], y[test], "digits", split_seed=seed
    )


@DATASETS.register("mnist", summary="70,000 handwritten digits, 28x28 grey")
def load_mnist(*, data_dir: Path, image_size: int | None, seed: int) -> ImageDataset:
    """Load MNIST from its IDX files, which torchvision downloads if they are missing."""
    facts = {"name": "mnist", "classes": DIGIT_NAMES, "augmentation": ("shift",)}
    return _load_idx("MNIST", data_dir, image_size, facts)


@DATASETS.register(
    "fashion-mnist", summary="70,000 pieces of clothing, 28x28 grey", suits_frozen=True
)
def load_fashion_mnist(*, data_dir: Path, image_size: int | None, seed: int) -> ImageDataset:
    """Load Fashion-MNIST as `load_mnist`, or from Debian's package `dataset-fashion-mnist`."""
    from torchvision.datasets import FashionMNIST

    facts = {"name": "fashion-mnist", "classes": tuple(FashionMNIST.classes)}
    return _load_idx("FashionMNIST", data_dir, image_size, facts)


@DATASETS.register("cifar10", summary="60,000 photographs of 10 things, 32x32 colour")
def load_cifar10(*, data_dir: Path, image_size: int | None, seed: int) -> ImageDataset:
    """Load CIFAR-10 from its Python batches, which torchvision downloads if they are missing."""
    places = [data_dir / "cifar-10-batches-py", data_dir / "cifar10/cifar-10-batches-py", data_dir]
    folder = _find(places, CIFAR10_FILES) or _unpack_cifar10(data_dir)
    if folder is None:
        advice = (
            f"put {CIFAR10_ARCHIVE} into {data_dir}, or {_list(CIFAR10_FILES)} into {places[0]}"
        )
        with _download("cifar10", advice):
            from torchvision.datasets import CIFAR10

            CIFAR10(str(data_dir), train=True, download=True)
        folder = places[0]
    X, y = _read_cifar10(folder, CIFAR10_FILES[:5])
    X_test, y_test = _read_cifar10(folder, CIFAR10_FILES[5:6])
    (names,) = _unpickle_plain(folder / CIFAR10_FILES[6], "label_names")
    return ImageDataset(
        resize(X, image_size),
        y,
        tuple(name.decode() if isinstance(name, bytes) else name for name in names),
        resize(X_test, image_size),
        y_test,
        name="cifar10",
        augmentation=("flip", "shift"),
    )


@DATASETS.register("flowers", summary="Kaggle's 2,746 photographs of 5 kinds of flowers")
def load_flowers(*, data_dir: Path, image_size: int | None, seed: int) -> ImageDataset:
    """Load the Kaggle Flowers dataset; its unlabelled `test` folder is not used as the test set."""
    root = flowers_folder(data_dir)
    return load_folder(root, data_dir=data_dir, image_size=image_size, seed=seed, name="flowers")


def flowers_folder(data_dir: Path) -> Path:
    """Return the folder of the Kaggle Flowers dataset, which is downloaded if it is missing."""
    places = [Path("flowers"), data_dir / "flowers", data_dir / "flowers/flowers", data_dir]
    holding = (p for p in places for part in (".", "train") if (p / part / "daisy").is_dir())
    return next(holding, None) or _fetch_flowers(places)


OF_FILES = MappingProxyType({"flowers": flowers_folder})
"""Datasets of image files: functions that return their folder, by name."""


def _find(places: Iterable[Path], names: Iterable[str]) -> Path | None:
    """Return the first folder that holds all of the files, plain or gzipped."""
    wanted = list(names)
    for place in places:
        if all((place / name).is_file() or (place / f"{name}.gz").is_file() for name in wanted):
            return place
    return None


def _list(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}"


@contextmanager
def _download(name: str, advice: str) -> Iterator[None]:
    """Turn any error of a download into one that says what to do instead."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_PATIENCE)
    try:
        yield
    except Exception as error:  # of sockets, HTTP, archives, checksums, and torchvision's own
        raise DatasetNotFoundError(
            f"{name} is not on this machine and cannot be downloaded ({one_line(error)}); "
            f"{advice}, or give the folder that has them as --data-dir"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _load_idx(
    torchvision_name: str, data_dir: Path, image_size: int | None, facts: Mapping[str, Any]
) -> ImageDataset:
    name = facts["name"]
    downloaded = data_dir / torchvision_name / "raw"
    places = [data_dir / name, downloaded, data_dir, SYSTEM_DATASETS / name]
    folder = _find(places, IDX_FILES)
    if folder is None:
        advice = f"put {_list(IDX_FILES)} (plain or with .gz) into {places[0]}"
        with _download(name, advice):
            import torchvision.datasets

            getattr(torchvision.datasets, torchvision_name)(str(data_dir), download=True)
        folder = downloaded
    X, y, X_test, y_test = (_read_idx(folder / file) for file in IDX_FILES)
    return ImageDataset(
        X=resize(X[:, None], image_size),
        y=y.astype(np.int64),
        X_test=resize(X_test[:, None], image_size),
        y_test=y_test.astype(np.int64),
        **facts,
    )


def _read_idx(path: Path) -> Images:
    """Read an IDX file of bytes: magic 0x0000 08 <dimensions>, sizes as big-endian int32, data."""
    place = path if path.is_file() else path.with_name(f"{path.name}.gz")
    content = place.read_bytes()
    if content[:2] == b"\x1f\x8b":  # by content: some browsers decompress but keep the suffix .gz
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{place} is damaged or truncated: {one_line(error)}") from error
    dimensions = 3 if "idx3" in path.name else 1
    start = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < start:
        raise DataError(f"{place} is not an IDX file of bytes in {dimensions} dimension(s)")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{place} is damaged: got {len(content) - start} bytes of data, expected "
            f"{math.prod(shape)}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _unpack_cifar10(data_dir: Path) -> Path | None:
    """Unpack the archive from the dataset's web page, if it is in the data folder."""
    import tarfile

    archive = data_dir / CIFAR10_ARCHIVE
    if not archive.is_file():
        return None
    folder = data_dir / "cifar-10-batches-py"
    wanted = {f"{folder.name}/{name}": folder / name for name in CIFAR10_FILES}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:  # other members are ignored
                file = tar.extractfile(member) if member.name in wanted else None
                if file is not None:
                    folder.mkdir(exist_ok=True)
                    write_atomic(wanted[member.name], file.read())
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"cannot unpack {archive}: {one_line(error)}") from error
    if _find([folder], CIFAR10_FILES) is None:
        raise DataError(f"{archive} does not contain {folder.name}/ with {_list(CIFAR10_FILES)}")
    return folder


def _read_cifar10(folder: Path, names: Iterable[str]) -> tuple[Images, Labels]:
    pixels, ids = [], []
    for path in (folder / name for name in names):
        data, labels = _unpickle_plain(path, "data", "labels")
        try:
            pixels.append(np.asarray(data, np.uint8).reshape(-1, 3, 32, 32))
            ids.append(np.asarray(labels, np.int64).reshape(len(pixels[-1])))
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{path} is not a CIFAR-10 batch: {one_line(error)}") from error
    return np.concatenate(pixels), np.concatenate(ids)


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler of numbers, strings, containers and numpy arrays only, for the user's files may
    differ from the official ones, whose checksums torchvision relies on.
    """

    ALLOWED = frozenset(
        (module, name)
        for module, names in {
            "numpy": ("ndarray", "dtype"),
            "numpy.core.multiarray": ("_reconstruct", "scalar"),
            "numpy._core.multiarray": ("_reconstruct", "scalar"),
            "numpy._core.numeric": ("_frombuffer",),
            "_codecs": ("encode",),
        }.items()
        for name in names
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not data")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickle_plain(path: Path, *keys: str) -> list[Any]:
    """Return the values of some keys, text or bytes, of a pickled dict."""
    try:
        with path.open("rb") as file:
            # written by Python 2, whose strings must be read as latin-1
            batch = _PlainUnpickler(file, encoding="latin1").load()
        texts = {key.decode() if isinstance(key, bytes) else key: batch[key] for key in batch}
        return [texts[key] for key in keys]
    except OSError:
        raise
    except Exception as error:  # unpickling damaged bytes can raise anything
        pass_on_memory(error)
        raise DataError(f"{path} is not a CIFAR-10 batch: {one_line(error)}") from error


def _fetch_flowers(places: Sequence[Path]) -> Path:
    near = sorted(
        str(path)
        for place in (Path(), places[-1])
        if place.is_dir()
        for path in place.iterdir()
        if "flower" in path.name.lower() and path not in places
    )
    near_by = f" (similar names: {', '.join(near[:MOST_NEAR])})" if near else ""
    advice = (
        "looked for daisy/ or train/daisy/ in 'flowers', and in flowers, flowers/flowers and . of "
        f"the data folder{near_by}; put its train folder (or the class folders themselves) into "
        f"{str(places[1])!r}, from https://www.kaggle.com/datasets/{FLOWERS_KAGGLE}"
    )
    try:
        import kagglehub
    except ImportError as error:
        raise MissingExtraError(
            "kagglehub", "kaggle", f"flowers is not on this machine: {advice}; to fetch it, skal"
        ) from error
    _log.warning("fetching %s from Kaggle", FLOWERS_KAGGLE)
    try:
        return Path(kagglehub.dataset_download(FLOWERS_KAGGLE))
    except Exception as error:  # kagglehub passes on any error of its HTTP library
        raise DatasetNotFoundError(
            f"flowers is not on this machine and cannot be fetched ({one_line(error)}); {advice}"
        ) from error
