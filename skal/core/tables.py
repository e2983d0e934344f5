"""Tables as CSV, also such as grow."""

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
    """Return rows as CSV, the columns that the first has in addition behind the others. Those from
    `start` on, if it is above 0, come without a header.
    """
    columns = list(dict.fromkeys([*columns, *(rows[0] if rows else ())]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if not start:
        writer.writeheader()
    writer.writerows(rows[start:])
    return text.getvalue()


@dataclass
class GrowingTable:
    """A table of `columns` to which rows are added: in as long a time however many there are.

    It is written anew whole where it is not as this object left it.
    """

    path: Path
    columns: Sequence[str]
    size: int = -1

    def take(self, rows: Rows, n_new: int) -> None:
        """Write rows, of which the last `n_new` are new. A kill leaves the old ones, and perhaps
        some bytes of those.
        """
        n_known = len(rows) - n_new
        if n_known and self.path.exists() and self.path.stat().st_size == self.size:
            append(self.path, csv_of(self.columns, rows, n_known))
        else:
            write_atomic(self.path, csv_of(self.columns, rows))
        self.size = self.path.stat().st_size
