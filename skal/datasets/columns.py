"""The text of tables: rows of cells, and which columns of them are of images and of labels."""

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
"""Names of the column of images, the likeliest first."""
OF_IDS = frozenset(("id", "name"))
"""Those of them that may be of something else than images."""
LABELS = (
    *("label", "class", "category", "target", "choice", "class_name", "label_name"),
    *("species", "breed", "variety", "diagnosis"),
)
"""Names of the column of labels."""
SEPARATORS = ",;\t|"


def text_of(content: bytes) -> str:
    """Return text in UTF-8, or in UTF-16 with its mark; a UnicodeDecodeError if it is neither."""
    is_utf_16 = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig").removeprefix("\ufeff")


def with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, as json.loads hooks it; a DataError if it has a name twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise DataError(f"an object has {name!r} twice; expected one value")
    return found


def lines_of(text: str) -> TextIO:
    """Return lines with their ends, without the four bytes a character of io.StringIO."""
    content = text.encode(errors="surrogatepass")
    return io.TextIOWrapper(io.BytesIO(content), "utf-8", "surrogatepass", newline="")


class Cells:
    """The rows of a table in text, each as its cells; a DataError where it is malformed.

    The separator is what a line "sep=" says, which Excel writes before the others, or else the
    most frequent in the first line, of equally many the comma, but first one by which a column of
    `PATHS` is there. `line` is where the last row ends. A quote that is never closed is an error if
    the text `is_whole`.
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
            raise DataError(self._told(error)) from error

    def _told(self, error: csv.Error) -> str:
        """Return what is wrong, and of a quote that is not closed where its row begins."""
        if not self._is_strict:
            return f"line {self.line}: {error}"
        alone = ", or is not doubled within its cell" if "expected after" in str(error) else ""
        rows, n_before = self._read(lines_of(self._text)), 0
        with suppress(csv.Error):
            for _ in rows:
                n_before = rows.line_num
        return f"line {n_before + self._n_before + 1} has a quote that is never closed{alone}"

    @property
    def line(self) -> int:
        return self._rows.line_num + self._n_before


def _likelihood(header: str, separator: str) -> tuple[bool, int]:
    names = [name.strip().strip('"').lower() for name in header.split(separator)]
    return not {*names}.isdisjoint(PATHS), len(names)


def find_column(
    names: Sequence[str], known: Iterable[str], written: Sequence[str] | None = None
) -> int | None:
    """Return the first of some columns that a table has; a DataError, with names as they are
    `written`, if it has two of them.
    """
    small = [name.strip().lower() for name in names]
    name = next((name for name in known if name in small), None)
    if name is None:
        return None
    if small.count(name) > 1:
        two = [shown for shown, one in zip(written or names, small, strict=False) if one == name]
        told = " and ".join(map(repr, dict.fromkeys(two)))
        raise DataError(f"it has two columns {told}; rename one")
    return small.index(name)


def fits(cells: Sequence[str], header: Sequence[str], last: int) -> bool:
    """Tell whether a row has the cells of a header up to its `last` column of use, and more than
    all of the header only if these are empty, as spreadsheets write them.
    """
    return len(cells) > last and (
        len(cells) <= len(header) or not any(map(str.strip, cells[last + 1 :]))
    )


def rival_of(header: Sequence[str], cells: Sequence[Any], of_path: int) -> int | None:
    """Return the column whose cell looks like an image where that of a column of ids, which may
    count rows, does not; None if there is none.
    """
    is_of_ids = header[of_path].lower() in OF_IDS and len(cells) > of_path
    if not is_of_ids or names_image(str(cells[of_path])):
        return None
    named = (n for n, cell in enumerate(cells) if isinstance(cell, str) and names_image(cell))
    return next(named, None)
