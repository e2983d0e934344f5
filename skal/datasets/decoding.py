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
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..core.errors import DataError
from .base import Images, one_line

DECODER_VERSION = 1
"""Part of the key of what is made of pixels: raise it whenever `decode` changes one."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
BORDER = (128, 128, 128)
"""The mean of the weights that are made for borders."""
CHUNK_BYTES = 2**26
"""Pixels in flight while decoding, so that a slow disk never piles them up in memory."""
WHITE = {"I": (255, 65535), "F": (1, 255, 65535)}
"""What stands for white where the mode does not say it: the first that no pixel exceeds."""
OF_THE_FILE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
).union((errno.EINVAL, errno.EOVERFLOW))
"""Numbers of errors that say something of a file; the last two come of places that it names."""

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


@contextmanager
def _executor(how: Decoding, n_files: int) -> Iterator[Executor]:
    """Start workers, and end them: after an error without a wait for what is still to do."""
    may_have_children = not multiprocessing.current_process().daemon
    executor: Executor
    if may_have_children and how.processes_from is not None and n_files >= how.processes_from:
        # joblib's, which do not run the user's script once more when they start
        from joblib.externals.loky import ProcessPoolExecutor

        hush = partial(warnings.simplefilter, "ignore")
        executor = ProcessPoolExecutor(how.n_workers, initializer=hush)
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
    fitted = GEOMETRIES[geometry](read_rgb(path, 2 * size), (size, size))
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


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


def read_rgb(path: Path, needed: int) -> Image.Image:
    """Read one image file as upright RGB, as `decode` says; a JPEG is decoded at a half, a quarter
    or an eighth of its size if that has the `needed` pixels.
    """
    # from an open file: of a path Pillow maps grey TIFFs, and scrambles those that EXIF rotates
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        if image.format == "JPEG":
            image.draft(None, (needed, needed))
        _set_upright(image)
        return _to_rgb(image)


def _set_upright(image: Image.Image) -> None:
    image.load()
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # damaged metadata, of which Pillow raises nearly anything
        if _is_of_the_system(error):
            raise
        _log.debug("metadata of an image passed over: %s", error)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _scale_deep(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode != "RGBA":  # else `convert` would copy what may be a gigabyte
        image = image.convert("RGBA")
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image.getchannel("A"))
    return on_white


def _scale_deep(image: Image.Image) -> Image.Image:
    """Bring more than 8 bits a channel to 8, which Pillow's `convert` would clip to white; values
    out of the range from black to white are stretched from the darkest to the brightest pixel.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    whites: list[float] = [
        top for top in WHITE.get(image.mode, (65535,)) if 0 <= low <= high <= top
    ]
    if not whites:
        values, whites = values - low, [high - low]
    return Image.fromarray(np.rint(values * (255 / whites[0])).astype(np.uint8))
