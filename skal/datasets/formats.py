"""What an image file is: by its suffix, by its first bytes, and by what it takes to read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..core.errors import MissingExtraError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Those that come with Pillow, in its words."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".btf"),
    *(".tf8", ".avif", ".jp2", ".j2k", ".jpx", ".jpc", ".ppm", ".pgm", ".pbm", ".pnm"),
)
HEAD = 512
"""Bytes at the beginning of a file that tell what it is."""


PAGED = (".tif", ".tiff", ".btf", ".tf8", ".dcm", ".dicom", ".fits", ".fit", ".fts")
"""Suffixes of files that may have pages."""
_PAGE = re.compile(
    rf"(.+(?:{'|'.join(map(re.escape, PAGED))}))#([1-9]\d*)", re.IGNORECASE | re.DOTALL
)


def page_of(path: str) -> tuple[str, int | None]:
    """Return the file that a page is of, and its number, from 1 on; None: the file is meant.

    Examples
    --------
    >>> page_of("cells/stack.tif#2"), page_of("cells/stack.tif")
    (('cells/stack.tif', 2), ('cells/stack.tif', None))
    """
    found = None if "#" not in path else _PAGE.fullmatch(path)
    return (path, None) if found is None else (found[1], int(found[2]))


def file_of(path: Path) -> Path:
    """Return the file that an image is, or that it is a page of."""
    return Path(page_of(str(path))[0])


class Extra(NamedTuple):
    """A format that a package reads which does not come with skal, but with an extra of it."""

    name: str
    extra: str
    module: str
    suffixes: tuple[str, ...]
    head: re.Pattern[bytes]

    @property
    def is_installed(self) -> bool:
        return is_installed(self.module)

    def require(self, what: str = "") -> None:
        """Raise a MissingExtraError if its package is not there."""
        if not self.is_installed:
            purpose = what or f"a file of the format {self.name}"
            raise MissingExtraError(self.module, self.extra, purpose)


@cache
def is_installed(module: str) -> bool:
    return find_spec(module) is not None


def _head(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL | re.IGNORECASE)


TIFF = Extra("TIFF", "tiff", "tifffile", (), _head(rb"II[*+]\0|MM\0[*+]"))
"""Of TIFFs Pillow reads most."""
DEEP_PNG = _head(rb"\x89PNG\r\n\x1a\n.{4}IHDR.{8}\x10[\x02\x06]")
DEEP_PPM = _head(rb"P6\s+(#[^\n]*\n\s*)*\d+\s+\d+\s+0*(25[6-9]|2[6-9]\d|[3-9]\d\d|[1-9]\d{3,4})\s")
"""Of 16-bit colours, of which Pillow keeps the upper 8 bits."""
DICOM = Extra("DICOM", "dicom", "pydicom", (".dcm", ".dicom"), _head(rb".{128}DICM"))
FITS = Extra("FITS", "fits", "astropy", (".fits", ".fit", ".fts"), _head(rb"SIMPLE  ="))
HEIF = Extra(
    "HEIF",
    "heif",
    "pillow_heif",
    (".heic", ".heif", ".hif"),
    _head(rb".{4}ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)(?!.{0,24}avif)"),
)
JPEG_XL = Extra("JXL", "jxl", "pillow_jxl", (".jxl",), _head(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"))
EXTRAS = (DICOM, FITS, HEIF, JPEG_XL)

OTHERS: Mapping[str, re.Pattern[bytes]] = {
    "a git-lfs pointer, not the image itself; `git lfs pull` fetches it": _head(
        rb"version https://git-lfs"
    ),
    "an HTML page, as a download that failed leaves it": _head(
        rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype html|<html|<head|<body)"
    ),
    "an SVG drawing, which has no pixels; export it as PNG": _head(
        rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?(<!--.*?-->\s*)*<svg"
    ),
    "a PDF": _head(rb"%PDF"),
    "a Photoshop file; export it as PNG": _head(rb"8BPS"),
    "an archive; unpack it": _head(rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf|BZh"),
    "zeros alone at its beginning, as a download or copy that was not finished leaves it": _head(
        rb"\0{16,}$"
    ),
}
"""What else lies among images, in words, and how it begins."""


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of what can be read here."""
    return SUFFIXES + tuple(s for extra in EXTRAS if extra.is_installed for s in extra.suffixes)


def installed() -> list[str]:
    """Return the extras for formats that are installed."""
    return [extra.extra for extra in (TIFF, *EXTRAS) if extra.is_installed]


def asked_for(reasons: Iterable[str]) -> list[str]:
    """Return the extras, installed by now, that files were passed over for want of."""
    text = "\n".join(reasons)
    return [name for name in installed() if f"'skal[{name}]'" in text]


def missing_extras(found: Iterable[str]) -> list[Extra]:
    """Return the extras, not installed, that some files with these suffixes need."""
    names = set(found)
    return [extra for extra in EXTRAS if not extra.is_installed and names & {*extra.suffixes}]


def extra_of(head: bytes) -> Extra | None:
    """Return the extra that reads a file which begins so; None if Pillow does."""
    return next((extra for extra in EXTRAS if extra.head.match(head)), None)


def what_it_is(head: bytes) -> str:
    """Say what a file is that is no image."""
    if not head:
        return "empty file"
    found = (words for words, pattern in OTHERS.items() if pattern.match(head))
    return next(found, f"not one of {', '.join(FORMATS)}")
