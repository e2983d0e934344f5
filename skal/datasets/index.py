"""Which images a folder holds, and what their places say about them; made for a million files."""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..core.errors import DataError
from ..core.kept import CACHE_TAG
from ..core.progress import progress
from .decoding import FORMATS

if TYPE_CHECKING:
    from tqdm import tqdm

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
OTHER_PICTURES = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".tga", ".ppm", ".pgm", ".pbm")
).union((".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".dcm"))
"""Suffixes of pictures that are not read, which their owner should know."""
UNLABELED = frozenset(("unlabeled", "unlabelled"))
VALIDATION = frozenset(("val", "valid", "validation"))
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SYSTEM_FOLDERS = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)
"""Put there by operating systems and network drives; some hold copies and thumbnails."""

Parts: TypeAlias = tuple[str, ...]
"""A folder's place: its names from the root on; empty for the root itself."""

_log = logging.getLogger("skal")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file found: where it is, and what its place says about it."""

    path: str
    part: str  # "train", "test" or "unlabeled"
    label: str | None  # None also for a test image in no class's folder

    @property
    def is_of_use(self) -> bool:
        """Whether it can be trained on, labelled or tested on; a test needs a known class."""
        return self.part != "test" or self.label is not None


@dataclass(frozen=True)
class _Listing:
    """What lies in a folder, by subfolder."""

    images: list[tuple[Parts, list[str]]]
    others: Counter[str]
    empty: list[Parts]


def find_images(root: Path) -> list[ImageFile]:
    """List the image files under a folder, training part first, then test, then unlabelled, each
    sorted by relative path. Hidden files and folders are passed over, links followed, each folder
    once. A `DataError` is raised if no file has the suffix of an image.
    """
    listing = _list(root)
    parts = _given_parts([folder for folder, _ in listing.images])
    found: dict[str, list[ImageFile]] = {"train": [], "test": [], "unlabeled": []}
    passed_over: Counter[str] = Counter()
    for folder, names in listing.images:
        part, label = _place(folder, parts)
        if part not in found:
            passed_over[folder[0]] += len(names)
            continue
        start = "".join(f"{name}/" for name in folder)
        found[part].extend(ImageFile(start + name, part, label) for name in names)
        names.clear()  # or each name would be in memory twice
    _tell_passed_over(listing, passed_over, parts)
    if all(file.label is None for file in found["test"]):  # as of a competition: nothing to test on
        flat, found["test"] = found["test"], []
        found["unlabeled"].extend(ImageFile(file.path, "unlabeled", None) for file in flat)
    for files in found.values():
        files.sort(key=attrgetter("path"))
    return [file for files in found.values() for file in files]


def count_images(root: Path, most: int) -> int:
    """Count the image files under a folder, up to `most` or a little more."""
    n = 0
    for _, names in _walk(root, quiet=True):
        n += sum(name.lower().endswith(SUFFIXES) for name in names)
        if n >= most:
            break
    return n


def list_images(root: Path) -> list[str]:
    """List sorted relative paths of all images in a folder; see `find_images`."""
    listing = _list(root)
    _tell_pictures(listing.others)
    return sorted(
        "".join(f"{part}/" for part in folder) + name
        for folder, names in listing.images
        for name in names
    )


def _list(root: Path) -> _Listing:
    listing = _Listing([], Counter(), [])
    for folder, names in _walk(root):
        found = [name for name in names if name.lower().endswith(SUFFIXES)]
        if len(found) < len(names):
            listing.others.update(map(_suffix, set(names).difference(found)))
        if found:
            listing.images.append((folder, found))
        else:
            listing.empty.append(folder)
    if not listing.images:
        raise DataError(
            f"no image under {str(root)!r} (found: {_count(listing.others) or 'no file'}); "
            f"expected {', '.join(FORMATS)} files in one subfolder per class"
        )
    return listing


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower().rstrip(".")  # noqa: PTH122 (Path is slow in a million)


def _count(suffixes: Counter[str], most: int = 5) -> str:
    return ", ".join(
        f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(most)
    )


def _tell_passed_over(listing: _Listing, passed_over: Counter[str], parts: dict[str, str]) -> None:
    """Say what somebody may have meant as a class, a part or an image, and is none."""
    depth = 2 if parts else 1
    folders = {folder[:depth] for folder, _ in listing.images}
    for folder in sorted(set(listing.empty) - folders):
        if len(folder) == depth and not UNLABELED & {name.lower() for name in folder}:
            _log.warning("the folder %r has no image in it and is not a class", "/".join(folder))
    for name, count in sorted(passed_over.items()):
        _log.warning("passed over %r (%d images): neither train, test nor unlabeled", name, count)
    _tell_pictures(listing.others)


def _tell_pictures(others: Counter[str]) -> None:
    pictures = Counter({suffix: others[suffix] for suffix in OTHER_PICTURES & set(others)})
    if pictures:
        told, formats = _count(pictures), ", ".join(FORMATS)
        _log.warning(
            "passed over pictures that are not read: %s; convert them to %s", told, formats
        )


def _walk(root: Path, quiet: bool = False) -> Iterator[tuple[Parts, list[str]]]:
    """Yield each folder below `root` with the names of its files, parents first, in order."""
    warn = _log.debug if quiet else _log.warning
    seen: dict[tuple[int, int], Parts] = {}
    waiting: list[Parts] = [()]
    with progress(desc="listing", unit="file") as bar:
        while waiting:
            folder = waiting.pop()
            try:
                identity, folders, names = _scan(os.path.join(root, *folder), bar)  # noqa: PTH118
            except OSError as error:
                warn("passed over a folder that cannot be listed: %s", error)
                continue
            first = seen.setdefault(identity, folder)
            if first != folder:
                warn("passed over %r, which links to %r", _shown(folder), _shown(first))
            elif CACHE_TAG not in names:
                waiting.extend((*folder, name) for name in sorted(folders, reverse=True))
                yield folder, names


def _scan(directory: str, bar: tqdm[None]) -> tuple[tuple[int, int], list[str], list[str]]:
    """Return a folder's identity, and its subfolders and files but for hidden and system ones."""
    folders, names = [], []
    status = os.stat(directory)  # noqa: PTH116
    with os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            is_folder = False
            with suppress(OSError):  # a link to itself
                is_folder = entry.is_dir()
            if not is_folder:
                names.append(name)
                bar.update()
            elif name not in SYSTEM_FOLDERS:
                folders.append(name)
    return (status.st_dev, status.st_ino), folders, names


def _shown(folder: Parts) -> str:
    return "/".join(folder) or "."


def _given_parts(folders: Iterable[Parts]) -> dict[str, str]:
    """Map the top folders of a given split to its parts, empty if none is given. A folder "train"
    (of trains, say) is a part if it has folders of its own, or only other parts beside it.
    """
    tops, nested = set[str](), set[str]()
    for folder in folders:
        tops.update(folder[:1])
        nested.update(folder[:1] if len(folder) > 1 else ())
    parts = {top: PARTS[top.lower()] for top in tops if top.lower() in PARTS}
    validation = {top for top in tops if top.lower() in VALIDATION}
    alone = all(top in {*parts, *validation} or top.lower() in UNLABELED for top in tops)
    if "train" not in (parts[top] for top in parts if alone or top in nested):
        return {}
    if "test" not in (parts[top] for top in parts if top in nested):
        parts.update((top, "test") for top in validation & nested)
    return parts


def _place(folder: Parts, parts: dict[str, str]) -> tuple[str, str | None]:
    """Tell from where images lie which part ("other" for none) and class they belong to."""
    part = "train"
    if parts and folder and folder[0].lower() not in UNLABELED:
        part, folder = parts.get(folder[0], "other"), folder[1:]
    if part != "other" and (not folder or folder[0].lower() in UNLABELED):
        return ("test" if part == "test" else "unlabeled"), None
    # macOS spells an accented name in other code points than the rest, and it is the same class
    label = unicodedata.normalize("NFC", folder[0]) if folder else None
    return part, None if label is None else sys.intern(label)
