"""Readers of scientific formats by optional packages: TIFF, DICOM, FITS."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import DataError
from .deep import Deep, mode_of
from .formats import DICOM, FITS, TIFF

Pixels: TypeAlias = Image.Image | Deep
T = TypeVar("T")

ORIENTATION = 274
MOST_BANDS = 1024
"""Hyperspectral cameras have hundreds."""
FILES_OF_A_SET = re.compile(r"<UUID[^>]*FileName=\"([^\"]*)\"")
TURNED: Mapping[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
"""Functions that turn pixels upright, by EXIF orientation."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An open image file: its size, whether it has more than 8 bits, its number of pages, and a
    function that reads its upright pixels. `others` counts the files of its OME set; `format` and
    `mode` are Pillow's names where possible.
    """

    width: int
    height: int
    is_deep: bool
    bytes_a_pixel: int
    read: Callable[[], Pixels]
    count_pages: Callable[[], int] = lambda: 1
    others: Callable[[], int] = lambda: 0
    format: str = ""
    mode: str = ""
    is_cut: bool = False
    """Whether its values have more bits than are read."""
    is_plain: bool = False
    """Whether reading makes no second copy in memory."""


def pixels_of(array: NDArray[Any], **facts: Any) -> Pixels:
    """Return an array, shape (height, width) or (height, width, bands), as an image: the first of
    two bands, or the first three as red, green and blue.
    """
    if array.ndim == 3:
        array = array[..., :3] if array.shape[2] > 2 else array[..., 0]
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "uif":
        raise DataError(f"pixels of type {array.dtype}")
    if array.dtype == np.uint8:
        if facts.get("white_is_zero"):
            array = 255 - array
        return Image.fromarray(np.ascontiguousarray(array))
    return Deep.of_array(array, **facts)


def mean_of(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Return the mean of arrays of one shape, in their dtype."""
    n, total = 0, None
    for array in arrays:
        n += 1
        if n == 1:
            first = array
        else:
            total = array + (first.astype(np.float64) if total is None else total)
    if total is None:
        return first
    mean = total / n
    return (mean if first.dtype.kind == "f" else np.rint(mean)).astype(first.dtype)


def chosen_of(found: Sequence[T], pages: str | int) -> Sequence[T]:
    """Return the pages to read: all for "mean", the one with a number (from 1), else the first."""
    if pages == "mean":
        return found
    number = pages if isinstance(pages, int) else 1
    if number > len(found):
        raise DataError(
            f"got page {number}; expected 1 to {len(found)}, the pages of the first one's size"
        )
    return found[number - 1 : number]


