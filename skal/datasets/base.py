"""`ImageDataset`: images, labels, and facts about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError, one_line
from ..core.registry import Registry
from ..core.text import counted

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

MISSING_LABEL = -1


class Loader(Protocol):
    """The type of the functions in `DATASETS`."""

    def __call__(self, *, data_dir: Path, image_size: int | None, seed: int) -> ImageDataset:
        """Load the dataset.

        Parameters
        ----------
        data_dir : Path
            Folder to look for files in, and for downloads and caches.
        image_size : int or None
            Height and width in pixels; None for the dataset's own.
        seed : int
            The run's seed, for datasets without a given test split.
        """


DATASETS: Registry[Loader] = Registry("dataset")


def _no_images() -> Images:
    return np.empty((0, 0, 0, 0), np.uint8)


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A frozen set of images, labels, and a test set; lists and tensors become arrays.

    Parameters
    ----------
    X : ndarray of uint8, shape (n, channels, height, width)
        The pool: images that may be labelled. Often a read-only ``np.memmap``, or, for many
        images in a folder, `ImageRows`, which are read when indexed.
    y : ndarray of int64, shape (n,)
        Class ids, indices into `classes`; -1 if the label is unknown.
    classes : tuple of str
        Unique class names.
    X_test, y_test : ndarray
        The test set, as `X` and `y`, with all labels known. `skal.run` measures accuracy on it.
    name : str
        Name of the dataset in run folders and reports.
    paths : tuple of str
        Path of each image of `X`, relative to `root`; empty for arrays.
    X_unlabeled : ndarray of uint8, shape (m, channels, height, width)
        Further images, without known labels.
    paths_unlabeled : tuple of str
        Path of each image of `X_unlabeled`.
    root : Path or None
        The folder of the images.
    augmentation : tuple of str
        Names of `skal.models.AUGMENTATIONS` that preserve the class of these images.
    skipped : tuple of (path, reason)
        Files that could not be read.
    source : mapping of str to str
        The arguments `dataset` and `data_dir` of `load_dataset`, so that a run can be repeated.
    split_seed : int or None
        The seed of the test split, if the split was drawn.
    geometry : str
        How files were made square: one of `skal.datasets.decoding.GEOMETRIES`.
    white : str
        Black and white in files of more than 8 bits, as `--white` takes it ("4095,none" if none
        held fractions); "" if there were no such files.
    pages : str
        Which pages of multi-page files were used: one of `skal.datasets.settings.PAGES`.

    Raises
    ------
    DataError
        If shapes, dtypes or label values are inconsistent.

    Examples
    --------
    >>> import numpy as np
    >>> import skal
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    >>> y = np.array([0, 1, 0, 1, -1, -1])
    >>> data = skal.ImageDataset(X, y, classes=("cat", "dog"), X_test=X[:2], y_test=y[:2])
    >>> int((data.y == -1).sum())
    2
    """

    X: Images
    y: Labels
    classes: tuple[str, ...]
    X_test: Images = field(default_factory=_no_images)
    y_test: Labels = field(default_factory=lambda: np.empty(0, np.int64))
    name: str = "arrays"
    paths: tuple[str, ...] = ()
    X_unlabeled: Images = field(default_factory=_no_images)
    paths_unlabeled: tuple[str, ...] = ()
    root: Path | None = None
    augmentation: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    split_seed: int | None = None
    geometry: str = "cover"
    white: str = ""
    pages: str = "first"

    def __post_init__(self) -> None:
        taken = {
            name: _pixels(name, getattr(self, name)) for name in ("X", "X_test", "X_unlabeled")
        }
        taken |= {name: _array(name, getattr(self, name)) for name in ("y", "y_test")}
        taken["classes"] = _names_of_classes(self.classes)
        for name, value in taken.items():
            object.__setattr__(self, name, value)
        _check_images("X", self.X)
        _check_labels("y", self.y, self.X, len(self.classes), lowest=MISSING_LABEL)
        for name, images in (("X_test", self.X_test), ("X_unlabeled", self.X_unlabeled)):
            if len(images):
                _check_images(name, images)
                if len(self.X) and images.shape[1:] != self.X.shape[1:]:
                    raise DataError(
                        f"{name} has images of shape {images.shape[1:]}; expected "
                        f"{self.X.shape[1:]}, as X has"
                    )
        _check_labels("y_test", self.y_test, self.X_test, len(self.classes), lowest=0)
        _check_paths("X", self.paths, self.X)
        _check_paths("X_unlabeled", self.paths_unlabeled, self.X_unlabeled)

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""
        return int((self.X if len(self.X) else self.X_unlabeled).shape[-1])

    @property
    def decoded_as(self) -> dict[str, str]:
        """Settings that decode other files in the same way as these images."""
        return {"geometry": self.geometry, "white": self.white, "pages": self.pages}

    def __repr__(self) -> str:
        channels, height, width = self.X.shape[1:]
        return (
            f"<ImageDataset {self.name}: {counted(len(self.X), 'image')}, "
            f"{counted(len(self.X_test), 'test image')}, {len(self.X_unlabeled)} unlabelled, "
            f"{counted(len(self.classes), 'class', 'classes')}, "
            f"{channels}x{height}x{width}>"
        )


