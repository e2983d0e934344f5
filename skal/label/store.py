"""The labels on disk: an append-only SQLite file. The ledger has the current state."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ..core.durable import fsync_folder, write_atomic
from ..core.errors import RunFolderError
from .checksums import AT_ONCE, by_columns, checksums, marks_of
from .copies import SQLITE_ERRORS, OtherFormatError, way_out
from .listing import Paths

FORMAT = 4
BUSY_SECONDS = 10.0

_log = logging.getLogger("skal")

VERDICTS = ("label", "unsure", "bad")
"""Answers after which an image is done."""
ANSWERS = (*VERDICTS, "skip")
"""All answers of annotators; "undo" takes the latest back."""

_TABLES = {
    "meta": "name TEXT PRIMARY KEY, value TEXT NOT NULL",
    # the last row of a number has the name of the class, "" if it was removed
    "classes": """id INTEGER PRIMARY KEY, number INTEGER NOT NULL, name TEXT NOT NULL,
        time TEXT NOT NULL""",
    # the last row of a number has the custom key of the class
    "keys": """id INTEGER PRIMARY KEY, number INTEGER NOT NULL, key TEXT NOT NULL,
        time TEXT NOT NULL""",
    # the last row of a number has the path of the image
    "images": "id INTEGER PRIMARY KEY, number INTEGER NOT NULL, path NOT NULL, time TEXT NOT NULL",
    "contents": """number INTEGER NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
        modified INTEGER NOT NULL""",
    "batches": """id INTEGER PRIMARY KEY, round INTEGER NOT NULL, rank INTEGER NOT NULL,
        image INTEGER NOT NULL, kind TEXT NOT NULL, shared INTEGER NOT NULL,
        time TEXT NOT NULL""",
    "actions": """id INTEGER PRIMARY KEY, time TEXT NOT NULL, annotator TEXT NOT NULL,
        action TEXT NOT NULL, image INTEGER NOT NULL, label INTEGER, seconds REAL,
        round INTEGER, source TEXT NOT NULL, guess INTEGER, undoes INTEGER, request TEXT""",
    # notes of other tools on images, see `skal.label.notes`
    "notes": """id INTEGER PRIMARY KEY, tool TEXT NOT NULL, image INTEGER NOT NULL,
        fault TEXT NOT NULL, score REAL, time TEXT NOT NULL""",
    # the predictions of each network for the test images
    "models": """id INTEGER PRIMARY KEY, time TEXT NOT NULL, n_labeled INTEGER NOT NULL,
        seconds REAL NOT NULL, images BLOB NOT NULL, predicted BLOB NOT NULL""",
}


class Action(NamedTuple):
    """An action of an annotator, as stored."""

    annotator: str
    action: str
    image: int
    label: int | None = None
    seconds: float | None = None
    round: int | None = None
    source: str = "other"
    guess: int | None = None
    undoes: int | None = None
    request: str | None = None
    id: int = 0
    time: str = ""


class Content(NamedTuple):
    """A file's size in bytes, SHA-256, and modification time in nanoseconds since 1970."""

    size: int
    sha256: str
    modified: int


class BatchRow(NamedTuple):
    """An image of a batch: the kind of pick, and whether to show it to two annotators."""

    round: int
    rank: int
    image: int
    kind: str
    shared: bool


class NoteRow(NamedTuple):
    """A tool's note on an image, and its score."""

    tool: str
    image: int
    fault: str
    score: float | None


class ModelRow(NamedTuple):
    """A trained network, and its predicted classes for the test images."""

    n_labeled: int
    seconds: float
    images: bytes  # int64
    predicted: bytes  # int64


_COLUMNS = {
    table: [n for n in (one.split()[0] for one in columns.split(",")) if n not in ("id", "time")]
    for table, columns in _TABLES.items()
}
"""The columns given by callers; most tables also have the time, and all a checksum of the row."""


