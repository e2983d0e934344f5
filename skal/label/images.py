"""The images of a project: found, numbered once for all, and known again where they were moved."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.errors import DataError
from ..core.text import counted, plural
from ..datasets.formats import page_of
from ..datasets.index import find_images
from .listing import Files, Paths
from .store import Store

AT_ONCE, AT_CLOSE = 1000, 10
"""How many images are read at a time, and how many times when a project is closed."""
AT_START, BYTES_AT_START = 200, 2**28
"""How many labelled images, and of how many bytes together, are read when a project is opened, to
see whether they are the same."""
COARSE = 2.0
"""Seconds by which the clock of a file system may lag behind."""
NOWHERE = ".skal/replaced/"
"""Before the path of an image whose place another one has: no folder, but a name that none has."""
MOST_TOLD = 10

_log = logging.getLogger("skal")


def find(root: Path, pages: str) -> Files:
    """Return the images of a folder, `pages` as in `find_images`; an error if there are none."""
    return Files(find_images(root, as_dataset=False, pages=pages))


def taking_part(root: Path, files: Files) -> list[str]:
    """Return the paths of all images but those of a given test set, sorted."""
    there = sorted(files.paths_but("test"))
    if not there:
        raise DataError(f"no image under {str(root)!r} but those under test/")
    return there


class Times:
    """When files of a folder got their contents and their places; the system is asked once of each
    folder below it.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.join(root, "")  # noqa: PTH118 (Path is slow in many)
        self._of_folders: dict[str, float] = {"": 0.0}

    def status(self, path: str) -> os.stat_result | None:
        """Return that of the file of an image; None if it cannot be had."""
        try:
            return os.stat(page_of(self._root + path)[0])  # noqa: PTH116 (as above)
        except OSError:
            return None

    def placed(self, path: str, status: os.stat_result) -> float:
        """Return when a file, or a folder that it is in, last got its name, or a newer time."""
        return max(status.st_ctime, self._of_folder(path.rpartition("/")[0]))

    def _of_folder(self, folder: str) -> float:
        if folder not in self._of_folders:
            above = self._of_folder(folder.rpartition("/")[0])
            found = self.status(folder)
            self._of_folders[folder] = max(above, found.st_ctime if found else 0.0)
        return self._of_folders[folder]


class Others(NamedTuple):
    """Labelled images where now another file lies than when they were labelled: those whose file
    was `written` since, so that it was edited, or replaced by a new one; and those whose file is
    older than the label, so that it `came` from another place.
    """

    written: list[int]
    came: list[int]


class Numbering(NamedTuple):
    """Which numbers get which paths, how many labelled images lie elsewhere than before, and which
    of them have another content.
    """

    paths: dict[int, str]
    n_moved: int
    edited: list[int]


def find_others(
    root: Path,
    store: Store,
    known: Mapping[int, str],
    there: Container[str],
    labelled_at: Callable[[int], float],
) -> Others:
    """Find the labelled images where now another file lies than when they were `labelled_at`, in
    seconds since 1970.

    A file of the same size is read if it, or a folder that it is in, got its place or a newer time
    since: of many the latest alone, since a folder that was copied is not to be read at each start.
    But where a file came from another place all are read: names were given anew.
    """
    contents, times = store.contents(), Times(root)
    others, written = Others([], []), dict[int, bool]()
    later: list[tuple[float, int, int]] = []
    same: list[int] = []

    def take(n: int) -> None:
        (others.written if written[n] else others.came).append(n)

    def look(images: Iterable[int]) -> None:
        for n in images:
            if content_of(root / known[n]) not in (None, contents[n]):
                take(n)

    for n, (size, _) in contents.items():
        status = times.status(known[n]) if n in known and known[n] in there else None
        if status is None:
            continue
        since, placed = labelled_at(n) - COARSE, times.placed(known[n], status)
        written[n] = status.st_mtime >= since
        if status.st_size != size:
            take(n)
        elif placed >= since:
            later.append((placed, n, size))
        else:
            same.append(n)
    later.sort(reverse=True)
    sizes = np.cumsum([size for _, _, size in later])
    n_first = min(AT_START, int(np.searchsorted(sizes, BYTES_AT_START, side="right")))
    look(n for _, n, _ in later[:n_first])
    if others.came:
        look([*(n for _, n, _ in later[n_first:]), *same])
    return others


def new_numbers(
    root: Path,
    store: Store,
    known: Mapping[int, str],
    there: Mapping[str, str],
    others: Others,
    labelled_at: Callable[[int], float],
    hashed: dict[str, tuple[int, str] | None],
) -> Numbering:
    """Return which numbers images get that are not `known` where they lie, or of which `others` lie
    there.

    Labelled images that lie elsewhere now keep their number, of several alike by their names; new
    ones get the next. The number of an image whose place another one has, and whose content is
    nowhere, gets a path that there cannot be; but a file that was written anew in its place keeps
    its number.
    What is `hashed` already is not read again, and more is added to it.
    """
    contents = store.contents()
    new = sorted(there.keys() - known.values() if known else there)
    elsewhere = [*others.written, *others.came]
    absent = (n for n in contents if known.get(n) not in there)
    sought = {n: contents[n] for n in (*elsewhere, *absent)}
    candidates = [*new, *(known[n] for n in elsewhere)]
    if elsewhere:
        since = min(map(labelled_at, elsewhere)) - COARSE
        candidates += _placed_since(since, root, known, there, contents)
    sizes = {size for size, _ in sought.values()}
    by_content: dict[tuple[int, str] | None, list[str]] = {}
    for path in candidates if sought else ():
        if path not in hashed:
            hashed[path] = content_of(root / path, sizes)
        by_content.setdefault(hashed[path], []).append(path)
    moved: dict[int, str] = {}
    for number, content in sought.items():
        if alike := by_content.get(content):
            name = known[number].rpartition("/")[2]
            moved[number] = min(alike, key=lambda path: path.rpartition("/")[2] != name)
            alike.remove(moved[number])
    taken = {*moved.values()}
    # where none is found elsewhere, they were edited by what keeps the times of files
    came = others.came if any(n in moved for n in elsewhere) else []
    replaced = {n for n in known if known[n] in taken}.union(came) - moved.keys()
    edited = [n for n in elsewhere if n not in moved and n not in replaced]
    vacant = {known[n] for n in (*moved, *replaced) if known[n] in there}
    numbered = sorted({*new, *vacant} - taken)
    fresh = dict(enumerate(numbered, max(known, default=-1) + 1))
    nowhere = {n: f"{NOWHERE}{known[n]}" for n in sorted(replaced)}
    return Numbering({**moved, **nowhere, **fresh}, len(moved), edited)


