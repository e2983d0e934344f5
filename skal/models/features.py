"""`embed`: what a frozen backbone makes of images, once for each image, and kept."""

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
from ..datasets.hashes import KEY_BYTES, Hashes, hashes_of
from .backbone import Backbone, Features, compact, place_of
from .classifier import ImageClassifier
from .inference import check_input

COMMIT_SECONDS = 2.0
"""How much computing a power loss costs at most."""
ROWS_AT_ONCE = 4096
WIDE = "float32"
"""The folder, in that of a backbone, of features that do not fit into float16."""

Rows = NDArray[np.int64]

_log = logging.getLogger("skal")
_CHUNK = np.dtype([("stop", "<u8"), ("width", "<u4"), ("crc", "<u4")])


def embed(classifier: ImageClassifier, X: Images, cache: str | Path | None = None) -> Features:
    """Return the features that a classifier with ``freeze=True`` trains its head on.

    Parameters
    ----------
    classifier : ImageClassifier
        Says which backbone with which weights; it need not be fitted.
    X : ndarray of uint8, shape (n, channels, height, width)
        Images.
    cache : str or Path, optional
        Where features are kept: in a folder for each backbone, its weights and the size of the
        images, with a row for each image, which is embedded once however often it is asked for;
        in another one if the backbone's code has changed, as seen by what it makes of a probe. An
        embedding that was stopped resumes where it was; of several processes one writes, and the
        others wait for it. By default nothing is kept.

    Returns
    -------
    ndarray of float16, shape (n, n_features)
        Of a cache a read-only memmap, if the images lie together there; else in memory, or above
        2 GiB in an unnamed file. float32 where float16 would change them.

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
        raise ParameterError("embed: the classifier trains its backbone; expected freeze=True")
    check_input(X)
    backbone = classifier.backbone(X.shape[1:])
    return features_of(backbone, X, None if cache is None else Path(cache))


def features_of(backbone: Backbone, X: Images, cache: Path | None) -> Features:
    """Return the features of images as `embed` does, by a backbone that was built before."""
    if not len(X):
        return np.empty((0, 0), np.float16)
    if cache is None:
        parts = [compact(features) for features in _shown(backbone, X, np.arange(len(X)))]
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
    """Embed what is not there yet; return all."""
    wide = folder / WIDE
    store = FeatureStore(wide, np.float32) if wide.is_dir() else FeatureStore(folder, np.float16)
    while True:
        rows = store.find(keys)
        absent = np.flatnonzero(rows < 0)
        if not len(absent):
            return store.take(rows, folder.parent)
        # of images that are equal the first
        missing = absent[np.sort(np.unique(keys[absent], return_index=True)[1])]
        try:
            store.add(_shown(backbone, X, missing), keys[missing])
        except TooWideError:
            store = _widened(store, wide)


def _shown(backbone: Backbone, X: Images, rows: Rows) -> Iterator[NDArray[np.float32]]:
    with progress(total=len(rows), desc="embedding") as bar:
        for features in backbone.stream(X, rows):
            yield features
            bar.update(len(features))


class TooWideError(Exception):
    """Features do not fit into float16."""


class FeatureStore:
    """Features by the hash of their image, in three files that only grow.

    ``rows.bin`` has a row of numbers for each image, ``keys.bin`` its hash, and ``chunks.bin`` an
    entry for each lot that was added at once, with its checksum: written when the others are safe.
    When the files are opened, what is behind the last whole lot is dropped, and so is what comes
    from a damaged lot on. The last lot is read for that; the others only if ``rows.bin`` or
    ``keys.bin`` was written to after ``chunks.bin``, or the last lot is damaged.

    The folder exists, and nobody else writes to it; the numbers are float16 or float32.
    """

    def __init__(self, folder: Path, dtype: type[np.floating[Any]]) -> None:
        self.dtype = np.dtype(dtype)
        self._rows, self._names, self._chunks = (
            folder / f"{name}.bin" for name in ("rows", "keys", "chunks")
        )
        for path in (self._rows, self._names, self._chunks):
            path.open("ab").close()  # which, unlike `touch`, leaves the time of what is there
        self._width = 0
        self.keys: Hashes = np.empty(0, f"S{KEY_BYTES}")
        self._read()

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: Hashes) -> Rows:
        """Return the rows of images, -1 for those that are not there."""
        order = np.argsort(self.keys)
        rows: Rows = np.append(order, -1)[np.searchsorted(self.keys, keys, sorter=order)]
        there = rows >= 0
        rows[there] = np.where(self.keys[rows[there]] == keys[there], rows[there], -1)
        return rows

    def take(self, rows: Rows, folder: Path) -> Features:
        """Return features by row: a view if they lie together, else as `gather` does."""
        if not len(rows):
            return np.empty((0, self._width), np.float16)
        features = np.memmap(self._rows, self.dtype, "r", shape=(len(self), self._width))
        if (together := as_slice(rows)) is not None:
            return features[together]
        starts = range(0, len(rows), ROWS_AT_ONCE)
        parts = (take_mapped(features, rows[first : first + ROWS_AT_ONCE]) for first in starts)
        return gather(parts, (len(rows), self._width), self.dtype, folder)

    def add(self, parts: Iterator[NDArray[np.float32]], keys: Hashes) -> None:
        """Add images by their hashes, (n,), and parts of their features (b, n_features).

        They are added a lot every few seconds. It raises TooWideError if features do not fit; those
        before them are there.
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
        """Append the features that wait; return the keys of those that are still to come."""
        n = sum(len(part) for part in waiting)
        if n:
            self.append(np.concatenate(waiting), keys[:n])
        return keys[n:]

    def append(self, features: NDArray[Any], keys: Hashes) -> None:
        """Add a lot: features, then keys, then the entry that says that both are safe."""
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
        """Take in the lots that are whole, and drop what is behind them."""
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
            _log.warning("%s is damaged: what is lost is embedded again", self._rows)
        self._width = int(chunks["width"][n_whole - 1]) if n_whole else 0
        self.keys = np.fromfile(self._names, self.keys.dtype, stops[n_whole])
        _cut(self._chunks, n_whole * _CHUNK.itemsize, damaged)
        _cut(self._names, stops[n_whole] * KEY_BYTES, damaged)
        _cut(self._rows, stops[n_whole] * self._width * self.dtype.itemsize, damaged)
        if doubtful:
            os.utime(self._chunks)

    def _was_written_to(self) -> bool:
        """Tell whether rows or keys may have been changed after the last lot was added."""
        rows, names, chunks = (
            path.stat().st_mtime_ns for path in (self._rows, self._names, self._chunks)
        )
        return max(rows, names) >= chunks

    def _is_whole(self, stops: list[int], chunks: NDArray[Any], number: int) -> bool:
        """Tell whether the rows and keys of a lot are those that were added."""
        start, stop, crc = stops[number], stops[number + 1], 0
        row_bytes = int(chunks["width"][number]) * self.dtype.itemsize
        for path, size in ((self._rows, row_bytes), (self._names, KEY_BYTES)):
            if not start < stop or stop * size > path.stat().st_size:
                return False
            crc = checksum(path, start * size, stop * size, crc)
        return crc == int(chunks["crc"][number])


def _cut(path: Path, size: int, copied: bool) -> None:
    """Shorten a file; by a copy of it, if others may look at what is cut off."""
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
    """Return a store of float32 with all that is in one of float16."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    wide = FeatureStore(temporary, np.float32)
    if len(store):
        rows = store.take(np.arange(len(store)), folder)
        for start in range(0, len(store), ROWS_AT_ONCE):
            lot = slice(start, start + ROWS_AT_ONCE)
            wide.append(rows[lot].astype(np.float32), store.keys[lot])
            let_go_of_pages(rows)
    temporary.rename(folder)
    fsync_folder(folder.parent)
    return FeatureStore(folder, np.float32)
