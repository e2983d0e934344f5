"""Image numbers: each image keeps its number for good, also when its file is moved."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ..core.text import counted, plural, shown
from ..datasets.formats import page_of
from .images import Contents, content_of
from .listing import Paths
from .store import Action, Content, Store

AT_START, BYTES_AT_START = 200, 2**28
"""Images and total bytes to read when a project is opened, to check whether labelled images have
changed or were moved."""
MOST_TOLD = 20
"""Images to name in a warning."""
COARSE = 2.0
"""Seconds by which the clock of a file system may lag behind."""
NOWHERE = ".skal/replaced/"
"""Prefix of the path of an image that was replaced by another: no such folder exists."""

_log = logging.getLogger("skal")


class Times:
    """Modification times of files, and the times they were placed where they are.

    Times of subfolders are cached.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.join(root, "")  # noqa: PTH118 (Path is slow in many)
        self._of_folders: dict[str, float] = {"": 0.0}

    def status(self, path: str) -> os.stat_result | None:
        """Return the status of an image's file; None if it is not available."""
        try:
            return os.stat(page_of(self._root + path)[0])  # noqa: PTH116 (as above)
        except OSError:
            return None

    def placed(self, path: str, status: os.stat_result) -> float:
        """Return the latest change time (ctime) of a file and the folders that it is in."""
        return max(status.st_ctime, self._of_folder(path.rpartition("/")[0]))

    def _of_folder(self, folder: str) -> float:
        if folder not in self._of_folders:
            above = self._of_folder(folder.rpartition("/")[0])
            found = self.status(folder)
            self._of_folders[folder] = max(above, found.st_ctime if found else 0.0)
        return self._of_folders[folder]


class Others(NamedTuple):
    """Labelled images whose file has another content than when they were labelled.

    The file was `written` since (edited, or replaced by a new one); it is older than the label, so
    it `came` from another place; or it is `dated` as before (edited by a program that keeps times).
    """

    written: list[int]
    came: list[int]
    dated: list[int]


class Numbered(NamedTuple):
    """New paths by number, how many labelled images moved, and which were edited or replaced."""

    paths: dict[int, str]
    n_moved: int
    edited: list[int]
    replaced: list[int]


