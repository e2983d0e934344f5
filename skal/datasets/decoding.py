"""Image files to uint8 pixels: one, or very many at a time."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import stat
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..core.errors import DataError
from ..core.memory import Budget
from .base import Images, one_line

DECODER_VERSION = 2
"""Part of the key of what is made of pixels: raise it whenever `decode` changes one."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
BORDER = "#808080"
"""The mean of the weights that are made for borders."""
CHUNK_BYTES = 2**26
"""Pixels in flight while decoding, so that a slow disk never piles them up in memory."""
IN_FLIGHT = Budget(2**29)
"""For whole images, which all decoding shares, in processes that it starts too."""
BYTES_A_PIXEL = {"1": 2, "L": 1, "I;16": 4, "RGB": 4, "P": 5}
"""That an image takes while it is converted, by mode; of others 10."""
ROWS_AT_ONCE = 64
WHITE = {"I": (255, 65535), "F": (1, 255, 65535)}
"""What stands for white where the mode does not say it: the first that no pixel exceeds."""
OF_THE_FILE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
).union((errno.EINVAL, errno.EOVERFLOW))
"""Numbers of errors that say something of a file; the last two come of places that it names."""

# above what malloc holds on to for each thread: the memory of a huge image is the system's again
Image.core.set_block_size(2**26)  # type: ignore[attr-defined]

_log = logging.getLogger("skal")


@dataclass(frozen=True, eq=False)
class Decoded:
    """Files' pixels, uint8 of shape (n_read, 3, size, size), and reasons why others were `unread`,
    by path; `failed` are those of them that the system or memory failed to read.
    """

    paths: Sequence[str]
    pixels: Images
    unread: dict[str, str]
    failed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decoding:
    """How files are decoded: `workers` at a time (default: one a processor), processes from
    `processes_from` files on, else threads; `tolerated` is how many of a chunk of at most
    `chunk_files` the system may fail to read, each retried after `pauses` (seconds). `geometry`,
    one of `GEOMETRIES`, is how an image becomes a square.
    """

    size: int
    workers: int | None = None
    processes_from: int | None = None
    tolerated: int = 0
    chunk_files: int = 256
    pauses: Sequence[float] = (0.2, 2.0)
    geometry: str = "cover"
    decode: Callable[[Path, int, str], Images] = field(default_factory=lambda: decode)

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
    file.
    """
    ahead = 2 * how.n_workers
    step = _chunk_size(len(paths), how, ahead)
    running: deque[Future[Decoded]] = deque()
    with _executor(how, len(paths)) as executor:
        for start in range(0, len(paths), step):
            chunk = paths[start : start + step]
            running.append(executor.submit(_decode_chunk, root, chunk, how))
            if len(running) > ahead:
                yield _result(running.popleft())
        while running:
            yield _result(running.popleft())


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


def _result(future: Future[Decoded]) -> Decoded:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise DataError(
            "a process that was decoding images was killed, by the system if memory was short"
        ) from error


def _decode_chunk(root: Path, paths: Sequence[str], how: Decoding) -> Decoded:
    pixels = np.empty((len(paths), 3, how.size, how.size), np.uint8)
    n_read, unread, failed = 0, dict[str, str](), set[str]()
    for path in paths:
        try:
            result = _try_decode(root / path, how)
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
    return Decoded(paths, pixels[:n_read], unread, frozenset(failed))


def _try_decode(path: Path, how: Decoding) -> Images | str:
    """Decode one file, or say why it cannot be; that the system failed is no reason to keep."""
    pauses = iter(how.pauses)
    while True:
        try:
            return _decode_or_tell(path, how)
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or "memory is short"
            if (pause := next(pauses, None)) is None:
                raise ReadFailedError(path, reason) from error
            _log.debug("%s is tried again in %g s: %s", path, pause, reason)
        time.sleep(pause)


def _decode_or_tell(path: Path, how: Decoding) -> Images | str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"  # to open a pipe would be to wait for ever
        return how.decode(path, how.size, how.geometry)
    except UnidentifiedImageError:
        return "empty file" if status.st_size == 0 else f"not one of {', '.join(FORMATS)}"
    except Image.DecompressionBombError:
        return "too many pixels to be opened safely"
    except FileNotFoundError:
        if path.is_symlink():
            return "a link to a file that is not there"
        raise  # it was there when it was listed: its disk may be gone, and come back
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        if _is_of_the_system(error):
            raise
        return getattr(error, "strerror", None) or one_line(error)


def _is_of_the_system(error: Exception) -> bool:
    """Tell whether the system, not the file, is at fault; Pillow's own errors have no number."""
    if isinstance(error, OSError):
        if error.errno is None:
            return str(error).startswith("out of memory")
        return error.errno not in OF_THE_FILE
    return isinstance(error, MemoryError)


