"""The images of a project: find them, count them by folder, and identify them by content."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..core.errors import DataError
from ..core.text import counted, shown
from ..datasets.formats import page_of
from ..datasets.index import find_images
from .listing import Files, Paths
from .store import Content, Store

AT_ONCE, AT_CLOSE = 1000, 10
"""Images to read at a time, and how many such blocks to read when a project is closed."""
MOST_TOLD = 10
LATEST = 2**63
"""Nanoseconds, to the year 2262: SQLite stores no more, but some disks report later times."""

_log = logging.getLogger("skal")


def find(root: Path, pages: str) -> Files:
    """Return the images of a folder, `pages` as in `find_images`; an error if there are none."""
    return Files(find_images(root, as_dataset=False, pages=pages))


def taking_part(root: Path, files: Files) -> list[str]:
    """Return the sorted paths of all images except those of a given test set."""
    there = sorted(files.paths_but("test"))
    if not there:
        raise DataError(f"no image under {str(root)!r} except those under test/; add some to label")
    return there


def labels_of_folders(files: Files, paths: Paths, ids: Mapping[str, int]) -> dict[int, int]:
    """Return the class of each image in a class folder.

    `paths` are the images that take part, and `ids` the ids of classes by all present and former
    names.
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
    """Log folders that are not classes, and images that take no part."""
    others, n_of_test = Counter[str](), 0
    for (part, label), n in files.counts().items():
        n_of_test += n * (part == "test")
        if label is not None and label not in ids:
            others[label] += n
    by_name = sorted(others.items())
    for name, count in by_name[:MOST_TOLD]:
        images = counted(count, "image counts", "images count")
        _log.info("the folder %r is not a class: its %s as unlabelled", name, images)
    if rest := by_name[MOST_TOLD:]:
        n = sum(count for _, count in rest)
        more = counted(len(rest), "more folder is", "more folders are")
        _log.info("... and %s not classes, with %s", more, counted(n, "image"))
    if n_of_test:
        images = counted(n_of_test, "image under test/ is", "images under test/ are")
        _log.info("%s left out of labelling", images)


def content_of(path: Path, sizes: Iterable[int] | None = None) -> tuple[int, str] | None:
    """Return size and SHA-256 of a file (for a page, with its number).

    None if it cannot be read, or if its size is not one of `sizes`.
    """
    read = read_content(path, sizes)
    return read and read[:2]


def read_content(path: Path, sizes: Iterable[int] | None = None) -> Content | None:
    """Return `content_of` a file, and its modification time."""
    place, page = page_of(str(path))
    path = Path(place)
    try:
        if not path.is_file():  # opening a pipe may block for ever
            return None
        status = path.stat()
        size = status.st_size
        if sizes is not None and size not in sizes:
            return None
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        mark = digest if page is None else f"{digest}#{page}"
        modified = status.st_mtime_ns if abs(status.st_mtime_ns) < LATEST else 0
        return Content(size, mark, modified)
    except OSError:
        return None


class Contents:
    """Stores size and hash of labelled images, so that moved files are recognized.

    Opening and closing a project hashes a few thousand images at most; the others follow while it
    is open, or when it is opened again.
    """

    def __init__(self, root: Path, store: Store, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self.root = root
        self._store = store
        self._known = {n: hash(content[:2]) for n, content in store.contents().items()}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="skal-contents")
        self._waiting: list[Future[None]] = []

    def write(self, paths: Mapping[int, str], images: Iterable[int]) -> None:
        """Write those of some images that exist and are not written yet."""
        new = [image for image in images if image not in self._known and image in paths]
        self._write(paths, new[: self._at_once])
        self.write_later(paths, new[self._at_once :])

    def leave_out(self, images: Iterable[int]) -> None:
        """Do not hash images that may not be the labelled ones, until they are labelled again."""
        self._known.update(dict.fromkeys(images, 0))

    def _write(
        self, paths: Mapping[int, str], images: Iterable[int], shared: Container[int] = ()
    ) -> None:
        found = {n: read_content(self.root / paths[n]) for n in images}
        if contents := {image: content for image, content in found.items() if content}:
            self._store.add_contents(contents)
            hashes = {image: hash(content[:2]) for image, content in contents.items()}
            for image, now in hashes.items():
                if image in shared and self._known.get(image, now) != now:
                    _log.warning(
                        "%s has changed since another person labelled it; check it in the review, "
                        "because both answers count",
                        shown(paths[image]),
                    )
            self._known |= hashes

    def write_later(
        self, paths: Mapping[int, str], images: Sequence[int], shared: Container[int] = ()
    ) -> None:
        """Write contents in a thread, because hashing a file takes longer than a key press.

        This includes images written before: the file may have changed before it was relabelled. A
        warning names those `shared` with other people, whose answers were to the old content.
        """
        self._waiting = [one for one in self._waiting if not one.done()]
        for start in range(0, len(images), self._at_once):
            part = [image for image in images[start : start + self._at_once] if image in paths]
            self._waiting.append(self._thread.submit(self._write, paths, part, shared))

    def finish(self) -> None:
        """Wait until the next blocks are written, and leave the rest to the next time."""
        waiting = [one for one in self._waiting if not one.done()]
        if sum(one.cancel() for one in waiting[AT_CLOSE:]):
            _log.info(
                "not all labelled images have been hashed yet, which lets skal recognize moved "
                "files; this continues when the project is opened again"
            )
        self._thread.shutdown()
