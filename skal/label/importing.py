"""Labels in: from CSV, class folders, and the JSON of Label Studio; all of a file or nothing."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..core.errors import DataError
from ..datasets.index import find_images
from .entries import IMPORT, Entry, Reading, short_name
from .images import content_of
from .label_studio import read_tasks
from .ledger import TEST
from .names import check_annotator
from .project import LabelProject
from .store import VERDICTS, Action


@dataclass(frozen=True)
class Imported:
    """How many labels were new, replaced another, or were there; and how many rows have none."""

    new: int
    changed: int
    same: int
    empty: int = 0

    def __str__(self) -> str:
        empty = f", {self.empty} rows without a label" if self.empty else ""
        return f"{self.new} new, {self.changed} changed, {self.same} already there{empty}"


def import_labels(project: LabelProject, source: Path, annotator: str = "me") -> Imported:
    """Take labels from a file or a folder into a project, all or none.

    `source` is a folder of class folders, whose images are told by their content; JSON of Label
    Studio; or CSV with the columns `path` and `label`, and others of `COLUMNS` if they are known.
    It is a DataError, UnknownNameError or UsageError if it cannot be read, or names an image or a
    class that the project does not have.
    """
    return _take_in(project, _read(project, source, annotator))


def import_into(
    folder: Path, source: Path, classes: Sequence[str] = (), annotator: str = "me"
) -> Imported:
    """Take labels into the project of a folder, or begin it with them, all or none.

    Nothing is written, no class either, before all of the file was read and found valid. Of
    `classes` those that the project does not have yet are added.
    """
    with closing(LabelProject.open(folder, classes, create=False)) as seen:
        is_new = seen.store.path is None
        entries = _read(seen, source, annotator)
        named = [(seen.paths.get(entry.image), entry) for entry in entries]
        classes = seen.classes
    opened = LabelProject.open(folder, classes if is_new else (), needs_classes=False)
    with closing(opened) as project, project.store.transaction():
        project.add_classes(classes)
        numbers = {path: number for number, path in project.paths.items()}
        there = [replace(entry, image=numbers.get(path or "", -1)) for path, entry in named]
        return _take_in(project, there)


def _read(project: LabelProject, source: Path, annotator: str) -> list[Entry]:
    reading = Reading(project, source.name, check_annotator(annotator))
    if source.is_dir():
        return _read_folder(reading, source)
    text = _text_of(source)
    is_json = source.suffix.lower() == ".json" or text.lstrip()[:1] in ("[", "{")
    return (read_tasks if is_json else _read_csv)(reading, text)


def _text_of(source: Path) -> str:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {str(source)!r}: {error.strerror}") from error
    is_utf_16 = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{source.name} is no text in UTF-8 (line {line}); expected a table or JSON: in a "
            "spreadsheet save it as 'CSV UTF-8'"
        ) from error


def _take_in(project: LabelProject, entries: Sequence[Entry]) -> Imported:
    reserve = set(project.reserve)
    counts = {"new": 0, "changed": 0, "same": 0}
    actions = []
    for entry in _without_contradiction(project, entries):
        verdict = project.ledger.verdicts(entry.image).get(entry.annotator)
        before = (verdict.action, verdict.label) if verdict else None
        if before is None and entry.image in project.folder_labels:
            before = ("label", project.folder_labels[entry.image])
        if before == (entry.action, entry.label):
            counts["same"] += 1
            continue
        counts["new" if before is None else "changed"] += 1
        is_test = entry.source == TEST and entry.image in reserve
        actions.append(
            Action(
                check_annotator(entry.annotator),
                entry.action,
                entry.image,
                entry.label,
                entry.seconds,
                source=TEST if is_test else IMPORT,
            )
        )
    project.record(actions)
    return Imported(**counts, empty=sum(entry.action == "skip" for entry in entries))


def _without_contradiction(project: LabelProject, entries: Sequence[Entry]) -> list[Entry]:
    """Return one verdict an image and annotator; two different ones are an error."""
    found: dict[tuple[int, str], Entry] = {}
    for entry in entries:
        if entry.action == "skip":
            continue
        other = found.setdefault((entry.image, entry.annotator), entry)
        if (other.action, other.label) != (entry.action, entry.label):
            said = [
                e.action if e.label is None else repr(project.classes[e.label])
                for e in (other, entry)
            ]
            raise DataError(
                f"{other.where} says {said[0]} and {entry.where} says {said[1]} of "
                f"{project.paths[entry.image]!r}, both for {entry.annotator!r}; expected one label"
            )
    return list(found.values())


def _read_csv(reading: Reading, text: str) -> list[Entry]:
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)  # of equally many the comma, which stands first
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    columns = [column.strip() for column in rows.fieldnames or []]
    rows.fieldnames = [column.lower() for column in columns]
    missing = [column for column in ("path", "label") if column not in rows.fieldnames]
    if missing:
        raise DataError(
            f"{reading.name} has no column {missing[0]!r} (found: "
            f"{', '.join(columns) or 'nothing'}); expected path and label"
        )
    entries = []
    try:
        for row in rows:
            where = f"line {rows.line_num}"
            if None in row:
                raise DataError(f"{reading.name}, {where} has more fields than the header")
            entry = _row_entry(reading, row, where)
            if entry is not None:
                entries.append(entry)
    except csv.Error as error:
        raise DataError(f"{reading.name}, line {rows.line_num}: {error}") from error
    reading.check()
    return entries


def _row_entry(reading: Reading, row: Mapping[str, str | None], where: str) -> Entry | None:
    cells = {column: (text or "").strip() for column, text in row.items()}
    label = cells["label"]
    action = cells.get("action") or ("label" if label else "skip")
    if action == "skip" and not label:
        return Entry(where, -1, action, None, reading.annotator)
    if action not in VERDICTS or (action == "label") is not bool(label):
        raise DataError(
            f"{where}: the action {action!r} with the label {label!r}; expected a label, or none "
            "with unsure or bad"
        )
    image = reading.image_at(where, row["path"] or "")
    number = reading.class_id(where, label) if label else None
    if image is None:
        return None
    annotator = short_name(cells.get("annotator") or reading.annotator)
    seconds = cells.get("seconds", "")
    known = float(seconds) if re.fullmatch(r"\d+(\.\d+)?", seconds) else None
    return Entry(where, image, action, number, annotator, cells.get("source") or IMPORT, known)


def _read_folder(reading: Reading, folder: Path) -> list[Entry]:
    images = _ImagesByContent(reading.project)
    entries = []
    for file in find_images(folder):
        if file.label is None:
            continue
        image = images.find(folder / file.path)
        if image is None:
            raise DataError(
                f"{str(folder / file.path)!r} is no image of {str(reading.project.root)!r}, nor "
                "has it the content of one"
            )
        label = reading.class_id(file.path, file.label)
        entries.append(Entry(file.path, image, "label", label, reading.annotator))
    return entries


class _ImagesByContent:
    """Finds the image of a project that a file is, or that has the same content."""

    def __init__(self, project: LabelProject) -> None:
        self._project = project
        self._by_file: dict[tuple[int, int], int] = {}
        self._by_size: dict[int, list[int]] = {}
        self._contents: dict[int, tuple[int, str] | None] = {}
        for number, path in project.paths.items():
            status = (project.root / path).stat()
            self._by_file[status.st_dev, status.st_ino] = number
            self._by_size.setdefault(status.st_size, []).append(number)

    def find(self, path: Path) -> int | None:
        status = path.stat()
        if (status.st_dev, status.st_ino) in self._by_file:
            return self._by_file[status.st_dev, status.st_ino]
        alike = self._by_size.get(status.st_size, [])
        content = content_of(path) if alike else None
        found = [number for number in alike if self._content(number) == content]
        paths = self._project.paths
        named = [number for number in found if PurePosixPath(paths[number]).name == path.name]
        return next(iter(named or found), None)

    def _content(self, number: int) -> tuple[int, str] | None:
        if number not in self._contents:
            path = self._project.root / self._project.paths[number]
            self._contents[number] = content_of(path)
        return self._contents[number]
