"""A cache of files and folders: each computed by one process, written atomically, and verified.

Next to a cached file or folder lies its hidden seal: the size, modification time, checksum and
block checksum of each file, and the facts that its maker returned. A result is valid if all sizes
and block checksums match, and either the modification times or the full checksums. Silent disk
errors outside the sampled blocks go unnoticed (files up to half a megabyte are sampled whole).
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .durable import fsync_file, fsync_folder, naming, remove_leftovers, write_atomic
from .errors import DataError

CACHE_TAG = "CACHEDIR.TAG"
"""Marks a folder as a cache, see https://bford.info/cachedir/."""
LARGEST_IN_MEMORY = 2**31
"""Bytes up to which `gather` keeps an array in memory; a larger one goes to an unnamed file."""
BLOCK = 2**16
N_BLOCKS = 8

Facts: TypeAlias = dict[str, Any]
_log = logging.getLogger("skal")


class _State(NamedTuple):
    """The state of one file, as a seal records it."""

    size: int
    mtime_ns: int
    sample: int
    crc: int


def kept(
    path: Path,
    doing: str,
    make: Callable[[Path], Facts | None],
    can_resume: Callable[[Path], bool] = lambda _: False,
) -> Facts:
    """Return the facts of a cached result, which one process makes if it is missing or damaged,
    while the others wait and log what it is `doing`. `make` writes to the path it is given, which
    is removed after a failure unless `can_resume`. Raise an `OSError` if it cannot be written.
    """
    found = find(path)
    if found is not None:
        return found
    make_cache_folder(path.parent)
    with only_one(path.with_name(f".{path.name}.lock"), doing):
        found = find(path)
        if found is not None:
            return found
        if path.exists():
            _log.warning("%s is damaged and is made again", path)
            forget(path)
        remove_leftovers(path.parent, _seal(path).name)
        partial = partial_of(path)
        if not can_resume(partial):
            _remove(partial)
        try:
            with naming(path):
                return put(partial, path, make(partial))
        finally:
            if not can_resume(partial):
                _remove(partial)


def partial_of(path: Path) -> Path:
    """Return where a result is made."""
    return path.with_name(f".{path.name}.partial")


def is_partial(path: Path) -> bool:
    """Return whether a path is one of `partial_of`."""
    return path.name.startswith(".") and path.suffix == ".partial"


