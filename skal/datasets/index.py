"""Lists the images in a folder, with part and class; efficient for a million files."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import DataError, FolderNotFoundError
from ..core.kept import CACHE_TAG
from ..core.progress import progress
from ..core.text import counted
from .formats import FORMATS, missing_extras, suffixes
from .layout import Folder, Place, alike, is_unlabeled, read_layout
from .layout import ImageFile as ImageFile
from .paging import pages_apart
from .tables import METADATA, TABLES, is_table, read_tables, without_columns

if TYPE_CHECKING:
    from tqdm import tqdm

OTHER_PICTURES = frozenset(
    (".heic", ".heif", ".hif", ".jxl", ".svg", ".psd", ".tga", ".exr", ".hdr", ".pfm", ".qoi")
).union((".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".dcm", ".dicom", ".fits", ".fit", ".fts"))
"""Suffixes of pictures that skal does not read, or only with extras; users are warned of them."""
SYSTEM_FOLDERS = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)
"""Folders of operating systems and network drives; some hold copies and thumbnails."""

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class _Listing:
    """The contents of a folder, by subfolder."""

    images: list[tuple[Folder, list[str]]]
    others: Counter[str]
    empty: list[Folder]
    tables: list[str]


def find_images(root: Path, as_dataset: bool = True, pages: str = "first") -> list[ImageFile]:
    """List the image files under a folder: training, test, then unlabelled, each sorted by path.

    Hidden files and folders are ignored; links are followed, each folder once. As a dataset, a
    table labels the images if folders give fewer than two classes, and a `DataError` is raised if
    folders in the place of classes look like parts of a split, see `read_layout`. It is always
    raised if no file has an image suffix. With `pages` "all", each page of a file is an image, see
    `skal.datasets.paging`.
    """
    listing = _list(root, " in one subfolder per class" if as_dataset else "")
    has_table = as_dataset and bool(listing.tables)
    folders, refused = [folder for folder, _ in listing.images], None
    try:
        places = read_layout(folders, refuse=as_dataset)
    except DataError as error:
        if not has_table:
            raise
        refused, places = error, read_layout(folders, refuse=False)
    files: list[ImageFile] = []
    ignored: Counter[str] = Counter()
    for folder, names in listing.images:
        part, label, _ = places[folder]
        if part == "other":
            ignored[folder[0]] += len(names)
            continue
        start = "".join(f"{name}/" for name in folder)
        label = None if label is None else sys.intern(label)
        files += [ImageFile(start + name, part, label) for name in names]
        names.clear()  # else each name would be in memory twice
    needs_table = has_table and (refused or len({file.label for file in files} - {None}) < 2)
    labels = read_tables(root, files, listing.tables, bool(needs_table)) if has_table else {}
    if refused and not labels:
        raise refused
    _warn_of_ignored(listing, ignored, places)
    if labels and needs_table:
        files = [_labelled(file, labels.get(file.path)) for file in files]
    files = _by_part(files)
    if pages != "all":
        return files
    apart = pages_apart(root, [file.path for file in files])
    return [
        file if name == file.path else file._replace(path=name)
        for file, names in zip(files, apart, strict=True)
        for name in names
    ]


def _labelled(file: ImageFile, label: str | None) -> ImageFile:
    """Return a file with the label from a table instead of its folder's."""
    part = "test" if file.part == "test" else "unlabeled" if label is None else "train"
    return ImageFile(file.path, part, label)


def _by_part(files: list[ImageFile]) -> list[ImageFile]:
    """Return the files by part, sorted. If no test image is labelled, as in competitions, the test
    images count as unlabelled.
    """
    found: dict[str, list[ImageFile]] = {"train": [], "test": [], "unlabeled": []}
    for file in files:
        found[file.part].append(file)
    if all(file.label is None for file in found["test"]):
        flat, found["test"] = found["test"], []
        found["unlabeled"].extend(ImageFile(file.path, "unlabeled", None) for file in flat)
    for some in found.values():
        some.sort(key=attrgetter("path"))
    return [file for some in found.values() for file in some]


def check_folder(root: Path, expected: str = "a folder of images") -> None:
    """Raise a FolderNotFoundError if the folder does not exist."""
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise FolderNotFoundError(f"{str(root)!r} {what}; expected {expected}")


def may_have_classes(root: Path) -> bool:
    """Return quickly whether a folder may have labels: it has a subfolder or a table of labels.
    Also return True if it has no images, which is reported elsewhere.
    """
    with os.scandir(root) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    tables = {entry.name for entry in shown if is_table(entry.name)}
    if any(entry.is_dir() for entry in shown) or (tables and tables - without_columns(root).keys()):
        return True
    return not count_images(root, 1)


def count_images(root: Path, most: int) -> int:
    """Count the image files under a folder, stopping soon after `most`."""
    n, readable = 0, suffixes()
    for _, names in _walk(root, quiet=True):
        n += sum(name.lower().endswith(readable) for name in names)
        if n >= most:
            break
    return n


