"""Labels out and in: CSV, class folders, and the JSON of Label Studio."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import logging
import os
import re
import shutil
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from ..core.errors import DataError, RunExistsError, UnknownNameError, UsageError
from ..datasets.index import UNLABELED, find_images
from .images import content_of
from .ledger import TEST
from .names import LONGEST_NAME, check_annotator, plain_text
from .project import LabelProject
from .store import VERDICTS, Action

COLUMNS = ("path", "label", "action", "annotator", "source", "seconds", "time")
LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files of its own machine from."""
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that was uploaded to it."""
IMPORT = "import"

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Imported:
    """How many labels came in: new ones, such that replace another, such that were there.

    And how many rows of the file have none.
    """

    new: int
    changed: int
    same: int
    empty: int = 0

    def __str__(self) -> str:
        empty = f", {self.empty} rows without a label" if self.empty else ""
        return f"{self.new} new, {self.changed} changed, {self.same} already there{empty}"


@dataclass(frozen=True)
class Entry:
    """One verdict read from a file, and where it stands there."""

    where: str
    image: int
    action: str
    label: int | None
    annotator: str
    source: str = IMPORT
    seconds: float | None = None


def export_csv(project: LabelProject) -> str:
    """Return a row for each annotator's verdict on each image, and for those of class folders.

    Parameters
    ----------
    project : LabelProject
        Whose labels.

    Returns
    -------
    str
        With the columns `COLUMNS`; `label` is empty where the action is "unsure" or "bad", and
        the annotator where the label is that of a class folder.
    """
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(COLUMNS)
    for image, path in sorted(project.paths.items(), key=lambda item: item[1]):
        for row in _verdict_rows(project, image):
            rows.writerow([plain_text(path), *row])
    return out.getvalue()


def _verdict_rows(project: LabelProject, image: int) -> Iterator[tuple[Any, ...]]:
    verdicts = project.ledger.verdicts(image)
    for who, a in sorted(verdicts.items()):
        name = "" if a.label is None else project.classes[a.label]
        seconds = "" if a.seconds is None else a.seconds
        source = TEST if project.is_test(image) else a.source
        yield name, a.action, who, source, seconds, a.time
    if not verdicts and image in project.folder_labels:
        yield project.classes[project.folder_labels[image]], "label", "", "folder", "", ""


def export_query(
    project: LabelProject, picks: Sequence[tuple[int, str]], *, as_table: bool = False
) -> str:
    """Return images that are to be labelled, a line each.

    Parameters
    ----------
    project : LabelProject
        Whose images.
    picks : sequence of (image, source)
        Which, and why; see `skal.label.final.next_images`.
    as_table : bool, default=False
        Whether as CSV with the columns `path`, `label`, to be filled in, and `source`; else paths
        alone.

    Returns
    -------
    str
    """
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    if as_table:
        rows.writerow(("path", "label", "source"))
        rows.writerows((plain_text(project.paths[image]), "", kind) for image, kind in picks)
        return out.getvalue()
    return "".join(f"{plain_text(project.paths[image])}\n" for image, _ in picks)


def export_folder(project: LabelProject, out: Path, *, copy: bool = False) -> int:
    """Make a folder of class folders, of hard links where the file system has them.

    Parameters
    ----------
    project : LabelProject
        Whose labels; images without one, unsure and bad ones are left out.
    out : Path
        The folder, which must not exist.
    copy : bool, default=False
        Whether to copy the files: a hard link is the same file under another name, so that what
        is changed in the one is changed in the other.

    Returns
    -------
    int
        How many images are in it.

    Raises
    ------
    RunExistsError, UsageError, DataError
        If there is such a folder, it is inside the project's, or it cannot be written.
    """
    if out.exists():
        raise RunExistsError(f"{str(out)!r} is there already; name another folder by --out")
    if out.resolve().is_relative_to(project.root.resolve()):
        raise UsageError(
            f"{str(out)!r} is inside {str(project.root)!r}, whose images it would be among; name "
            "another folder by --out"
        )
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        taken: set[str] = set()
        for image, label in sorted(project.labels.items()):
            place = _place_in_export(project, image, label, taken)
            _link(project.root / project.paths[image], temporary / place, copy)
        temporary.rename(out)
    except OSError as error:
        raise DataError(f"cannot write {str(out)!r}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(taken)


def _place_in_export(project: LabelProject, image: int, label: int, taken: set[str]) -> str:
    """Return ``<class>/<path>``, without the class folder that an image is in now."""
    path = PurePosixPath(project.paths[image])
    folders = path.parts[:-1]
    if folders and (image in project.folder_labels or folders[0].lower() in UNLABELED):
        folders = folders[1:]
    place = PurePosixPath(project.classes[label], *folders, path.name)
    number = 1
    while str(place).casefold() in taken:
        number += 1
        place = place.with_name(f"{path.stem}-{number}{path.suffix}")
    taken.add(str(place).casefold())
    return str(place)


def _link(source: Path, target: Path, copy: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        try:
            os.link(source.resolve(), target)
            return
        except OSError as error:  # another file system, or one without links
            _log.debug("copied, not linked: %s", error)
    shutil.copy2(source, target)


def export_label_studio(project: LabelProject, images: Iterable[int] | None = None) -> str:
    """Return tasks for Label Studio, as JSON.

    Each annotator's label is an annotation; what was skipped, is bad or nobody is sure of has
    none. Where the last network gave an image a probability, its guess is a prediction, with that
    as its score.

    Parameters
    ----------
    project : LabelProject
        Whose labels.
    images : iterable of int, optional
        Which images; by default all that are not bad.

    Returns
    -------
    str
        A JSON list; `labeling_config` is what it fits.
    """
    chosen = images if images is not None else sorted(project.paths, key=project.paths.__getitem__)
    chosen = [image for image in chosen if project.ledger.aside.get(image) != "bad"]
    tasks = [_task(project, image) for image in chosen]
    return json.dumps(tasks, indent=1, ensure_ascii=True) + "\n"


def labeling_config(classes: Sequence[str]) -> str:
    """Return the labelling interface of Label Studio that the tasks are made for."""
    choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in classes)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<Choices name="choice" toName="image">{choices}</Choices></View>'
    )


def _task(project: LabelProject, image: int) -> dict[str, Any]:
    path = project.paths[image]
    # relative to the folder above, for Label Studio wants its storage below its document root
    place = quote(f"{project.name}/{path}", errors="surrogateescape")
    data: dict[str, Any] = {"image": f"{LOCAL_FILES}{place}", "path": plain_text(path)}
    annotations: list[dict[str, Any]] = []
    annotators: dict[str, str] = {}
    for who, action in sorted(project.ledger.verdicts(image).items()):
        if action.action == "label" and action.label is not None:
            result = _choice(f"{image} {who}", project.classes[action.label])
            times = {} if action.seconds is None else {"lead_time": action.seconds}
            annotations.append({"result": [result], "was_cancelled": False, **times})
            annotators[result["id"]] = who
            if project.is_test(image):
                data["source"] = TEST
    if not annotations and image in project.folder_labels:
        result = _choice(f"{image}", project.classes[project.folder_labels[image]])
        annotations.append({"result": [result], "was_cancelled": False})
    if annotators:  # Label Studio knows its own users alone, but keeps a task's data
        data["annotators"] = annotators
    predictions = []
    guesses = project.guesses
    proba = None if guesses is None else guesses.proba_of(image)
    if guesses is not None and proba is not None:
        label = int(proba.argmax())
        score = round(float(proba[label]), 6)
        result = {**_choice(f"{image} guess", project.classes[label]), "score": score}
        version = f"{guesses.model}, {guesses.n_labeled} labels"
        predictions.append({"model_version": version, "score": score, "result": [result]})
    return {"data": data, "annotations": annotations, "predictions": predictions}


def _choice(of: str, name: str) -> dict[str, Any]:
    return {
        "id": hashlib.sha256(of.encode(errors="surrogateescape")).hexdigest()[:10],
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [name]},
    }


def import_labels(project: LabelProject, source: Path, annotator: str = "me") -> Imported:
    """Take labels from a file or a folder into a project, all or none.

    Parameters
    ----------
    project : LabelProject
        Where to.
    source : Path
        A folder of class folders, whose images are told by their content; JSON of Label Studio;
        or CSV with the columns `path` and `label`, and others of `COLUMNS` if they are known.
    annotator : str, default="me"
        Whose labels they are where the file does not say.

    Returns
    -------
    Imported

    Raises
    ------
    DataError, UnknownNameError, UsageError
        If it cannot be read, or names an image or a class that the project does not have.
    """
    return _take_in(project, _read(project, source, check_annotator(annotator)))


def import_into(
    folder: Path, source: Path, classes: Sequence[str] = (), annotator: str = "me"
) -> Imported:
    """Take labels into the project of a folder, or begin it with them, all or none.

    Nothing is written, no class either, before all of the file was read and found valid.

    Parameters
    ----------
    folder : Path
        The folder of images.
    source, annotator
        See `import_labels`.
    classes : sequence of str
        Those that the project does not have yet are added.

    Returns
    -------
    Imported

    Raises
    ------
    SkalError
        See `LabelProject.open` and `import_labels`.
    """
    with closing(LabelProject.open(folder, classes, create=False)) as seen:
        is_new = seen.store.path is None
        entries = _read(seen, source, check_annotator(annotator))
        named = [(seen.paths.get(entry.image), entry) for entry in entries]
        classes = seen.classes
    opened = LabelProject.open(folder, classes if is_new else (), needs_classes=False)
    with closing(opened) as project, project.store.transaction():
        project.add_classes(classes)
        numbers = {path: number for number, path in project.paths.items()}
        there = [replace(entry, image=numbers.get(path or "", -1)) for path, entry in named]
        return _take_in(project, there)


def _read(project: LabelProject, source: Path, annotator: str) -> list[Entry]:
    if source.is_dir():
        return _from_folder(project, source, annotator)
    text = _text_of(source)
    is_json = source.suffix.lower() == ".json" or text.lstrip()[:1] in ("[", "{")
    read = _from_label_studio if is_json else _from_csv
    return read(project, text, source.name, annotator)


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
        change = "new" if before is None else "changed"
        if before == (entry.action, entry.label):
            counts["same"] += 1
            continue
        counts[change] += 1
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


class _Finder:
    """Finds the image that a path means, and remembers which there are not."""

    def __init__(self, project: LabelProject, name: str) -> None:
        self._project = project
        self._name = name
        self._by_path = {plain_text(path): n for n, path in project.paths.items()}
        self._unknown: list[str] = []

    def find(self, where: str, path: str) -> int | None:
        """Return the number of an image."""
        number = self._by_path.get(self._relative(path))
        if number is None:
            self._unknown.append(f"{where}: {path!r}")
        return number

    def named(self, where: str, name: str) -> int | None:
        """Return the number of the only image of a file's name."""
        names = {n: PurePosixPath(path).name for path, n in self._by_path.items()}
        named = [n for n, own in names.items() if own == name]
        named = named or [n for n, own in names.items() if _as_uploaded(own) == name]
        if len(named) != 1:
            self._unknown.append(f"{where}: {name!r}{' (there are several)' if named else ''}")
            return None
        return named[0]

    def _relative(self, path: str) -> str:
        place = PurePosixPath(plain_text(path))
        if place.is_absolute():
            root = self._project.root.resolve().as_posix()
            place = place.relative_to(root) if place.is_relative_to(root) else place
        text = str(place)
        return text if text in self._by_path else unicodedata.normalize("NFC", text)

    def check(self) -> None:
        """Raise a DataError if an image was not found."""
        if self._unknown:
            rest = len(self._unknown) - 1
            more = f", and {rest} more that are not there" if rest else ""
            raise DataError(
                f"{self._name}, {self._unknown[0]} is no image of {str(self._project.root)!r}{more}"
            )


