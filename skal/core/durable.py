"""Writing that a crash cannot leave half done, and reading of names that people gave."""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import math
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from .errors import RunFolderError, SkalError

LEFT = 3600.0
"""Seconds after which nobody writes to a temporary file any more."""

_log = logging.getLogger("skal")


def encoded(content: bytes | str) -> bytes:
    """Return content as it is written: text as UTF-8, with surrogate escapes as their bytes."""
    return content.encode(errors="surrogateescape") if isinstance(content, str) else content


def write_atomic(
    path: Path,
    content: bytes | str,
    name: Callable[[Path, Path], Any] | None = None,
    mode: int = 0o666,
) -> None:
    """Replace a file's content as a whole, by rename and fsync; content as of `encoded`. After an
    `OSError` the old content is untouched. `name`, such as `name_new`, gives what was written to a
    temporary file its name, by default in place of another; `mode` is who may read the file, as far
    as the process lets them.
    """
    data = encoded(content)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # what somebody else put there is not written to
        with open(temporary, "xb", opener=partial(os.open, mode=mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        (name or Path.replace)(temporary, path)
    except OSError as error:
        error.filename = str(path)  # the system's "disk full" does not say it
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def append(path: Path, content: bytes | str) -> int:
    """Add to a file, wait until it is on the disk, and return its size; content as of
    `encoded`. After an `OSError` the file is as before.
    """
    data = encoded(content)
    # unbuffered: a buffer would write its rest when closed, behind what was cut off
    with naming(path), path.open("ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)
            raise
        return file.tell()


def write_new(path: Path, content: bytes | str) -> None:
    """Write a file where there is none, as a whole or not at all; else a FileExistsError."""
    write_atomic(path, content, name_new)


def name_new(temporary: Path, path: Path, *, link: Callable[[Path, Path], None] = os.link) -> None:
    """Give a written file its name, never in place of another; else a FileExistsError. It may keep
    the temporary one, too, which is the caller's to remove.
    """
    try:
        link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        temporary.rename(path)
    fsync_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which is called `path` after the block and gone after an exception in
    it; a FileExistsError if something is called so by then. What a killed one left is removed, an
    hour later.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}.tmp"):
        with suppress(OSError):  # gone, or being written to
            if time.time() - max(p.stat().st_mtime for p in (left, *left.rglob("*"))) > LEFT:
                shutil.rmtree(left)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if os.path.lexists(path):  # an empty folder would be replaced
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        temporary.rename(path)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path, last: str) -> None:
    """Remove a folder of files, and `last` the one by which it is known for what it is."""
    for path in [*folder.iterdir()]:
        if path.name != last:
            path.unlink()
    shutil.rmtree(folder)


def sha256(content: bytes | str) -> str:
    """Return the SHA-256 of bytes, or of text as it is written."""
    return hashlib.sha256(encoded(content)).hexdigest()


CHECKSUM = "# checksum of the lines above: "


def signed(text: str) -> str:
    """Return lines with one behind them by which `check_signed` knows them to be whole."""
    return f"{text}{CHECKSUM}{sha256(text)}\n"


def check_signed(path: Path, advice: str = "") -> None:
    """Raise a `RunFolderError` if a file is not as `signed` made it; `advice` follows."""
    try:
        text, _, checksum = path.read_bytes().rpartition(CHECKSUM.encode())
    except OSError as error:
        raise RunFolderError(f"cannot read {str(path)!r}: {error.strerror}") from error
    if checksum.strip() and not text:
        _log.warning("%s has no checksum: it is taken as it stands", path)
    elif checksum.strip() != sha256(text).encode():
        raise RunFolderError(
            f"{str(path)!r} is damaged, or was edited: its checksum is not that of its lines "
            f"(remove its last line if you have edited it){advice}"
        )


def remove_leftovers(folder: Path, name: str = "*", untouched: float = -math.inf) -> None:
    """Remove the temporary files that a killed `write_atomic` left in a folder, of one file or of
    all: then the folder must be skal's own. Where other processes may write, too, only those that
    were left `untouched` for so many seconds.
    """
    for path in folder.glob(f".{name}.*.tmp*"):
        with suppress(OSError):  # gone, or another user's
            if time.time() - path.stat().st_mtime > untouched:
                path.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing to a file inside the block, or until the process ends; a
    no-op on Windows and file systems without locks. A `RunFolderError` is raised if another process
    holds the lock, an `OSError` if there is no such file.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(
                f"{str(path.parent)!r} is being written to by another process; wait for its end"
            ) from error
        except OSError:
            pass
        yield


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in a folder survive a power loss (a no-op on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make a file's content survive a power loss."""
    with naming(path), path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an `OSError` in the block that names no file, as of a write, this one's name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and not isinstance(error, SkalError):
            error.strerror = error.strerror or str(error)  # numpy's errors have a text alone
            error.filename = str(path)
        raise