def find(path: Path) -> Facts | None:
    """Return the facts of a cached result, or None if it is missing, not sealed, or damaged."""
    seal = _seal(path)
    try:
        crc, _, text = seal.read_text().partition(" ")
        if int(crc, 16) != zlib.crc32(text.encode()):
            return None
        content = json.loads(text)
        touched = False
        for name, sealed in content["files"].items():
            file, state = path / name, _State(*sealed)
            status = file.stat()
            if status.st_size != state.size or _sample(file, state.size) != state.sample:
                return None
            if status.st_mtime_ns != state.mtime_ns:
                touched = True
                if checksum(file) != state.crc:
                    return None
        facts = dict(content["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if touched:
        with suppress(OSError):  # else the next caller would read all bytes, too
            write_atomic(seal, _sealed(path, facts))
    return facts


def put(temporary: Path, path: Path, facts: Facts | None = None) -> Facts:
    """Seal a file or folder, and move it to `path` on the same file system; facts are JSON."""
    for file in _files(temporary):
        fsync_file(file)
    write_atomic(_seal(path), _sealed(temporary, facts or {}))
    if path.is_dir():
        shutil.rmtree(path)
    temporary.replace(path)
    fsync_folder(path.parent)
    return facts or {}


def forget(path: Path) -> None:
    """Remove a cached result and its seal."""
    _remove(path)
    _remove(_seal(path))


def discard(path: Path) -> None:
    """Remove a cached or partial result that is no longer needed, unless somebody makes it, or the
    system does not let us.
    """
    from filelock import FileLock, Timeout

    for left in path.parent.glob(f".*.{'[0-9a-f]' * 32}.tmp/"):  # of a killed process
        _remove(left)
    name = path.name[1:].removesuffix(".partial") if is_partial(path) else path.name
    lock = FileLock(path.with_name(f".{name}.lock"))
    with suppress(OSError, Timeout), lock.acquire(blocking=False):
        if os.access(path, os.W_OK):
            gone = path.with_name(f".{name}.{uuid.uuid4().hex}.tmp")
            path.rename(gone)  # at once, so that others find it whole or not at all
            _seal(path).unlink(missing_ok=True)
            _remove(gone)


def checksum(path: Path, start: int = 0, stop: int | None = None, crc: int = 0) -> int:
    """Return the CRC-32 of a file from `start` to `stop`, continuing from `crc`."""
    left = (path.stat().st_size if stop is None else stop) - start
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (block := file.read(min(left, 2**24))):
            crc, left = zlib.crc32(block, crc), left - len(block)
    return crc


def _sample(file: Path, size: int) -> int:
    """Return a checksum of blocks spread evenly over a file, including the first and the last."""
    crc = 0
    for start in sorted(
        {round(k * max(size - BLOCK, 0) / (N_BLOCKS - 1)) for k in range(N_BLOCKS)}
    ):
        crc = checksum(file, start, min(start + BLOCK, size), crc)
    return crc


def _files(path: Path) -> Iterator[Path]:
    yield from (file for file in sorted(path.rglob("*")) if file.is_file())
    if path.is_file():
        yield path


def _sealed(path: Path, facts: Facts) -> str:
    states = {}
    for file in _files(path):
        status = file.stat()
        name = "" if file == path else file.relative_to(path).as_posix()
        sample = _sample(file, status.st_size)
        states[name] = _State(status.st_size, status.st_mtime_ns, sample, checksum(file))
    text = json.dumps({"files": states, "facts": facts})
    return f"{zlib.crc32(text.encode()):08x} {text}"


def _seal(path: Path) -> Path:
    return path.with_name(f".{path.name}.seal")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def make_cache_folder(folder: Path) -> None:
    """Create a folder unless it exists, and mark it as a cache, which backups may skip."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CACHE_TAG).is_file():
        (folder / CACHE_TAG).write_text("Signature: 8a477f597d28d172789f06886806bc55\n")


@contextmanager
def only_one(path: Path, doing: str) -> Iterator[None]:
    """Let one thread of one process into the block at a time; the others log why they wait. `path`
    is the lock file, which stays; the lock ends with the process.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _log.info("another process %s: waiting for it", doing)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def told_where(what: str, folder: Path) -> Iterator[None]:
    """Turn an `OSError` in the block into a `DataError` that names the cache and its purpose."""
    try:
        yield
    except OSError as error:
        place = str(error.filename or folder)
        raise DataError(
            f"cannot write {what} to {place!r}: {error.strerror or error}; choose another folder "
            "with --data-dir or $SKAL_DATA_DIR"
        ) from error


def gather(
    parts: Iterable[NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    folder: Path,
    most: int | None = None,
) -> NDArray[Any]:
    """Concatenate blocks of rows into an array: in memory up to `most` bytes, else as a read-only
    memmap of an unnamed file in `folder`, which vanishes with the process. Raise an `OSError` if it
    cannot be written.
    """
    if math.prod(shape) * dtype.itemsize <= (LARGEST_IN_MEMORY if most is None else most):
        array, start = np.empty(shape, dtype), 0
        for part in parts:
            array[start : start + len(part)] = part
            start += len(part)
        return array
    make_cache_folder(folder)
    with tempfile.TemporaryFile(dir=folder) as file:
        # write rather than map: a full disk raises an error here, but kills a process that maps
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)
        file.flush()
        return np.memmap(file, dtype=dtype, mode="r", shape=shape)