def _as_uploaded(name: str) -> str:
    """Return what Label Studio, or Django beneath it, makes of the name of a file."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _from_csv(project: LabelProject, text: str, name: str, annotator: str) -> list[Entry]:
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)  # of equally many the comma, which stands first
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    columns = [column.strip() for column in reader.fieldnames or []]
    reader.fieldnames = [column.lower() for column in columns]
    missing = [column for column in ("path", "label") if column not in reader.fieldnames]
    if missing:
        raise DataError(
            f"{name} has no column {missing[0]!r} (found: {', '.join(columns) or 'nothing'}); "
            "expected path and label"
        )
    finder = _Finder(project, name)
    entries = []
    try:
        for row in reader:
            where = f"line {reader.line_num}"
            if None in row:
                raise DataError(f"{name}, {where} has more fields than the header")
            entry = _row_entry(project, finder, row, where, annotator)
            if entry is not None:
                entries.append(entry)
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: {error}") from error
    finder.check()
    return entries


def _row_entry(
    project: LabelProject,
    finder: _Finder,
    row: Mapping[str, str | None],
    where: str,
    annotator: str,
) -> Entry | None:
    label = (row["label"] or "").strip()
    action = (row.get("action") or "").strip() or ("label" if label else "skip")
    if action == "skip" and not label:
        return Entry(where, -1, action, None, annotator)
    if action not in VERDICTS or (action == "label") is not bool(label):
        raise DataError(
            f"{where}: the action {action!r} with the label {label!r}; expected a label, or none "
            "with unsure or bad"
        )
    image = finder.find(where, row["path"] or "")
    number = _class_id(project, label, where) if label else None
    if image is None:
        return None
    seconds = (row.get("seconds") or "").strip()
    return Entry(
        where,
        image,
        action,
        number,
        _short((row.get("annotator") or "").strip() or annotator),
        (row.get("source") or IMPORT).strip(),
        float(seconds) if re.fullmatch(r"\d+(\.\d+)?", seconds) else None,
    )


def _class_id(project: LabelProject, name: str, where: str) -> int:
    try:
        return project.class_id(name)
    except UnknownNameError as error:
        raise DataError(f"{where}: {error}") from error


def _from_label_studio(project: LabelProject, text: str, name: str, annotator: str) -> list[Entry]:
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}") from error
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
    ):
        raise DataError(
            f"{name} is not what Label Studio exports as JSON: expected a list of tasks, each with "
            "its data"
        )
    finder = _Finder(project, name)
    entries: list[Entry] = []
    for place, task in enumerate(tasks):
        where = f"task {task.get('id', place + 1)}"
        annotations = _list(task.get("annotations"), where, "annotations")
        given = [
            (annotation, choice)
            for annotation in annotations
            if (choice := _chosen(annotation, where)) is not None
        ]
        if not given:
            continue
        image = _image_of(finder, task["data"], where)
        for annotation, choice in given:
            label = _class_id(project, choice, where)
            if image is not None:
                who = _who(annotation, task["data"], annotator)
                source = str(task["data"].get("source", IMPORT))
                seconds = annotation.get("lead_time")
                known = isinstance(seconds, int | float) and 0 <= seconds < 1e9
                entries.append(
                    Entry(where, image, "label", label, who, source, seconds if known else None)
                )
    finder.check()
    return entries


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
    """Return a list that a task is to have; it may be left out."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"{where}: {what} is {value!r:.50}; expected a list")
    return value