def read_tiff(file: IO[bytes], pages: str | int, what: str) -> Picture:
    """Open a TIFF that Pillow cannot read, or reads wrongly; `what` describes it."""
    TIFF.require(what)
    from tifffile import TiffFile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # keep stderr free

    # pages, not series: the series of an OME set has the pixels of all its files
    all_pages: Any = TiffFile(file).pages  # type: ignore[no-untyped-call]
    first = all_pages[0]
    if first.samplesperpixel * first.imagedepth > MOST_BANDS:  # usually damaged
        raise DataError(f"a TIFF of {first.samplesperpixel * first.imagedepth} bands")
    like_it = [p for p in all_pages if p.shape == first.shape and p.dtype == first.dtype]
    bits = int(np.max(first.bitspersample))
    is_deep = bits > 8 or first.dtype == np.int8

    def read() -> Pixels:
        array = mean_of(page.asarray() for page in chosen_of(like_it, pages))
        array = _on_white(_bands_last(array, first.axes), first)
        tags = first.tags
        if turn := TURNED.get(tags.valueof(ORIENTATION, 1)):
            array = turn(array)
        inverted = first.photometric == 0
        white = (0.0 if array.dtype.kind == "f" else float(2**bits - 1)) if inverted else None
        return pixels_of(array, no_data=number(tags.valueof(42113)), white_is_zero=white)

    return Picture(
        int(first.imagewidth),
        int(first.imagelength),
        is_deep,
        int(first.samplesperpixel) * (bits // 8) + 10,
        read,
        lambda: len(like_it),
        lambda: files_of_set(first.description),
        format=TIFF.name,
        mode=mode_of(first.dtype) if is_deep else "RGB" if first.samplesperpixel > 2 else "L",
    )


def read_png(file: IO[bytes], size: tuple[int, int], orientation: int) -> Picture:
    """Open a PNG of 16-bit colours; transparent ones are composited on white."""

    def read() -> Pixels:
        from imagecodecs import png_decode

        array = png_decode(file.read())
        if array.shape[2] == 4:
            alpha = array[..., 3:] / 65535
            array = np.rint(array[..., :3] * alpha + 65535 * (1 - alpha)).astype(np.uint16)
        return pixels_of(TURNED[orientation](array) if orientation in TURNED else array)

    if orientation in (5, 6, 7, 8):
        size = size[::-1]
    return Picture(*size, True, 40, read, format="PNG", mode="I;16")


def _bands_last(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """Return an array with axes such as "SYX" as "YX" or "YXS", at index 0 of all other axes."""
    for axis in [axis for axis in axes if axis not in "YXS"]:
        array = array.take(0, axes.index(axis))
        axes = axes.replace(axis, "")
    order = [axes.index(axis) for axis in "YXS" if axis in axes]
    return array.transpose(order)


def _on_white(array: NDArray[Any], page: Any) -> NDArray[Any]:
    """Composite transparent colours on white."""
    is_rgb = page.photometric == 2 and array.ndim == 3 and array.shape[2] == 4
    if not is_rgb or array.dtype.kind != "u" or not {1, 2} & {*map(int, page.extrasamples)}:
        return array
    white = np.iinfo(array.dtype).max
    alpha = array[..., 3:] / white
    of_colour = 1 if 1 in [*map(int, page.extrasamples)] else alpha  # 1: premultiplied
    shown: NDArray[Any] = np.rint(array[..., :3] * of_colour + white * (1 - alpha))
    return shown.clip(0, white).astype(array.dtype)


def files_of_set(description: str) -> int:
    """Return the number of files in the OME set that a TIFF's description names; 0 if none."""
    return len(set(FILES_OF_A_SET.findall(description)))


def number(text: Any) -> float | None:
    """Return a tag's text as a number, or None."""
    if text is None:
        return None
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def read_dicom(file: IO[bytes], pages: str | int) -> Picture:
    """Open a medical image; its values are rescaled, and windowed if the file has a window."""
    DICOM.require()
    from pydicom import dcmread

    data = dcmread(file)
    if "PixelData" not in data:
        raise DataError("a DICOM file without pixels")
    n_frames = int(data.get("NumberOfFrames") or 1)

    def read() -> Pixels:
        from pydicom.pixels import apply_color_lut, pixel_array

        frames = chosen_of(range(n_frames), pages)
        array = mean_of(pixel_array(data, index=frame) for frame in frames)
        if data.PhotometricInterpretation == "PALETTE COLOR":
            colours = apply_color_lut(array, data)
            return pixels_of((colours >> 8).astype(np.uint8) if colours.itemsize > 1 else colours)
        return pixels_of(array) if array.ndim == 3 else _grey(array, data)

    is_deep = int(data.get("BitsAllocated", 8)) > 8
    mode = "I;16" if is_deep else "RGB" if data.get("SamplesPerPixel") == 3 else "L"
    return Picture(
        int(data.Columns),
        int(data.Rows),
        is_deep,
        24,
        read,
        lambda: n_frames,
        format=DICOM.name,
        mode=mode,
    )


def _grey(stored: NDArray[Any], data: Any) -> Pixels:
    """Return the rescaled values, or the image as the file's window shows them."""
    from pydicom.pixels import apply_modality_lut

    half = 2 ** (int(data.BitsStored) - 1)
    ends = (-half, half - 1) if data.PixelRepresentation else (0, 2 * half - 1)
    facts = np.array([[*ends, data.get("PixelPaddingValue") or 0]]).astype(stored.dtype)
    values, facts = (apply_modality_lut(a, data).astype(np.float64) for a in (stored, facts))
    low, high, padding = facts[0].tolist()
    inverted = data.PhotometricInterpretation == "MONOCHROME1"
    shown = _through_window(values, data)
    if shown is not None:
        shown = 1 - shown if inverted else shown
        return pixels_of(np.rint(255 * shown).astype(np.uint8))
    if stored.dtype == np.uint8 and np.array_equal(values, stored):
        values = stored
    elif np.array_equal(values, np.rint(values)):
        values = values.astype(np.int64)
    return pixels_of(
        values,
        no_data=padding if "PixelPaddingValue" in data else None,
        white_is_zero=low + high if inverted else None,
    )


def _through_window(values: NDArray[np.float64], data: Any) -> NDArray[np.float64] | None:
    """Return values from 0 to 1 by the file's window or table (PS3.3 C.11.2); None without."""
    if data.get("VOILUTSequence"):
        from pydicom.pixels import apply_voi_lut

        table = data.VOILUTSequence[0]
        shown = apply_voi_lut(values.astype(np.int64), data)
        return np.asarray(shown / (2.0 ** int(table.LUTDescriptor[2]) - 1)).clip(0, 1)
    if data.get("WindowWidth") is None or data.get("WindowCenter") is None:
        return None
    centre, width = (float(np.ravel(value)[0]) for value in (data.WindowCenter, data.WindowWidth))
    function = data.get("VOILUTFunction") or "LINEAR"
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return np.asarray((values - centre) / max(width, 1e-9) + 0.5).clip(0, 1)


def read_fits(file: IO[bytes], pages: str | int) -> Picture:
    """Open the first FITS image with at least two axes; its first row is at the bottom."""
    FITS.require()
    from astropy.io import fits

    found = (hdu for hdu in fits.open(file, memmap=False) if hdu.is_image and len(hdu.shape) > 1)
    hdu = next(found, None)
    if hdu is None:
        raise DataError("a FITS file without an image")
    *leading, height, width = hdu.shape
    n_planes = math.prod(leading)

    def read() -> Pixels:
        planes = np.asarray(hdu.data).reshape(n_planes, height, width)
        array = mean_of(planes[plane] for plane in chosen_of(range(n_planes), pages))
        return pixels_of(array.astype(array.dtype.newbyteorder("="))[::-1])

    is_deep = hdu.header["BITPIX"] != 8 or "BSCALE" in hdu.header
    mode = "F" if hdu.header["BITPIX"] < 0 or "BSCALE" in hdu.header else "I" if is_deep else "L"
    return Picture(width, height, is_deep, 24, read, lambda: n_planes, format=FITS.name, mode=mode)
