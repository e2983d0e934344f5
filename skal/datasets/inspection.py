"""`inspect_folder`: the contents of an image folder, and likely problems."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..core.errors import DataError, SkalError
from ..core.progress import progress
from ..core.text import counted
from .base import Images
from .decoding import Look, look_at, try_file
from .doubles import doubles_of, near_doubles
from .folder import DECODING
from .hashes import hashes_of
from .index import ImageFile, check_folder, find_images
from .pictures import opened
from .pixel_cache import decode_all

SIDE = 48
"""Side in pixels at which images are compared."""
DEEP_LOOKED_AT = 64
WHOLE = 2**16
"""Needed pixels so large that no JPEG is reduced while it is opened."""
FEW = 5
"""Images per class below which training and test are unreliable."""
UNEVEN = 20
"""Largest ratio of class sizes without a warning."""

T = TypeVar("T")
Header = tuple[str, str, tuple[int, int]]
"""Format, mode, and size (width, height)."""

_log = logging.getLogger("skal")


@dataclass
class Inspection:
    """The result of `inspect_folder`.

    `classes` are numbers of images by part ("train", "test") and class, `formats` and `modes` by
    format and Pillow mode; `sizes` are width and height of the smallest, median and largest image;
    `ranges` the lowest and highest values, without the most extreme pixels, in some images of each
    mode of more than 8 bits; `unreadable` files with reasons; `duplicates` paths of training images
    that are "in_test", "repeated" or "contradicting", with their equals in `originals`;
    `near_duplicates` pairs that look alike but are not equal; `problems` what to fix before
    training.
    """

    folder: str
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    n_unlabeled: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    duplicates: dict[str, list[str]] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def inspect_folder(root: Path, data_dir: Path) -> Inspection:
    """Inspect a folder of images: layout, files, duplicates; decoded pixels are cached. Raise a
    FolderNotFoundError or DataError if the folder does not exist or has no images.
    """
    check_folder(root)
    found = Inspection(str(root.resolve()))
    with _collecting(found.problems):
        try:
            files = find_images(root)
        except DataError as error:
            files = find_images(root, as_dataset=False)
            found.problems.append(str(error))
        _count(found, files)
        _look_at_headers(found, root, [file.path for file in files])
        how = replace(DECODING, size=SIDE)
        pixels, read, found.unreadable, _ = decode_all(root, files, how, data_dir / "cache")
    if found.unreadable:
        found.problems.append(f"{counted(len(found.unreadable), 'file')} cannot be read")
    _look_for_doubles(found, pixels, read)
    return found


def _look_for_doubles(found: Inspection, pixels: Images, read: Sequence[ImageFile]) -> None:
    labels = np.array([file.label or "" for file in read], object)
    rows = {
        part: np.flatnonzero([file.part == part for file in read]) for part in ("train", "test")
    }
    hashes = hashes_of(pixels)
    doubles = doubles_of(hashes[rows["train"]], labels[rows["train"]], hashes[rows["test"]])
    words = {
        "in_test": ("training image is", "training images are", "also in the test set"),
        "repeated": ("training image repeats", "training images repeat", "an earlier one"),
        "contradicting": ("of them has", "of them have", "a different label than the original"),
    }
    paths = [read[int(row)].path for row in rows["train"]]
    again = [*doubles.repeated, *doubles.contradicting]
    found.originals = {paths[row]: paths[doubles.originals[row]] for row in again}
    for name, (one, several, what) in words.items():
        found.duplicates[name] = [paths[row] for row in getattr(doubles, name)]
        if found.duplicates[name]:
            found.problems.append(f"{counted(len(found.duplicates[name]), one, several)} {what}")
    near = near_doubles(pixels)
    found.near_duplicates = [(read[one].path, read[other].path) for one, other in near]
    if near:
        pairs = counted(len(near), "pair of images looks", "pairs of images look")
        found.problems.append(f"{pairs} alike")


@contextmanager
def _collecting(problems: list[str]) -> Iterator[None]:
    """Collect warnings instead of showing them; progress is still shown."""

    def take(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        if record.getMessage() not in problems:
            problems.append(record.getMessage())
        return False

    _log.addFilter(take)
    try:
        yield
    finally:
        _log.removeFilter(take)


def _count(found: Inspection, files: Sequence[ImageFile]) -> None:
    counts: dict[str, Counter[str]] = {}
    for file in files:
        if file.label is None:
            found.n_unlabeled += 1
        else:
            counts.setdefault(file.part, Counter())[file.label] += 1
    found.classes = {part: dict(sorted(count.items())) for part, count in counts.items()}
    train = counts.get("train", Counter())
    if not train:
        found.problems.append("no image has a label")
        return
    if len(train) == 1:
        found.problems.append(f"there is only one class, {next(iter(train))!r}")
    few = [name for name, n in train.items() if n < FEW]
    if few:
        found.problems.append(f"fewer than {FEW} images: {', '.join(few)}")
    (most, n_most), (least, n_least) = train.most_common(1)[0], train.most_common()[-1]
    if n_most > UNEVEN * n_least:
        found.problems.append(f"{most!r} has {counted(n_most, 'image')} and {least!r} {n_least}")


def _look_at_headers(found: Inspection, root: Path, paths: Sequence[str]) -> None:
    """Read formats, modes and sizes without decoding, and values of some deep images."""
    with warnings.catch_warnings(), ThreadPoolExecutor() as threads:
        warnings.simplefilter("ignore")  # of odd metadata and sizes; decoding reports errors
        looked = threads.map(lambda path: _tried(root / path, _header), paths)
        seen = list(progress(looked, total=len(paths), desc="reading headers", unit="file"))
        pairs = list(zip(paths, seen, strict=True))
        facts = [fact for fact in seen if fact is not None]
        found.formats = dict(Counter(name for name, _, _ in facts).most_common())
        found.modes = dict(Counter(mode for _, mode, _ in facts).most_common())
        deep = [
            path
            for mode in found.modes
            if mode[0] in "IF"
            for path in _some([p for p, fact in pairs if fact is not None and fact[1] == mode])
        ]
        looks = threads.map(lambda path: _tried(root / path, lambda p: look_at(p, "first")), deep)
        found.ranges = _ranges_of([look for look in looks if look is not None])
    sizes = sorted((size for _, _, size in facts), key=lambda size: (size[0] * size[1], size))
    if sizes:
        places = {"smallest": 0, "median": len(sizes) // 2, "largest": -1}
        found.sizes = {name: sizes[place] for name, place in places.items()}


def _tried(path: Path, read: Callable[[Path], T]) -> T | None:
    """Read part of a file; return None if that fails, since decoding reports why."""
    try:
        found = try_file(path, read, ())
    except SkalError:
        return None
    return None if isinstance(found, str) else found


def _header(path: Path) -> Header:
    with opened(path, WHOLE) as picture:
        return picture.format, picture.mode, (picture.width, picture.height)


def _some(paths: Sequence[str]) -> Sequence[str]:
    return paths[:: max(1, -(-len(paths) // DEEP_LOOKED_AT))]


def _ranges_of(looks: Sequence[Look]) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value by mode."""
    found: dict[str, tuple[float, float]] = {}
    for look in looks:
        if look.extent is not None:
            low, high = found.get(look.mode, look.extent)
            found[look.mode] = (min(low, look.extent.black), max(high, look.extent.white))
    return found


