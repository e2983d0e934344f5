"""Import of labels from class folders and the files of other tools: a whole file or nothing."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..core.errors import DataError, ParameterError, UnknownNameError, UsageError
from ..core.memory import without_collector
from ..core.text import counted, plain_text, shown
from ..datasets.addresses import Located, UnclearAddressError
from ..datasets.formats import page_of
from ..datasets.index import find_images
from .checks import MOST_CLASSES, as_options, check_enough, check_pages
from .classes import tell_new
from .formats import NOTHING_MORE, OPTIONS, READERS, Row, Source, raise_of_file, read_rows
from .images import content_of, find
from .ledger import SETTLED, TEST
from .names import LONGEST_NAME, check_annotator
from .notes import Note, replace_notes
from .project import LabelProject
from .store import VERDICTS, Action

IMPORT = "import"
_OF_IMPORT = Action("", "label", -1, source=IMPORT)[4:]
"""The fields of an imported label after annotator, action, image and label."""


Entry = tuple[str, Action]
"""A place in a file, and the action read there; a "skip" is for a row without a label."""


class Reading:
    """A file being read: locates its images and classes, and collects those that do not exist.

    Errors call it `name`; `annotator` is the default for labels without one.
    """

    def __init__(self, project: LabelProject, name: str, annotator: str) -> None:
        self.project, self.name, self.annotator = project, name, annotator
        self._addresses, self._by_path = project.addresses()
        self._unclear: list[tuple[str, str]] = []
        self._class_ids: dict[str, int] = {}
        self._annotators: dict[str, str] = {}
        self._unknown: list[tuple[str, UnknownNameError]] = []
        self._found: dict[tuple[object, str | bool], Located] = {}
        self._as_it_stands: list[int] = []
        self.notes: dict[tuple[str, Sequence[str]], dict[int, Sequence[Note]]] = {}

    def image_at(self, where: str, address: str, plain: str = "") -> int | None:
        """Return the number of the image at an address, or at `plain`, the address unguarded."""
        image = self._by_path.get(address)
        if image is not None and plain not in self._by_path:
            self._as_it_stands.append(image)
            return image  # the fast path, which most of a million rows take
        try:
            if image is not None:
                raise UnclearAddressError(address, (address, plain))
            found = self._locate(_text_of(where, address), plain)
        except UnclearAddressError as error:
            self._unclear.append((f"{where}: {error}", address))
            return None
        image = self._by_path[found.path]
        if found == Located(found.path):
            self._as_it_stands.append(image)
        else:  # keep one of each kind to check for contradictions, by path if names are ambiguous
            self._found.setdefault((found[1:], found.has_namesakes and found.path), found)
        return image

    def _locate(self, address: str, plain: str) -> Located:
        """Locate the image of an address as it is, or unguarded."""
        found: dict[str, Located] = {}
        unclear: set[str] = set()
        for text in filter(None, (address, plain)):
            try:
                one = self._addresses.locate(plain_text(text))
                found[one.path] = one
            except UnclearAddressError as error:
                unclear.update(error.candidates)
        if len(found) != 1 or unclear:
            raise UnclearAddressError(address, {*found, *unclear})
        return next(iter(found.values()))

    def class_id(self, where: str, name: str) -> int:
        """Return the id of a class; a negative one if the project does not have it."""
        if name not in self._class_ids:
            try:
                self._class_ids[name] = self.project.class_id(_text_of(where, name))
            except UnknownNameError as error:
                self._unknown.append((where, error))
                self._class_ids[name] = -len(self._unknown)
                if len(self._unknown) > MOST_CLASSES:  # most likely not a column of labels
                    self._check_classes()
        return self._class_ids[name]

    def class_name(self, label: int) -> str:
        """Return the name for which `class_id` returned an id."""
        return next(name for name, number in self._class_ids.items() if number == label)

    def annotator_of(self, row: Row) -> str:
        """Return the annotator of a label; raise a DataError if the name is not valid."""
        given = row.annotator or self.annotator
        if given not in self._annotators:
            name = _short_name(_text_of(row.where, given))
            try:
                self._annotators[given] = check_annotator(name)
            except ParameterError as error:
                raise DataError(
                    f"{row.where}: got the annotator {name!r}; expected a printable name"
                ) from error
        return self._annotators[given]

    def note(self, row: Row) -> None:
        """Collect a tool's notes on an image."""
        image = self.image_at(row.where, row.address, row.plain)
        notes = self.notes.setdefault((row.tool, row.faults), {})
        if image is not None and notes.setdefault(image, row.notes) is not row.notes:
            path = self.project.paths[image]
            raise DataError(f"{row.where}: an earlier row is also for {path!r}")

    def check(self) -> None:
        """Raise an error if a class or an image does not exist."""
        self._check_classes()
        if self._unclear:
            (message, address), *rest = self._unclear
            more = f", and {counted(len(rest), 'more unclear row')}" if rest else ""
            is_page = page_of(address)[1] is not None and _may_have_pages(self.project)
            hint = "; use --pages all to make each page of a file an image" if is_page else ""
            raise DataError(
                f"{self.name}, {message} of {str(self.project.root)!r}{more}; "
                f"nothing was imported{hint}"
            )
        found = [*self._found.values()]
        as_it_stands: Iterable[str] = (self.project.paths[n] for n in self._as_it_stands)
        if any(one.leaves_out for one in found):
            found += map(Located, as_it_stands)
        elif any(one.by_name for one in found):  # check only rows that could be ambiguous
            found += map(Located, filter(self._addresses.behind_root, as_it_stands))
        message = self._addresses.contradiction(found)
        if message:
            raise DataError(
                f"{self.name} {message} {str(self.project.root)!r}; nothing was imported: expected "
                "rows of one folder, each with all folders of its image, or none with any"
            )

    def _check_classes(self) -> None:
        if not self._unknown:
            check_enough(self.project.classes)
            return
        names = sorted(name for name, number in self._class_ids.items() if number < 0)
        few = len(names) <= MOST_CLASSES
        n, listed = (len(names), ",".join(names)) if few else (f"more than {MOST_CLASSES}", "A,...")
        if not self.project.classes:
            message = f"{n}; if these are right, name them with {as_options(names)}"
            if len(names) == 1:
                options = as_options([*names, "..."])
                message = f"only {names[0]!r}; name at least two with {options}"
            raise UsageError(f"the project has no classes yet, and {self.name} has {message}")
        where, error = self._unknown[0]
        rest = f"; {n} are unknown: {shown(listed)}" if len(names) > 1 else ""
        raise DataError(f"{where}: {error}{rest}") from error


