"""Decodes image files to uint8 pixels, one or very many at a time."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import stat
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps

from ..core.errors import DataError, one_line
from ..core.memory import Budget
from ..core.processes import end_with_parent
from .base import Images
from .deep import MET_UNDECIDED, Deep, Range, Ranges
from .formats import page_of
from .instruments import Picture
from .pictures import is_of_the_system, opened

DECODER_VERSION = 5
"""Part of cache keys of pixels: increase it whenever `decode` changes a pixel."""

LARGE = 2**24
"""Images of so many pixels or more are reduced in strips, so that no second copy is in memory."""
STRIP = 2**20
"""Approximate pixels of a strip, which fit into the processor's cache."""
READ_AS = 4
"""Most bytes per pixel of an image that is read."""
FINE = 4
"""Reduced images keep this many times the needed pixels per side: on average the result is less
than one level from that of all pixels.
"""
MOST_REDUCED = 64
"""Largest factor of a reduction; a strip has at least as many rows."""
UNDECIDED = Ranges()
BORDER = "#808080"
"""The pixel mean of the pretrained weights that were made for images with borders."""
CHUNK_BYTES = 2**26
"""Bytes of decoded pixels in flight, so that they do not pile up before a slow disk."""
IN_FLIGHT = Budget(2**29)
"""Bytes for images being decoded, shared by all threads and child processes."""

T = TypeVar("T")

_log = logging.getLogger("skal")


@dataclass(frozen=True, eq=False)
class Decoded:
    """Decoded files: pixels, uint8 of shape (n_read, 3, size, size), and why others are `unread`,
    by path. `failed` are the unread ones that the system or a lack of memory failed to read,
    `undecided` the kinds of deep images whose black and white were not decided.
    """

    paths: Sequence[str]
    pixels: Images
    unread: dict[str, str]
    failed: frozenset[str] = frozenset()
    undecided: frozenset[str] = frozenset()


class Look(NamedTuple):
    """Facts about a file: its pages of one size, the files of its OME set, and if it is deep, its
    mode and range of values; `is_cut` if it has more bits than are read.
    """

    n_pages: int = 1
    n_others: int = 0
    mode: str = ""
    extent: Range | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class Decoding:
    """How to decode files: `workers` at a time (default: one per processor), in processes for
    `processes_from` files or more, else in threads. In a chunk of at most `chunk_files`, the system
    may fail to read `tolerated` files, each retried after `pauses` (seconds). `geometry`, one of
    `GEOMETRIES`, makes images square; `ranges` are black and white in files of more than 8 bits;
    `pages` is one of `PAGES`.
    """

    size: int
    workers: int | None = None
    processes_from: int | None = None
    tolerated: int = 0
    chunk_files: int = 256
    pauses: Sequence[float] = (0.2, 2.0)
    geometry: str = "cover"
    ranges: Ranges = UNDECIDED
    pages: str = "first"
    decode: Callable[[Path, Decoding], Images] = field(default_factory=lambda: _decode_as)

    @property
    def n_workers(self) -> int:
        """Number of files decoded at a time."""
        return self.workers or os.cpu_count() or 1