def _array(name: str, values: Any) -> NDArray[Any]:
    """Return a list, tensor or table column as an array; raise a DataError if that fails."""
    try:
        found = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{name} is a {type(values).__name__} that is not array-like ({one_line(error)})"
        ) from error
    return found if found.size else found.astype(np.int64)  # empty: numpy's default is float


def _pixels(name: str, images: Any) -> Any:
    """Return an array of images (which may be on disk) unchanged, anything else as `_array`."""
    if isinstance(getattr(images, "dtype", None), np.dtype):
        return images
    found = _array(name, images)
    return found if found.size else _no_images()


def _names_of_classes(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise DataError(f"classes is {classes!r}; expected class names, such as ('cat', 'dog')")
    names = tuple(str(name) for name in classes)
    commonest, n = next(iter(Counter(names).most_common(1)), ("", 0))
    if n > 1:
        raise DataError(f"classes has {commonest!r} {n} times; expected unique names")
    return names


def _check_images(name: str, images: Images) -> None:
    """Raise a DataError if an array is not a batch of images, with a hint how to convert it."""
    hints = []
    if images.ndim == 4 and images.shape[3] <= 4 < min(images.shape[1:3]):
        hints = [f"; channels come first: use np.moveaxis({name}, -1, 1)"]
    elif images.ndim == 3:
        hints = [f"; for grey images use np.expand_dims({name}, 1)"]
    elif images.ndim == 2:
        hints = [f"; for flattened images use np.reshape({name}, (-1, channels, height, width))"]
    if images.dtype != np.uint8:
        hints.append(f"; if its values are from 0 to 255, use np.asarray({name}, np.uint8)")
    if hints or images.ndim != 4:
        raise DataError(
            f"{name} is {images.dtype} of shape {tuple(images.shape)}; expected uint8 of shape "
            f"(n, channels, height, width){''.join(hints)}"
        )


def _check_labels(name: str, labels: Labels, images: Images, n_classes: int, lowest: int) -> None:
    if labels.shape != (len(images),):
        raise DataError(f"{name} has shape {labels.shape}; expected ({len(images)},), one each")
    if not np.issubdtype(labels.dtype, np.integer):
        of_names = "; for class names use classes, y = np.unique(names, return_inverse=True)"
        raise DataError(
            f"{name} is {labels.dtype}; expected integers, indices into `classes`"
            f"{of_names if labels.dtype.kind in 'OSTU' else ''}"
        )
    if len(labels) and not (lowest <= labels.min() and labels.max() < n_classes):
        raise DataError(
            f"{name} has values from {labels.min()} to {labels.max()}; expected {lowest} to "
            f"{n_classes - 1} for {counted(n_classes, 'class', 'classes')}"
        )


def _check_paths(name: str, paths: tuple[str, ...], images: Images) -> None:
    if paths and len(paths) != len(images):
        raise DataError(
            f"got {counted(len(paths), 'path')} for {counted(len(images), 'image')} in {name}"
        )


def stratified_split(y: Labels, test_share: float, seed: int) -> tuple[Labels, Labels]:
    """Split indices into sorted training and test parts, stratified by class. The test part has the
    rounded share of each class, at least one image, but never a class's only one (which
    scikit-learn's splitters refuse).
    """
    rng = np.random.default_rng(seed)
    test: list[int] = []
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        n_test = min(max(round(test_share * len(members)), 1), len(members) - 1)
        test.extend(members[:n_test])
    test_indices = np.array(sorted(test), dtype=np.int64)
    return np.setdiff1d(np.arange(len(y)), test_indices), test_indices


def resize(images: Images, size: int | None) -> Images:
    """Resize uint8 images, shape (n, channels, height, width), to squares, with antialiasing."""
    if size is None or images.shape[2:] == (size, size):
        return images
    import torch
    from torchvision.transforms.functional import resize as resize_tensor

    resized = [
        resize_tensor(torch.from_numpy(chunk.copy()), [size, size], antialias=True).numpy()
        for chunk in np.array_split(images, max(1, len(images) // 4096))
    ]
    return np.concatenate(resized)
