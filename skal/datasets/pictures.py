"""Opens image files of any format, with Pillow or the extras."""

from __future__ import annotations

import ctypes
import errno
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from itertools import count, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from ..core.errors import DataError, pass_on_memory
from ..core.text import counted
from . import formats, instruments
from .deep import Deep

DEEP_MODES = frozenset(("I;16", "I;16B", "I;16L", "I", "F"))
BYTES_A_PIXEL = {"1": 2, "L": 1, "I;16": 4, "RGB": 4, "P": 5}
"""Bytes per pixel that an image takes during conversion, by mode; 10 for other modes."""
READ_WHOLE = {"WEBP": 16, "AVIF": 16}
"""The same for formats whose libraries make copies while decoding, whatever the mode."""
DESCRIPTION, NO_DATA, REDUCED = 270, 42113, 254
"""TIFF tag numbers; the second is GeoTIFF's."""
NUMBERS = {1: "whole", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
OF_THE_FILE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
).union((errno.EINVAL, errno.EOVERFLOW))
"""Errors that are due to the file; the last two come from offsets in it."""

# larger than malloc's caches per thread, so that memory of a huge image returns to the system
Image.core.set_block_size(2**26)  # type: ignore[attr-defined]

_log = logging.getLogger("skal")


@contextmanager
def opened(path: Path, needed: int, pages: str = "first") -> Iterator[instruments.Picture]:
    """Open an image file by its content, not its suffix. A JPEG is decoded at a half, quarter or
    eighth of its size if that has the `needed` pixels. Of a multi-page file, read the page in the
    path (see `page_of`), the first, or the "mean" of the pages of the first one's size. Raise a
    `DataError` if it is not an image.
    """
    place, page = formats.page_of(str(path))
    path, chosen = Path(place), page or pages
    if path.exists() and not path.is_file():
        raise DataError("it is a pipe, a device or a folder")  # opening a pipe could block forever
    _hush_libtiff()
    # from an open file: given a path, Pillow maps grey TIFFs and scrambles those that EXIF rotates
    with path.open("rb") as file:
        head = file.read(formats.HEAD)
        file.seek(0)
        extra = formats.extra_of(head)
        if extra in READERS:
            picture = READERS[extra](file, chosen)
        else:
            image = _open_image(file, head, extra)
            if image is None or (tiff := _misread(image)):
                file.seek(0)
                picture = instruments.read_tiff(file, chosen, tiff if image else _described(file))
            else:
                if image.format in ("JPEG", "MPO"):  # MPO: a phone's JPEG with a second picture
                    image.draft(None, (needed, needed))
                picture = _of_image(image, chosen)
                if formats.DEEP_PNG.match(head) and formats.is_installed("imagecodecs"):
                    turn = image.getexif().get(ExifTags.Base.Orientation, 1)
                    file.seek(0)
                    picture = instruments.read_png(file, image.size, turn)
                else:
                    is_cut = formats.DEEP_PNG.match(head) or formats.DEEP_PPM.match(head)
                    if isinstance(image, TiffImageFile) and image.mode in ("RGB", "RGBA"):
                        is_cut = is_cut or image.tag_v2.get(258, (1,))[0] > 8
                    picture = replace(picture, is_cut=bool(is_cut))
        most = Image.MAX_IMAGE_PIXELS
        if most is not None and picture.width * picture.height > 2 * most:
            raise Image.DecompressionBombError
        yield picture


READERS: dict[formats.Extra | None, Callable[[IO[bytes], str | int], instruments.Picture]] = {
    formats.DICOM: instruments.read_dicom,
    formats.FITS: instruments.read_fits,
}


def _open_image(file: IO[bytes], head: bytes, extra: formats.Extra | None) -> Image.Image | None:
    """Open an image with Pillow; return None for a TIFF that it cannot read."""
    known: tuple[str, ...] = formats.FORMATS
    if extra in (formats.HEIF, formats.JPEG_XL):
        extra.require()
        plugin = importlib.import_module(extra.module)
        if extra is formats.HEIF:
            plugin.register_heif_opener()
        known = (extra.name,)  # the plugin's name
    try:
        return Image.open(file, formats=known)
    except UnidentifiedImageError:
        if formats.TIFF.head.match(head):
            return None
        raise DataError(formats.what_it_is(head)) from None


