"""Previews of images: upright, without metadata, rendered ahead of time."""

from __future__ import annotations

import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from ..datasets.decoding import reading
from ..datasets.deep import Ranges
from ..datasets.formats import FORMATS, file_of
from ..datasets.pictures import opened

FULL, LARGE, SMALL = 8192, 1024, 256
"""Maximum height and width in pixels at full size, as a single image, and in the grid."""
LOSSLESS = 256 * 256
"""Pixels up to which previews are lossless."""
THREADS = 2
TURNED = frozenset((5, 6, 7, 8))
"""EXIF orientations that swap height and width."""


@dataclass(frozen=True)
class Preview:
    content: bytes
    media_type: str
    state: tuple[int, int]
    side: int

    @property
    def tag(self) -> str:
        """An identifier that differs for other files and sizes."""
        return f"{self.state[0]:x}-{self.state[1]:x}-{self.side}"


class Previews:
    """Renders previews in threads, and keeps the latest `kept_bytes` of them in memory.

    `paths`, by number of image, are relative to `root`. `ranges` returns the black and white levels
    of images of more than 8 bits, and `pages` is the setting. The `stamp` changes whenever a number
    may belong to another image, as after each start, or its file has changed.
    """

    def __init__(
        self,
        root: Path,
        paths: Mapping[int, str],
        *,
        threads: Executor | None = None,
        kept_bytes: int = 2**28,
        ranges: Callable[[], Ranges] = Ranges,
        pages: str = "first",
    ) -> None:
        self._root = root
        self._render = partial(render, ranges=ranges, pages=pages)
        self._paths = paths
        self.stamp = ""
        self._renew()
        self._sizes: dict[int, tuple[int, int] | None] = {}
        self._shown: dict[int, tuple[int, int]] = {}  # the state of the file
        self._made: OrderedDict[tuple[int, int], Future[Preview]] = OrderedDict()
        self.n_bytes, self._kept_bytes = 0, kept_bytes
        self._lock = threading.RLock()  # reentrant, because a finished future calls back at once
        self._threads = threads or ThreadPoolExecutor(THREADS, thread_name_prefix="skal-preview")

    def _renew(self) -> None:
        """Invalidate the images that browsers have cached."""
        self.stamp = secrets.token_hex(4)

    @property
    def paths(self) -> Mapping[int, str]:
        return self._paths

    @paths.setter
    def paths(self, paths: Mapping[int, str]) -> None:
        before, self._paths = self._paths, paths
        others = {n for n, path in before.items() if paths.get(n, path) != path}
        if others:
            self._forget(others)

    def changed(self, image: int) -> bool:
        """Return whether an image's file has changed since it was shown, and then forget it."""
        if (shown := self._shown.get(image)) is None:
            return False
        with suppress(OSError):
            if shown != _state(self._root / self.paths[image]):
                self._forget({image})
                return True
        return False

    def _forget(self, images: Set[int]) -> None:
        with self._lock:
            for key in [key for key in self._made if key[0] in images]:
                self._uncount(self._made.pop(key))
            for image in images:
                self._sizes.pop(image, None)
                self._shown.pop(image, None)
        self._renew()

    def size(self, image: int) -> tuple[int, int] | None:
        """Return the width and height of an image, upright; None if it cannot be read."""
        if image not in self._sizes:
            self._sizes[image] = _size(self._root / self.paths[image])
        return self._sizes[image]

    def get(self, image: int, side: int) -> Preview:
        """Return a preview; raise an OSError or ValueError if the image cannot be read."""
        try:
            preview = self._start(image, side).result()
        except OSError:
            raise
        except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
            raise ValueError(str(error)) from error
        if self._shown.setdefault(image, preview.state) != preview.state:
            self._forget({image})  # the file has changed since it was shown
            return self.get(image, side)
        return preview

    def prepare(self, images: Sequence[int], side: int) -> None:
        for image in images:
            self._start(image, side)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self, image: int, side: int) -> Future[Preview]:
        key = (image, side)
        with self._lock:
            if (future := self._made.get(key)) is not None:
                self._made.move_to_end(key)
                return future
            path = self._root / self.paths[image]
            future = self._made[key] = self._threads.submit(self._render, path, side)
            future.add_done_callback(lambda done: self._count(key, done))
        return future

    def _count(self, key: tuple[int, int], future: Future[Preview]) -> None:
        with self._lock:
            if self._made.get(key) is not future:
                return  # it was evicted meanwhile
            if future.cancelled() or future.exception() is not None:
                del self._made[key]  # it may be readable later
                return
            self.n_bytes += len(future.result().content)
            while self.n_bytes > self._kept_bytes and len(self._made) > 1:
                _, oldest = self._made.popitem(last=False)
                self._uncount(oldest)

    def _uncount(self, future: Future[Preview]) -> None:
        if future.done() and not future.cancelled() and future.exception() is None:
            self.n_bytes -= len(future.result().content)


def render(
    path: Path, side: int, ranges: Callable[[], Ranges] = Ranges, pages: str = "first"
) -> Preview:
    """Encode an image again, as PNG or, if it is large, JPEG, without any metadata.

    Height and width are at most `side` pixels; smaller images are not enlarged.
    """
    state = _state(path)
    with reading(path, side, ranges, pages) as image:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        image.info.clear()
        out = io.BytesIO()
        form = "png" if image.width * image.height <= LOSSLESS else "jpeg"
        image.save(out, form, compress_level=1, quality=88)  # each format uses its own option
    return Preview(out.getvalue(), f"image/{form}", state, side)


def _state(path: Path) -> tuple[int, int]:
    """Return the modification time and size in bytes of an image's file, to detect changes."""
    status = file_of(path).stat()
    return status.st_mtime_ns, status.st_size


def _size(path: Path) -> tuple[int, int] | None:
    try:
        place = file_of(path)
        if not place.is_file():
            return None
        with place.open("rb") as file:
            try:
                with Image.open(file, formats=FORMATS) as image:
                    width, height = image.size
                    turned = image.getexif().get(ExifTags.Base.Orientation) in TURNED
            except UnidentifiedImageError:
                with opened(path, 1) as picture:
                    return picture.width, picture.height
        return (height, width) if turned else (width, height)
    except Exception:  # on damaged files Pillow's decoders raise nearly anything
        return None
