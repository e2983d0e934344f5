"""Pages of multi-page files as separate images: ``stack.tif#2`` is page 2 of ``stack.tif``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..core.progress import progress
from .decoding import Decoding, try_file
from .deep import Deep
from .formats import PAGED, TIFF
from .pictures import NO_DATA, opened


def pages_apart(root: Path, paths: Sequence[str]) -> list[list[str]]:
    """Return the page names of each file, in order; only its own name if it has one page. Pages
    that differ in size from the first, such as thumbnails, do not count; unreadable files have one.
    """
    names = [[path] for path in paths]
    paged = [number for number, path in enumerate(paths) if path.lower().endswith(PAGED)]
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(os.cpu_count()) as threads,
        progress(desc="counting pages", total=len(paged), unit="file") as bar,
    ):
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        counted = threads.map(_count, (root / paths[number] for number in paged))
        for number, n_pages in zip(paged, counted, strict=True):
            if n_pages > 1:
                names[number] = [f"{paths[number]}#{page}" for page in range(1, n_pages + 1)]
            bar.update()
    return names


def _count(path: Path) -> int:
    n_pages = try_file(path, count_pages, Decoding.pauses)
    return 1 if isinstance(n_pages, str) else n_pages


def count_pages(path: Path) -> int:
    """Return how many pages of an image file have the size of the first."""
    with opened(path, 1) as picture:
        return picture.count_pages()


def save_page(path: Path, place: Path) -> None:
    """Write a page to a lossless TIFF of its own, with unchanged values. Raise a MissingExtraError
    if it has more than 8 bits and the extra for TIFFs is not installed.
    """
    with opened(path, 1) as picture:
        pixels = picture.read()
        if isinstance(pixels, Deep):
            _save_deep(pixels, place)
        else:
            pixels.save(place, "TIFF", compression="tiff_deflate")


def _save_deep(pixels: Deep, place: Path) -> None:
    TIFF.require("to write a page of more than 8 bits, skal")
    from tifffile import imwrite

    array, white, no_data = pixels.rows(0, pixels.height), pixels.white_is_zero, pixels.no_data
    if white is not None:
        array = (white - array).astype(array.dtype)
        no_data = None if no_data is None else white - no_data
    tags = () if no_data is None else ((NO_DATA, "s", 0, f"{no_data:.17g}", True),)
    kind = "rgb" if array.ndim == 3 else "minisblack"
    imwrite(place, array, photometric=kind, extratags=tags)
