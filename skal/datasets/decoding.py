"""Image files to uint8 pixels: one, or very many at a time."""

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
"""Part of the key of what is made of pixels: raise it whenever `decode` changes one."""

LARGE = 2**24
"""Of so many pixels or more an image is made smaller in strips, never whole in memory twice."""
STRIP = 2**20
"""About so many pixels are made smaller at a time: they stay in the processor's cache."""
READ_AS = 4
"""Bytes a pixel that an image takes as it is read, at most."""
FINE = 4
"""What is made smaller so keeps as many times the pixels that are needed on a side: on average what
is made of it is less than a level from what is made of all pixels."""
MOST_REDUCED = 64
"""By what an image is made smaller at once at most: a strip has as many rows at least."""
UNDECIDED = Ranges()
BORDER = "#808080"
"""The mean of the weights that are made for borders."""
CHUNK_BYTES = 2**26
"""Pixels in flight while decoding, so that a slow disk never piles them up in memory."""
IN_FLIGHT = Budget(2**29)
"""For whole images, which all decoding shares, in processes that it starts too."""

T = TypeVar("T")

_log = logging.getLogger("skal")


@dataclass(frozen=True, eq=False)
class Decoded:
    """Files' pixels, uint8 of shape (n_read, 3, size, size), and reasons why others were `unread`,
    by path; `failed` are those of them that the system or memory failed to read, and `undecided`
    the kinds of deep images whose black and white were not decided.
    """

    paths: Sequence[str]
    pixels: Images
    unread: dict[str, str]
    failed: frozenset[str] = frozenset()
    undecided: frozenset[str] = frozenset()


class Look(NamedTuple):
    """What a file shows at a glance: its pages of one size, the files of the set that it is of, and
    if it is deep, the mode and the range of its pixels; `is_cut` if it has more bits than are read.
    """

    n_pages: int = 1
    n_others: int = 0
    mode: str = ""
    extent: Range | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class Decoding:
    """How files are decoded: `workers` at a time (default: one a processor), processes from
    `processes_from` files on, else threads; `tolerated` is how many of a chunk of at most
    `chunk_files` the system may fail to read, each retried after `pauses` (seconds). `geometry`,
    one of `GEOMETRIES`, is how an image becomes a square; `ranges` is what is black and white in
    those of more than 8 bits, and `pages` one of `PAGES`.
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
        """How many files are decoded at a time."""
        return self.workers or os.cpu_count() or 1


class ReadFailedError(DataError):
    """The system or memory failed to read a file, again and again."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"cannot read {str(path)!r} for now: {reason}; if it never can be read, take it away"
        )
        self.reason = reason


def decode_many(root: Path, paths: Sequence[str], how: Decoding) -> Generator[Decoded, None, None]:
    """Decode files in parallel, in order, a chunk at a time, at most about `CHUNK_BYTES` in
    advance. A `DataError` is raised if the system killed a decoding process or failed to read a
    file. The kinds of deep images for which `how` says no white are warned of.
    """
    ahead = 2 * how.n_workers
    step = _chunk_size(len(paths), how, ahead)
    running: deque[Future[Decoded]] = deque()
    told = set[str]()
    with _executor(how, len(paths)) as executor:
        for start in range(0, len(paths), step):
            chunk = paths[start : start + step]
            running.append(executor.submit(_decode_chunk, root, chunk, how))
            if len(running) > ahead:
                yield _result(running.popleft(), told)
        while running:
            yield _result(running.popleft(), told)


def to_channels(pixels: Images, n_channels: int) -> Images:
    """Return images of shape (n, 3, height, width) as they are, or grey by ITU-R 601."""
    if n_channels == pixels.shape[1]:
        return pixels
    weights = np.array([19595, 38470, 7471], np.uint32)
    grey = np.tensordot(pixels.astype(np.uint32), weights, (1, 0)) + 2**15
    return (grey >> 16).astype(np.uint8)[:, None]


