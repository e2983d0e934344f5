"""A daily backup of the labels, in case their file is damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path

from ..core.durable import fsync_file, fsync_folder, write_atomic
from ..core.errors import RunFolderError
from ..core.text import counted
from .holding import hold

COPY = "labels-copy.sqlite"
DAY = 86400.0
DAMAGED = (11, 26)
"""SQLite's error codes for a file that is corrupt or not a database."""
UNREAD = (3, 5, 6, 14)
"""SQLite's error codes for a file that is locked, or cannot be read or opened."""

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""Python raises the second if SQLite's message quotes damaged bytes."""

_log = logging.getLogger("skal")


class OtherFormatError(RunFolderError):
    """Labels that another version of skal wrote; they are not damaged."""


def keep_copy(store: Path) -> None:
    """Back up a sound store next to it, with SQLite's backup, if the last backup is a day old."""
    copy = store.with_name(COPY)
    if not store.is_file() or (copy.exists() and time.time() - copy.stat().st_mtime < DAY):
        return
    temporary = store.with_name(f".{COPY}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(temporary)) as made:
            if source.execute("SELECT 1 FROM actions LIMIT 1").fetchone() is None:
                temporary.unlink(missing_ok=True)
                return
            source.backup(made)
            made.execute("PRAGMA journal_mode = DELETE")  # everything in one file
            if made.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("it is damaged")
        fsync_file(temporary)
        temporary.replace(copy)
        fsync_folder(copy.parent)
    except (*SQLITE_ERRORS, OSError) as error:  # labelling continues
        temporary.unlink(missing_ok=True)
        _log.warning("cannot back up the labels in %s: %s", store, error)


def check_there(store: Path, settings: Path) -> None:
    """Raise a RunFolderError if a project has settings but its store is missing or empty."""
    if settings.exists() and not (store.is_file() and store.stat().st_size):
        raise RunFolderError(
            f"the labels in {str(store)!r} are missing, but the project's settings exist"
            f"{_what_there_is(store)}, or remove {str(store.parent)!r} to start over"
        )


def way_out(store: Path | None, error: Exception) -> str:
    """Return how to recover if a store is damaged; nothing for other errors."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if store is None or (code not in DAMAGED and isinstance(error, sqlite3.Error)):
        return ""
    return _what_there_is(store)


def _what_there_is(store: Path) -> str:
    copy = store.with_name(COPY)
    if not copy.is_file():
        return "; skal has no backup of it: restore one of your own"
    made = datetime.fromtimestamp(copy.stat().st_mtime).isoformat(" ", "minutes")
    return (
        f"; there is a backup of {made}: skal label FOLDER --restore restores it, and keeps the "
        "damaged file"
    )


def restore(path: Path) -> str:
    """Rename a store, put its backup in its place, and return a message."""
    home, copy = path.parent, path.with_name(COPY)
    if not copy.is_file():
        raise RunFolderError(f"there is no backup of the labels in {str(home)!r}")
    with ExitStack() as stack:
        hold(home, stack)
        try:
            with closing(sqlite3.connect(copy)) as made:
                (n,) = made.execute("SELECT count(*) FROM actions").fetchone()
        except SQLITE_ERRORS as error:
            raise RunFolderError(f"the backup {str(copy)!r} is also damaged: {error}") from error
        aside = f"damaged-{time.strftime('%Y%m%d-%H%M%S')}"
        for suffix in ("-wal", "-shm", ""):  # the write-ahead log belongs to the damaged file
            file = path.with_name(f"{path.name}{suffix}")
            if file.exists():
                file.rename(path.with_name(f"{aside}-{file.name}"))
        write_atomic(path, copy.read_bytes())
    damaged = path.with_name(f"{aside}-{path.name}")
    is_kept = f"; the damaged file is {damaged}" if damaged.exists() else ""
    return f"restored the backup with {counted(n, 'answer')}{is_kept}"
