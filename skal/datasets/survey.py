"""A look at some files of a dataset: what is black and white in deep ones, and who has pages."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..core.text import counted, plural
from .decoding import Decoding, Look, look_at, try_file
from .deep import Ranges, decide

LOOKED_AT = 128
"""Files of one suffix, evenly spread over all of them."""
NEVER_DEEP = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"))
TIFFS = frozenset((".tif", ".tiff", ".btf", ".tf8"))


def survey(root: Path, paths: Sequence[str], how: Decoding) -> dict[str, Any]:
    """Look at some files, spread evenly over those of each suffix; return the `ranges` of those of
    more than 8 bits as text, what is to be told of them and of the rest, and whether it has TIFFs.
    """
    by_suffix = _by_suffix(paths)
    chosen = [
        path for suffix in by_suffix.keys() - NEVER_DEEP for path in _spread(by_suffix[suffix])
    ]
    # Pillow warns of odd metadata
    with warnings.catch_warnings(), ThreadPoolExecutor(how.n_workers) as threads:
        warnings.simplefilter("ignore")
        looks = list(threads.map(lambda path: _look(root / path, how), chosen))
    ranges, told = _decided(looks)
    return {
        "ranges": str(ranges),
        "told_of_ranges": told,
        "told": [*_of_pages(looks, how.pages), *_of_cut(looks)],
        "has_tiffs": bool(by_suffix.keys() & TIFFS) or any(look.is_cut for look in looks),
    }


def _by_suffix(paths: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(path[path.rfind(".") :].lower(), []).append(path)
    return found


def _spread(paths: Sequence[str]) -> list[str]:
    n = min(len(paths), LOOKED_AT)
    return [paths[k] for k in np.linspace(0, len(paths) - 1, n).round().astype(int)]


def _look(path: Path, how: Decoding) -> Look:
    found = try_file(path, lambda place: look_at(place, how.pages), how.pauses)
    return Look() if isinstance(found, str) else found  # decoding says what is wrong with it


def _decided(looks: list[Look]) -> tuple[Ranges, list[str]]:
    """Decide what is black and white, of whole numbers and of fractions; also say it."""
    found, told = [], []
    for is_float in (False, True):
        modes = [look.extent for look in looks if look.mode and (look.mode == "F") == is_float]
        extents = [extent for extent in modes if extent is not None]
        decided = decide(extents)
        found.append(decided)
        if decided is not None:
            low, high = min(one.black for one in extents), max(one.white for one in extents)
            kind = "fractions" if is_float else "more than 8 bits"
            taken = f"{decided.white:.6g} is taken for white"
            if decided.black:
                taken = f"{decided.black:.6g} is taken for black and {taken}"
            told.append(
                f"images of {kind} hold values from {low:.6g} to {high:.6g} ({len(extents)} looked "
                f"at): {taken}; --white N, or --white LOW:HIGH, chooses otherwise"
            )
    return Ranges(*found), told


def _of(n: int, looks: list[Look], one: str, several: str) -> str:
    """Return how many of the files that were looked at are, or have, something."""
    return f"{n} of {counted(len(looks), 'file')} looked at {plural(n, one, several)}"


def _of_cut(looks: list[Look]) -> list[str]:
    n_cut = sum(look.is_cut for look in looks)
    if not n_cut:
        return []
    return [
        f"{_of(n_cut, looks, 'has', 'have')} colours of 16 bits, of which the upper "
        "8 are used: of 12-bit data those are 16 levels; of PNG and TIFF all are read with the "
        "extra tiff: pip install 'skal[tiff]'"
    ]


def _of_pages(looks: list[Look], pages: str) -> list[str]:
    told = []
    n_paged = sum(look.n_pages > 1 for look in looks)
    if n_paged and pages == "first":
        told.append(
            f"{_of(n_paged, looks, 'has', 'have')} several pages, of which the first is "
            "used; --pages mean takes the mean of them, --pages all each as an image of its own"
        )
    if n_sets := sum(look.n_others > 1 for look in looks):
        told.append(
            f"{_of(n_sets, looks, 'is', 'are')} of OME sets of several files: each is "
            "an image of its own, and a split by chance parts them; folders train and test "
            "keep a set together"
        )
    return told