def decode(path: Path, size: int, geometry: str = "cover") -> Images:
    """Decode one image file to upright RGB, uint8 of shape (3, size, size), by one of `GEOMETRIES`.

    Grey, palette, CMYK and 16-bit images are converted, transparent ones laid on white; of an
    animation the first frame is taken, and the content, not the suffix, tells the format.
    """
    with reading(path, 2 * size) as image:
        fitted = GEOMETRIES[geometry](image, (size, size))
    return np.ascontiguousarray(np.asarray(fitted.convert("RGB")).transpose(2, 0, 1))


def _cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return ImageOps.fit(image, size, method=Image.Resampling.BICUBIC)


def _squash(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BICUBIC)


def _border(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return ImageOps.pad(image, size, method=Image.Resampling.BICUBIC, color=BORDER)


GEOMETRIES: Mapping[str, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {
    "cover": _cover,
    "squash": _squash,
    "border": _border,
}
"""How an image becomes a square: scaled to cover it and cut to its centre, stretched to it, or
scaled to lie in it on grey."""


@contextmanager
def reading(path: Path, needed: int) -> Iterator[Image.Image]:
    """Read one image file upright, as `decode` says, but of mode "RGB" or, grey, "L"; a JPEG is
    decoded at a half, a quarter or an eighth of its size if that has the `needed` pixels. Inside
    the block its memory counts as taken from `IN_FLIGHT`.
    """
    # from an open file: of a path Pillow maps grey TIFFs, and scrambles those that EXIF rotates
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        if image.format in ("JPEG", "MPO"):  # the latter has a second picture, as phones save it
            image.draft(None, (needed, needed))
        with IN_FLIGHT.taken(image.width * image.height * BYTES_A_PIXEL.get(image.mode, 10)):
            _set_upright(image)
            yield _to_8_bits(image)


def _set_upright(image: Image.Image) -> None:
    image.load()
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # damaged metadata, of which Pillow raises nearly anything
        if _is_of_the_system(error):
            raise
        _log.debug("metadata of an image passed over: %s", error)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert to "RGB", or what is grey to "L", which takes a quarter of the memory."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _scale_deep(image)
    if not image.has_transparency_data:
        return _converted(image, "L" if image.mode in ("1", "L") else "RGB")
    image = _converted(image, "RGBA")
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image.getchannel("A"))
    return on_white


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """Convert, if need be: `convert` alone would copy what may be a gigabyte."""
    return image if image.mode == mode else image.convert(mode)


def _scale_deep(image: Image.Image) -> Image.Image:
    """Bring more than 8 bits a channel to 8, which Pillow's `convert` would clip to white; values
    out of the range from black to white are stretched from the darkest to the brightest pixel.
    """
    low = min(float(rows.min()) for rows in _strips(image))
    high = max(float(rows.max()) for rows in _strips(image))
    whites: list[float] = [
        top for top in WHITE.get(image.mode, (65535,)) if 0 <= low <= high <= top
    ]
    black, white = (0.0, whites[0]) if whites else (low, high - low)
    scaled = np.empty((image.height, image.width), np.uint8)
    for number, rows in enumerate(_strips(image)):
        top = number * ROWS_AT_ONCE
        np.rint((rows - black) * (255 / white), out=scaled[top : top + len(rows)], casting="unsafe")
    return Image.fromarray(scaled)


def _strips(image: Image.Image) -> Iterator[NDArray[np.float32]]:
    """Yield some rows at a time; what is infinite or no number is black."""
    for top in range(0, image.height, ROWS_AT_ONCE):
        strip = image.crop((0, top, image.width, min(top + ROWS_AT_ONCE, image.height)))
        yield np.nan_to_num(np.asarray(strip, dtype=np.float32), posinf=0, neginf=0)
