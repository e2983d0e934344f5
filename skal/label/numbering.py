"""Which image is which: each has its number once for all, and keeps it where its file was moved."""

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
"""How many images, and of how many bytes together, are read when a project is opened, to see
whether labelled ones are the same, or lie in the places of others."""
MOST_TOLD = 20
"""Of images that are to be looked at, how many are named."""
COARSE = 2.0
"""Seconds by which the clock of a file system may lag behind."""
NOWHERE = ".skal/replaced/"
"""Before the path of an image whose place another one has: no folder, but a name that none has."""

_log = logging.getLogger("skal")


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
    was `written` since, so that it was edited, or replaced by a new one; those whose file is older
    than the label, so that it `came` from another place; and those `dated` as the file was then, as
    by what edits files and keeps their times.
    """

    written: list[int]
    came: list[int]
    dated: list[int]


class Numbered(NamedTuple):
    """Which numbers get which paths, how many labelled images lie elsewhere than before, which of
    them have another content, and in the places of which others lie.
    """

    paths: dict[int, str]
    n_moved: int
    edited: list[int]
    replaced: list[int]


class Numbering:
    """Gives the images of a folder their numbers, and tells what was moved, edited or taken away.

    `labels` are those that hold, by image. The `store` and the `contents` of labelled images are
    written unless it `is_read_only`, and nothing is told if it `is_quiet`.
    """

    def __init__(
        self,
        store: Store,
        contents: Contents,
        labels: Mapping[int, Action],
        *,
        is_read_only: bool,
        is_quiet: bool,
    ) -> None:
        self._root, self._store, self._contents = contents.root, store, contents
        self._labels = labels
        self._is_read_only, self._is_quiet = is_read_only, is_quiet
        self._hashed: dict[str, tuple[int, str] | None] = {}

    def of(self, there: list[str]) -> Paths:
        """Return which images are there, by number: new ones of the paths get one."""
        known = self._store.images()
        listed = dict(zip(there, there, strict=True))  # a path is kept once, not twice
        is_listed = known.places == there or (self._is_read_only and not known)
        others = self._find_others(known, listed) if self._labels else Others([], [], [])
        if is_listed and not any(others):
            return Paths(there)
        new = self._new(known, listed, others)
        if new.paths and not self._is_read_only:
            with self._store.transaction():  # another process may have given numbers meanwhile
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
        """What the labelled images were when they were labelled, by number."""
        return self._store.contents()

    def _labelled_at(self, image: int) -> float:
        """Return when an image was labelled, in seconds since 1970."""
        label = self._labels.get(image)
        return math.inf if label is None else datetime.fromisoformat(label.time).timestamp()

    def _find_others(self, known: Mapping[int, str], there: Mapping[str, str]) -> Others:
        """Find the labelled images where now another file lies than when they were labelled.

        A file of the same size is read if it, or a folder that it is in, got its place or a newer
        time since: of many the latest alone, since a folder that was copied is not to be read at
        each start. But where a file came from another place all are read: names were given anew.
        """
        contents, times = self._were, Times(self._root)
        others, kinds = Others([], [], []), dict[int, list[int]]()
        files = {(page_of(known[n])[0], c.modified) for n, c in contents.items() if n in known}
        n_dated = Counter(modified for _, modified in files)  # pages have that of their file
        later: list[tuple[float, int, int]] = []
        same: list[int] = []

        def look(images: Iterable[int]) -> None:
            for n in images:
                if content_of(self._root / known[n]) not in (None, contents[n][:2]):
                    kinds[n].append(n)

        for n, (size, _, modified) in contents.items():
            status = times.status(known[n]) if n in known and known[n] in there else None
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
        """Return which numbers images get that are not `known` where they lie, or of which `others`
        lie there.

        Labelled images that lie elsewhere now keep their number, of several alike by their names;
        new ones get the next. The number of an image whose place another one has, and whose content
        is nowhere, gets a path that there cannot be; but a file that was written anew in its place
        keeps its number.
        """
        contents = self._were
        new = sorted(there.keys() - known.values() if known else there)
        elsewhere = [*itertools.chain(*others)]
        absent = (n for n in contents if known.get(n) not in there)
        sought = {n: contents[n][:2] for n in (*elsewhere, *absent)}
        sizes = {size for size, _ in sought.values()}
        candidates = [*new, *(known[n] for n in elsewhere)]
        if sought:
            since = min(map(self._labelled_at, sought)) - COARSE
            unlabelled = (path for n, path in known.items() if n not in contents and path in there)
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
        """Return those of `others` whose file is another image, not what was made of theirs.

        Where names were given anew, or as many images are gone as came, these are others; where
        more came, they are new versions of all, but for one whose own lies elsewhere and was
        labelled there. And what was copied over one is another.
        """
        contents = self._were
        elsewhere = {*itertools.chain(*others)}
        right = {c[:2] for n, c in contents.items() if n not in elsewhere and known.get(n) in there}
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
        """Yield those of some images whose file is now like that of another one that was known; of
        many without a label, of equal size, the first are looked at.
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
        """Return paths of files of these sizes by what is in them; each is read once."""
        found: dict[tuple[int, str] | None, list[str]] = {}
        for path in paths if sizes else ():
            if path not in self._hashed:
                self._hashed[path] = content_of(self._root / path, sizes)
            found.setdefault(self._hashed[path], []).append(path)
        return found

    def _placed_since(
        self, since: float, paths: Iterable[str], sizes: Set[int], *, are_all: bool
    ) -> list[str]:
        """Return the paths, with files of these sizes, that may have another file than before: the
        latest alone unless `are_all`, for what was taken away is sought at each start.
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
        """Tell what was moved or edited, and take in the contents that count from now on."""
        if new.n_moved and not self._is_quiet:
            moved = counted(new.n_moved, "labelled image was", "labelled images were")
            label = plural(new.n_moved, "its label goes with it", "their labels go with them")
            _log.info("%s moved; %s", moved, label)
        if new.replaced and not self._is_quiet:
            were = counted(len(new.replaced), "labelled image has", "labelled images have")
            first = shown(known[new.replaced[0]])
            _log.warning("%s another image in its place (the first: %s): label that", were, first)
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
        """Warn of labels that may be of other images, where names were given anew."""
        _log.warning(
            "files got other names, and %s read before, so that nobody knows whether the label is "
            "still of the same image (the first: %s): look at them in the review, or give the "
            "files their names back",
            counted(len(unread), "labelled image was not", "labelled images were not"),
            shown(paths[unread[0]]),
        )

    def _tell_edited(self, paths: Mapping[int, str], edited: Sequence[int]) -> None:
        has, was = ("has", "it was") if len(edited) == 1 else ("have", "they were")
        _log.warning(
            "%s %s another content than when %s labelled (%s%s): label again what is "
            "another picture now",
            counted(len(edited), "labelled image"),
            has,
            was,
            ", ".join(sorted(shown(paths[n]) for n in edited)[:MOST_TOLD]),
            f" and {len(edited) - MOST_TOLD} more" if len(edited) > MOST_TOLD else "",
        )

    def _tell_gone(self, gone: Mapping[int, str]) -> None:
        labeled = [path for number, path in gone.items() if number in self._labels]
        are = counted(len(gone), "image of the project is", "images of the project are")
        told = f"{are} no longer there"
        if labeled:
            _log.warning(
                "%s, and %s a label that does not count until back (the first: %s); put "
                "what is gone where it was",
                told,
                counted(len(labeled), "of them has", "of them have"),
                shown(labeled[0].removeprefix(NOWHERE)),
            )
        elif gone:
            _log.info("%s", told)


def first_read(sizes: Iterable[int]) -> int:
    """Return how many files of these sizes in bytes, the first of them, are read at a start."""
    n_bytes = itertools.accumulate(itertools.islice(sizes, AT_START))
    return sum(1 for _ in itertools.takewhile(BYTES_AT_START.__ge__, n_bytes))


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
