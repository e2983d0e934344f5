"""A checksum of each row of the store, which tells what a disk has changed."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Any

Column = Sequence[Any]
_TEMPLATES = {int: "%d.0", float: "%s", **dict.fromkeys((str, bytes, type(None)), "%r")}
"""How a value of a type is written in a list, if its numbers are floats."""
AT_ONCE = 10_000
"""Rows that are looked at together."""


def by_columns(rows: Iterable[Sequence[Any]]) -> Iterator[list[Column]]:
    """Yield the columns of rows, of some thousands at a time."""
    waiting = iter(rows)
    while block := list(islice(waiting, AT_ONCE)):
        yield [*zip(*block, strict=True)]


def checksums(columns: Sequence[Column]) -> list[int]:
    """Return a checksum of each row of what SQLite gives back of some columns: of the row's text as
    a list. By columns, of which most have one value, it takes a third of the time.
    """
    parts: list[str] = []
    varying: list[Column] = []
    for column in columns:
        is_one = _is_one(column)
        types = {type(column[0])} if is_one else set(map(type, column))
        template = _TEMPLATES.get(types.pop()) if len(types) == 1 else None
        written = column if template else [*map(_written, column)]
        template = template or "%s"
        if is_one:
            parts.append((template % (written[0],)).replace("%", "%%"))
        else:
            parts.append(template)
            varying.append(written)
    text = f"[{', '.join(parts)}]"
    rows = zip(*varying, strict=True) if varying else repeat((), len(columns[0]))
    return [zlib.crc32((text % row).encode(errors="surrogatepass")) for row in rows]


def marks_of(connection: sqlite3.Connection, columns: Iterable[Column]) -> list[str]:
    """Return what stands for columns in a statement that inserts their rows: "?", or the text that
    many rows share, for to bind it to each takes a third of the time.
    """
    return [
        connection.execute("SELECT quote(?)", column[:1]).fetchone()[0]
        if len(column) == AT_ONCE
        and isinstance(column[0], str)
        and column[0].isprintable()
        and _is_one(column)
        else "?"
        for column in columns
    ]


def _is_one(column: Column) -> bool:
    return column[0] is column[-1] and len(set(map(id, column))) == 1


def _written(value: Any) -> str:
    """Return a value as it stands in a list; numbers may be of another type in SQLite."""
    return repr(float(value) if isinstance(value, int | float) else value)
