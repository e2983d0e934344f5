"""Duplicate images: in both pool and test set, or repeated in the pool."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.progress import progress
from ..core.text import counted
from .base import ImageDataset, Images
from .hashes import Hashes, hashes_of, known_hashes
from .rows import take_rows

MOST_BYTES = 2**31
"""Largest size of images that are hashed without being asked for."""
MOST_NAMED = 3
SIDE = 8
"""Side of the grey thumbnail whose gradients form a perceptual hash."""
BANDS = 4
MOST_BITS = BANDS - 1
"""Most bits in which hashes of near duplicates differ; then at least one band is equal."""
LEAST_BITS = 8
"""Least bits that are set, and not set: nearly flat images all have similar hashes."""
MOST_LEVELS = 8.0
MOST_ALIKE = 50
"""Most images that share a band: more than these share a common pattern."""
CONTRADICTING = (("of them has", "of them have"), "a different label than the original%s")

Rows = NDArray[np.int64]
_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Doubles:
    """Duplicates, as rows of the pool: those also in the test set, those that repeat an earlier
    row, and those whose label differs from the image they repeat. `originals` has the first equal
    row for each row of the pool.
    """

    in_test: Rows
    repeated: Rows
    contradicting: Rows
    originals: Rows

    def __len__(self) -> int:
        return len(self.in_test) + len(self.repeated)


def find_doubles(data: ImageDataset) -> Doubles:
    """Find exact duplicates among all images of pool and test set."""
    return doubles_of(hashes_of(data.X), data.y, hashes_of(data.X_test))


def doubles_of(hashes: Hashes, y: NDArray[Any], hashes_test: Hashes) -> Doubles:
    """Find duplicates by the hashes of pixels; `y` are the labels of the pool."""
    if not len(hashes):
        return Doubles(*(np.empty(0, np.int64) for _ in range(4)))
    in_test = np.isin(hashes, hashes_test) if len(hashes_test) else np.zeros(len(hashes), bool)
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    originals = first[which]
    repeated = originals != np.arange(len(hashes))
    other = repeated & (y != y[originals])
    again = np.flatnonzero(repeated & ~in_test)
    return Doubles(np.flatnonzero(in_test), again, np.flatnonzero(other), originals)


def tell_doubles(data: ImageDataset) -> None:
    """Warn of duplicates before a run, unless finding them would take long."""
    images = (data.X, data.X_test)
    unknown = sum(part.nbytes for part in images if known_hashes(part) is None)
    if unknown > MOST_BYTES:
        return
    found = find_doubles(data)
    _warn(
        data,
        found.in_test,
        ("image of the pool is", "images of the pool are"),
        "also in the test set%s, which inflates the accuracy; --drop-duplicates removes them from "
        "the pool",
    )
    _warn(
        data,
        found.repeated,
        ("image of the pool repeats", "images of the pool repeat"),
        "an earlier one%s; --drop-duplicates removes them",
    )
    _warn(data, found.contradicting, *CONTRADICTING)


def _warn(data: ImageDataset, rows: Rows, of: tuple[str, str], words: str) -> None:
    """Warn of some images, if there are any, with their number and some names; `of` describes one,
    or several.
    """
    if len(rows):
        more = ", ..." if len(rows) > MOST_NAMED else ""
        names = ", ".join(data.paths[row] for row in rows[:MOST_NAMED]) if data.paths else ""
        _log.warning(f"%s {words}", counted(len(rows), *of), f" ({names}{more})" if names else "")


def without_doubles(data: ImageDataset, quiet: bool = False) -> ImageDataset:
    """Remove images from the pool that are in the test set or repeat another; log it unless
    `quiet`.
    """
    found = find_doubles(data)
    if not len(found):
        return data
    rows = np.setdiff1d(np.arange(len(data.X)), np.concatenate([found.in_test, found.repeated]))
    if not quiet:
        _log.info(
            "removed %s from the pool: %s in the test set, %s an earlier image",
            counted(len(found), "duplicate"),
            counted(len(found.in_test), "is", "are"),
            counted(len(found.repeated), "repeats", "repeat"),
        )
        _warn(data, found.contradicting, *CONTRADICTING)
    paths = tuple(data.paths[row] for row in rows) if data.paths else ()
    return replace(data, X=take_rows(data.X, rows), y=data.y[rows], paths=paths)


def perceptual_hashes(images: Images) -> NDArray[np.uint64]:
    """Return a hash of each image's horizontal gradients, shape (n,): similar for images that look
    alike, for example after another compression or at another size.
    """
    from PIL import Image

    hashes = np.empty(len(images), np.uint64)
    for row, image in enumerate(progress(images, desc="comparing")):
        grey = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0).squeeze())).convert(
            "L"
        )
        small = np.asarray(grey.resize((SIDE + 1, SIDE), Image.Resampling.BOX), np.int16)
        hashes[row] = np.packbits(small[:, 1:] > small[:, :-1]).view(np.uint64)[0]
    return hashes


def near_doubles(images: Images) -> list[tuple[int, int]]:
    """Return pairs of different images that look alike: their gradient hashes differ in at most
    `MOST_BITS` bits, and their pixels by less than `MOST_LEVELS` on average.
    """
    hashes = perceptual_hashes(images)
    set_bits = np.bitwise_count(hashes)
    telling = np.flatnonzero((set_bits >= LEAST_BITS) & (set_bits <= 64 - LEAST_BITS))
    pairs: set[tuple[int, int]] = set()
    for band in hashes[telling].view(np.uint16).reshape(-1, BANDS).T:
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order].astype(np.int64), prepend=-1))
        for group in np.split(telling[order], starts[1:]):
            if 1 < len(group) <= MOST_ALIKE:
                one, other = np.triu_indices(len(group), 1)
                apart = np.bitwise_count(hashes[group[one]] ^ hashes[group[other]])
                near = apart <= MOST_BITS
                pairs.update(
                    zip(group[one[near]].tolist(), group[other[near]].tolist(), strict=True)
                )
    two = ((pair, images[[*pair]].astype(np.int16)) for pair in sorted(pairs))
    return [pair for pair, (one, other) in two if 0 < np.abs(one - other).mean() < MOST_LEVELS]
