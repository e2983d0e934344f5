"""Image formats: suffixes, signatures, and the extras that read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..core.errors import MissingExtraError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Formats that Pillow reads, by its names."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".btf"),
    *(".tf8", ".avif", ".jp2", ".j2k", ".jpx", ".jpc", ".ppm", ".pgm", ".pbm", ".pnm"),
)
HEAD = 512
"""Bytes at the start of a file that identify its format."""


PAGED = (".tif", ".tiff", ".btf", ".tf8", ".dcm", ".dicom", ".fits", ".fit", ".fts")
"""Suffixes of files that may have several pages."""
_PAGE = re.compile(
    rf"(.+(?:{'|'.join(map(re.escape, PAGED))}))#([1-9]\d*)", re.IGNORECASE | re.DOTALL
)


def page_of(path: str) -> tuple[str, int | None]:
    """Return the file and page number, from 1, of a page; the number is None for a whole file.

    Examples
    --------
    >>> page_of("cells/stack.tif#2"), page_of("cells/stack.tif")
    (('cells/stack.tif', 2), ('cells/stack.tif', None))
    """
    found = None if "#" not in path else _PAGE.fullmatch(path)
    return (path, None) if found is None else (found[1], int(found[2]))


def file_of(path: Path) -> Path:
    """Return the file of an image or page."""
    return Path(page_of(str(path))[0])


class Extra(NamedTuple):
    """A format that needs a package from one of skal's extras."""

    name: str
    extra: str
    module: str
    suffixes: tuple[str, ...]
    head: re.Pattern[bytes]

    @property
    def is_installed(self) -> bool:
        return is_installed(self.module)

    def require(self, what: str = "") -> None:
        """Raise a MissingExtraError if its package is not installed."""
        if not self.is_installed:
            purpose = what or f"a file of the format {self.name}"
            raise MissingExtraError(self.module, self.extra, purpose)


@cache
def is_installed(module: str) -> bool:
    return find_spec(module) is not None


def _head(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL | re.IGNORECASE)


TIFF = Extra("TIFF", "tiff", "tifffile", (), _head(rb"II[*+]\0|MM\0[*+]"))
"""Pillow reads most TIFFs without it."""
DEEP_PNG = _head(rb"\x89PNG\r\n\x1a\n.{4}IHDR.{8}\x10[\x02\x06]")
DEEP_PPM = _head(rb"P6\s+(#[^\n]*\n\s*)*\d+\s+\d+\s+0*(25[6-9]|2[6-9]\d|[3-9]\d\d|[1-9]\d{3,4})\s")
"""Signatures of 16-bit colour images, of which Pillow keeps the upper 8 bits."""
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
    "an HTML page, probably from a failed download": _head(
        rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype html|<html|<head|<body)"
    ),
    "an SVG drawing; export it as PNG": _head(
        rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?(<!--.*?-->\s*)*<svg"
    ),
    "a PDF": _head(rb"%PDF"),
    "a Photoshop file; export it as PNG": _head(rb"8BPS"),
    "an archive; unpack it": _head(rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf|BZh"),
    "only zeros at its start, probably from an unfinished download or copy": _head(rb"\0{16,}$"),
}
"""Descriptions of other files that are found among images, and their signatures."""


def suffixes() -> tuple[str, ...]:
    """Return the suffixes that can be read with the installed packages."""
    return SUFFIXES + tuple(s for extra in EXTRAS if extra.is_installed for s in extra.suffixes)


def installed() -> list[str]:
    """Return the installed extras for formats."""
    return [extra.extra for extra in (TIFF, *EXTRAS) if extra.is_installed]


def asked_for(reasons: Iterable[str]) -> list[str]:
    """Return the extras, now installed, that earlier reasons for skipping files asked for."""
    text = "\n".join(reasons)
    return [name for name in installed() if f"'skal[{name}]'" in text]


def missing_extras(found: Iterable[str]) -> list[Extra]:
    """Return the extras that are not installed and that files with these suffixes need."""
    names = set(found)
    return [extra for extra in EXTRAS if not extra.is_installed and names & {*extra.suffixes}]


def extra_of(head: bytes) -> Extra | None:
    """Return the extra that reads a file with this start, or None if Pillow does."""
    return next((extra for extra in EXTRAS if extra.head.match(head)), None)


def what_it_is(head: bytes) -> str:
    """Return a description of a file that is not an image."""
    if not head:
        return "empty file"
    found = (words for words, pattern in OTHERS.items() if pattern.match(head))
    return next(found, f"not one of {', '.join(FORMATS)}")
