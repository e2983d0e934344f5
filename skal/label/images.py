"""The images of a project: found, numbered once for all, and known again where they were moved."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..core.errors import DataError
from ..core.text import counted, plural
from ..datasets.formats import page_of
from ..datasets.index import find_images
from .listing import Files, Paths
from .store import Store

AT_ONCE, AT_CLOSE = 1000, 10
"""How many images are read at a time, and how many times when a project is closed."""
AT_START = 200
"""How many labelled images are read when a project is opened, to see whether they are the same."""
COARSE = 2.0
"""Seconds by which the clock of a file system may lag behind."""
NOWHERE = ".skal/replaced/"
"""Before the path of an image that is not there, where another one lies now."""
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


class Numbering(NamedTuple):
    """Which numbers get which paths, how many labelled images lie elsewhere than before, and which
    of them have another content.
    """

    paths: dict[int, str]
    n_moved: int
    edited: list[int]


def exchanged(
    root: Path,
    store: Store,
    known: Mapping[int, str],
    there: Container[str],
    labelled_at: Callable[[int], float],
) -> list[int]:
    """Return the labelled images where now another file lies than when they were `labelled_at`, in
    seconds since 1970.

    A file of the same size is read if it came or changed since; of many, only the latest, unless
    one of them is another: a folder that was copied is not read at each start.
    """
    contents, found, newer = store.contents(), [], []
    start = os.path.join(root, "")  # noqa: PTH118 (Path is slow in many)
    for n, (size, _) in contents.items():
        if n not in known or known[n] not in there:
            continue
        with suppress(OSError):
            status = os.stat(page_of(start + known[n])[0])  # noqa: PTH116 (as above)
            if status.st_size != size:
                found.append(n)
            elif status.st_ctime > labelled_at(n) - COARSE:  # to be renamed changes it, too
                newer.append((status.st_ctime, n))

    def is_other(n: int) -> bool:
        return content_of(root / known[n]) not in (None, contents[n])

    latest = [n for _, n in sorted(newer, reverse=True)]
    found += filter(is_other, latest[:AT_START])
    return [*found, *filter(is_other, latest[AT_START:])] if found else []


def new_numbers(
    root: Path,
    store: Store,
    known: Mapping[int, str],
    there: Mapping[str, str],
    others: Sequence[int],
    said: Container[int],
    hashed: dict[str, tuple[int, str] | None],
) -> Numbering:
    """Return which numbers images get that are not `known` where they lie; of `others` another file
    lies there, see `exchanged`.

    Labelled images that lie elsewhere now keep their number, of several alike by their names; new
    ones get the next. Where some changed their names, a number whose file is nowhere lies at a path
    that there cannot be; images of which nothing was `said` change places with those that came.
    What is `hashed` already is not read again, and more is added to it.
    """
    contents = store.contents()
    place = {n: known[n] for n in known}
    new = sorted(there.keys() - place.values() if place else there)
    is_other = set(others)
    sought = {n: c for n, c in contents.items() if n in is_other or place.get(n) not in there}
    free = [*new, *(place[n] for n in others)]
    if others:
        untouched = (n for n in place if n not in contents and n not in said)
        free += (place[n] for n in untouched if place[n] in there)
    sizes = {size for size, _ in sought.values()}
    by_content: dict[tuple[int, str] | None, list[str]] = {}
    for path in free if sought else ():
        if path not in hashed:
            hashed[path] = content_of(root / path, sizes)
        by_content.setdefault(hashed[path], []).append(path)
    moved: dict[int, str] = {}
    for number, content in sought.items():
        if alike := by_content.get(content):
            name = place[number].rpartition("/")[2]
            moved[number] = min(alike, key=lambda path: path.rpartition("/")[2] != name)
            alike.remove(moved[number])
    taken = {*moved.values()}
    edited = [n for n in others if n not in moved and place[n] not in taken]
    lost = {n for n in place if place[n] in taken and n not in moved} if taken else set()
    if len(edited) < len(others):  # names were given anew: what is not found was replaced
        lost.update(edited)
        edited = []
    left = sorted({place[n] for n in (*moved, *lost) if place[n] in there} - taken)
    swapped = dict(zip(sorted(lost - contents.keys()), left, strict=False))
    nowhere = {n: f"{NOWHERE}{place[n]}" for n in sorted(lost - swapped.keys())}
    rest = sorted({*new, *left} - taken - {*swapped.values()})
    fresh = dict(enumerate(rest, max(place, default=-1) + 1))
    return Numbering({**moved, **swapped, **nowhere, **fresh}, len(moved), edited)


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

    def write_again(self, paths: Mapping[int, str], images: Iterable[int]) -> None:
        """Write those of some images that have another content now."""
        self._known.difference_update(images)
        self.write(paths, images)

    def _write(self, paths: Mapping[int, str], images: Iterable[int]) -> None:
        found = {n: content_of(self._root / paths[n]) for n in images if n not in self._known}
        if contents := {image: content for image, content in found.items() if content}:
            self._store.add_contents(contents)
            self._known |= contents.keys()

    def write_later(self, paths: Mapping[int, str], images: Sequence[int]) -> None:
        """Write them in a thread, for hashing a file takes longer than a key."""
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
