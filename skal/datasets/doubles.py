"""Images that are there more than once: in the pool and in the test set, or twice in the pool."""

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
"""Of images whose hashes would have to be made: more are not looked through without being asked."""
MOST_NAMED = 3
SIDE = 8
"""Of the grey picture whose gradients are a perceptual hash."""
BANDS = 4
MOST_BITS = BANDS - 1
"""That hashes of near doubles differ in; then they are equal in one band at least."""
LEAST_BITS = 8
"""That are set, and that are not: a hash of hardly any gradient would be that of many images."""
MOST_LEVELS = 8.0
MOST_ALIKE = 50
"""Images that may be equal in a band: those of more are a pattern that many images share."""
CONTRADICTING = (("of them has", "of them have"), "another label than the image repeated%s")

Rows = NDArray[np.int64]
_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Doubles:
    """Rows of the pool that are in the test set, too, that repeat an earlier row, and of these
    those whose label is another one than that of the image that they repeat. `originals` has for
    each row of the pool the first that is equal.
    """

    in_test: Rows
    repeated: Rows
    contradicting: Rows
    originals: Rows

    def __len__(self) -> int:
        return len(self.in_test) + len(self.repeated)


def find_doubles(data: ImageDataset) -> Doubles:
    """Compare all images of pool and test set, pixel by pixel."""
    return doubles_of(hashes_of(data.X), data.y, hashes_of(data.X_test))


def doubles_of(hashes: Hashes, y: NDArray[Any], hashes_test: Hashes) -> Doubles:
    """Compare images by the hashes of their pixels; `y` are the labels of those of the pool."""
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
    """Say before a run what is there more than once, unless finding it would take long."""
    images = (data.X, data.X_test)
    unknown = sum(part.nbytes for part in images if known_hashes(part) is None)
    if unknown > MOST_BYTES:
        return
    found = find_doubles(data)
    _tell(
        data,
        found.in_test,
        ("image of the pool is", "images of the pool are"),
        "in the test set, too%s: the accuracy is that of images seen in training; "
        "--drop-duplicates leaves them out of the pool",
    )
    _tell(
        data,
        found.repeated,
        ("image of the pool repeats", "images of the pool repeat"),
        "an earlier one%s; --drop-duplicates leaves them out",
    )
    _tell(data, found.contradicting, *CONTRADICTING)


def _tell(data: ImageDataset, rows: Rows, of: tuple[str, str], words: str) -> None:
    """Warn of some images, if there are any, by their number and some of their names; what they
    are `of` is said of one, or of several.
    """
    if len(rows):
        more = ", ..." if len(rows) > MOST_NAMED else ""
        names = ", ".join(data.paths[row] for row in rows[:MOST_NAMED]) if data.paths else ""
        _log.warning(f"%s {words}", counted(len(rows), *of), f" ({names}{more})" if names else "")


def without_doubles(data: ImageDataset, quiet: bool = False) -> ImageDataset:
    """Leave images out of the pool that are in the test set, or that repeat another one, and tell,
    unless `quiet`.
    """
    found = find_doubles(data)
    if not len(found):
        return data
    rows = np.setdiff1d(np.arange(len(data.X)), np.concatenate([found.in_test, found.repeated]))
    if not quiet:
        _log.info(
            "left %s out of the pool: %s in the test set, %s an earlier image",
            counted(len(found), "duplicate"),
            counted(len(found.in_test), "is", "are"),
            counted(len(found.repeated), "repeats", "repeat"),
        )
        _tell(data, found.contradicting, *CONTRADICTING)
    paths = tuple(data.paths[row] for row in rows) if data.paths else ()
    return replace(data, X=take_rows(data.X, rows), y=data.y[rows], paths=paths)


def perceptual_hashes(images: Images) -> NDArray[np.uint64]:
    """Return a hash of the horizontal gradients of each image, (n,): near for images that look
    alike, after another compression or size, say.
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
    """Return pairs of different images that look alike: hashes of gradients that differ in at most
    `MOST_BITS` bits, and pixels that differ by less than `MOST_LEVELS` in the mean.
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
