"""`embed`: compute and cache the features of a frozen backbone, once per image."""

from __future__ import annotations

import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.durable import fsync_folder
from ..core.errors import ParameterError
from ..core.kept import checksum, gather, make_cache_folder, only_one, told_where
from ..core.memory import as_slice, let_go_of_pages, take_mapped
from ..core.progress import progress
from ..datasets.base import Images
from ..datasets.hashes import KEY_BYTES, Hashes, find_rows, hashes_of
from .backbone import Backbone, Features, compact, place_of
from .classifier import ImageClassifier
from .inference import check_input

COMMIT_SECONDS = 2.0
"""Time between writes to the cache: the most computing that a power failure can lose."""
ROWS_AT_ONCE = 4096
WIDE = "float32"
"""Subfolder of a backbone's cache for features that do not fit into float16."""

Rows = NDArray[np.int64]

_log = logging.getLogger("skal")
_CHUNK = np.dtype([("stop", "<u8"), ("width", "<u4"), ("crc", "<u4")])


def embed(classifier: ImageClassifier, X: Images, cache: str | Path | None = None) -> Features:
    """Return the features that a classifier with ``freeze=True`` trains its head on.

    Parameters
    ----------
    classifier : ImageClassifier
        Determines the backbone and its weights; it need not be fitted.
    X : ndarray of uint8, shape (n, channels, height, width)
        Images.
    cache : str or Path, optional
        Cache folder, by default none. It has one subfolder per backbone, weights and image shape,
        and a new one if the backbone's code changes, as detected by its features of a probe. Each
        image is embedded once; an interrupted call resumes where it stopped. One process writes
        at a time, while others wait.

    Returns
    -------
    ndarray of float16, shape (n, n_features)
        float32 if float16 would be too imprecise. From a cache it is a read-only memmap if the
        rows are contiguous there; otherwise it is in memory, or above 2 GiB in an unnamed file.

    Raises
    ------
    ParameterError
        If the classifier is not frozen.
    DataError
        If `X` is not images, the weights do not fit, or the cache cannot be written.

    Examples
    --------
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> clf = skal.ImageClassifier("small-cnn", classes=range(10), freeze=True, random_state=0)
    >>> features = skal.embed(clf, data.X[:50])
    >>> features.shape, features.dtype
    ((50, 256), dtype('float16'))
    """
    if not classifier.freeze:
        raise ParameterError("embed: expected a classifier with freeze=True; got freeze=False")
    check_input(X)
    backbone = classifier.backbone(X.shape[1:])
    return features_of(backbone, X, None if cache is None else Path(cache))


def features_of(backbone: Backbone, X: Images, cache: Path | None) -> Features:
    """Return the features of images as `embed` does, from a backbone that is already built."""
    if not len(X):
        return np.empty((0, 0), np.float16)
    if cache is None:
        parts = [compact(features) for features in _embedded(backbone, X, np.arange(len(X)))]
        features: Features = np.concatenate(parts)
        return features
    with told_where("the embeddings", cache):
        make_cache_folder(cache)
        place = cache / f"embeddings-{backbone.key}"
        folder = place_of(backbone.answers, place)
        folder.mkdir(exist_ok=True)
        keys = hashes_of(X)
        with only_one(folder / "lock", "embeds images by the same backbone"):
            return _all_of(folder, backbone, X, keys)


def _all_of(folder: Path, backbone: Backbone, X: Images, keys: Hashes) -> Features:
    """Embed the images that are missing from the cache; return the features of all."""
    wide = folder / WIDE
    store = FeatureStore(wide, np.float32) if wide.is_dir() else FeatureStore(folder, np.float16)
    while True:
        rows = store.find(keys)
        absent = np.flatnonzero(rows < 0)
        if not len(absent):
            return store.take(rows, folder.parent)
        # each distinct image once
        missing = absent[np.sort(np.unique(keys[absent], return_index=True)[1])]
        try:
            store.add(_embedded(backbone, X, missing), keys[missing])
        except TooWideError:
            store = _widened(store, wide)


def _embedded(backbone: Backbone, X: Images, rows: Rows) -> Iterator[NDArray[np.float32]]:
    with progress(total=len(rows), desc="embedding") as bar:
        for features in backbone.stream(X, rows):
            yield features
            bar.update(len(features))


class TooWideError(Exception):
    """Features do not fit into float16."""


