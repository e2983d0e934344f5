"""Tables of labels in image folders, such as those of competitions."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import DataError, one_line
from ..core.text import counted, plural
from .addresses import Addresses, Located, UnclearAddressError
from .columns import (
    LABELS,
    PATHS,
    Cells,
    find_column,
    fits,
    lines_of,
    rival_of,
    text_of,
    with_names_once,
)
from .layout import ImageFile, kind_of

TABLES = frozenset((".csv", ".tsv"))
METADATA = "metadata.jsonl"
"""The table of Hugging Face's `imagefolder`, with a JSON object per line."""
NO_TRUTH = ("submission", "sample", "predict")
"""Words in the names of tables whose labels are placeholders or predictions."""
OF_NO_TRUTH = "its name suggests that it holds no true labels; rename it if it does"
MOST_NAMED, MOST_COLUMNS, MOST_CHARACTERS = 3, 12, 80
"""Most tables and rows, columns, and characters of each that messages show."""

OF_GUESSES = ("probability", "proba", "confidence", "score")
MOST_DISTINCT = 20
"""Most rows of a table whose labels are all different."""
_FRACTION = re.compile(r"-?\d*\.\d+")

_log = logging.getLogger("skal")

NumberedRow = tuple[int, list[str]]
"""The line number where a row ends, and the row."""


@dataclass(frozen=True)
class Table:
    """A parsed table: the labels by image path, the addresses of unknown images, the number of
    images without a label, and the lines with too few or too many cells.
    """

    place: Path
    labels: Mapping[str, str]
    unknown: Sequence[str]
    n_empty: int
    misfits: Sequence[int]


class OtherTableError(DataError):
    """A table seems to have another purpose; ignored without a warning if labels come from
    elsewhere.
    """


def is_table(name: str) -> bool:
    """Return whether a file is a table, which may hold labels, by its name."""
    small = name.lower()
    return small == METADATA or os.path.splitext(small)[1] in TABLES  # noqa: PTH122 (Path is slow)


def is_made_up(name: str) -> bool:
    """Return whether a table's name (or path) suggests that its labels are not the truth."""
    small = name.rpartition("/")[2].lower()
    return small != METADATA and any(word in small for word in NO_TRUTH)


def read_tables(
    root: Path, files: Sequence[ImageFile], tables: Iterable[str], are_needed: bool
) -> dict[str, str]:
    """Return the labels that tables give the images, by path, and log which; those in parent
    folders are read first.

    If folders define the classes, log how many images a table labels differently. Log why a table
    with a path and a label column is not used, and why any is not if tables `are_needed` and none
    is used. Tables that contradict each other are not used.
    """
    labels: dict[str, str] = {}
    others: list[tuple[str, OtherTableError]] = []
    for name in sorted(tables, key=lambda name: (name.count("/"), name)):
        try:
            table = _read(root, root / name, files)
        except OtherTableError as error:
            others.append((name, error))
            continue
        except DataError as error:
            if not is_made_up(name):
                _log.warning("%s is not used: %s", name, error)
            continue
        if is_made_up(name):
            if are_needed:
                _log.warning("%s is not used: %s", name, OF_NO_TRUTH)
            continue
        contradicted = _contradicted(table, files)
        if contradicted:
            example = f"{contradicted[0]}: {table.labels[contradicted[0]]!r}"
            images = counted(len(contradicted), "image")
            _log.warning("%s contradicts the folders of %s (%s)", name, images, example)
        other = [
            path
            for path in table.labels
            if labels.get(path, table.labels[path]) != table.labels[path]
        ]
        if other:
            _log.warning("%s contradicts another table about %s: no table is used", name, other[0])
            return {}
        _log_use(name, table)
        labels.update(table.labels)
    if are_needed and not labels:
        for name, why in others[:MOST_NAMED]:
            _log.warning("%s is not used: %s", name, why)
        if len(others) > MOST_NAMED:
            n = len(others) - MOST_NAMED
            _log.warning("%s %s not used either", counted(n, "other table"), plural(n, "is", "are"))
    return labels