@cache
def _hush_libtiff() -> None:
    """Stop libtiff and Pillow from writing errors to stderr, which are raised, too."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # not Linux
        return
    for place in sorted({line.split()[-1] for line in lines if "/libtiff" in line}):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(place)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)


def _of_image(image: Image.Image, pages: str | int) -> instruments.Picture:
    return instruments.Picture(
        image.width,
        image.height,
        image.mode in DEEP_MODES,
        READ_WHOLE.get(str(image.format), BYTES_A_PIXEL.get(image.mode, 10)),
        partial(_read, image, pages),
        lambda: len(_pages_of(image)),
        partial(_count_others, image),
        str(image.format),
        image.mode,
        # rotating by EXIF makes a copy
        is_plain=image.format == "PNG" and not any("exif" in str(key) for key in image.info),
    )


def _read(image: Image.Image, pages: str | int) -> instruments.Pixels:
    facts = {}
    if isinstance(image, TiffImageFile):
        facts = _facts(image)
        if pages != "first":
            most = pages if isinstance(pages, int) else None
            image = _chosen(image, instruments.chosen_of(_pages_of(image, most), pages))
    _set_upright(image)
    if image.mode in DEEP_MODES:
        return Deep.of_image(image, **facts)
    return image


def _facts(image: TiffImageFile) -> dict[str, Any]:
    """Return facts in the tags of a deep grey TIFF that Pillow ignores."""
    tags, white = image.tag_v2, None
    bits = tags.get(258, (1,))[0]
    if tags.get(262) == 0:
        white = 0.0 if image.mode == "F" else float(2**bits - 1)
    unsigned = bits == 32 and image.mode == "I" and tags.get(339, (1,))[0] == 1
    return {
        "no_data": instruments.number(tags.get(NO_DATA)),
        "white_is_zero": white,
        "unsigned": unsigned,
    }


def _misread(image: Image.Image) -> str:
    """Describe a TIFF that Pillow reads wrongly, or worse than the extra; "" for other images."""
    if not isinstance(image, TiffImageFile):
        return ""
    tags = image.tag_v2
    bits, bands = tags.get(258, (1,))[0], tags.get(277, 1)
    if bits == 8 and tags.get(339, (1,))[0] == 2:
        return "a TIFF of signed numbers of 8 bits"
    if bits > 8 and bands > 1 and tags.get(284) == 2:
        return f"a TIFF of {bands} planes of {bits} bits"
    # Pillow keeps only the upper 8 bits, of which 12-bit data use 4
    is_deep = bits > 8 and (bands == 3 or (bands == 4 and tags.get(262) == 2))
    return "a TIFF of deep colours" if is_deep and formats.is_installed("tifffile") else ""


def _described(file: IO[bytes]) -> str:
    """Describe a TIFF that Pillow does not open."""
    header = file.read(8)
    big = header[2:3] == b"+" or header[3:4] == b"+"
    directory = ImageFileDirectory_v2(header + file.read(8) if big else header)
    file.seek(directory.next)
    try:
        directory.load(file)
        bits, bands = directory.get(258, (1,))[0], directory.get(277, 1)
        kind = NUMBERS.get(directory.get(339, (1,))[0], "unknown")
    except Exception as error:  # damaged tags may raise anything
        pass_on_memory(error)
        raise DataError("a damaged TIFF") from error
    finally:
        file.seek(0)
    return f"a TIFF of {counted(bands, 'band')} of {kind} numbers of {bits} bits"


def _count_others(image: Image.Image) -> int:
    """Return the number of files in a TIFF's OME set; 0 if it is in none."""
    if not isinstance(image, TiffImageFile):
        return 0
    return instruments.files_of_set(str(image.tag_v2.get(DESCRIPTION)))


def _pages_of(image: Image.Image, most: int | None = None) -> list[int]:
    """Return the pages of a TIFF that have the size of the first, at most `most`; [0] for other
    files.
    """
    if not isinstance(image, TiffImageFile) or not getattr(image, "is_animated", False):
        return [0]
    found = [*islice(_like_the_first(image), most)]
    image.seek(0)
    return found


def _like_the_first(image: TiffImageFile) -> Iterator[int]:
    size, mode = image.size, image.mode
    yield 0
    with suppress(EOFError):  # the number of pages is known only at the end
        for page in count(1):
            image.seek(page)
            if (image.size, image.mode) == (size, mode) and not image.tag_v2.get(REDUCED, 0) & 1:
                yield page


def _chosen(image: TiffImageFile, pages: Sequence[int]) -> Image.Image:
    """Return a page of a TIFF, or the mean of several with the orientation of the first."""
    if len(pages) == 1:
        image.seek(pages[0])
        return image
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)

    def arrays() -> Iterator[NDArray[Any]]:
        for page in pages:
            image.seek(page)
            plain = image.mode in DEEP_MODES or image.mode in ("L", "RGB")
            yield np.asarray(image if plain else image.convert("RGB"))

    averaged = Image.fromarray(instruments.mean_of(arrays()))
    averaged.getexif()[ExifTags.Base.Orientation] = orientation
    return averaged


def _set_upright(image: Image.Image) -> None:
    image.load()
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # damaged metadata may raise anything
        if is_of_the_system(error):
            raise
        _log.debug("ignored metadata of an image: %s", error)


def is_of_the_system(error: Exception) -> bool:
    """Return whether the system caused an error, not the file; Pillow's errors have no errno."""
    if isinstance(error, OSError):
        if error.errno is None:
            return str(error).startswith("out of memory")
        return error.errno not in OF_THE_FILE
    return isinstance(error, MemoryError)
