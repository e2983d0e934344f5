"""A table of labels beside the images, as of a competition or a colleague."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .addresses import Addresses, UnclearAddressError

TABLES = frozenset((".csv", ".tsv"))
PATH_COLUMNS = ("path", "file_name", "filename", "file", "image_path", "image", "image_name", "img")
ID_COLUMNS = ("image_id", "id", "name")
LABEL_COLUMNS = ("label", "class", "category", "target", "choice", "class_name", "label_name")
LABEL_COLUMNS_OF_KINDS = ("species", "breed", "variety", "diagnosis")
NO_TRUTH = ("submission", "sample")
"""In the names of tables whose labels are made up."""

_log = logging.getLogger("skal")


class LabelledFile(Protocol):
    """An image file, with the label that its folder gives it."""

    @property
    def path(self) -> str:
        """Relative to the root."""

    @property
    def label(self) -> str | None:
        """A class, None where there is none."""


@dataclass(frozen=True)
class Table:
    """What a table says: the labels of images, by path; its rows that name no image are counted."""

    place: Path
    labels: Mapping[str, str]
    n_unknown: int


def read_tables(root: Path, files: Sequence[LabelledFile]) -> dict[str, str]:
    """Return the labels that tables beside the images give them, by path, and say which.

    Where folders tell classes, say how many images a table puts elsewhere.
    """
    labels: dict[str, str] = {}
    for place in _tables(root):
        table = _read(root, place, files)
        if table is None:
            continue
        contradicted = _contradicted(table, files)
        if contradicted:
            _log.warning(
                "%s says otherwise than the folders of %d images (%s: %r)",
                place.relative_to(root),
                len(contradicted),
                contradicted[0],
                table.labels[contradicted[0]],
            )
        if table.n_unknown:
            _log.warning(
                "%d rows of %s name no image here", table.n_unknown, place.relative_to(root)
            )
        _log.info("%s labels %d images", place.relative_to(root), len(table.labels))
        labels.update(table.labels)
    return labels


def _tables(root: Path) -> Iterator[Path]:
    """Yield tables in the folder and in those in it."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    for folder in folders:
        try:
            names = sorted(path for path in folder.iterdir() if path.suffix.lower() in TABLES)
        except OSError:
            continue
        yield from (path for path in names if not any(w in path.stem.lower() for w in NO_TRUTH))


def _read(root: Path, place: Path, files: Sequence[LabelledFile]) -> Table | None:
    """Read a table; None if it has no such columns, or names no image, or two in one row."""
    try:
        with place.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline()
            delimiter = max(",;\t|", key=first.count)
            header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
            columns = _columns(header)
            if columns is None:
                return None
            rows = [row for row in csv.reader(file, delimiter=delimiter) if len(row) > max(columns)]
    except (OSError, csv.Error):
        return None
    images = Addresses((file.path for file in _meant(root, place, files)), root.as_posix())
    labels: dict[str, str] = {}
    n_unknown = 0
    for row in rows:
        address, label = (row[column].strip() for column in columns)
        try:
            path = images.find(address)
        except UnclearAddressError as error:
            if error.candidates:
                _log.warning("%s is not used: %s", place.relative_to(root), error)
                return None
            n_unknown += 1
            continue
        if label:
            labels[path] = label
    return Table(place, labels, n_unknown) if labels else None


def _columns(header: Sequence[str]) -> tuple[int, int] | None:
    """Return which columns hold the images' addresses and labels."""
    small = [name.lower() for name in header]

    def first(names: Iterable[str]) -> int | None:
        return next((small.index(name) for name in names if name in small), None)

    path = first((*PATH_COLUMNS, *ID_COLUMNS))
    label = first((*LABEL_COLUMNS, *LABEL_COLUMNS_OF_KINDS))
    return None if path is None or label is None else (path, label)


def _meant(root: Path, place: Path, files: Sequence[LabelledFile]) -> Sequence[LabelledFile]:
    """Return the images that a table may speak of: "train.csv" of those in "train", if it is there,
    and a table within a folder of those in it.
    """
    inside = place.parent.relative_to(root).as_posix()
    start = f"{place.stem.lower()}/" if inside == "." else f"{inside.lower()}/"
    within = [file for file in files if file.path.lower().startswith(start)]
    return within or files


def _contradicted(table: Table, files: Sequence[LabelledFile]) -> list[str]:
    """Return the images that a table puts elsewhere than their folders, unless it renames these."""
    folders = {file.path: file.label for file in files if file.label is not None}
    both = {path: (folders[path], label) for path, label in table.labels.items() if path in folders}
    usual = {folder: label for (folder, label), _ in reversed(Counter(both.values()).most_common())}
    if len(set(usual.values())) < len(usual):
        return list(both) if len(usual) > 1 else []
    return [path for path, (folder, label) in both.items() if usual[folder] != label]
