"""Checksums of the rows of the store, to detect damage by the disk."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Any

Column = Sequence[Any]
_TEMPLATES = {int: "%d.0", float: "%s", **dict.fromkeys((str, bytes, type(None)), "%r")}
"""The format of a value of each type in a list, with numbers as floats."""
AT_ONCE = 10_000
"""Rows per block."""


def by_columns(rows: Iterable[Sequence[Any]]) -> Iterator[list[Column]]:
    """Yield the columns of rows, in blocks."""
    waiting = iter(rows)
    while block := list(islice(waiting, AT_ONCE)):
        yield [*zip(*block, strict=True)]


def checksums(columns: Sequence[Column]) -> list[int]:
    """Return a checksum of each row: of its text as a list, with the values that SQLite returns.

    By column, as most have a single value, this takes a third of the time.
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
    """Return placeholders of columns for an INSERT: "?", or the text that all rows share.

    Binding such a text to each row would take a third of the total time.
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
    """Return a value as text in a list, with numbers as floats: SQLite may change their type."""
    return repr(float(value) if isinstance(value, int | float) else value)
