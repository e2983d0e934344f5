"""A copy of the labels, made once a day, for the day on which their file is damaged."""

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
"""SQLite's codes of a file that is corrupt, and of one that is no database."""
UNREAD = (3, 5, 6, 14)
"""Those of a file that may not be read or opened, or that another process keeps for itself."""

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""The second is Python's, of a message in which SQLite quotes damaged bytes."""

_log = logging.getLogger("skal")


class OtherFormatError(RunFolderError):
    """Labels that another version of skal wrote; they are not damaged."""


def keep_copy(store: Path) -> None:
    """Copy a sound store, by SQLite's backup, beside it, if the last copy is a day old."""
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
            made.execute("PRAGMA journal_mode = DELETE")  # all of it in one file
            if made.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("it is damaged")
        fsync_file(temporary)
        temporary.replace(copy)
        fsync_folder(copy.parent)
    except (*SQLITE_ERRORS, OSError) as error:  # labelling goes on
        temporary.unlink(missing_ok=True)
        _log.warning("no copy of the labels in %s could be made: %s", store, error)


def check_there(store: Path, settings: Path) -> None:
    """Raise a RunFolderError if a store is gone or empty that a project's settings lie beside."""
    if settings.exists() and not (store.is_file() and store.stat().st_size):
        raise RunFolderError(
            f"the labels in {str(store)!r} are gone, though the project's settings are there"
            f"{_what_there_is(store)}, or remove {str(store.parent)!r} to begin anew"
        )


def way_out(store: Path | None, error: Exception) -> str:
    """Return what can be done where a store is damaged; nothing for other errors."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if store is None or (code not in DAMAGED and isinstance(error, sqlite3.Error)):
        return ""
    return _what_there_is(store)


def _what_there_is(store: Path) -> str:
    copy = store.with_name(COPY)
    if not copy.is_file():
        return "; there is no copy of it beside it: restore it from a backup of your own"
    made = datetime.fromtimestamp(copy.stat().st_mtime).isoformat(" ", "minutes")
    return (
        f"; there is a copy of {made} beside it: skal label FOLDER --restore takes that, and keeps "
        "the damaged file"
    )


def restore(path: Path) -> str:
    """Put the copy in the place of a store, which gets another name, and tell of it."""
    home, copy = path.parent, path.with_name(COPY)
    if not copy.is_file():
        raise RunFolderError(f"there is no copy of the labels in {str(home)!r}")
    with ExitStack() as stack:
        hold(home, stack)
        try:
            with closing(sqlite3.connect(copy)) as made:
                (n,) = made.execute("SELECT count(*) FROM actions").fetchone()
        except SQLITE_ERRORS as error:
            raise RunFolderError(f"the copy {str(copy)!r} is damaged, too: {error}") from error
        aside = f"damaged-{time.strftime('%Y%m%d-%H%M%S')}"
        for suffix in ("-wal", "-shm", ""):  # what the log holds belongs to the damaged file
            file = path.with_name(f"{path.name}{suffix}")
            if file.exists():
                file.rename(path.with_name(f"{aside}-{file.name}"))
        write_atomic(path, copy.read_bytes())
    damaged = path.with_name(f"{aside}-{path.name}")
    is_kept = f"; the damaged file is {damaged}" if damaged.exists() else ""
    return f"the copy with {counted(n, 'answer')} is in use{is_kept}"