class ReadFailedError(DataError):
    """A file could not be read repeatedly, because of the system or a lack of memory."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"cannot read {str(path)!r} at the moment: {reason}; if that persists, remove the file"
        )
        self.reason = reason


def decode_many(root: Path, paths: Sequence[str], how: Decoding) -> Generator[Decoded, None, None]:
    """Decode files in parallel, in order, and yield chunks, at most about `CHUNK_BYTES` in advance.
    Warn of kinds of deep images for which `how` has no white. Raise a `DataError` if a decoding
    process was killed or the system failed to read a file.
    """
    ahead = 2 * how.n_workers
    step = _chunk_size(len(paths), how, ahead)
    running: deque[Future[Decoded]] = deque()
    warned = set[str]()
    with _executor(how, len(paths)) as executor:
        for start in range(0, len(paths), step):
            chunk = paths[start : start + step]
            running.append(executor.submit(_decode_chunk, root, chunk, how))
            if len(running) > ahead:
                yield _result(running.popleft(), warned)
        while running:
            yield _result(running.popleft(), warned)


def to_channels(pixels: Images, n_channels: int) -> Images:
    """Return images of shape (n, 3, height, width) unchanged, or as grey by ITU-R 601."""
    if n_channels == pixels.shape[1]:
        return pixels
    weights = np.array([19595, 38470, 7471], np.uint32)
    grey = np.tensordot(pixels.astype(np.uint32), weights, (1, 0)) + 2**15
    return (grey >> 16).astype(np.uint8)[:, None]


def _chunk_size(n_files: int, how: Decoding, ahead: int) -> int:
    """Return how many files a worker takes at a time: few enough that none idles at the end."""
    fitting = CHUNK_BYTES // (3 * how.size * how.size * ahead)
    return max(1, min(how.chunk_files, fitting, max(16, n_files // (4 * how.n_workers))))


def _begin_process(budget: Budget) -> None:
    global IN_FLIGHT
    IN_FLIGHT = budget
    end_with_parent()
    warnings.simplefilter("ignore")


@contextmanager
def _executor(how: Decoding, n_files: int) -> Iterator[Executor]:
    """Start workers, and end them; after an error, drop the remaining work."""
    may_have_children = not multiprocessing.current_process().daemon
    executor: Executor
    if may_have_children and how.processes_from is not None and n_files >= how.processes_from:
        # joblib's processes do not run the user's script again when they start
        from joblib.externals.loky import ProcessPoolExecutor
        from joblib.externals.loky.backend.context import get_context

        budget = Budget(2**29, get_context("loky"))
        executor = ProcessPoolExecutor(
            how.n_workers, initializer=_begin_process, initargs=(budget,)
        )
        at_once = {"wait": False, "kill_workers": True}
    else:
        executor, at_once = ThreadPoolExecutor(how.n_workers), {"cancel_futures": True}
    # Pillow warns of odd metadata, which does not matter here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield executor
        except BaseException:
            executor.shutdown(**at_once)
            raise
        executor.shutdown()


def _result(future: Future[Decoded], warned: set[str]) -> Decoded:
    try:
        decoded = future.result()
    except BrokenExecutor as error:
        raise DataError(
            "a process that decoded images was killed, perhaps because memory ran out"
        ) from error
    for kind in sorted(decoded.undecided - warned):
        warned.add(kind)
        _log.warning(
            "images of %s: no value of white was decided when the dataset was loaded, so each "
            "image uses the nominal one of its type, such as 1 or 65535; set --white N or --white "
            "LOW:HIGH when loading the dataset",
            kind,
        )
    return decoded


def _decode_chunk(root: Path, paths: Sequence[str], how: Decoding) -> Decoded:
    pixels = np.empty((len(paths), 3, how.size, how.size), np.uint8)
    n_read, unread, failed = 0, dict[str, str](), set[str]()
    undecided = set[str]()
    MET_UNDECIDED.set(undecided)
    for path in paths:
        try:
            result = try_file(root / path, lambda place: how.decode(place, how), how.pauses)
        except ReadFailedError as error:
            failed.add(path)
            if len(failed) > how.tolerated:
                raise
            result = error.reason
        if isinstance(result, str):
            unread[path] = result
        else:
            pixels[n_read] = result
            n_read += 1
    return Decoded(paths, pixels[:n_read], unread, frozenset(failed), frozenset(undecided))


def try_file(path: Path, read: Callable[[Path], T], pauses: Iterable[float]) -> T | str:
    """Read one file, or return why it cannot be read. Raise a `ReadFailedError` if the system fails
    to read it even after all `pauses` (seconds), which says nothing about the file.
    """
    pauses = iter(pauses)
    while True:
        try:
            return _read_or_tell(path, read)
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or "out of memory"
            if (pause := next(pauses, None)) is None:
                raise ReadFailedError(path, reason) from error
            _log.debug("retrying %s in %g s: %s", path, pause, reason)
        time.sleep(pause)


def _read_or_tell(path: Path, read: Callable[[Path], T]) -> T | str:
    try:
        status = os.stat(page_of(str(path))[0])  # noqa: PTH116 (Path is slow in a million)
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"  # opening a pipe could block forever
        return read(path)
    except Image.DecompressionBombError:
        return "too many pixels to be opened safely"
    except FileNotFoundError:
        if path.is_symlink():
            return "a link to a missing file"
        raise  # it was listed before: its disk may be disconnected for a while
    except Exception as error:  # Pillow's decoders may raise anything on damaged files
        if is_of_the_system(error):
            raise
        return getattr(error, "strerror", None) or one_line(error)


def decode(
    path: Path,
    size: int,
    geometry: str = "cover",
    ranges: Ranges = UNDECIDED,
    pages: str = "first",
) -> Images:
    """Decode one image file to upright RGB, uint8 of shape (3, size, size), by one of `GEOMETRIES`.

    Grey, palette and CMYK images are converted, transparent ones composited on white, and those of
    more than 8 bits scaled by `ranges`. Animations give their first frame; multi-page files the
    page in the path, else the first page or their mean, by `pages`. The format is determined by
    the content, not the suffix.
    """
    with reading(path, 2 * size, lambda: ranges, pages) as image:
        fitted = GEOMETRIES[geometry](image, (size, size))
    return np.ascontiguousarray(np.asarray(fitted.convert("RGB")).transpose(2, 0, 1))


def _decode_as(path: Path, how: Decoding) -> Images:
    return decode(path, how.size, how.geometry, how.ranges, how.pages)


BICUBIC = Image.Resampling.BICUBIC
GEOMETRIES: Mapping[str, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {
    "cover": partial(ImageOps.fit, method=BICUBIC),
    "squash": lambda image, size: image.resize(size, BICUBIC),
    "border": partial(ImageOps.pad, method=BICUBIC, color=BORDER),
}
"""How images are made square: scaled to cover the square and centre-cropped, stretched to it, or
scaled to fit into it, on a grey border.
"""


@contextmanager
def reading(
    path: Path, needed: int, ranges: Callable[[], Ranges] = Ranges, pages: str = "first"
) -> Iterator[Image.Image]:
    """Read one image file upright, as `decode`, but as mode "RGB" or, if grey, "L". JPEGs are
    decoded at a half, quarter or eighth of their size if that has the `needed` pixels; `LARGE`
    images are reduced by an integer factor. During the block its memory is taken from `IN_FLIGHT`.
    `ranges` is called only for deep images.
    """
    with opened(path, needed, pages) as picture:
        factor = 1 if picture.is_deep else _factor(picture.width, picture.height, needed)
        with _in_flight(picture, factor):
            pixels = picture.read()
            if isinstance(pixels, Deep):
                yield pixels.to_8_bits(ranges())
            else:
                yield _to_8_bits(pixels) if factor == 1 else _reduced(pixels, factor)


def _in_flight(picture: Picture, factor: int = 1) -> AbstractContextManager[None]:
    bytes_a_pixel = picture.bytes_a_pixel
    if factor > 1 and picture.is_plain:  # no second copy is made
        bytes_a_pixel = min(bytes_a_pixel, READ_AS)
    return IN_FLIGHT.taken(picture.width * picture.height * bytes_a_pixel)


def look_at(path: Path, pages: str) -> Look:
    """Return facts about a file; read its pixels only if they have more than 8 bits."""
    with opened(path, 1, pages) as picture:
        n_pages, n_others = picture.count_pages(), picture.others()
        if picture.is_deep:
            with _in_flight(picture):
                pixels = picture.read()
                if isinstance(pixels, Deep):
                    return Look(n_pages, n_others, pixels.mode, pixels.extent())
        return Look(n_pages, n_others, is_cut=picture.is_cut)


def _factor(width: int, height: int, needed: int) -> int:
    """Return the factor by which to reduce an image; 1 if it is not large."""
    if width * height < LARGE:
        return 1
    return min(max(1, min(width, height) // (FINE * needed)), MOST_REDUCED)


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """Convert as `_to_8_bits`, and average blocks of about `factor` by `factor` pixels."""
    width, height = image.size
    wide, high = width // factor, height // factor
    step = max(1, STRIP // (factor * width))
    whole = Image.new(_to_8_bits(image.crop((0, 0, 1, 1))).mode, (wide, high))
    for row in range(0, high, step):
        rows = min(step, high - row)
        top, bottom = row * height / high, (row + rows) * height / high
        first = math.floor(top)
        strip = _to_8_bits(image.crop((0, first, width, min(math.ceil(bottom), height))))
        box = (0, top - first, width, min(bottom - first, strip.height))
        whole.paste(strip.resize((wide, rows), Image.Resampling.BOX, box), (0, row))
    return whole


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert to "RGB", or grey to "L", which takes a quarter of the memory."""
    if not image.has_transparency_data:
        return _converted(image, "L" if image.mode in ("1", "L") else "RGB")
    image = _converted(image, "RGBA")
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image.getchannel("A"))
    return on_white


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """Convert if necessary; `convert` itself would always copy, perhaps a gigabyte."""
    return image if image.mode == mode else image.convert(mode)
