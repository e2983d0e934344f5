"""Parsing of text tables: rows of cells, and the columns of image paths and labels."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TextIO

from ..core.errors import DataError
from .addresses import names_image

PATHS = (
    *("path", "file_name", "filename", "file", "image_path", "image", "image_name", "img"),
    *("image_url", "url", "source-ref", "imagegcsuri"),
    *("image_id", "id", "name"),
)
"""Names of the image column, the likeliest first."""
OF_IDS = frozenset(("id", "name"))
"""Those names that may also mean something else."""
LABELS = (
    *("label", "class", "category", "target", "choice", "class_name", "label_name"),
    *("species", "breed", "variety", "diagnosis"),
)
"""Names of the label column."""
SEPARATORS = ",;\t|"


def text_of(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark; raise a UnicodeDecodeError otherwise."""
    is_utf_16 = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig").removeprefix("\ufeff")


def with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object (a hook for json.loads); raise a DataError if it repeats a name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise DataError(f"an object has the name {name!r} twice; expected one value")
    return found


def lines_of(text: str) -> TextIO:
    """Return a file of lines; unlike io.StringIO it does not take four bytes per character."""
    content = text.encode(errors="surrogatepass")
    return io.TextIOWrapper(io.BytesIO(content), "utf-8", "surrogatepass", newline="")


class Cells:
    """The rows of a text table as lists of cells; raises a DataError if it is malformed.

    The separator is the one in a first line "sep=", which Excel writes, or else the most frequent
    one in the header, if possible one that gives a column in `PATHS`; ties go to the comma. `line`
    is the line number where the last row ends. With `is_whole`, an unclosed quote is an error.
    """

    def __init__(self, text: str, *, is_whole: bool = True) -> None:
        separator = None
        self._n_before = text[:4].lower() == "sep="
        if self._n_before:
            first, _, text = text.partition("\n")
            separator = first.strip()[4:5]
        first = text.lstrip("\r\n").partition("\n")[0]
        separator = separator or max(SEPARATORS, key=lambda one: _likelihood(first, one))
        self._is_strict = is_whole and text.count('"') % 2 == 1
        self._read = partial(csv.reader, delimiter=separator, strict=self._is_strict)
        self._text = text
        self._rows = self._read(lines_of(text))

    def __iter__(self) -> Iterator[list[str]]:
        try:
            yield from self._rows
        except csv.Error as error:
            raise DataError(self._message(error)) from error

    def _message(self, error: csv.Error) -> str:
        """Return an error message, for an unclosed quote with the line where its row begins."""
        if not self._is_strict:
            return f"line {self.line}: {error}"
        advice = ", or not doubled within its cell" if "expected after" in str(error) else ""
        rows, n_before = self._read(lines_of(self._text)), 0
        with suppress(csv.Error):
            for _ in rows:
                n_before = rows.line_num
        return f"line {n_before + self._n_before + 1} has a quote that is never closed{advice}"

    @property
    def line(self) -> int:
        return self._rows.line_num + self._n_before


def _likelihood(header: str, separator: str) -> tuple[bool, int]:
    names = [name.strip().strip('"').lower() for name in header.split(separator)]
    return not {*names}.isdisjoint(PATHS), len(names)


def find_column(
    names: Sequence[str], known: Iterable[str], written: Sequence[str] | None = None
) -> int | None:
    """Return the index of the first known column that a table has; raise a DataError, with names as
    `written`, if it occurs twice.
    """
    small = [name.strip().lower() for name in names]
    name = next((name for name in known if name in small), None)
    if name is None:
        return None
    if small.count(name) > 1:
        two = [shown for shown, one in zip(written or names, small, strict=False) if one == name]
        listed = " and ".join(map(repr, dict.fromkeys(two)))
        raise DataError(f"it has two columns {listed}; rename one")
    return small.index(name)


def fits(cells: Sequence[str], header: Sequence[str], last: int) -> bool:
    """Return whether a row has cells up to the `last` column in use, and no more than the header
    unless the others are empty, as spreadsheets write them.
    """
    return len(cells) > last and (
        len(cells) <= len(header) or not any(map(str.strip, cells[last + 1 :]))
    )


def rival_of(header: Sequence[str], cells: Sequence[Any], of_path: int) -> int | None:
    """Return the column with an image address if that in a column of ids is none (it may be a row
    number), or None.
    """
    is_of_ids = header[of_path].lower() in OF_IDS and len(cells) > of_path
    if not is_of_ids or names_image(str(cells[of_path])):
        return None
    named = (n for n, cell in enumerate(cells) if isinstance(cell, str) and names_image(cell))
    return next(named, None)
