"""Surveys some files of a dataset: black and white in deep ones, and multi-page files."""

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
"""Most files of one suffix to look at, spread evenly over all."""
NEVER_DEEP = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"))
TIFFS = frozenset((".tif", ".tiff", ".btf", ".tf8"))


def survey(root: Path, paths: Sequence[str], how: Decoding) -> dict[str, Any]:
    """Survey some files of each suffix, spread evenly. Return the `ranges` of those of more than 8
    bits as text, notices about them and the rest, and whether there are TIFFs.
    """
    by_suffix = _by_suffix(paths)
    chosen = [
        path for suffix in by_suffix.keys() - NEVER_DEEP for path in _spread(by_suffix[suffix])
    ]
    # Pillow warns of odd metadata
    with warnings.catch_warnings(), ThreadPoolExecutor(how.n_workers) as threads:
        warnings.simplefilter("ignore")
        looks = list(threads.map(lambda path: _look(root / path, how), chosen))
    ranges, notices = _decided(looks)
    return {
        "ranges": str(ranges),
        "told_of_ranges": notices,
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
    return Look() if isinstance(found, str) else found  # decoding reports why


def _decided(looks: list[Look]) -> tuple[Ranges, list[str]]:
    """Decide black and white of whole numbers and of fractions; also return notices of them."""
    found, notices = [], []
    for is_float in (False, True):
        modes = [look.extent for look in looks if look.mode and (look.mode == "F") == is_float]
        extents = [extent for extent in modes if extent is not None]
        decided = decide(extents)
        found.append(decided)
        if decided is not None:
            low, high = min(one.black for one in extents), max(one.white for one in extents)
            kind = "fractions" if is_float else "more than 8 bits"
            used = f"{decided.white:.6g} as white"
            if decided.black:
                used = f"{decided.black:.6g} as black and {used}"
            notices.append(
                f"images of {kind} have values from {low:.6g} to {high:.6g} ({len(extents)} "
                f"examined): using {used}; to change it, give --white N or --white LOW:HIGH"
            )
    return Ranges(*found), notices


def _of(n: int, looks: list[Look], one: str, several: str) -> str:
    """Return "N of M files examined are", or have, as text."""
    return f"{n} of {counted(len(looks), 'file')} examined {plural(n, one, several)}"


def _of_cut(looks: list[Look]) -> list[str]:
    n_cut = sum(look.is_cut for look in looks)
    if not n_cut:
        return []
    return [
        f"{_of(n_cut, looks, 'has', 'have')} 16-bit colours, of which the upper 8 bits are used "
        "(only 16 levels of 12-bit data); to read PNG and TIFF fully: pip install 'skal[tiff]'"
    ]


def _of_pages(looks: list[Look], pages: str) -> list[str]:
    notices = []
    n_paged = sum(look.n_pages > 1 for look in looks)
    if n_paged and pages == "first":
        notices.append(
            f"{_of(n_paged, looks, 'has', 'have')} several pages, of which the first is used; "
            "--pages mean uses their mean, --pages all makes each page an image"
        )
    if n_sets := sum(look.n_others > 1 for look in looks):
        notices.append(
            f"{_of(n_sets, looks, 'is', 'are')} part of OME sets of several files: each file is an "
            "image, and a random split separates them; use folders train and test to keep a set "
            "together"
        )
    return notices
