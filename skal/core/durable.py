"""Crash-safe writing: atomic replacement, appending, checksums and locks."""

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
"""Age in seconds at which a temporary file or folder counts as abandoned."""

_log = logging.getLogger("skal")


def encoded(content: bytes | str) -> bytes:
    """Return the bytes to write: text as UTF-8, with surrogate escapes turned back into bytes."""
    return content.encode(errors="surrogateescape") if isinstance(content, str) else content


def write_atomic(
    path: Path,
    content: bytes | str,
    name: Callable[[Path, Path], Any] | None = None,
    mode: int = 0o666,
) -> None:
    """Replace a file atomically: write to a temporary file, fsync, rename. After an `OSError` the
    old content is untouched. `name` moves the temporary file to `path`; the default replaces an
    existing file, `name_new` refuses to. `mode` is subject to the umask.
    """
    data = encoded(content)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # never write through another process's file or link
        with open(temporary, "xb", opener=partial(os.open, mode=mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        (name or Path.replace)(temporary, path)
    except OSError as error:
        error.filename = str(path)  # "disk full" comes without a name
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def append(path: Path, content: bytes | str) -> int:
    """Append to a file, fsync it, and return its size. After an `OSError` it is unchanged."""
    data = encoded(content)
    # unbuffered: on close, a buffer would write its rest after the truncation
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
    """Create a file atomically; raise a `FileExistsError` if it exists."""
    write_atomic(path, content, name_new)


def name_new(temporary: Path, path: Path, *, link: Callable[[Path, Path], None] = os.link) -> None:
    """Link a temporary file to its final name; raise a `FileExistsError` if that exists. The
    temporary name may remain; the caller removes it.
    """
    try:
        link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        temporary.rename(path)
    fsync_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder, which is renamed to `path` after the block, or removed if the block
    raises. Raise a `FileExistsError` if `path` exists by then. Remove what killed processes left
    more than an hour ago.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}.tmp"):
        with suppress(OSError):  # removed meanwhile, or being written to
            if time.time() - max(p.stat().st_mtime for p in (left, *left.rglob("*"))) > LEFT:
                shutil.rmtree(left)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if os.path.lexists(path):  # rename would replace an empty folder
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        temporary.rename(path)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path, last: str) -> None:
    """Remove a folder of files, and last of all the file `last` that identifies the folder."""
    for path in [*folder.iterdir()]:
        if path.name != last:
            path.unlink()
    shutil.rmtree(folder)


def sha256(content: bytes | str) -> str:
    """Return the SHA-256 of bytes, or of text as `encoded`."""
    return hashlib.sha256(encoded(content)).hexdigest()


CHECKSUM = "# checksum of the lines above: "


def signed(text: str) -> str:
    """Return lines followed by a checksum line for `check_signed`."""
    return f"{text}{CHECKSUM}{sha256(text)}\n"


def check_signed(path: Path, advice: str = "") -> None:
    """Raise a `RunFolderError`, ending in `advice`, if a file's checksum line does not match."""
    try:
        text, _, checksum = path.read_bytes().rpartition(CHECKSUM.encode())
    except OSError as error:
        raise RunFolderError(f"cannot read {str(path)!r}: {error.strerror}") from error
    if checksum.strip() and not text:
        _log.warning("%s has no checksum and is not checked", path)
    elif checksum.strip() != sha256(text).encode():
        raise RunFolderError(
            f"{str(path)!r} is damaged or was edited: its checksum does not match its lines "
            f"(if you edited it, remove its last line){advice}"
        )


def remove_leftovers(folder: Path, name: str = "*", untouched: float = -math.inf) -> None:
    """Remove the temporary files that a killed `write_atomic` left: of the file `name`, or of all
    in a folder that is skal's own. Where other processes may be writing, give the seconds for which
    a file must have been `untouched`.
    """
    for path in folder.glob(f".{name}.*.tmp*"):
        with suppress(OSError):  # removed meanwhile, or another user's
            if time.time() - path.stat().st_mtime > untouched:
                path.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's exclusive lock during the block; a no-op on Windows and without file locks.
    Raise a `RunFolderError` if another process holds it, an `OSError` if the file is missing.
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
                f"another process is writing to {str(path.parent)!r}; wait until it ends"
            ) from error
        except OSError:
            pass
        yield


def fsync_folder(folder: Path) -> None:
    """Make renames and new files in a folder survive a power loss (a no-op on Windows)."""
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
    """Add a file's name to an `OSError` in the block that has none, such as one from a write."""
    try:
        yield
    except OSError as error:
        if error.filename is None and not isinstance(error, SkalError):
            error.strerror = error.strerror or str(error)  # numpy sets only the text
            error.filename = str(path)
        raise