class Numbering:
    """Assigns numbers to the images of a folder, and reports moved, edited and missing ones.

    `labels` are the current labels by image, and `answers` also those that set an image aside. The
    `store` and the `contents` of labelled images are updated unless `is_read_only`; nothing is
    logged if `is_quiet`.
    """

    def __init__(
        self,
        store: Store,
        contents: Contents,
        labels: Mapping[int, Action],
        answers: Mapping[int, Action] | None = None,
        *,
        is_read_only: bool,
        is_quiet: bool,
    ) -> None:
        self._root, self._store, self._contents = contents.root, store, contents
        self._labels, self._answers = labels, labels if answers is None else answers
        self._is_read_only, self._is_quiet = is_read_only, is_quiet
        self._hashed: dict[str, tuple[int, str] | None] = {}

    def of(self, there: list[str]) -> Paths:
        """Return the existing images by number; new paths get new numbers."""
        known = self._store.images()
        listed = dict(zip(there, there, strict=True))  # shares the strings, to save memory
        is_listed = known.places == there or (self._is_read_only and not known)
        others = self._find_others(known, listed) if self._answers else Others([], [], [])
        if is_listed and not any(others):
            return Paths(there)
        new = self._new(known, listed, others)
        if new.paths and not self._is_read_only:
            with self._store.transaction():  # another process may have added numbers meanwhile
                now = self._store.images()
                if now.places != known.places:
                    del self._were
                    known, others = now, self._find_others(now, listed)
                    new = self._new(known, listed, others)
                self._store.add_images(new.paths)
        self._take_contents(known, listed, others, new)
        present = {**known, **new.paths}
        gone = {n: path for n, path in present.items() if path not in listed}
        if not self._is_quiet:
            self._tell_gone(really_gone(gone, listed))
        return Paths.of((n, listed[path]) for n, path in present.items() if n not in gone)

    @cached_property
    def _were(self) -> dict[int, Content]:
        """The contents of labelled images at the time of labelling, by number."""
        return self._store.contents()

    def _labelled_at(self, image: int) -> float:
        """Return when an image was labelled or set aside, in seconds since 1970."""
        answer = self._answers.get(image)
        return math.inf if answer is None else datetime.fromisoformat(answer.time).timestamp()

    def _find_others(self, known: Mapping[int, str], there: Mapping[str, str]) -> Others:
        """Find the labelled images whose file has another content than when they were labelled.

        A file of unchanged size is read if it, or a folder that it is in, was moved or changed
        since. Only the latest of many are read, so that a copied folder is not read at each start.
        But if any file came from another place, files were renamed, and all are read.
        """
        contents, times = self._were, Times(self._root)
        others, kinds = Others([], [], []), dict[int, list[int]]()
        files = {(page_of(known[n])[0], c.modified) for n, c in contents.items() if n in known}
        n_dated = Counter(modified for _, modified in files)  # pages share the time of their file
        later: list[tuple[float, int, int]] = []
        same: list[int] = []

        def look(images: Iterable[int]) -> None:
            for n in images:
                if content_of(self._root / known[n]) not in (None, contents[n][:2]):
                    kinds[n].append(n)

        for n, (size, _, modified) in contents.items():
            is_there = n in known and known[n] in there
            status = times.status(known[n]) if is_there and n in self._answers else None
            if status is None:
                continue
            since, placed = self._labelled_at(n) - COARSE, times.placed(known[n], status)
            is_dated = status.st_mtime_ns == modified and n_dated[modified] == 1
            is_written = status.st_mtime >= since
            kinds[n] = others[2 if is_dated else 0 if is_written else 1]
            if status.st_size != size:
                kinds[n].append(n)
            elif placed >= since:
                later.append((placed, n, size))
            else:
                same.append(n)
        later.sort(reverse=True)
        n_first = first_read(size for _, _, size in later)
        look(n for _, n, _ in later[:n_first])
        if others.came or others.dated:
            look([*(n for _, n, _ in later[n_first:]), *same])
        return others

    def _new(self, known: Mapping[int, str], there: Mapping[str, str], others: Others) -> Numbered:
        """Return the numbers of images that are new, moved or replaced.

        A labelled image that was moved keeps its number (among identical files, the one with the
        same name); new images get the next numbers. An image that was replaced by another, and
        whose content is found nowhere, gets an impossible path; a file rewritten in place keeps its
        number.
        """
        contents = self._were
        new = sorted(there.keys() - known.values() if known else there)
        elsewhere = [*itertools.chain(*others)]
        absent = (n for n in contents if known.get(n) not in there)
        # of images that were alike, those with a label find the file first
        ranked = sorted(
            (*elsewhere, *absent), key=lambda n: (n not in self._labels, n not in self._answers)
        )
        sought = {n: contents[n][:2] for n in ranked}
        sizes = {size for size, _ in sought.values()}
        candidates = [*new, *(known[n] for n in elsewhere)]
        if sought:
            since = min(map(self._labelled_at, sought)) - COARSE
            kept = contents.keys() & self._answers.keys()
            unlabelled = (path for n, path in known.items() if n not in kept and path in there)
            candidates += self._placed_since(since, unlabelled, sizes, are_all=bool(elsewhere))
        by_content = self._by_content(candidates, sizes)
        moved: dict[int, str] = {}
        for number, content in sought.items():
            if alike := by_content.get(content):
                name = known[number].rpartition("/")[2]
                moved[number] = min(alike, key=lambda path: path.rpartition("/")[2] != name)
                alike.remove(moved[number])
        taken = {*moved.values()}
        replaced = {n for n in known if known[n] in taken}
        replaced.update(self._other_images(known, there, others, moved))
        replaced -= moved.keys()
        edited = [n for n in elsewhere if n not in moved and n not in replaced]
        vacant = {known[n] for n in (*moved, *replaced) if known[n] in there}
        numbered = sorted({*new, *vacant} - taken)
        fresh = dict(enumerate(numbered, max(known, default=-1) + 1))
        nowhere = {n: f"{NOWHERE}{known[n]}" for n in sorted(replaced)}
        paths = {**moved, **nowhere, **fresh}
        return Numbered(paths, len(moved), edited, [n for n in nowhere if n in self._labels])

    def _other_images(
        self,
        known: Mapping[int, str],
        there: Mapping[str, str],
        others: Others,
        moved: Mapping[int, str],
    ) -> set[int]:
        """Return those of `others` whose file is another image, not an edited version.

        Files that came from elsewhere are other images if files were renamed, or if at least as
        many images are missing as came; if more came, they are new versions, except one whose
        original content is at the place of another label. A copy of another image is another image.
        """
        contents = self._were
        elsewhere = {*itertools.chain(*others)}
        sure = self._answers.keys() - elsewhere
        right = {c[:2] for n, c in contents.items() if n in sure and known.get(n) in there}
        n_gone = sum(
            n not in self._labels and path not in there and not path.startswith(NOWHERE)
            for n, path in known.items()
        )
        are_gone = bool(moved) or len(others.came) <= n_gone
        came = [n for n in others.came if are_gone or contents[n][:2] in right]
        dated = others.dated if elsewhere & moved.keys() else []
        rest = elsewhere - moved.keys() - {*came, *dated}
        return {*came, *dated, *self._copies(known, there, rest)}

    def _copies(
        self, known: Mapping[int, str], there: Mapping[str, str], images: Set[int]
    ) -> Iterator[int]:
        """Yield those of some images whose file is now identical to that of another known image.

        Of many unlabelled files of equal size, only the first `BYTES_AT_START` bytes are read.
        """
        contents = {n: content_of(self._root / known[n]) for n in images}
        sizes = {content[0] for content in contents.values() if content}
        others = (path for n, path in known.items() if n not in images and path in there)
        n_bytes, found = 0, {content[:2] for content in self._were.values()}
        for path in others if sizes else ():
            if content := content_of(self._root / path, sizes):
                found.add(content)
                n_bytes += content[0]
            if n_bytes > BYTES_AT_START:
                break
        yield from (n for n, content in contents.items() if content in found)

    def _by_content(
        self, paths: Iterable[str], sizes: set[int]
    ) -> dict[tuple[int, str] | None, list[str]]:
        """Return the paths of files of these sizes by content; each file is read once."""
        found: dict[tuple[int, str] | None, list[str]] = {}
        for path in paths if sizes else ():
            if path not in self._hashed:
                self._hashed[path] = content_of(self._root / path, sizes)
            found.setdefault(self._hashed[path], []).append(path)
        return found

    def _placed_since(
        self, since: float, paths: Iterable[str], sizes: Set[int], *, are_all: bool
    ) -> list[str]:
        """Return the paths, with files of these sizes, whose file may have been replaced.

        Only the latest are returned unless `are_all`, because missing images are searched for at
        each start.
        """
        times = Times(self._root)
        found: list[tuple[float, int, str]] = []
        for path in paths:
            status = times.status(path)
            if status and status.st_size in sizes and times.placed(path, status) >= since:
                found.append((status.st_ctime, status.st_size, path))
        found.sort(reverse=True)
        n_first = len(found) if are_all else first_read(size for _, size, _ in found)
        return [path for *_, path in found[:n_first]]

    def _take_contents(
        self, known: Mapping[int, str], there: Mapping[str, str], others: Others, new: Numbered
    ) -> None:
        """Report moved, replaced and edited images, and store the contents of edited ones."""
        if new.n_moved and not self._is_quiet:
            moved = counted(new.n_moved, "labelled image was", "labelled images were")
            keep = plural(new.n_moved, "keeps its label", "keep their labels")
            _log.info("%s moved and %s", moved, keep)
        if new.replaced and not self._is_quiet:
            were = counted(len(new.replaced), "labelled image was", "labelled images were")
            first = shown(known[new.replaced[0]])
            text = "%s replaced by another image (the first: %s); label the new image"
            _log.warning(text, were, first)
        if new.edited:
            if not self._is_read_only:
                self._contents.write_later(known, new.edited)
            if not self._is_quiet:
                self._tell_edited(known, new.edited)
        if (others.came or others.dated) and new.n_moved:
            unread = [n for n in self._labels if n not in self._were and known.get(n) in there]
            self._contents.leave_out(unread)
            if unread and not self._is_quiet:
                self._tell_unread(known, unread)

    def _tell_unread(self, paths: Mapping[int, str], unread: Sequence[int]) -> None:
        """Warn of labels that may belong to other images since files were renamed."""
        _log.warning(
            "files were renamed, and %s not hashed before: the label may belong to another image "
            "now (the first: %s); check these images in the review, or restore the file names",
            counted(len(unread), "labelled image was", "labelled images were"),
            shown(paths[unread[0]]),
        )

    def _tell_edited(self, paths: Mapping[int, str], edited: Sequence[int]) -> None:
        _log.warning(
            "%s changed since labelling (%s%s); relabel those that now show something else",
            counted(len(edited), "labelled image has", "labelled images have"),
            ", ".join(sorted(shown(paths[n]) for n in edited)[:MOST_TOLD]),
            f" and {len(edited) - MOST_TOLD} more" if len(edited) > MOST_TOLD else "",
        )

    def _tell_gone(self, gone: Mapping[int, str]) -> None:
        labeled = [path for number, path in gone.items() if number in self._labels]
        are = counted(len(gone), "image of the project is", "images of the project are")
        message = f"{are} missing"
        if labeled:
            _log.warning(
                "%s, and %s a label that does not count while the file is missing (the first: %s); "
                "put missing files back",
                message,
                counted(len(labeled), "of them has", "of them have"),
                shown(labeled[0].removeprefix(NOWHERE)),
            )
        elif gone:
            _log.info("%s", message)


def first_read(sizes: Iterable[int]) -> int:
    """Return how many of the first files, of these sizes in bytes, are read at a start."""
    n_bytes = itertools.accumulate(itertools.islice(sizes, AT_START))
    return sum(1 for _ in itertools.takewhile(BYTES_AT_START.__ge__, n_bytes))


def really_gone(gone: Mapping[int, str], there: Mapping[str, str]) -> dict[int, str]:
    """Return the missing images, except those that exist as pages of a file or a page's file."""
    if not gone:
        return {}
    files = {place for place, page in map(page_of, there) if page is not None}

    def is_there(path: str) -> bool:
        place, page = page_of(path)
        return place in files if page is None else place in there

    return {number: path for number, path in gone.items() if not is_there(path)}