def _chunk_size(n_files: int, how: Decoding, ahead: int) -> int:
    """Return how many files a worker takes at a time: few enough that none waits at the end."""
    fitting = CHUNK_BYTES // (3 * how.size * how.size * ahead)
    return max(1, min(how.chunk_files, fitting, max(16, n_files // (4 * how.n_workers))))


def _begin_process(budget: Budget) -> None:
    global IN_FLIGHT
    IN_FLIGHT = budget
    end_with_parent()
    warnings.simplefilter("ignore")


@contextmanager
def _executor(how: Decoding, n_files: int) -> Iterator[Executor]:
    """Start workers, and end them: after an error without a wait for what is still to do."""
    may_have_children = not multiprocessing.current_process().daemon
    executor: Executor
    if may_have_children and how.processes_from is not None and n_files >= how.processes_from:
        # joblib's, which do not run the user's script once more when they start
        from joblib.externals.loky import ProcessPoolExecutor
        from joblib.externals.loky.backend.context import get_context

        budget = Budget(2**29, get_context("loky"))
        executor = ProcessPoolExecutor(
            how.n_workers, initializer=_begin_process, initargs=(budget,)
        )
        at_once = {"wait": False, "kill_workers": True}
    else:
        executor, at_once = ThreadPoolExecutor(how.n_workers), {"cancel_futures": True}
    # Pillow warns of odd metadata; the pixels are what counts here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield executor
        except BaseException:
            executor.shutdown(**at_once)
            raise
        executor.shutdown()


def _result(future: Future[Decoded], told: set[str]) -> Decoded:
    try:
        decoded = future.result()
    except BrokenExecutor as error:
        raise DataError(
            "a process that was decoding images was killed, by the system if memory was short"
        ) from error
    for kind in sorted(decoded.undecided - told):
        told.add(kind)
        _log.warning(
            "there are images of %s, for which no white was decided: of each the nominal one of "
            "its type, such as 1 or 65535, is used; --white N, or --white LOW:HIGH, when the "
            "dataset is loaded, decides",
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
    """Read one file, or say why it cannot be; that the system failed, again after all `pauses`
    (seconds), is no reason to keep: a `ReadFailedError` is raised.
    """
    pauses = iter(pauses)
    while True:
        try:
            return _read_or_tell(path, read)
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or "memory is short"
            if (pause := next(pauses, None)) is None:
                raise ReadFailedError(path, reason) from error
            _log.debug("%s is tried again in %g s: %s", path, pause, reason)
        time.sleep(pause)


def _read_or_tell(path: Path, read: Callable[[Path], T]) -> T | str:
    try:
        status = os.stat(page_of(str(path))[0])  # noqa: PTH116 (Path is slow in a million)
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"  # to open a pipe would be to wait for ever
        return read(path)
    except Image.DecompressionBombError:
        return "too many pixels to be opened safely"
    except FileNotFoundError:
        if path.is_symlink():
            return "a link to a file that is not there"
        raise  # it was there when it was listed: its disk may be gone, and come back
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
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

    Grey, palette and CMYK images are converted, transparent ones laid on white, those of more than
    8 bits scaled by `ranges`; of an animation the first frame is taken, and of several pages
    that which the path names, else the first or their mean, as `pages` says. The content, not the
    suffix, tells the format.
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
"""How an image becomes a square: scaled to cover it and cut to its centre, stretched to it, or
scaled to lie in it on grey."""


@contextmanager
def reading(
    path: Path, needed: int, ranges: Callable[[], Ranges] = Ranges, pages: str = "first"
) -> Iterator[Image.Image]:
    """Read one image file upright, as `decode` says, but of mode "RGB" or, grey, "L"; a JPEG is
    decoded at a half, a quarter or an eighth of its size if that has the `needed` pixels, and what
    is `LARGE` made smaller by a whole number. Inside the block its memory counts as taken from
    `IN_FLIGHT`. `ranges` is asked if the file is deep.
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
    if factor > 1 and picture.is_plain:  # nothing beside it is as large
        bytes_a_pixel = min(bytes_a_pixel, READ_AS)
    return IN_FLIGHT.taken(picture.width * picture.height * bytes_a_pixel)


def look_at(path: Path, pages: str) -> Look:
    """Look at a file: at its pixels only if they have more than 8 bits."""
    with opened(path, 1, pages) as picture:
        n_pages, n_others = picture.count_pages(), picture.others()
        if picture.is_deep:
            with _in_flight(picture):
                pixels = picture.read()
                if isinstance(pixels, Deep):
                    return Look(n_pages, n_others, pixels.mode, pixels.extent())
        return Look(n_pages, n_others, is_cut=picture.is_cut)


def _factor(width: int, height: int, needed: int) -> int:
    """Return by what number an image is made smaller at once, 1 if it is not."""
    if width * height < LARGE:
        return 1
    return min(max(1, min(width, height) // (FINE * needed)), MOST_REDUCED)


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """Convert as `_to_8_bits` does, and make about `factor` by `factor` pixels one, their mean."""
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
    """Convert to "RGB", or what is grey to "L", which takes a quarter of the memory."""
    if not image.has_transparency_data:
        return _converted(image, "L" if image.mode in ("1", "L") else "RGB")
    image = _converted(image, "RGBA")
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image.getchannel("A"))
    return on_white


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """Convert, if need be: `convert` alone would copy what may be a gigabyte."""
    return image if image.mode == mode else image.convert(mode)
