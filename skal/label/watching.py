"""Watch a folder for added and removed images while people label."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from ..core.errors import SkalError
from ..datasets.formats import file_of
from ..datasets.index import ImageFile
from . import images
from .listing import Files

LOOK_SECONDS = 5.0
SETTLED_SECONDS = 3.0
"""A file modified more recently may still be incomplete."""

_log = logging.getLogger("skal")


class Watch:
    """Calls `tell` with the images of a folder when they have changed.

    Only the times of folders are checked until one changes, so that polling is cheap. Files that
    are still being written are left out until complete. `pages` is as in `find_images`, and `clock`
    returns seconds since 1970.
    """

    def __init__(
        self,
        root: Path,
        files: Files,
        tell: Callable[[Files], None],
        *,
        pages: str = "first",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root, self._files, self._tell, self._clock = root, files, tell, clock
        self._pages = pages
        self._seen: dict[str, int] | None = None
        self._states: dict[Path, tuple[int, int]] = {}
        self._folders = _folders_of(files)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="skal-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def look(self) -> bool:
        """Look once, and return whether the images have changed."""
        now = self._times()
        if now == self._seen:
            return False
        try:
            with _hushed():
                found = images.find(self._root, self._pages)
        except SkalError:  # for example, a drive that is missing for a while
            return False
        files = found
        if found != self._files:
            before = set(self._files)
            files = Files([file for file in found if file in before or self._is_settled(file)])
        is_new = files != self._files
        if is_new:
            self._tell(files)
            self._files = files
        self._folders = _folders_of(files) | _folders_under(self._root)
        self._seen = now if len(files) == len(found) and self._times() == now else None
        return is_new

    def _times(self) -> dict[str, int]:
        """Return when each folder last changed."""
        times = {}
        for folder in self._folders:
            with suppress(OSError):
                times[folder] = (self._root / folder).stat().st_mtime_ns
        return times

    def _is_settled(self, file: ImageFile) -> bool:
        path = file_of(self._root / file.path)
        try:
            status = path.stat()
        except OSError:  # the listing reports unreadable files
            return True
        state = status.st_size, status.st_mtime_ns
        # a camera's clock may be ahead of this one
        before, self._states[path] = self._states.get(path), state
        return status.st_mtime < self._clock() - SETTLED_SECONDS or state == before

    def _run(self) -> None:
        logged = set[str]()
        while not self._ended.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception as error:  # labelling must continue whatever happens
                if str(error) not in logged:
                    _log.warning("cannot look for new images: %s", error, exc_info=error)
                logged.add(str(error))


def _folders_of(files: Files) -> set[str]:
    inner = {path.rpartition("/")[0] for path in files.paths}
    return {".", *inner, *(str(p) for folder in inner for p in PurePosixPath(folder).parents)}


def _folders_under(root: Path) -> set[str]:
    """Return all folders except hidden ones, including those without images."""
    found = set[str]()
    for place, folders, _ in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.update(os.path.relpath(os.path.join(place, name), root) for name in folders)  # noqa: PTH118
    return found


@contextmanager
def _hushed() -> Iterator[None]:
    """Suppress this thread's log: each listing repeats the warnings of the first."""
    thread = threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    _log.addFilter(is_of_others)
    try:
        yield
    finally:
        _log.removeFilter(is_of_others)