class FeatureStore:
    """Append-only store of features by image hash, in three files.

    ``rows.bin`` has the features of each image, ``keys.bin`` its hash, and ``chunks.bin`` an entry
    with a checksum for each chunk, written once the other two files are synced. Opening the store
    drops incomplete chunks at the end, and everything from the first damaged chunk on. It verifies
    the last chunk, and all others only if ``rows.bin`` or ``keys.bin`` was modified after
    ``chunks.bin`` or the last chunk is damaged.

    The folder must exist, and the caller must hold its lock; `dtype` is float16 or float32.
    """

    def __init__(self, folder: Path, dtype: type[np.floating[Any]]) -> None:
        self.dtype = np.dtype(dtype)
        self._rows, self._names, self._chunks = (
            folder / f"{name}.bin" for name in ("rows", "keys", "chunks")
        )
        for path in (self._rows, self._names, self._chunks):
            path.open("ab").close()  # unlike `touch`, does not change the time of existing files
        self._width = 0
        self.keys: Hashes = np.empty(0, f"S{KEY_BYTES}")
        self._read()

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: Hashes) -> Rows:
        """Return the rows of images, -1 for missing ones."""
        return find_rows(self.keys, keys)

    def take(self, rows: Rows, folder: Path) -> Features:
        """Return features by row: a memmap if they are contiguous, else from `gather`."""
        if not len(rows):
            return np.empty((0, self._width), np.float16)
        features = np.memmap(self._rows, self.dtype, "r", shape=(len(self), self._width))
        if (together := as_slice(rows)) is not None:
            return features[together]
        starts = range(0, len(rows), ROWS_AT_ONCE)
        parts = (take_mapped(features, rows[first : first + ROWS_AT_ONCE]) for first in starts)
        return gather(parts, (len(rows), self._width), self.dtype, folder)

    def add(self, parts: Iterator[NDArray[np.float32]], keys: Hashes) -> None:
        """Add images, given their hashes (n,) and batches of their features (b, n_features).

        A chunk is written every few seconds. Raises TooWideError if features do not fit into the
        dtype, after writing all features before them.
        """
        waiting: list[NDArray[Any]] = []
        last = time.monotonic()
        for part in parts:
            features = part if self.dtype == np.float32 else compact(part)
            if features.dtype != self.dtype:
                self._save(waiting, keys)
                raise TooWideError
            waiting.append(features)
            if time.monotonic() - last >= COMMIT_SECONDS:
                keys = self._save(waiting, keys)
                waiting, last = [], time.monotonic()
        self._save(waiting, keys)

    def _save(self, waiting: list[NDArray[Any]], keys: Hashes) -> Hashes:
        """Write the waiting features; return the keys of the images still to come."""
        n = sum(len(part) for part in waiting)
        if n:
            self.append(np.concatenate(waiting), keys[:n])
        return keys[n:]

    def append(self, features: NDArray[Any], keys: Hashes) -> None:
        """Append a chunk: features, keys, and last the entry that commits both."""
        crc = zlib.crc32(keys.tobytes(), zlib.crc32(features.tobytes()))
        chunk = np.array([(len(self) + len(keys), features.shape[1], crc)], _CHUNK)
        contents = {self._rows: features, self._names: keys, self._chunks: chunk}
        for path, content in contents.items():
            with path.open("ab") as file:
                file.write(content.tobytes())
                file.flush()
                os.fsync(file.fileno())
        self.keys, self._width = np.append(self.keys, keys), features.shape[1]

    def _read(self) -> None:
        """Read the intact chunks and cut off everything after them."""
        content = self._chunks.read_bytes()
        chunks = np.frombuffer(content, _CHUNK, len(content) // _CHUNK.itemsize)
        stops = [0, *(int(stop) for stop in chunks["stop"])]
        n_whole, last = len(chunks), len(chunks) - 1
        doubtful = last >= 0 and (self._was_written_to() or not self._is_whole(stops, chunks, last))
        if doubtful:
            numbers = range(len(chunks))
            n_whole = next((k for k in numbers if not self._is_whole(stops, chunks, k)), n_whole)
        damaged = n_whole < len(chunks)
        if damaged:
            _log.warning("%s is damaged; embedding the lost images again", self._rows)
        self._width = int(chunks["width"][n_whole - 1]) if n_whole else 0
        self.keys = np.fromfile(self._names, self.keys.dtype, stops[n_whole])
        _cut(self._chunks, n_whole * _CHUNK.itemsize, damaged)
        _cut(self._names, stops[n_whole] * KEY_BYTES, damaged)
        _cut(self._rows, stops[n_whole] * self._width * self.dtype.itemsize, damaged)
        if doubtful:
            os.utime(self._chunks)

    def _was_written_to(self) -> bool:
        """Return whether rows or keys may have changed after the last chunk was added."""
        rows, names, chunks = (
            path.stat().st_mtime_ns for path in (self._rows, self._names, self._chunks)
        )
        return max(rows, names) >= chunks

    def _is_whole(self, stops: list[int], chunks: NDArray[Any], number: int) -> bool:
        """Return whether the rows and keys of a chunk match its checksum."""
        start, stop, crc = stops[number], stops[number + 1], 0
        row_bytes = int(chunks["width"][number]) * self.dtype.itemsize
        for path, size in ((self._rows, row_bytes), (self._names, KEY_BYTES)):
            if not start < stop or stop * size > path.stat().st_size:
                return False
            crc = checksum(path, start * size, stop * size, crc)
        return crc == int(chunks["crc"][number])


def _cut(path: Path, size: int, copied: bool) -> None:
    """Truncate a file, or replace it by a truncated copy if others may have mapped the rest."""
    if path.stat().st_size <= size:
        return
    if not copied:
        os.truncate(path, size)
        return
    shorter = path.with_suffix(".tmp")
    shutil.copyfile(path, shorter)
    os.truncate(shorter, size)
    shorter.replace(path)


def _widened(store: FeatureStore, folder: Path) -> FeatureStore:
    """Return a float32 store with the content of a float16 store."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    wide = FeatureStore(temporary, np.float32)
    if len(store):
        rows = store.take(np.arange(len(store)), folder)
        for start in range(0, len(store), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            wide.append(rows[part].astype(np.float32), store.keys[part])
            let_go_of_pages(rows)
    temporary.rename(folder)
    fsync_folder(folder.parent)
    return FeatureStore(folder, np.float32)
