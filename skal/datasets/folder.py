"""`load_folder`: a folder of images as an `ImageDataset`."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core.errors import DataError
from ..core.seeding import derive_seed
from ..core.text import counted
from .base import MISSING_LABEL, ImageDataset, Labels, stratified_split
from .decoding import Decoding
from .formats import page_of
from .index import ImageFile, check_folder, find_images
from .pixel_cache import decode_all
from .rows import take_rows

DECODING = Decoding(size=48, processes_from=2000)
PARTS = ("train", "test", "unlabeled")
TEST_SHARE = 0.2
MOST_TOLD = 10

_log = logging.getLogger("skal")


EXPECTED = "a folder with one subfolder of images per class"


def load_folder(
    root: Path,
    *,
    data_dir: Path,
    image_size: int | None = None,
    seed: int = 0,
    name: str | None = None,
    decoding: Decoding = DECODING,
) -> ImageDataset:
    """Read a folder of images as three-channel arrays; unreadable files are in `skipped`.

    ``ROOT/<class>/**`` is split by `seed`, stratified, with one fifth for testing;
    ``ROOT/train/<class>/**`` with ``ROOT/test/<class>/**`` (or ``val``) is a given split. Images
    directly under ``ROOT`` or ``ROOT/train`` or in ``ROOT/unlabeled`` are unlabelled, and so are
    those directly under ``ROOT/test`` if it has no others; next to a test set they are left out.
    Images are scaled to cover a square of `image_size` and centre-cropped, unless `decoding` names
    another of `skal.datasets.decoding.GEOMETRIES`. A `DataError` is raised if the folder does not
    exist or none of its images can be read.
    """
    check_folder(root, EXPECTED)
    files = _without_unlabeled_tests(find_images(root, pages=decoding.pages))
    how = decoding if image_size is None else replace(decoding, size=image_size)
    pixels, read, skipped, how = decode_all(root, files, how, data_dir / "cache")
    for path, reason in skipped[:MOST_TOLD]:
        _log.warning("skipped %s: %s", path, reason)
    if len(skipped) > MOST_TOLD:
        _log.warning("... and %d more unreadable files", len(skipped) - MOST_TOLD)
    if not read:
        path, reason = skipped[0]
        raise DataError(
            f"none of the {counted(len(files), 'image')} under {str(root)!r} can be read "
            f"({path}: {reason})"
        )
    classes, y = _labels_of(read)
    rows, split_seed = _parts(read, y, seed)
    _warn_of_unseen(classes, y[rows["train"]], y[rows["test"]])
    X, X_test, X_unlabeled = (take_rows(pixels, rows[part]) for part in PARTS)
    return ImageDataset(
        X=X,
        y=y[rows["train"]],
        X_test=X_test,
        y_test=y[rows["test"]],
        X_unlabeled=X_unlabeled,
        classes=classes,
        name=name or root.resolve().name,
        paths=tuple(read[row].path for row in rows["train"]),
        paths_unlabeled=tuple(read[row].path for row in rows["unlabeled"]),
        root=root.resolve(),
        augmentation=("flip", "shift"),
        skipped=tuple(skipped),
        split_seed=split_seed,
        geometry=how.geometry,
        white=str(how.ranges),
        pages=how.pages,
    )


def _labels_of(files: list[ImageFile]) -> tuple[tuple[str, ...], Labels]:
    """Return the class names, and the class id of each image."""
    classes = tuple(sorted({file.label for file in files if file.label is not None}))
    ids: dict[str | None, int] = {label: number for number, label in enumerate(classes)}
    ids[None] = MISSING_LABEL
    return classes, np.array([ids[file.label] for file in files], dtype=np.int64)


def _parts(files: list[ImageFile], y: Labels, seed: int) -> tuple[dict[str, Labels], int | None]:
    """Return the rows of each part, and the seed of the split unless the split is given."""
    rows = {part: np.flatnonzero([file.part == part for file in files]) for part in PARTS}
    if len(rows["test"]):
        return rows, None
    # split by files: pages of one file are too similar to be both trained and tested on
    of_file, first = _files_of([files[row].path for row in rows["train"]])
    _, test = stratified_split(y[rows["train"][first]], TEST_SHARE, derive_seed(seed, "split"))
    is_test = np.isin(of_file, test)
    rows["train"], rows["test"] = rows["train"][~is_test], rows["train"][is_test]
    return rows, seed


def _files_of(paths: list[str]) -> tuple[Labels, Labels]:
    """Return the number of each image's file, and the row of each file's first image."""
    numbers: dict[str, int] = {}
    of_file = np.array([numbers.setdefault(page_of(p)[0], len(numbers)) for p in paths], np.int64)
    return of_file, np.unique(of_file, return_index=True)[1].astype(np.int64)


def _without_unlabeled_tests(files: list[ImageFile]) -> list[ImageFile]:
    """Leave out unlabelled test images: they must not be trained on or labelled either."""
    kept = [file for file in files if file.is_of_use]
    if len(kept) < len(files):
        _log.warning(
            "skipped %d test images that are in no class folder, so that they have no label",
            len(files) - len(kept),
        )
    return kept


def _warn_of_unseen(classes: tuple[str, ...], y: Labels, y_test: Labels) -> None:
    unseen = sorted({classes[label] for label in np.setdiff1d(y_test, y)})
    if unseen and len(y):
        _log.warning(
            "these classes have test images, which count as errors, but no training images: %s",
            ", ".join(unseen),
        )