def _may_have_pages(project: LabelProject) -> bool:
    """Return whether the project could still switch to pages as images."""
    root, pages = project.root, project.config.pages
    try:
        check_pages(root, pages, "all", project.store, find(root, "all"))
    except UsageError:
        return False
    return pages != "all"


class Imported(NamedTuple):
    """The result of an import: how many labels were `new`, `changed` or the `same` as before.

    `empty` rows have no label; `older` labels were given before the existing one of the same
    annotator, and do not count. For a file of notes, `noted` is the message instead.
    """

    new: int
    changed: int
    same: int
    empty: int = 0
    older: int = 0
    noted: str = ""

    def __str__(self) -> str:
        if self.noted:
            return f"{self.noted}; no label was changed"
        empty = f", {counted(self.empty, 'row')} without a label" if self.empty else ""
        older = f", {self.older} older than the existing ones" if self.older else ""
        return f"{self.new} new, {self.changed} changed, {self.same} unchanged{empty}{older}"


@without_collector()
def import_into(
    folder: Path,
    source: Path | Source,
    classes: Sequence[str] = (),
    annotator: str = "me",
    form: str | None = None,
    pages: str | None = None,
) -> Imported:
    """Import labels into the project of a folder, or start one with them; all or none.

    `source` is a folder of class folders, whose images are matched by content, or a file in the
    format `form`, by default that of the first of `READERS` that recognises it. `pages` defaults to
    the project's setting. New `classes` are added.

    Raise a DataError, UnknownNameError or UsageError if the source cannot be read, or names an
    image or a class that the project does not have. Nothing is written before all was validated.
    """
    source = source if isinstance(source, Source) else Source(source)
    _check_source(source, form)
    given = None if pages is None else {"pages": pages}
    opened = LabelProject.open(folder, classes, given, create=False, needs_classes=False)
    read = _read(opened, source, annotator, form)
    known = opened.classes if opened.store.path is None else ()
    again = LabelProject.open(folder, known, given, needs_classes=False, files=opened.files)
    with closing(again) as project, project.store.transaction():
        before = project.classes
        project.add_classes(opened.classes)
        done = _take_in(project, read)
        added = [name for name in project.classes if name not in before]
    tell_new(before, added)
    return done