def _log_use(name: str, table: Table) -> None:
    """Log what a table labels, and which of its rows are not used."""
    if table.unknown:
        some = _some(table.unknown, MOST_NAMED)
        rows = counted(len(table.unknown), f"row of {name} names", f"rows of {name} name")
        _log.warning("%s no image in this folder: %s", rows, some)
    if table.misfits:
        rows, line = counted(len(table.misfits), "row"), table.misfits[0]
        _log.warning(
            "ignored %s of %s (the first is line %d): not as many cells as its header",
            rows,
            name,
            line,
        )
    empty = f"; without a label: {counted(table.n_empty, 'row')}" if table.n_empty else ""
    _log.info("%s labels %s%s", name, counted(len(table.labels), "image"), empty)


def table_of(root: Path, files: Sequence[ImageFile]) -> Table | None:
    """Return the first table directly in a folder that labels its images, or None."""
    for place in sorted(root.iterdir()):
        with suppress(DataError):
            if is_table(place.name) and not is_made_up(place.name):
                return _read(root, place, files)
    return None


def without_columns(root: Path) -> dict[str, str]:
    """Return the tables directly in a folder that have no image or label column, or no true labels,
    and why they are not used.
    """
    found: dict[str, str] = {}
    for place in sorted(root.iterdir()):
        if not is_table(place.name) or place.name[0] == "." or not place.is_file():
            continue
        if is_made_up(place.name):
            found[place.name] = OF_NO_TRUTH
            continue
        try:
            _columns_of(_rows_of(place)[0])
        except OtherTableError as error:
            found[place.name] = str(error)
        except DataError:  # reported when the table is read
            continue
    return found


def _columns_of(header: Sequence[str]) -> tuple[int, int]:
    """Return the columns of images and labels; raise an OtherTableError if one is missing."""
    if not header:
        raise OtherTableError("it is empty")
    known = {"images": PATHS, "labels": LABELS}
    columns = {what: find_column(header, names) for what, names in known.items()}
    of_path, of_label = columns["images"], columns["labels"]
    if of_path is None or of_label is None:
        expected = (
            f"one of {what} ({', '.join(known[what])})"
            for what, column in columns.items()
            if column is None
        )
        raise OtherTableError(
            f"its columns are {_some(header, MOST_COLUMNS)}; expected {' and '.join(expected)}"
        )
    return of_path, of_label


def _some(names: Sequence[str], most: int) -> str:
    return ", ".join(
        [repr(x[:MOST_CHARACTERS]) for x in names[:most]] + ["..."] * (len(names) > most)
    )


def _read(root: Path, place: Path, files: Sequence[ImageFile]) -> Table:
    """Read a table. Raise an OtherTableError if it lacks the columns or labels no image, and
    another DataError if it looks like a table of labels but cannot be used.
    """
    header, rows = _rows_of(place)
    columns = of_path, of_label = _columns_of(header)
    whole = [row for _, row in rows if fits(row, header, max(columns))]
    misfits = [line for line, row in rows if not fits(row, header, max(columns))]
    cells = [(row[of_path], row[of_label].strip()) for row in whole]
    _check_is_truth(header, [label for _, label in cells])
    images = Addresses((file.path for file in _meant(root, place, files)), root.as_posix())
    _check_no_rival(header, whole, of_path, images)
    found: list[tuple[str, Located, str]] = []
    unknown: list[str] = []
    for address, label in cells:
        try:
            found.append((address, images.locate(address), label))
        except UnclearAddressError as error:
            if error.candidates:
                raise DataError(str(error)) from error
            unknown.append(address)
    if any(one.by_name for _, one, _ in found):  # the others are in sibling folders
        unknown += [address for address, one, _ in found if one.root_at and not one.by_name]
        found = [row for row in found if row[1].by_name or not row[1].root_at]
    reason = images.contradiction(one for _, one, _ in found)
    if reason:
        raise DataError(f"it {reason} this folder")
    labels: dict[str, str] = {}
    for _, one, label in found:
        if label and labels.setdefault(one.path, label) != label:
            raise DataError(f"it labels {one.path} both {labels[one.path]!r} and {label!r}")
    if labels:
        n_empty = sum(not label for _, _, label in found)
        return Table(place, labels, unknown, n_empty, misfits)
    if misfits:
        raise OtherTableError(
            f"it has no row with an image and a label, and {counted(len(misfits), 'row')} with not "
            f"as many cells as its header (the first is line {misfits[0]})"
        )
    if unknown:
        raise OtherTableError(
            f"none of its {counted(len(rows), 'row')} names an image in this folder: "
            f"{_some(unknown, MOST_NAMED)}"
        )
    raise OtherTableError("it has no row with an image and a label")


