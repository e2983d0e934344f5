"""Tables as aligned text or CSV, and CSV files that grow."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .durable import append, write_atomic

Rows = Sequence[Mapping[str, Any]]


def csv_of(columns: Sequence[str], rows: Rows, start: int = 0) -> str:
    """Return rows as CSV: `columns`, then further keys of the first row. With `start` above 0,
    return only the rows from there, without a header.
    """
    columns = list(dict.fromkeys([*columns, *(rows[0] if rows else ())]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if not start:
        writer.writeheader()
    writer.writerows(rows[start:])
    return text.getvalue()


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(n) for cell, n in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(cells).rstrip() for cells in padded]


@dataclass
class GrowingTable:
    """A CSV file to which rows are appended, at a cost that does not grow with its length.

    It is rewritten if the file is not as this object left it.
    """

    path: Path
    columns: Sequence[str]
    _n: int = 0
    _left: tuple[int, ...] | None = None

    def take(self, rows: Rows) -> None:
        """Write rows, which begin with those of the previous call. A kill leaves those, and perhaps
        some bytes of the others; after an `OSError` the next call writes all rows.
        """
        before, self._left = self._left, None  # unknown until it is written
        if self._n and before is not None and before == self._state():
            if len(rows) > self._n:
                append(self.path, csv_of(self.columns, rows, self._n))
        else:
            write_atomic(self.path, csv_of(self.columns, rows))
        self._n, self._left = len(rows), self._state()

    def _state(self) -> tuple[int, ...] | None:
        try:
            found = self.path.lstat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