def _check_source(source: Source, form: str | None) -> None:
    """Raise an error early if the source cannot be read, or not with these options."""
    if form:
        READERS.resolve(form)
    if not source.path.is_dir():
        _ = source.content
    elif form or any(getattr(source, name) for name in OPTIONS):
        raise UsageError(
            f"{str(source.path)!r} is a folder, so its folders are the classes; leave out format "
            "and columns, or name the file in it that has the labels"
        )


class _Read(NamedTuple):
    """The verdicts and notes of a source, and the project whose image numbers they use."""

    project: LabelProject
    verdicts: list[Action]
    n_empty: int
    notes: Mapping[tuple[str, Sequence[str]], Mapping[int, Sequence[Note]]]


def _read(project: LabelProject, source: Source, annotator: str, form: str | None) -> _Read:
    with closing(project):
        reading = Reading(project, source.name, check_annotator(annotator))
        is_folder = source.path.is_dir()
        entries = (
            _read_folder(reading, source.path) if is_folder else _read_file(reading, source, form)
        )
        try:
            found, n_empty = _without_contradiction(reading, entries)
            reading.check()
        except DataError as error:
            raise_of_file(source, error)
        return _Read(project, found, n_empty, reading.notes)


def _read_file(reading: Reading, source: Source, form: str | None) -> Iterator[Entry]:
    for row in read_rows(source, form):
        if row.tool:
            reading.note(row)
            continue
        action = _action(reading, row)
        if action is not None:
            yield row.where, action


def _take_in(project: LabelProject, read: _Read) -> Imported:
    has_tests = any(said.source == TEST for said in read.verdicts)
    reserve = set(project.reserve) if has_tests else ()
    numbers, folders = project.numbers, project.folder_labels
    ledger = project.ledger if project.ledger.last_id else None
    n_new = n_changed = n_same = n_older = 0
    actions: list[Action] = []
    verdicts, paths = read.verdicts, read.project.paths
    if not (ledger or folders or has_tests) and project.paths == paths:
        actions, n_new, verdicts = verdicts, len(verdicts), []  # nothing to compare with
    for said in verdicts:
        image = numbers[paths[said.image]]  # another process may have numbered it differently
        verdict = ledger and ledger.verdicts(image).get(said.annotator)
        before = (verdict.action, verdict.label) if verdict else None
        if before is None and image in folders:
            before = ("label", folders[image])
        if before is None:
            n_new += 1
        elif before == (said.action, said.label):
            n_same += 1
            continue
        # the time of an imported label may be that of the import
        elif verdict and verdict.source != IMPORT and _is_before(said.time, verdict.time):
            n_older += 1
            continue
        else:
            n_changed += 1
        source = IMPORT if said.source == TEST and image not in reserve else said.source
        is_as_read = image == said.image and source == said.source
        actions.append(said if is_as_read else said._replace(image=image, source=source))
    project.write(actions)
    messages = [
        replace_notes(project.store, *of_what, {numbers[paths[n]]: own for n, own in notes.items()})
        for of_what, notes in read.notes.items()
    ]
    return Imported(n_new, n_changed, n_same, read.n_empty, n_older, "; ".join(messages))


