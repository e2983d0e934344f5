"""Images of more than 8 bits per channel: finding black and white, and scaling to 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROWS_AT_ONCE = 64
LEFT_OUT = 0.05
"""Percentage of an image's darkest, and of its brightest, pixels outside its extent."""
PIXELS_LOOKED_AT = 2**20
NO_DATA = (-9999, -99999, -32768)
"""Values that survey data commonly use for "no data", whether or not the file says so."""
NOWHERE_NEAR = 1e30
"""Floats of at least this size also mean "no data"."""
NOMINAL = (1, 255, 1023, 4095, 16383, 65535)
"""White in files of 8, 10, 12, 14 and 16 bits, and in floats."""
OF_MODE = {"I": (255, 65535), "F": (1, 255, 65535)}
"""White if none was decided: the first value that no pixel exceeds."""

NOT_DECIDED = "none"
FRACTIONS, WHOLE = "fractions", "whole numbers of more than 8 bits"

MET_UNDECIDED: ContextVar[set[str] | None] = ContextVar("MET_UNDECIDED", default=None)
"""Collects the kinds of images whose black and white were not decided."""


class Range(NamedTuple):
    """The values of black and white."""

    black: float
    white: float

    def __str__(self) -> str:
        black, white = (f"{value:.9g}" for value in self)
        return white if self.black == 0 else f"{black}:{white}"


class Ranges(NamedTuple):
    """The ranges of a dataset's images of whole numbers and of fractions; None if not decided."""

    whole: Range | None = None
    fractions: Range | None = None

    @classmethod
    def parse(cls, text: str | None) -> Ranges:
        """Parse ``WHITE`` or ``BLACK:WHITE``, for both kinds, or for each kind separated by a
        comma; ``none`` is not decided.
        """
        if not text:
            return cls()
        found = [cls._parse_one(part) for part in text.split(",")]
        return cls(found[0], found[-1])

    @staticmethod
    def _parse_one(text: str) -> Range | None:
        if text == NOT_DECIDED:
            return None
        black, _, white = text.rpartition(":")
        return Range(float(black or 0), float(white))

    def __str__(self) -> str:
        """Return the text that `parse` reads; "" if nothing is decided."""
        if self == Ranges():
            return ""
        return ",".join(dict.fromkeys(NOT_DECIDED if one is None else str(one) for one in self))


@dataclass(frozen=True, eq=False)
class Deep:
    """The pixels of a deep image. `rows` returns a range of rows, shape (rows, width) or (rows,
    width, 3); `no_data` is the value of pixels that were not measured. If 0 is white,
    `white_is_zero` is the number from which values are subtracted.
    """

    width: int
    height: int
    mode: str  # Pillow's: "I;16", "I" or "F"
    rows: Callable[[int, int], NDArray[Any]]
    no_data: float | None = None
    white_is_zero: float | None = None

    @classmethod
    def of_array(cls, array: NDArray[Any], **facts: Any) -> Deep:
        """Return an array of shape (height, width) or (height, width, 3) as an image."""
        height, width = array.shape[:2]
        return cls(width, height, mode_of(array.dtype), lambda top, end: array[top:end], **facts)

    @classmethod
    def of_image(cls, image: Image.Image, unsigned: bool = False, **facts: Any) -> Deep:
        """Return a single-channel deep Pillow image, with `unsigned` 32-bit values if so, for which
        Pillow has no mode.
        """

        def rows(top: int, end: int) -> NDArray[Any]:
            stored = np.asarray(image.crop((0, top, image.width, end)))
            return stored.view(np.uint32) if unsigned else stored

        mode = "I;16" if image.mode.startswith("I;16") else image.mode
        return cls(image.width, image.height, mode, rows, **facts)

    @property
    def has_gaps(self) -> bool:
        """Whether pixels may be NaN."""
        return self.mode == "F" or self.no_data is not None

    def strips(self) -> Iterator[NDArray[np.float32]]:
        """Yield strips of rows, with infinite, invalid and unmeasured values as NaN."""
        for top in range(0, self.height, ROWS_AT_ONCE):
            stored = self.rows(top, min(top + ROWS_AT_ONCE, self.height))
            with np.errstate(over="ignore"):
                strip = stored.astype(np.float32)
            if self.mode == "F":
                strip[~(np.abs(strip) < NOWHERE_NEAR)] = np.nan
            if self.no_data is not None:
                strip[strip == np.float32(self.no_data)] = np.nan
            yield strip if self.white_is_zero is None else self.white_is_zero - strip

    def extent(self) -> Range | None:
        """Return the range of all but the most extreme pixels; None if they are all equal."""
        step = max(1, self.width * self.height // PIXELS_LOOKED_AT)
        values = np.concatenate([strip.reshape(-1)[::step] for strip in self.strips()])
        values = values[~(np.isnan(values) | np.isin(values, NO_DATA))]
        if not len(values):
            return None
        low, high = np.percentile(values, (LEFT_OUT, 100 - LEFT_OUT), method="nearest")
        return Range(float(low), float(high)) if low < high else None

    def to_8_bits(self, ranges: Ranges) -> Image.Image:
        """Scale from black to white, and clip; unmeasured pixels become black."""
        decided = ranges.fractions if self.mode == "F" else ranges.whole
        if decided is None and (kinds := MET_UNDECIDED.get()) is not None:
            kinds.add(FRACTIONS if self.mode == "F" else WHOLE)
        black, white = decided or self._own_range()
        scaled: NDArray[np.uint8] | None = None
        for number, strip in enumerate(self.strips()):
            if scaled is None:
                scaled = np.empty((self.height, *strip.shape[1:]), np.uint8)
            strip -= black
            strip *= 255 / (white - black)
            if self.has_gaps:
                strip[np.isnan(strip)] = 0
            top = number * ROWS_AT_ONCE
            np.maximum(strip, 0, out=strip)
            np.minimum(strip, 255, out=strip)
            np.rint(strip, out=scaled[top : top + len(strip)], casting="unsafe")
        assert scaled is not None
        return Image.fromarray(scaled)

    def _own_range(self) -> Range:
        """Return the range of the file's type, or the image's own if pixels exceed that."""
        known = (strip[~np.isnan(strip)] if self.has_gaps else strip for strip in self.strips())
        ends = np.array([(some.min(), some.max()) for some in known if some.size] or [(0, 0)])
        low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
        for white in OF_MODE.get(self.mode, (65535,)):
            if low >= 0 and high <= white:
                return Range(0, white)
        return Range(low, high) if low < high else Range(high, high + 1)


def mode_of(dtype: np.dtype[Any]) -> str:
    """Return Pillow's mode for a deep channel of this dtype."""
    fits = np.issubdtype(dtype, np.unsignedinteger) and dtype.itemsize <= 2
    return "I;16" if fits else "I" if np.issubdtype(dtype, np.integer) else "F"


def decide(extents: list[Range]) -> Range | None:
    """Return black and white of a dataset, from the extents of some of its images.

    White is the nominal value near the brightest ones, else their maximum; black is 0 unless all
    are far above it, or below. The 1% darkest and brightest images do not count.
    """
    if not extents:
        return None
    low = float(np.percentile([one.black for one in extents], 1))
    high = float(np.percentile([one.white for one in extents], 99))
    if low > high / 4 or low < -abs(high) / 20:
        return Range(low, high) if low < high else None
    near = [white for white in NOMINAL if white / 2 <= high <= 1.05 * white]
    return Range(0, near[0] if near else high) if high > 0 else None
