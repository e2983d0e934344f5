"""`load_dataset`: a dataset by name, or a folder of images."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import DataError, FolderNotFoundError, ParameterError, UnknownNameError, blaming
from ..core.settings import settings_of
from .base import ImageDataset
from .builtin import CIFAR10_ARCHIVE, CIFAR10_FILES, DATASETS, OF_FILES
from .decoding import Decoding
from .deep import Ranges
from .doubles import tell_doubles
from .folder import DECODING, EXPECTED, load_folder
from .index import check_folder
from .settings import DataSettings

_SETTINGS = settings_of(DataSettings)


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Return the folder of data and caches: `data_dir`, ``$SKAL_DATA_DIR`` or ``./data``."""
    return Path(data_dir or os.environ.get("SKAL_DATA_DIR") or "data").expanduser()


def load_dataset(
    name_or_folder: str | Path,
    image_size: int | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    white: float | str | None = None,
    pages: str = "first",
) -> ImageDataset:
    """Load a dataset by name, or a folder of images.

    Parameters
    ----------
    name_or_folder : str or Path
        One of ``skal list datasets`` or ``module:Name``, both optionally with ``?key=value``;
        else a folder, read as `skal.datasets.folder.load_folder` describes. Write ``./name`` for
        a folder with the name of a dataset.
    image_size : int, optional
        Height and width in pixels; by default the dataset's own, for folders 48, which suits a
        small network trained from scratch. `skal.run` chooses the size that its network needs.
    data_dir : str or Path, optional
        Folder to look for files in, and for downloads and caches; by default
        ``$SKAL_DATA_DIR``, else ``./data``.
    seed : int, default=0
        Seed of the test split, for datasets without a given one.
    white : float or str, optional
        Value of white, or "BLACK:WHITE", in files of more than 8 bits; by default one for all
        files, found from some of them.
    pages : {"first", "mean", "all"}, default="first"
        Which pages of multi-page files to use; with "all" each page is an image, with a path such
        as ``stack.tif#2``.

    Returns
    -------
    ImageDataset

    Raises
    ------
    ParameterError
        If size, seed, white or pages is invalid.
    UnknownNameError
        If there is neither a dataset nor a folder of that name.
    DatasetNotFoundError
        If the files are missing and cannot be downloaded.
    DataError
        If no image can be read.

    Examples
    --------
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> data.X.shape, data.X.dtype, data.X_test.shape
    ((1438, 1, 8, 8), dtype('uint8'), (359, 1, 8, 8))
    """
    how = how_to_decode(white=white, pages=pages)
    data = load_as(name_or_folder, image_size, data_dir, seed, how)
    tell_doubles(data)
    return data


def how_to_decode(geometry: str = "cover", white: Any = None, pages: str = "first") -> Decoding:
    """Return how to decode a folder's files; raise a `UsageError` if an argument is invalid."""
    ranges = Ranges.parse(_SETTINGS["white"].check(None if white == "" else white))
    pages = _SETTINGS["pages"].check(pages)
    return replace(DECODING, geometry=geometry, ranges=ranges, pages=pages)


def load_as(
    name_or_folder: str | Path,
    image_size: int | None,
    data_dir: str | Path | None,
    seed: int,
    how: Decoding = DECODING,
) -> ImageDataset:
    """Load a dataset as `load_dataset`, its files decoded as `how`, without the log of
    duplicates.
    """
    image_size, seed = _SETTINGS["image_size"].check(image_size), _SETTINGS["seed"].check(seed)
    where = data_folder(data_dir)
    if is_folder(name_or_folder):
        place = _place_of(name_or_folder)
        data = load_folder(place, data_dir=where, image_size=image_size, seed=seed, decoding=how)
        dataset = str(data.root)
    else:
        dataset = str(name_or_folder)
        data = _load_named(dataset, {"data_dir": where, "image_size": image_size, "seed": seed})
    return replace(data, source={"dataset": dataset, "data_dir": str(where.resolve())})


def _place_of(folder: str | Path) -> Path:
    """Return the path of a folder; raise a UsageError if it is the downloaded CIFAR-10."""
    place = Path(os.path.expanduser(folder))  # noqa: PTH111 (Path's may raise)
    if place.name == CIFAR10_ARCHIVE or (place / CIFAR10_FILES[0]).is_file():
        raise FolderNotFoundError(
            f"{str(place)!r} is the downloaded CIFAR-10, not a folder of images; load it with "
            f"--dataset cifar10 --data-dir {shlex.quote(str(place.parent))}"
        )
    return place


def check_dataset(name_or_folder: str) -> None:
    """Raise an UnknownNameError or FolderNotFoundError if there is no such dataset or folder."""
    if is_folder(name_or_folder):
        check_folder(_place_of(name_or_folder), EXPECTED)
        return
    name = name_or_folder.partition("?")[0]
    if ":" not in name and name not in DATASETS:
        hint = f" (and there is no folder {name!r})"
        raise UnknownNameError("dataset", name, DATASETS.names(), hint)


def _load_named(spec: str, context: Mapping[str, Any]) -> ImageDataset:
    check_dataset(spec)
    with blaming(f"the dataset {spec} failed", DataError):
        data = DATASETS.resolve(spec).make(**context)
    if not isinstance(data, ImageDataset):
        raise DataError(
            f"the dataset {spec} returned {type(data).__name__}; expected a skal.ImageDataset"
        )
    return data


def folder_of(name_or_folder: str | Path, data_dir: str | Path | None) -> Path | None:
    """Return the folder of image files that a dataset is loaded from, or None for other
    datasets.
    """
    if is_folder(name_or_folder):
        return Path(name_or_folder).expanduser()
    find = OF_FILES.get(str(name_or_folder))
    return None if find is None else find(data_folder(data_dir))


def is_folder(name_or_folder: str | Path) -> bool:
    """Return whether a folder is meant: the name looks like a path, or such a path exists."""
    if not isinstance(name_or_folder, str | Path):
        raise ParameterError(
            f"dataset: got {type(name_or_folder).__name__}; expected a name or a folder (functions "
            "that take an ImageDataset also accept skal.ImageDataset(...) of your own arrays)"
        )
    text = str(name_or_folder)
    name = text.partition("?")[0]
    if isinstance(name_or_folder, Path) or name in DATASETS:
        return isinstance(name_or_folder, Path)
    is_path = name.startswith((".", "~")) or "/" in name or os.sep in name
    return is_path or (text != "" and os.path.exists(text))  # noqa: PTH110 (Path's may raise)