def _is_before(one: str, other: str) -> bool:
    return bool(one) and datetime.fromisoformat(one) < datetime.fromisoformat(other)


def _without_contradiction(reading: Reading, entries: Iterable[Entry]) -> tuple[list[Action], int]:
    """Return one verdict per image and annotator, and the number of entries without one.

    Raise a DataError if two verdicts contradict each other.
    """
    first: defaultdict[str, dict[int, Entry]] = defaultdict(dict)
    found: list[Action] = []
    n_empty = 0
    for entry in entries:
        where, said = entry
        if said.action == "skip":
            n_empty += 1
            continue
        first_entry = first[said.annotator].setdefault(said.image, entry)
        if first_entry is entry:
            found.append(said)
            continue
        before, other = first_entry
        if (other.action, other.label) != (said.action, said.label):
            path = reading.project.paths[said.image]
            earlier, now = (
                a.action if a.label is None else repr(reading.class_name(a.label))
                for a in (other, said)
            )
            raise DataError(
                f"{before} has {earlier} and {where} has {now} for {path!r}, both from "
                f"{said.annotator!r}; expected one label"
            )
    return found, n_empty


def _action(reading: Reading, row: Row) -> Action | None:
    if row.label and row[3:] == NOTHING_MORE:  # the fast path for most rows
        image = reading.image_at(row.where, row.address)
        label = reading.class_id(row.where, row.label)
        if image is None:
            return None
        return tuple.__new__(Action, (reading.annotator, "label", image, label, *_OF_IMPORT))
    action = row.action or ("label" if row.label else "skip")
    if action == "skip" and not row.label:
        return Action(reading.annotator, action, -1)
    if action not in VERDICTS or (action == "label") is not bool(row.label):
        raise DataError(
            f"{row.where}: got the action {action!r} with the label {row.label!r}; expected a "
            "label, or unsure or bad without one"
        )
    image = reading.image_at(row.where, row.address, row.plain)
    number = reading.class_id(row.where, row.label) if row.label else None
    if image is None:
        return None
    annotator = reading.annotator_of(row)
    time = "" if row.time is None else datetime.fromtimestamp(row.time, UTC).isoformat()
    source = row.source if row.source in (TEST, SETTLED) else IMPORT
    return Action(annotator, action, image, number, row.seconds, source=source, time=time)


def _read_folder(reading: Reading, folder: Path) -> Iterator[Entry]:
    images = _ImagesByContent(reading.project)
    for file in find_images(folder):
        if file.label is None:
            yield file.path, Action(reading.annotator, "skip", -1)
            continue
        image = images.find(folder / file.path)
        if image is None:
            raise DataError(
                f"{str(folder / file.path)!r} is not an image of {str(reading.project.root)!r}, "
                "and no image there has the same content"
            )
        label = reading.class_id(file.path, file.label)
        said = Action(reading.annotator, "label", image, label, source=IMPORT)
        yield file.path, said


class _ImagesByContent:
    """Finds the image of a project that is the same file, or has the same content."""

    def __init__(self, project: LabelProject) -> None:
        self._paths = project.paths
        self._by_file: dict[tuple[int, int], int] = {}
        self._by_size: dict[int, list[int]] = {}
        self._content = cache(lambda number: content_of(project.root / project.paths[number]))
        for number, path in project.paths.items():
            if page_of(path)[1] is not None:
                continue  # a file does not identify one of its pages
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


def _text_of(where: str, text: str) -> str:
    """Return text; raise a DataError for lone surrogates, which JSON may contain."""
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {text!r:.50} has a lone surrogate; expected text") from error
    return text


def _short_name(name: str) -> str:
    """Return a unique name of an annotator that is not too long."""
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}-{digest}"