def report(found: Inspection, most: int = 5) -> list[str]:
    """Return the findings as lines of text, at most `most` of each kind."""

    def some(items: Sequence[Any], most: int = most) -> list[str]:
        lines = [f"    {' = '.join(item) if isinstance(item, tuple) else item}" for item in items]
        return lines[:most] + [f"    ... and {len(lines) - most} more"] * (len(lines) > most)

    lines = [found.folder]
    for part, count in found.classes.items():
        images, of = counted(sum(count.values()), "image"), counted(len(count), "class", "classes")
        lines.append(f"  {part}: {images} of {of}")
        lines += some([f"{name}: {n}" for name, n in count.items()], 4 * most)
    if found.n_unlabeled:
        lines.append(f"  unlabelled: {counted(found.n_unlabeled, 'image')}")
    for name, facts in (("formats", found.formats), ("modes", found.modes)):
        lines.append(f"  {name}: {', '.join(f'{key} {n}' for key, n in facts.items())}")
    if found.sizes:
        sizes = ", ".join(f"{name} {w} x {h}" for name, (w, h) in found.sizes.items())
        lines.append(f"  pixels: {sizes}")
    for mode, (low, high) in found.ranges.items():
        lines.append(f"  values of mode {mode}: {low:g} to {high:g}")
    details: dict[str, Sequence[Any]] = {
        "unreadable": [f"{path}: {reason}" for path, reason in found.unreadable],
        "also in the test set": found.duplicates.get("in_test", []),
        "repeat an earlier one": _pairs(found, "repeated"),
        "with a different label than the original": _pairs(found, "contradicting"),
        "look alike": found.near_duplicates,
    }
    for name, items in details.items():
        if items:
            lines += [f"  {name}:", *some(items)]
    lines.append("problems:" if found.problems else "no problems found")
    return lines + [f"  {problem}" for problem in found.problems]


def _pairs(found: Inspection, name: str) -> list[tuple[str, str]]:
    return [(path, found.originals[path]) for path in found.duplicates.get(name, [])]
