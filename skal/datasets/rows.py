"""Subsets of images: copied if small, else read from disk when indexed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.memory import as_slice, take_mapped
from .hashes import Hashes, known_hashes, with_hashes

MOST_COPIED = 2**28
"""Largest subset that is copied to memory, in bytes."""

Rows = NDArray[np.int64]


class ImageRows(np.lib.mixins.NDArrayOperatorsMixin):
    """Rows of a read-only memmap of images: an array whose pixels are read when indexed.

    Indexing by number, slice, mask or array returns copies. All other array operations load all
    images into memory, as ``np.asarray`` does.

    Parameters
    ----------
    images : np.memmap of uint8, shape (n, channels, height, width)
        The images, which are not written to.
    rows : ndarray of int64, shape (m,)
        The rows of the subset, in order.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryFile() as file:
    ...     pixels = np.memmap(file, np.uint8, shape=(4, 1, 2, 2))
    >>> pixels[2] = 7
    >>> images = ImageRows(pixels, np.array([0, 2]))
    >>> images.shape, int(images[1].sum())
    ((2, 1, 2, 2), 28)
    """

    def __init__(self, images: NDArray[np.uint8], rows: Rows) -> None:
        if images.flags.writeable:
            images = images.view()
            images.flags.writeable = False
        self._images, self._rows = images, rows
        self.shape = (len(rows), *images.shape[1:])
        self.dtype, self.ndim, self.flags = images.dtype, images.ndim, images.flags
        self.nbytes = math.prod(self.shape) * images.itemsize

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) and key else (key, ())
        if first is Ellipsis or first is None:
            return np.asarray(self[:][key])
        if rest and not isinstance(first, int | np.integer | slice):
            return np.asarray(self[:][key])
        rows = self._rows[first]
        if rows.ndim == 0:
            return np.array(self._images[rows][rest])
        taken: NDArray[np.uint8] = take_mapped(self._images, rows)
        return taken[(slice(None), *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("images on disk are always copied")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [np.asarray(one) if isinstance(one, ImageRows) else one for one in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"ImageRows has no attribute {name!r}")
        return getattr(self[:], name)

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageRows, (self._images, self._rows)

    @property
    def hashes(self) -> Any:
        """The function that returns the images' hashes, if they are known; see `known_hashes`."""
        known = known_hashes(self._images)
        return None if known is None else lambda: known()[self._rows]


def take_rows(images: Any, rows: Rows) -> Any:
    """Return rows of images: a view if they are consecutive, a copy if they are few, else
    `ImageRows`; known hashes stay known.
    """
    if isinstance(images, ImageRows):
        return ImageRows(images._images, images._rows[rows])
    together, known = as_slice(rows), known_hashes(images)
    if together is not None:
        taken = images[together]
    elif len(rows) * images[:1].nbytes > MOST_COPIED and isinstance(images, np.memmap):
        return ImageRows(images, rows)
    else:
        taken = take_mapped(images, rows)
    if known is None:
        return taken

    def hashes() -> Hashes:
        return known()[rows]

    return with_hashes(taken, hashes)
