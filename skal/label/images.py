"""The images of a project: found, numbered once for all, and known again where they were moved."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..core.errors import DataError
from ..core.text import counted
from ..datasets.formats import page_of
from ..datasets.index import find_images
from .listing import Files, Paths
from .store import Store

AT_ONCE, AT_CLOSE = 1000, 10
"""How many images are read at a time, and how many times when a project is closed."""
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


def new_numbers(
    root: Path,
    store: Store,
    known: Mapping[int, str],
    there: Mapping[str, str],
    hashed: dict[str, tuple[int, str] | None],
) -> tuple[dict[int, str], int]:
    """Return which numbers images get that are not `known` where they lie, and how many were moved.

    Labelled images that lie elsewhere now keep their number, of several alike by their names; new
    ones get the next. What is `hashed` already is not read again, and more is added to it.
    """
    contents = store.contents()
    new = sorted(there.keys() - known.values() if known else there)
    contents = {n: content for n, content in contents.items() if known[n] not in there}
    sizes = {size for size, _ in contents.values()}
    by_content: dict[tuple[int, str] | None, list[str]] = {}
    for path in new if contents else ():
        if path not in hashed:
            hashed[path] = content_of(root / path, sizes)
        by_content.setdefault(hashed[path], []).append(path)
    moved: dict[int, str] = {}
    for number, content in contents.items():
        if alike := by_content.get(content):
            name = known[number].rpartition("/")[2]
            moved[number] = min(alike, key=lambda path: path.rpartition("/")[2] != name)
            alike.remove(moved[number])
    rest = sorted(set(new).difference(moved.values())) if moved else new
    return {**moved, **dict(enumerate(rest, max(known, default=-1) + 1))}, len(moved)


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
        images = f"{counted(count, 'image')} {'counts' if count == 1 else 'count'}"
        _log.info("the folder %r is no class: its %s as unlabelled", name, images)
    if rest := by_name[MOST_TOLD:]:
        n = sum(count for _, count in rest)
        _log.info("... nor are %d more folders, of %d images", len(rest), n)
    if n_of_test:
        take = "takes" if n_of_test == 1 else "take"
        _log.info("%s under test/ %s no part in labelling", counted(n_of_test, "image"), take)


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