def _short(name: str) -> str:
    """Return a name of an annotator that is not too long, another for another."""
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}-{digest}"


def _who(annotation: Mapping[str, Any], data: Mapping[str, Any], annotator: str) -> str:
    """Return whose annotation it is: one of ours that came back, or that of a user there."""
    ours = data.get("annotators")
    ids = [item.get("id") for item in annotation["result"] if isinstance(item, dict)]
    for name in ids:
        if isinstance(ours, dict) and isinstance(name, str) and name in ours:
            return _short(str(ours[name]))
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    return annotator if by in (None, "") else _short(f"label-studio-{by}")


def _image_of(finder: _Finder, data: Mapping[str, Any], where: str) -> int | None:
    """Tell which image a task is about: by our own path, else by the address of the image."""
    if isinstance(data.get("path"), str):
        return finder.find(where, data["path"])
    address = next((v for v in (data.get("image"), *data.values()) if isinstance(v, str)), "")
    parts = urlsplit(address)
    if "d" in (query := parse_qs(parts.query)):
        place = PurePosixPath(query["d"][0])
        return finder.find(where, str(PurePosixPath(*place.parts[1:])))
    return finder.named(where, UPLOADED.sub("", PurePosixPath(unquote(parts.path)).name))


def _from_folder(project: LabelProject, folder: Path, annotator: str) -> list[Entry]:
    by_file: dict[tuple[int, int], int] = {}
    by_size: dict[int, list[int]] = {}
    for number, path in project.paths.items():
        status = (project.root / path).stat()
        by_file[status.st_dev, status.st_ino] = number
        by_size.setdefault(status.st_size, []).append(number)
    contents: dict[int, tuple[int, str] | None] = {}

    def alike(path: Path) -> int | None:
        """Return the image that is the same file, else one of the same content."""
        status = path.stat()
        if (status.st_dev, status.st_ino) in by_file:
            return by_file[status.st_dev, status.st_ino]
        candidates = by_size.get(status.st_size, [])
        same = content_of(path) if candidates else None
        for number in candidates:
            if number not in contents:
                contents[number] = content_of(project.root / project.paths[number])
        found = [number for number in candidates if contents[number] == same]
        named = [n for n in found if PurePosixPath(project.paths[n]).name == path.name]
        return next(iter(named or found), None)

    entries = []
    for file in find_images(folder):
        if file.label is None:
            continue
        image = alike(folder / file.path)
        if image is None:
            raise DataError(
                f"{str(folder / file.path)!r} is no image of {str(project.root)!r}, nor has it the "
                "content of one"
            )
        label = _class_id(project, file.label, file.path)
        entries.append(Entry(file.path, image, "label", label, annotator))
    return entries