def list_images(root: Path) -> list[str]:
    """Return the sorted relative paths of all images in a folder; see `find_images`."""
    listing = _list(root)
    _log_ignored_files(listing.others)
    return sorted(
        "".join(f"{part}/" for part in folder) + name
        for folder, names in listing.images
        for name in names
    )


def _list(root: Path, layout: str = "") -> _Listing:
    listing, readable = _Listing([], Counter(), [], []), suffixes()
    for folder, names in _walk(root):
        found = [name for name in names if name.lower().endswith(readable)]
        if len(found) < len(names):
            others = set(names).difference(found)
            listing.others.update(map(_suffix, others))
            listing.tables.extend("/".join((*folder, name)) for name in filter(is_table, others))
        if found:
            listing.images.append((folder, found))
        else:
            listing.empty.append(folder)
    if not listing.images:
        raise DataError(
            f"no images under {str(root)!r} (found: {_count(listing.others) or 'no files'}); "
            f"expected {', '.join(FORMATS)} files{layout}"
        )
    return listing


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower().rstrip(".")  # noqa: PTH122 (Path is slow in a million)


def _count(found: Counter[str], most: int = 5) -> str:
    # ties in alphabetical order, since folders list files in arbitrary order
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{n} {suffix or 'without a suffix'}" for suffix, n in ordered[:most]]
    rest = found.total() - sum(n for _, n in ordered[:most])
    return ", ".join(parts + [counted(rest, "other")] * (rest > 0))


def _warn_of_ignored(listing: _Listing, ignored: Counter[str], places: dict[Folder, Place]) -> None:
    """Warn of folders and classes that the user may have meant differently."""
    holders = {place.holder for place in places.values() if place.holder is not None}
    classes = {folder[: len(holder) + 1] for folder in places for holder in holders}
    for folder in sorted(set(listing.empty) - classes):
        if folder and folder[:-1] in holders and not any(map(is_unlabeled, folder)):
            _log.warning("the folder %r has no images and is not a class", "/".join(folder))
    for name, count in sorted(ignored.items()):
        images = counted(count, "image")
        _log.warning("ignored %r (%s): it is neither train, test nor unlabeled", name, images)
    for same in alike(place.label for place in places.values() if place.label is not None):
        names = " and ".join(map(repr, same))
        _log.warning("the classes %s differ only by case or spaces, and count as different", names)
    _log_ignored_files(listing.others)


def _log_ignored_files(others: Counter[str]) -> None:
    """Log which files are ignored, as a warning if pictures are among them."""
    tables = {*TABLES, _suffix(METADATA)}
    others = Counter({suffix: n for suffix, n in others.items() if suffix not in tables})
    if not others:
        return
    hint = "; convert these pictures to PNG or JPEG" if others.keys() & OTHER_PICTURES else ""
    for extra in missing_extras(others):
        hint += f", or read {extra.name} with pip install 'skal[{extra.extra}]'"
    level = logging.WARNING if hint else logging.INFO
    listed = _count(others, most=20)
    _log.log(level, "ignored files: %s%s", listed, hint)


def _walk(root: Path, quiet: bool = False) -> Iterator[tuple[Folder, list[str]]]:
    """Yield each folder under `root` with its file names, parents first, in order."""
    warn = _log.debug if quiet else _log.warning
    seen: dict[tuple[int, int], Folder] = {}
    waiting: list[Folder] = [()]
    with progress(desc="listing", unit="file") as bar:
        while waiting:
            folder = waiting.pop()
            try:
                identity, folders, names = _scan(os.path.join(root, *folder), bar)  # noqa: PTH118
            except OSError as error:
                warn("ignored a folder that cannot be listed: %s", error)
                continue
            first = seen.setdefault(identity, folder)
            if first != folder:
                warn("ignored %r, which links to %r", _shown(folder), _shown(first))
            elif CACHE_TAG not in names:
                waiting.extend((*folder, name) for name in sorted(folders, reverse=True))
                yield folder, names


def _scan(directory: str, bar: tqdm[None]) -> tuple[tuple[int, int], list[str], list[str]]:
    """Return a folder's identity, subfolders and files, without hidden and system ones."""
    folders, names = [], []
    status = os.stat(directory)  # noqa: PTH116
    with os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            if not is_folder:
                names.append(name)
            elif name not in SYSTEM_FOLDERS:
                folders.append(name)
    bar.update(len(names))
    return (status.st_dev, status.st_ino), folders, names


def _shown(folder: Folder) -> str:
    return "/".join(folder) or "."


def listed(places: Iterable[Path], pages: str = "first") -> list[str]:
    """Return the given images, and those in the given folders, in order and without duplicates;
    `pages` as in `find_images`.
    """
    images: list[str] = []
    for place in places:
        if place.is_dir():
            start = "" if place == Path() else os.path.join(place, "")  # noqa: PTH118
            images.extend(start + path for path in list_images(place))
        else:
            images.append(str(place))
    if pages == "all":
        images = [*chain(*pages_apart(Path(), images))]
    first: dict[str, str] = {}
    here = os.path.join(Path.cwd(), "")  # noqa: PTH118
    for image in images:
        first.setdefault(os.path.join(here, image), image)  # noqa: PTH118
    return [*first.values()]