def _check_no_rival(
    header: Sequence[str], rows: Sequence[Sequence[str]], of_path: int, images: Addresses
) -> None:
    """Raise an error if most rows name an image in another column than that of ids."""
    columns = ((row, rival_of(header, row, of_path)) for row in rows)
    rivals = [n for row, n in columns if n is not None and _is_image(row[n], images)]
    if 2 * len(rivals) > len(rows):
        raise DataError(
            f"its images may be in the column {header[of_path]!r} or {header[rivals[0]]!r}; rename "
            "the right one to 'path'"
        )


def _is_image(address: str, images: Addresses) -> bool:
    """Return whether a text is the address of an existing image."""
    with suppress(UnclearAddressError):
        images.locate(address)
        return True
    return False


def _rows_of(place: Path) -> tuple[list[str], list[NumberedRow]]:
    """Return the header and the other rows of a table, without empty ones."""
    try:
        text = text_of(place.read_bytes())
        table = Cells(text)
        rows = (
            _rows_of_objects(text)
            if place.name.lower() == METADATA
            else [(table.line, row) for row in table if any(map(str.strip, row))]
        )
    except UnicodeDecodeError as error:
        raise DataError("it is not UTF-8 text") from error
    except DataError:
        raise
    except OSError as error:
        raise DataError(one_line(error)) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is not one JSON object per line: {one_line(error)}") from error
    return ([name.strip() for name in rows[0][1]], rows[1:]) if rows else ([], [])


def _rows_of_objects(text: str) -> list[NumberedRow]:
    """Return JSON lines as the rows of a table, without nested values."""
    lines = [(n, line) for n, line in enumerate(lines_of(text), start=1) if line.strip()]
    objects = [(n, json.loads(line, object_pairs_hook=with_names_once)) for n, line in lines]
    if not all(isinstance(one, dict) for _, one in objects):
        raise ValueError("it has another value")
    header = list(dict.fromkeys(name for _, one in objects for name in one))
    rows = [(n, [_plain(one.get(name)) for name in header]) for n, one in objects]
    return [(0, header), *rows] if objects else []


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else ""


def _check_is_truth(header: Sequence[str], labels: Sequence[str]) -> None:
    """Raise an error if the labels are predictions, measurements or unique names."""
    small = [name.lower() for name in header]
    guesses = [
        name
        for name, one in zip(header, small, strict=True)
        if one in OF_GUESSES or one.startswith("p_")
    ]
    if guesses:
        raise DataError(f"its column {guesses[0]!r} suggests that it holds predictions")
    if "split" in small:
        raise DataError(
            "its column 'split' is not supported; move the images to train/ and test/, or remove it"
        )
    if any(_FRACTION.fullmatch(label) for label in labels):
        raise DataError("its labels are fractions, not classes")
    if len(labels) > MOST_DISTINCT and len(set(labels)) == len(labels):
        raise DataError("all its rows have different labels")


def _meant(root: Path, place: Path, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
    """Return the images that a table may be about: for "train.csv" those in "train" or
    "train_images" if it exists, and for a table in a folder those in it.
    """
    inside = place.parent.relative_to(root).as_posix()
    if inside != ".":
        return [file for file in files if file.path.startswith(f"{inside}/")] or files
    name = place.stem.lower()
    tops = {file.path.partition("/")[0] for file in files if "/" in file.path}
    same = {top for top in tops if top.lower() == name}
    kind = kind_of(place.stem)
    same = same or {top for top in tops if kind and kind_of(top) == kind}
    return [file for file in files if file.path.partition("/")[0] in same] or files


def _contradicted(table: Table, files: Sequence[ImageFile]) -> list[str]:
    """Return the images that a table labels unlike their folders, unless it renames the classes."""
    folders = {file.path: file.label for file in files if file.label is not None}
    both = {path: (folders[path], label) for path, label in table.labels.items() if path in folders}
    usual = {folder: label for (folder, label), _ in reversed(Counter(both.values()).most_common())}
    if len(set(usual.values())) < len(usual):
        return list(both) if len(usual) > 1 else []
    return [path for path, (folder, label) in both.items() if usual[folder] != label]