def _placed_since(
    since: float,
    root: Path,
    known: Mapping[int, str],
    there: Container[str],
    contents: Container[int],
) -> Iterator[str]:
    """Yield the paths of known images without a label that may have another file than before."""
    times = Times(root)
    for n, path in known.items():
        status = times.status(path) if n not in contents and path in there else None
        if status is not None and times.placed(path, status) >= since:
            yield path


def really_gone(gone: Mapping[int, str], there: Mapping[str, str]) -> dict[int, str]:
    """Return those images, of such that are not there, that are not there as pages of a file
    either, nor as the file of a page.
    """
    if not gone:
        return {}
    files = {place for place, page in map(page_of, there) if page is not None}

    def is_there(path: str) -> bool:
        place, page = page_of(path)
        return place in files if page is None else place in there

    return {number: path for number, path in gone.items() if not is_there(path)}


def labels_of_folders(files: Files, paths: Paths, ids: Mapping[str, int]) -> dict[int, int]:
    """Return the class of each image in a class folder.

    `paths` are those of images that take part, and `ids` those of classes, by all names that they
    have or had.
    """
    if not any(label in ids for _, label in files.counts()):
        return {}
    numbers = paths.numbers()
    return {
        numbers[file.path]: ids[file.label]
        for file in files
        if file.label is not None and file.label in ids and file.path in numbers
    }


def tell_left_out(files: Files, ids: Container[str]) -> None:
    """Tell of folders that are no class, and of images that take no part."""
    others, n_of_test = Counter[str](), 0
    for (part, label), n in files.counts().items():
        n_of_test += n * (part == "test")
        if label is not None and label not in ids:
            others[label] += n
    by_name = sorted(others.items())
    for name, count in by_name[:MOST_TOLD]:
        images = counted(count, "image counts", "images count")
        _log.info("the folder %r is no class: its %s as unlabelled", name, images)
    if rest := by_name[MOST_TOLD:]:
        n = sum(count for _, count in rest)
        more = counted(len(rest), "more folder", "more folders")
        _log.info("... nor %s %s, of %s", plural(len(rest), "is", "are"), more, counted(n, "image"))
    if n_of_test:
        images = counted(n_of_test, "image under test/ takes", "images under test/ take")
        _log.info("%s no part in labelling", images)


def content_of(path: Path, sizes: Iterable[int] | None = None) -> tuple[int, str] | None:
    """Return size and SHA-256 of a file, and of a page its number, too; None if it cannot be read,
    or has none of some sizes.
    """
    place, page = page_of(str(path))
    path = Path(place)
    try:
        if not path.is_file():  # to open a pipe may take for ever
            return None
        size = path.stat().st_size
        if sizes is not None and size not in sizes:
            return None
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return size, digest if page is None else f"{digest}#{page}"
    except OSError:
        return None


class Contents:
    """Writes size and hash of what was labelled, so that moved files are known again.

    Nobody waits for more than a few thousand images: others follow while the project is open, or
    when it is opened again.
    """

    def __init__(self, root: Path, store: Store, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._root = root
        self._store = store
        self._known = set(store.contents())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="skal-contents")
        self._waiting: list[Future[None]] = []

    def write(self, paths: Mapping[int, str], images: Iterable[int]) -> None:
        """Write those of some images that are there and not written yet."""
        new = [image for image in images if image not in self._known and image in paths]
        self._write(paths, new[: self._at_once])
        self.write_later(paths, new[self._at_once :])

    def leave_out(self, images: Iterable[int]) -> None:
        """Let images be that may not be those that were labelled, until they are labelled anew."""
        self._known.update(images)

    def _write(self, paths: Mapping[int, str], images: Iterable[int]) -> None:
        found = {n: content_of(self._root / paths[n]) for n in images}
        if contents := {image: content for image, content in found.items() if content}:
            self._store.add_contents(contents)
            self._known |= contents.keys()

    def write_later(self, paths: Mapping[int, str], images: Sequence[int]) -> None:
        """Write them in a thread, for hashing a file takes longer than a key; also those that were
        written before: what was labelled again may be another picture.
        """
        self._waiting = [one for one in self._waiting if not one.done()]
        for start in range(0, len(images), self._at_once):
            part = [image for image in images[start : start + self._at_once] if image in paths]
            self._waiting.append(self._thread.submit(self._write, paths, part))

    def finish(self) -> None:
        """Wait until the next of them are written, and leave the rest to the next time."""
        waiting = [one for one in self._waiting if not one.done()]
        if sum(one.cancel() for one in waiting[AT_CLOSE:]):
            _log.info(
                "not all labelled images were read yet, by which they are known again if they are "
                "moved; that goes on whenever the project is open"
            )
        self._thread.shutdown()