class Store:
    """An SQLite file whose rows are written once and never changed.

    Once `append` returns, its actions are on disk: they survive a killed process and, if the disk
    honours fsync, a power loss. Without a path the store is in memory. If it is read only, no
    journal is written next to the file either. Raise a RunFolderError if the file cannot be opened
    or written, is not a store, is damaged, or was written by another version of skal.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        read_only: bool = False,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        self.path = path
        self._connect = partial(
            connect, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._lock = threading.RLock()
        self._depth = 0
        with self._telling():
            if path is not None and not read_only:
                _place_empty(path)
            opened = self._open_read_only() if read_only else self._connect(path or ":memory:")
            self._connection = opened
            # close it also without a call of `close`; written rows are on disk either way
            self._close = weakref.finalize(self, self._connection.close)
            if path is not None:
                self._check_pages()
            if not read_only:
                self._prepare()
            elif not self.is_empty:
                self._check_format()
        if path is not None and not read_only:
            fsync_folder(path.parent)

    def _open_read_only(self) -> sqlite3.Connection:
        """Open the file for reading, also in a folder that is not writable."""
        assert self.path is not None
        address = f"file:{quote(str(self.path.resolve()), errors='surrogateescape')}?mode=ro"
        connection = self._connect(address, uri=True)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            log = self.path.with_name(f"{self.path.name}-wal")
            if log.exists() and log.stat().st_size:
                raise  # it has the latest labels, without which the others would mislead
            connection = self._connect(f"{address}&immutable=1", uri=True)
        return connection

    def _prepare(self) -> None:
        # the write-ahead log is synced at each commit, and checkpoints cannot lose its content
        (mode,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
        for pragma in ("synchronous = FULL", "fullfsync = 1"):
            self._connection.execute(f"PRAGMA {pragma}")
        if self.path is not None and mode != "wal":
            _log.warning(
                "the drive of %s does not support SQLite's write-ahead log (the journal is %r); "
                "labels are still synced, but label from one machine only",
                self.path,
                mode,
            )
        with self.transaction():
            if self.is_empty:
                _create(self._connection)
            self._check_format()

    def _tables(self) -> set[str]:
        return {name for (name,) in self._rows("SELECT name FROM sqlite_master")}

    @property
    def is_empty(self) -> bool:
        """Whether the file has no tables yet."""
        return not self._tables()

    def _check_pages(self) -> None:
        """Raise SQLite's error for a damaged file if its pages are inconsistent."""
        ((found, *_), *_) = self._rows("PRAGMA quick_check(1)")
        if found != "ok":
            raise _damaged(f"it is damaged ({' '.join(found.split())})")

    def _check_format(self) -> None:
        is_known = "meta" in self._tables()
        rows = self._rows("SELECT value FROM meta WHERE name = 'format'") if is_known else []
        written = int(rows[0][0]) if rows and rows[0][0].isdecimal() else 0
        if written != FORMAT:
            age = "a newer" if written > FORMAT else "an older"
            kind = OtherFormatError if written else RunFolderError  # without a format it is damaged
            raise kind(
                f"{str(self.path)!r} has format {written}, but this skal reads format {FORMAT}: "
                f"{age} one wrote it; export the labels with that one, and import them into a new "
                "project"
            )

    def close(self) -> None:
        with self._lock:
            self._close()

    def meta(self) -> dict[str, str]:
        """Return the facts written by `set_meta`, the format, and the project's id."""
        return dict(self._read("meta"))

    def set_meta(self, name: str, value: str) -> None:
        """Write a fact that never changes."""
        self._insert("meta", [(name, value)])

    def class_names(self) -> list[tuple[int, str]]:
        """Return all pairs of class number and name ever given, oldest first."""
        return self._read("classes")

    def name_classes(self, names: Iterable[tuple[int, str]]) -> None:
        """Write new names of class numbers; see `skal.label.classes`."""
        self._insert("classes", names)

    def class_keys(self) -> dict[int, str]:
        """Return the custom keys by number of class."""
        return dict(self._read("keys"))

    def choose_keys(self, keys: Mapping[int, str]) -> None:
        self._insert("keys", keys.items())

    def images(self) -> Paths:
        """Return the path of each image by number."""
        return Paths.of(self._paths())

    def first_paths(self) -> dict[int, str]:
        """Return the first paths of images; empty if none was moved."""
        ((n_rows, last),) = self._rows("SELECT count(*), max(number) FROM images")
        return {} if n_rows == (last or 0) + 1 else dict(reversed([*self._paths()]))

    def _paths(self) -> Iterator[tuple[int, str]]:
        for block in self._checked("images"):
            for row in block:
                path = row[2]
                is_text = isinstance(path, str)
                yield row[1], path if is_text else path.decode(errors="surrogateescape")

    def add_images(self, paths: Mapping[int, str]) -> None:
        """Write the paths of new or moved images."""
        is_plain = all(map(str.isascii, paths.values()))  # the fast path for most projects
        rows = ((number, _as_stored(path)) for number, path in paths.items())
        self._insert("images", paths.items() if is_plain else rows)

    def contents(self) -> dict[int, Content]:
        """Return the contents of labelled images at the time of labelling, by number."""
        return {number: Content(*facts) for number, *facts in self._read("contents")}

    def add_contents(self, contents: Mapping[int, Content]) -> None:
        """Write the contents of labelled images."""
        rows = ((number, *facts) for number, facts in contents.items())
        self._insert("contents", rows)

    def batches(self) -> list[BatchRow]:
        """Return the images of all batches, in the order in which they are shown."""
        return [BatchRow(*row)._replace(shared=bool(row[-1])) for row in self._read("batches")]

    def add_batch(self, rows: Iterable[BatchRow]) -> None:
        self._insert("batches", rows)

    def notes(self) -> list[NoteRow]:
        """Return all notes, oldest first."""
        return [NoteRow(*row) for row in self._read("notes")] if self.last_note() else []

    def add_notes(self, rows: Iterable[NoteRow]) -> None:
        self._insert("notes", rows)

    def last_note(self) -> int:
        """Return the id of the last note; 0 if there is none."""
        ((last,),) = self._rows("SELECT max(id) FROM notes")
        return int(last or 0)

    def models(self) -> list[ModelRow]:
        return [ModelRow(*row) for row in self._read("models")]

    def add_model(self, model: ModelRow) -> None:
        self._insert("models", [model])

    def append(self, actions: Sequence[Action]) -> list[int]:
        """Write actions, all or none, and return their ids once they are on disk."""
        with self.transaction():
            ((last,),) = self._rows("SELECT max(id) FROM actions")
            self._insert("actions", (action[:-2] for action in actions))
            return [*range((last or 0) + 1, (last or 0) + 1 + len(actions))]

    def actions(self, after: int = 0) -> list[Action]:
        actions = self._actions("id > ?", after)
        if [action.id for action in actions] != [*range(after + 1, after + 1 + len(actions))]:
            raise RunFolderError(f"the labels in {str(self.path)!r}: answers are missing")
        return actions

    def action(self, number: int) -> Action:
        return self._actions("id = ?", number)[0]

    def answered(self, request: str) -> list[Action]:
        """Return the actions of the request with this key."""
        return self._actions("request = ?", request)

    def _actions(self, condition: str, value: int | str) -> list[Action]:
        blocks = self._checked("actions", f"WHERE {condition}", (value,))
        return [Action(*(*row[1:-2], row[0], row[-2])) for block in blocks for row in block]

    def check_rows(self) -> None:
        """Raise a RunFolderError if a row of any table is damaged, or an answer is missing."""
        self.actions()
        for table in _TABLES.keys() & self._tables():
            self._read(table)

    def _read(self, table: str) -> list[Any]:
        """Return the rows of a table, in order, without times and checksums."""
        n = len(_COLUMNS[table])
        return [row[1 : 1 + n] for block in self._checked(table) for row in block]

    def _checked(self, table: str, where: str = "", values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield lists of rows after checking them: id, columns, time (if any), and checksum."""
        names = ", ".join((*_COLUMNS[table], *_time_of(table)))
        query = f"SELECT rowid, {names}, crc FROM {table} {where} ORDER BY rowid"
        with self._lock, self._telling():
            rows = self._connection.execute(query, values)
            while block := rows.fetchmany(AT_ONCE):
                numbers, *columns, written = zip(*block, strict=True)
                for number, crc, kept in zip(numbers, checksums(columns), written, strict=True):
                    if crc != kept:
                        raise _damaged(f"row {number} of {table} is damaged: its checksum is wrong")
                yield block

    def _insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows, with the time in UTC if the table has a column for it."""
        with self.transaction():
            _insert_into(self._connection, table, rows)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, self._telling():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything inside the block, or nothing."""
        with self._lock, self._telling():
            if self._depth:  # nested in a larger transaction
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Convert errors of SQLite to ones that name the file."""
        try:
            yield
        except SQLITE_ERRORS as error:
            message = f"the labels in {str(self.path)!r}: {error}{way_out(self.path, error)}"
            raise RunFolderError(message) from error


def _place_empty(path: Path) -> None:
    """Create an empty store atomically, unless there is one."""
    if path.exists():
        return
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _create(connection)
        content = connection.serialize()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_atomic(temporary, content)
        with suppress(OSError):  # another process was first, or no links: `_prepare` creates it
            os.link(temporary, path)
        temporary.unlink()
    except OSError as error:
        raise RunFolderError(f"the labels in {str(path)!r}: {error.strerror or error}") from error


def _create(connection: sqlite3.Connection) -> None:
    _create_tables(connection, _TABLES)
    connection.execute("CREATE INDEX requests ON actions (request) WHERE request IS NOT NULL")
    facts = {"format": str(FORMAT), "project": secrets.token_hex(8)}
    _insert_into(connection, "meta", facts.items())


def _create_tables(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    for table in names:
        connection.execute(f"CREATE TABLE {table} ({_TABLES[table]}, crc INTEGER NOT NULL)")
        for change in ("UPDATE", "DELETE"):
            connection.execute(
                f"CREATE TRIGGER {table}_{change.lower()} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END"
            )


def _time_of(table: str) -> tuple[str, ...]:
    return ("time",) if "time TEXT" in _TABLES[table] else ()


def _insert_into(connection: sqlite3.Connection, table: str, rows: Iterable[Sequence[Any]]) -> None:
    names = (*_COLUMNS[table], *_time_of(table), "crc")
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    for columns in by_columns(rows):
        columns += [(now,) * len(columns[0]) for _ in _time_of(table)]
        columns.append(checksums(columns))
        # leave out columns of only None, which would take sqlite3 longer than all others
        filled = {n: c for n, c in zip(names, columns, strict=True) if c.count(None) < len(c)}
        marks = marks_of(connection, filled.values())
        varying = [c for c, mark in zip(filled.values(), marks, strict=True) if mark == "?"]
        statement = f"INSERT INTO {table} ({', '.join(filled)}) VALUES ({', '.join(marks)})"
        connection.executemany(statement, zip(*varying, strict=True))


def _damaged(message: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _as_stored(path: str) -> str | bytes:
    """Return a path as SQLite accepts it: bytes if it is not valid UTF-8."""
    content = path.encode(errors="surrogateescape")
    return path if content == path.encode(errors="replace") else content
