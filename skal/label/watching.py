"""Which images a folder holds now: looked at again and again, while people label."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ..core.errors import SkalError
from ..datasets.formats import file_of
from ..datasets.index import ImageFile
from . import images

LOOK_SECONDS = 5.0
SETTLED_SECONDS = 3.0
"""A file that was written to since is not whole, perhaps."""

_log = logging.getLogger("skal")


class Watch:
    """Tells which images a folder holds, when that has changed.

    Only folders are looked at until one of them has changed, so that a look costs next to nothing;
    files still being written are waited for. `pages` is as in `find_images`, `clock` returns
    seconds since 1970.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[ImageFile],
        tell: Callable[[Sequence[ImageFile]], None],
        *,
        pages: str = "first",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root, self._files, self._tell, self._clock = root, files, tell, clock
        self._pages = pages
        self._seen: dict[str, int] | None = None
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
        """Look once, and tell whether anything else was there."""
        now = self._times()
        if now == self._seen:
            return False
        try:
            files = images.find(self._root, self._pages)
        except SkalError:  # a drive that is gone for a while, say
            return False
        if not all(map(self._is_settled, set(files).difference(self._files))):
            return False
        if files != list(self._files):
            self._tell(files)
            self._files, self._seen, self._folders = files, None, _folders_of(files)
            return True
        self._seen = now
        return False

    def _times(self) -> dict[str, int]:
        """Return when each folder last changed."""
        times = {}
        for folder in self._folders:
            with suppress(OSError):
                times[folder] = (self._root / folder).stat().st_mtime_ns
        return times

    def _is_settled(self, file: ImageFile) -> bool:
        try:
            written = file_of(self._root / file.path).stat().st_mtime
            return written < self._clock() - SETTLED_SECONDS
        except OSError:
            return False

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception as error:  # whatever it is, people go on labelling
                _log.warning("new images are not looked for: %s", error, exc_info=error)
                return


def _folders_of(files: Sequence[ImageFile]) -> set[str]:
    inner = {file.path.rpartition("/")[0] for file in files}
    return {".", *inner, *(str(p) for folder in inner for p in PurePosixPath(folder).parents)}
