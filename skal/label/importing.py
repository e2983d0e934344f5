"""Labels in: from CSV, class folders, and the JSON of Label Studio; all of a file or nothing."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..core.errors import DataError, UnknownNameError
from ..datasets.addresses import Addresses, UnclearAddressError
from ..datasets.index import find_images
from .images import content_of
from .ledger import TEST
from .names import LONGEST_NAME, check_annotator, plain_text
from .project import LabelProject
from .store import VERDICTS, Action

IMPORT = "import"


class Entry(NamedTuple):
    """Where something stands in its file, and what it says of an image; a "skip" is of none."""

    where: str
    said: Action


class Reading:
    """A file that is read: finds the images that it means, and remembers which there are not.

    It is called `name` in errors; labels are of `annotator` where it does not say whose.
    """

    def __init__(self, project: LabelProject, name: str, annotator: str) -> None:
        self.project, self.name, self.annotator = project, name, annotator
        self._by_path = {plain_text(path): n for n, path in project.paths.items()}
        self._addresses = Addresses(self._by_path, project.root.resolve().as_posix())
        self._unclear: list[str] = []

    def image_at(self, where: str, address: str) -> int | None:
        """Return the number of the image that an address means; see `Addresses`."""
        try:
            return self._by_path[self._addresses.find(plain_text(address))]
        except UnclearAddressError as error:
            self._unclear.append(f"{where}: {error}")
            return None

    def class_id(self, where: str, name: str) -> int:
        try:
            return self.project.class_id(name)
        except UnknownNameError as error:
            raise DataError(f"{where}: {error}") from error

    def check(self) -> None:
        """Raise a DataError if an image was not found."""
        if self._unclear:
            rest = len(self._unclear) - 1
            more = f", and {rest} more that are not clear" if rest else ""
            raise DataError(
                f"{self.name}, {self._unclear[0]} of {str(self.project.root)!r}{more}; "
                "nothing was imported"
            )


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


def import_into(
    folder: Path, source: Path, classes: Sequence[str] = (), annotator: str = "me"
) -> Imported:
    """Take labels into the project of a folder, or begin it with them, all or none.

    `source` is a folder of class folders, whose images are told by their content; JSON of Label
    Studio; or CSV with the columns `path` and `label`, and others of `COLUMNS` if they are known.
    It is a DataError, UnknownNameError or UsageError if it cannot be read, or names an image or a
    class that the project does not have. Nothing is written, no class either, before all of it was
    read and found valid. Of `classes` those that the project does not have yet are added.
    """
    with closing(LabelProject.open(folder, classes, create=False)) as seen:
        is_new = seen.store.path is None
        entries = _read(seen, source, annotator)
        named = [(seen.paths.get(said.image, ""), where, said) for where, said in entries]
        classes = seen.classes
    opened = LabelProject.open(folder, classes if is_new else (), needs_classes=False)
    with closing(opened) as project, project.store.transaction():
        project.add_classes(classes)
        at = project.numbers
        there = [Entry(where, replace(said, image=at.get(p, -1))) for p, where, said in named]
        return _take_in(project, there)


def _read(project: LabelProject, source: Path, annotator: str) -> list[Entry]:
    reading = Reading(project, source.name, check_annotator(annotator))
    if source.is_dir():
        return _read_folder(reading, source)
    text = _text_of(source)
    is_json = source.suffix.lower() == ".json" or text.lstrip()[:1] in ("[", "{")
    entries = (_read_json if is_json else _read_csv)(reading, text)
    reading.check()
    return entries


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
    for said in _without_contradiction(project, entries):
        verdict = project.ledger.verdicts(said.image).get(said.annotator)
        before = (verdict.action, verdict.label) if verdict else None
        if before is None and said.image in project.folder_labels:
            before = ("label", project.folder_labels[said.image])
        if before == (said.action, said.label):
            counts["same"] += 1
            continue
        counts["new" if before is None else "changed"] += 1
        check_annotator(said.annotator)
        is_test = said.source == TEST and said.image in reserve
        actions.append(replace(said, source=TEST if is_test else IMPORT))
    project.record(actions)
    return Imported(**counts, empty=sum(said.action == "skip" for _, said in entries))


def _without_contradiction(project: LabelProject, entries: Sequence[Entry]) -> list[Action]:
    """Return one verdict an image and annotator; two different ones are an error."""
    found: dict[tuple[int, str], Entry] = {}
    for entry in entries:
        where, said = entry
        if said.action == "skip":
            continue
        before, other = found.setdefault((said.image, said.annotator), entry)
        if (other.action, other.label) != (said.action, said.label):
            first, second = (
                a.action if a.label is None else repr(project.classes[a.label])
                for a in (other, said)
            )
            raise DataError(
                f"{before} says {first} and {where} says {second} of "
                f"{project.paths[said.image]!r}, both for {said.annotator!r}; expected one label"
            )
    return [said for _, said in found.values()]


def _read_csv(reading: Reading, text: str) -> list[Entry]:
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)  # of equally many the comma, which stands first
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    columns = [column.strip() for column in rows.fieldnames or []]
    rows.fieldnames = [column.lower() for column in columns]
    for column in ("path", "label"):
        if column not in rows.fieldnames:
            raise DataError(
                f"{reading.name} has no column {column!r} (found: "
                f"{', '.join(columns) or 'nothing'}); expected path and label"
            )
    entries = []
    try:
        for row in rows:
            where = f"line {rows.line_num}"
            if None in row:
                raise DataError(f"{reading.name}, {where} has more fields than the header")
            if said := _row_action(reading, row, where):
                entries.append(Entry(where, said))
    except csv.Error as error:
        raise DataError(f"{reading.name}, line {rows.line_num}: {error}") from error
    return entries


def _row_action(reading: Reading, row: Mapping[str, str | None], where: str) -> Action | None:
    cells = {column: (text or "").strip() for column, text in row.items()}
    label = cells["label"]
    action = cells.get("action") or ("label" if label else "skip")
    if action == "skip" and not label:
        return Action(reading.annotator, action, -1)
    if action not in VERDICTS or (action == "label") is not bool(label):
        raise DataError(
            f"{where}: the action {action!r} with the label {label!r}; expected a label, or none "
            "with unsure or bad"
        )
    image = reading.image_at(where, row["path"] or "")
    number = reading.class_id(where, label) if label else None
    if image is None:
        return None
    annotator = _short_name(cells.get("annotator") or reading.annotator)
    text = cells.get("seconds", "")
    seconds = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None
    return Action(annotator, action, image, number, seconds, source=cells.get("source", ""))


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
        entries.append(Entry(file.path, Action(reading.annotator, "label", image, label)))
    return entries


class _ImagesByContent:
    """Finds the image of a project that a file is, or that has the same content."""

    def __init__(self, project: LabelProject) -> None:
        self._paths = project.paths
        self._by_file: dict[tuple[int, int], int] = {}
        self._by_size: dict[int, list[int]] = {}
        self._content = cache(lambda number: content_of(project.root / project.paths[number]))
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
        named = [n for n in found if PurePosixPath(self._paths[n]).name == path.name]
        return next(iter(named or found), None)


def _read_json(reading: Reading, text: str) -> list[Entry]:
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{reading.name} is not JSON: {error}") from error
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
    ):
        raise DataError(
            f"{reading.name} is not what Label Studio exports as JSON: expected a list of tasks, "
            "each with its data"
        )
    entries: list[Entry] = []
    for number, task in enumerate(tasks, start=1):
        where = f"task {task.get('id', number)}"
        entries += [Entry(where, said) for said in _task_actions(reading, task, where)]
    return entries


def _task_actions(reading: Reading, task: Mapping[str, Any], where: str) -> Iterator[Action]:
    data = task["data"]
    # which were called completions before version 1.0
    given = task.get("annotations", task.get("completions"))
    annotations = _list(given, where, "annotations")
    chosen = [(annotation, _chosen(annotation, where)) for annotation in annotations]
    labelled = [(annotation, choice) for annotation, choice in chosen if choice is not None]
    image = _image_of(reading, data, where) if labelled else None
    for annotation, choice in labelled:
        label = reading.class_id(where, choice)
        if image is not None:
            who = _annotator(annotation, data) or reading.annotator
            seconds = annotation.get("lead_time")
            if not (isinstance(seconds, int | float) and 0 <= seconds < 1e9):
                seconds = None
            source = str(data.get("source"))
            yield Action(who, "label", image, label, seconds, source=source)


def _chosen(annotation: Any, where: str) -> str | None:
    """Return the class that an annotation gives; None if it was skipped or gives none."""
    if not isinstance(annotation, dict):
        raise DataError(f"{where}: an annotation is {annotation!r:.50}; expected an object")
    if annotation.get("was_cancelled"):
        return None
    chosen: list[Any] = []
    for item in _list(annotation.get("result"), where, "result"):
        if isinstance(item, dict) and item.get("type") == "choices":
            value = item.get("value")
            if isinstance(value, dict):
                chosen += _list(value.get("choices"), where, "choices")
    if len(chosen) > 1:
        raise DataError(f"{where} has the choices {', '.join(map(str, chosen))}; expected one")
    if chosen and not isinstance(chosen[0], str):
        raise DataError(f"{where}: the choice is {chosen[0]!r:.50}; expected text")
    return chosen[0] if chosen else None


def _list(value: Any, where: str, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"{where}: {what} is {value!r:.50}; expected a list")
    return value


def _annotator(annotation: Mapping[str, Any], data: Mapping[str, Any]) -> str | None:
    """Return whose annotation it is: one of ours that came back, or that of a user there."""
    ours = data.get("annotators")
    for item in annotation["result"]:
        name = item.get("id") if isinstance(item, dict) else None
        if isinstance(ours, dict) and isinstance(name, str) and name in ours:
            return _short_name(str(ours[name]))
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    return None if by in (None, "") else _short_name(f"label-studio-{by}")


def _image_of(reading: Reading, data: Mapping[str, Any], where: str) -> int | None:
    """Tell which image a task is about: by our own path, else by the address of the image."""
    if isinstance(data.get("path"), str):
        return reading.image_at(where, data["path"])
    address = next((v for v in (data.get("image"), *data.values()) if isinstance(v, str)), "")
    return reading.image_at(where, address)


def _short_name(name: str) -> str:
    """Return a name of an annotator that is not too long, another for another."""
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}-{digest}"
