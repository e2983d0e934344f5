"""Hashes of images, which are the keys of results computed from them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.kept import forget, kept
from ..core.memory import let_go_of_pages
from ..core.progress import SLOW_SECONDS, progress

KEY_BYTES = 16
IMAGES_AT_ONCE = 64

Hashes: TypeAlias = NDArray[np.bytes_]


class _Array(np.ndarray[Any, Any]):
    """An array that can have attributes, as a memmap can; views of it lose them."""


def with_hashes(images: NDArray[Any], hashes: Callable[[], Hashes]) -> NDArray[Any]:
    """Return a read-only view of images with a function that returns their hashes."""
    view: Any = images[:]
    if type(view) is np.ndarray:
        view = view.view(_Array)
    view.flags.writeable = False
    view.hashes = hashes
    return view  # type: ignore[no-any-return]


def known_hashes(images: NDArray[Any]) -> Callable[[], Hashes] | None:
    """Return the function that returns the hashes of images, or None if they are not known."""
    return getattr(images, "hashes", None)


def hashes_of(images: NDArray[Any]) -> Hashes:
    """Return a hash of each image's pixels (regardless of their shape), shape (n,)."""
    known = known_hashes(images)
    if known is not None:
        return known()
    hashes = bytearray()
    with progress(total=len(images), desc="looking up", delay=SLOW_SECONDS) as bar:
        for start in range(0, len(images), IMAGES_AT_ONCE):
            some = np.asarray(images[start : start + IMAGES_AT_ONCE])
            for image in some:
                hashes += blake2b(np.ascontiguousarray(image).data, digest_size=KEY_BYTES).digest()
            let_go_of_pages(images)
            bar.update(len(some))
    return np.frombuffer(bytes(hashes), f"S{KEY_BYTES}")


def find_rows(known: Hashes, wanted: Hashes) -> NDArray[np.int64]:
    """Return the position of each wanted hash among the known ones, -1 for missing ones."""
    order = np.argsort(known)
    rows: NDArray[np.int64] = np.append(order, -1)[np.searchsorted(known, wanted, sorter=order)]
    found = rows >= 0
    rows[found] = np.where(known[rows[found]] == wanted[found], rows[found], -1)
    return rows


def kept_hashes(images: NDArray[Any], path: Path) -> Hashes:
    """Return the hashes of images that never change, cached in a file."""

    def save(partial: Path) -> None:
        with partial.open("wb") as file:  # given a name, numpy would add a suffix
            np.save(file, hashes_of(np.asarray(images)))

    for _ in range(2):
        kept(path, "hashes the images", save)
        hashes: Hashes = np.load(path)
        if len(hashes) == len(images):
            break
        forget(path)  # it belongs to an earlier, removed cache of pixels
    return hashes
