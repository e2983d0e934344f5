"""Import formats of other tools: small readers of rows, which recognise files by content."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ...core.errors import DataError, blame
from ...core.registry import Entry, Registry
from ...core.text import shown
from ...datasets.columns import LABELS, PATHS, Cells, lines_of, text_of, with_names_once
from ..notes import Note
from .known import is_by_columns, named_by_head, named_by_keys

COLUMNS = ("path", "label", "action", "annotator", "source", "seconds", "time")
"""The columns that skal exports; tables with all of them have guarded cells."""
MOST_KEYS = 8
OPTIONS = ("path_column", "label_column", "choice")
"""Options of a `Source` that a reader may use."""
_OPTIONS_OF = {
    **dict.fromkeys(("parquet", "json", "json-lines", "csv"), OPTIONS[:2]),
    "cleanlab": ("path_column",),
    "via": ("label_column",),
    "label-studio": ("path_column", "choice"),
}

ISSUE = re.compile(r"is_(\w+)_issue")
"""Columns of cleanlab and cleanvision with a flag for a fault of each image."""
SCORES = ("score", "quality")
"""Suffixes of the columns with the score of a fault."""
VISION = frozenset(
    ("dark", "light", "blurry", "grayscale", "low_information", "odd_size", "odd_aspect_ratio")
).union(("exact_duplicates", "near_duplicates"))
"""Faults that cleanvision finds."""
LAB = frozenset(
    ("label", "outlier", "near_duplicate", "non_iid", "class_imbalance", "null", "data_valuation")
).union(("underperforming_group", "identifier_column", "spurious_correlations"))
"""Faults that cleanlab finds."""

_log = logging.getLogger("skal")


class Row(NamedTuple):
    """A file's facts about one image.

    `where` is the place in the file, `address` locates the image, and `label` is the class or None.
    If the file has them, `action` ("label", "unsure", "bad", "skip"), `annotator`, `seconds` taken,
    `source` of the image and `time` in seconds since 1970 are set. A row of `notes` instead of a
    label names the `tool` and all `faults` in its file. `plain` is the unguarded address, if the
    address may be guarded against spreadsheets.
    """

    where: str
    address: str
    label: str | None = None
    action: str = ""
    annotator: str = ""
    seconds: float | None = None
    source: str = ""
    time: float | None = None
    tool: str = ""
    notes: Sequence[Note] = ()
    faults: Sequence[str] = ()
    plain: str = ""


NOTHING_MORE = Row("", "")[3:]
"""The default fields of a row after image and label."""


def plain_row(where: str, address: str, label: str | None) -> Row:
    """Return a `Row` with default fields, in half the time of its constructor."""
    return tuple.__new__(Row, (where, address, label, *NOTHING_MORE))


@dataclass(frozen=True)
class Source:
    """A file of labels, and options for reading it.

    Parameters
    ----------
    path : Path
        The file.
    path_column, label_column : str, optional
        Names of columns, or numbers from 1 in a table without a header.
    choice : str, optional
        The name of the question whose answer is the class.
    """

    path: Path
    path_column: str | None = None
    label_column: str | None = None
    choice: str | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {str(self.path)!r}: {error.strerror}") from error

    @cached_property
    def text(self) -> str:
        message = named_by_head(self.content)
        if message:
            raise DataError(f"{self.name} is {message}; nothing was imported")
        try:
            return text_of(self.content)
        except UnicodeDecodeError as error:
            line = self.content[: error.start].count(b"\n") + 1
            raise DataError(
                f"{self.name} is not UTF-8 text (line {line}); expected a table or JSON: in a "
                "spreadsheet, save it as 'CSV UTF-8'"
            ) from error

    @cached_property
    def is_json(self) -> bool:
        """Whether the file is, or should be, one JSON document."""
        start, suffix = self.text.lstrip()[:1], self.path.suffix.lower()
        looks_so = suffix == ".json" or start in ("[", "{")
        if not looks_so or self.is_json_lines:
            return False
        if suffix in (".csv", ".tsv", ".txt"):  # names of images may begin like this
            with suppress(DataError):
                return self.data is not None
            return False
        return True

    @cached_property
    def is_json_lines(self) -> bool:
        """Whether the file is JSON lines: an object, followed by another or named accordingly."""
        first, _, rest = self.text.lstrip().partition("\n")
        try:
            is_object = isinstance(json.loads(first), dict)
        except (ValueError, RecursionError):
            return False
        is_named_so = self.path.suffix.lower() in (".jsonl", ".ndjson", ".manifest")
        return is_object and (is_named_so or rest.lstrip()[:1] == "{")

    @cached_property
    def data(self) -> Any:
        try:
            return parsed(self.text)
        except DataError as error:
            raise DataError(f"{self.name}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.name} is not JSON: {error}") from error

    @cached_property
    def object(self) -> Mapping[str, Any]:
        """The JSON document if it is an object, else an empty one."""
        return self.data if self.is_json and isinstance(self.data, dict) else {}

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """The JSON document if it is a list of objects, else an empty one."""
        items = self.data if self.is_json else None
        fits = isinstance(items, list) and all(isinstance(item, dict) for item in items)
        return items if fits and isinstance(items, list) else []


def parsed(text: str) -> Any:
    """Parse JSON; raise a DataError if an object has a duplicate name."""
    is_flat = 0 <= text.find("}") < text.find("{", text.find("{") + 1)
    if is_flat:  # the fast path for most large files: counting names finds duplicates
        found = json.loads(text)
        if _n_names(found) == text.count('":'):
            return found
    return json.loads(text, object_pairs_hook=with_names_once)


def _n_names(found: Any) -> int:
    """Return how many names a list of objects (perhaps nested in lists) has; -1 for other data."""
    if isinstance(found, list) and set(map(type, found)) == {list}:
        found = [*chain.from_iterable(found)]
    is_of_objects = isinstance(found, list) and set(map(type, found)) == {dict}
    return sum(map(len, found)) if is_of_objects else -1


Reader = Callable[[Source], Iterable[Row]]
READERS: Registry[Reader] = Registry("import format")
"""Functions that yield the rows of a `Source`.

The fact `recognises` is a function that tests a `Source`; those of plugins are tried first, then
ours in order. The fact `options` has the `OPTIONS` that a reader uses, by default all.
``--format module:Name`` selects a custom reader.
"""


def _add(
    name: str, recognises: Callable[[Source], bool], summary: str, place: str = "tools"
) -> None:
    target = f"{__name__}.{place}:read_{name.replace('-', '_')}"
    options = _OPTIONS_OF.get(name, ())
    READERS.add(name, target, recognises=recognises, options=options, summary=summary)


def read_rows(source: Source, form: str | None = None) -> Iterator[Row]:
    """Yield the rows of a file in the format `form`, by default the one that recognises it.

    Raises
    ------
    DataError, UnknownNameError
        If the file cannot be read, or the format is unknown.
    """
    outsiders_first = sorted(READERS, key=_is_built_in)
    known = [READERS.resolve(form)] if form else (e for e in outsiders_first if _knows(e, source))
    entry = next(iter(known), None)
    if entry is None:
        raise DataError(_what_it_is(source))
    _check_options(source, entry)
    is_empty = True
    read = entry.load()
    try:
        for row in read(source):
            is_empty = False
            yield row
    except DataError as error:
        raise_of_file(source, error)
    except Exception as error:  # readers may raise anything on malformed files
        blame(error, f"{source.name} cannot be read as {entry.name}", DataError)
    if form and is_empty and source.content.strip():
        raise DataError(f"{source.name} cannot be read as {entry.name}: it has no rows")


def _is_built_in(entry: Entry[Reader]) -> bool:
    return isinstance(entry.target, str) and entry.target.startswith(f"{__name__}.")


def _knows(entry: Entry[Reader], source: Source) -> bool:
    """Return whether a reader recognises a file; failures of plugins count as no."""
    recognises = entry.facts.get("recognises")
    try:
        return recognises is not None and bool(recognises(source))
    except Exception as error:
        if _is_built_in(entry) and isinstance(error, DataError):
            raise_of_file(source, error)
        if _is_built_in(entry):
            blame(error, f"{source.name} cannot be read", DataError)
        if not isinstance(error, DataError):
            _log.warning("import format %s failed to check %s: %s", entry.name, source.name, error)
        return False


def raise_of_file(source: Source, error: DataError) -> NoReturn:
    """Raise an error that names its file, in one line even if it quotes the file."""
    message = str(error) if source.name in str(error) else f"{source.name}, {error}"
    if shown(message) == str(error):
        raise error
    raise DataError(shown(message)) from error


def _check_options(source: Source, entry: Entry[Reader]) -> None:
    """Raise a DataError if an option is given that the reader does not use."""
    usable = entry.facts.get("options", OPTIONS)
    for name in OPTIONS:
        if getattr(source, name) and name not in usable:
            flag, *flags = (f"--{one.replace('_', '-')}" for one in (name, *usable))
            raise DataError(
                f"{source.name} is read as {entry.name}, which does not take {flag}; it takes "
                f"{' and '.join(flags) or 'no such option'}"
            )


def _what_it_is(source: Source) -> str:
    """Return a message on a file that no reader recognises."""
    document = source.data
    if isinstance(document, dict):
        message = named_by_keys(document)
        if not message and is_by_columns(document):
            message = "pandas' JSON by columns; write it with to_json(orient='records')"
        if message:
            return f"{source.name} is {message}; nothing was imported"
        keys = ", ".join(map(repr, list(document)[:MOST_KEYS])) or "nothing"
        found = f"an object with {keys}"
    else:
        found = f"{type(document).__name__} with {document!r:.40}"
    return (
        f"{source.name} is JSON of an unknown format ({found}); expected Label Studio tasks, or "
        f"one of {', '.join(READERS.names())}, which you can choose with --format"
    )


def number_of(text: Any) -> float | None:
    """Return a number of seconds in a file; None if there is none."""
    if text is None:  # the fast path for most rows
        return None
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < 1e9 else None


def only(
    found: Collection[Any], where: str, message: str = "the classes {}; expected one"
) -> str | None:
    """Return the only one of some classes, or None; for several, raise a DataError."""
    names = [*map(str, found)]
    if len(names) > 1:
        raise DataError(f"{where} has {message.format(', '.join(names))}")
    return names[0] if names else None


def names_beside(source: Source) -> list[str] | None:
    """Return the class names in a file next to the source, one per line; None without such a file.

    An empty line, which would shift the numbers after it, is a DataError.
    """
    for name in ("synsets.txt", "classes.txt", "labels.txt"):
        place = source.path.with_name(name)
        if place.is_file() and place != source.path:
            lines = [line.strip() for line in lines_of(Source(place).text.rstrip())]
            if "" in lines:
                empty = lines.index("") + 1
                raise DataError(f"{name}, line {empty} is empty; expected a class name")
            return lines
    return None


def _is_of_tasks(source: Source) -> bool:
    tasks = source.objects
    return bool(tasks) and all(isinstance(task.get("data"), dict) for task in tasks)


def _has(*keys: str) -> Callable[[Source], bool]:
    return lambda source: {*keys} <= source.object.keys()


def _are_all(source: Source, place: str, keys: set[str]) -> bool:
    """Return whether all values of an object, or of the one at `place`, have some keys."""
    found = source.object.get(place, source.object)
    values = [*found.values()] if isinstance(found, dict) else []
    return bool(values) and all(isinstance(one, dict) and keys <= one.keys() for one in values)


def _is_one_hot(source: Source) -> bool:
    header, *rows = [*islice(Cells(source.text[:100_000], is_whole=False), 4)] or [[]]
    names = [name.strip().lower() for name in header]
    is_known = len(names) > 2 and names[0] in PATHS and not set(names) & set(LABELS)
    cells = {cell.strip() for row in rows for cell in row[1:]}
    return is_known and bool(cells) and cells <= {"0", "1"}


def _is_of_issues(source: Source) -> bool:
    if source.is_json or source.label_column:
        return False
    header = [name.strip() for name in next(iter(Cells(source.text[:100_000], is_whole=False)), [])]
    if "issue_type" in header and not {"num_images", "num_issues"}.isdisjoint(header):
        raise DataError(
            f"{source.name} is a summary of cleanlab or cleanvision with counts of faults; "
            "expected their table of issues, with a row per image; nothing was imported"
        )
    faults = {found[1] for name in header if (found := ISSUE.fullmatch(name))}
    has_scores = bool({f"{fault}_{what}" for fault in faults for what in SCORES} & {*header})
    label = next((name for name in header if name.lower() in LABELS), None)
    if not has_scores:  # without scores, a custom column may have such a name
        return label is None and bool(faults) and faults <= VISION | LAB
    if label is not None:
        raise DataError(
            f"{source.name} has labels (column {label!r}) and faults found by a tool; nothing was "
            f"imported: use --label-column {label!r} to import the labels, or --format cleanlab "
            "to import the faults as notes"
        )
    return True


_add("parquet", lambda s: s.content[:4] == b"PAR1", "a Parquet file: path and label", "tables")
_add("label-studio", _is_of_tasks, "Label Studio's JSON, also from before version 1.0")
_add("coco", _has("images", "annotations", "categories"), "COCO JSON, one category per image")
_add("datumaro", _has("items", "categories"), "Datumaro's JSON, one label per image")
_add(
    "fiftyone",
    lambda s: "classes" in s.object and isinstance(s.object.get("labels"), dict),
    "FiftyOne's labels.json for image classification",
)
_add(
    "skactiveml-annotation",
    lambda s: _are_all(s, "manual", {"embedding_idx", "label"}),
    "scikit-activeml-annotation's JSON: annotations by path",
)
_add(
    "via",
    lambda s: _are_all(s, "_via_img_metadata", {"filename", "regions", "file_attributes"}),
    "VGG Image Annotator's JSON, one attribute per file",
)
_add("json", lambda s: bool(s.objects), "objects, such as Label Studio's JSON_MIN", "tables")
_add(
    "json-lines",
    lambda s: s.is_json_lines,
    "JSON lines, also from Hugging Face, Ground Truth, Vertex AI and Azure ML",
    "tables",
)
_add(
    "imagenet-txt",
    lambda s: s.path.suffix.lower() == ".txt" and names_beside(s) is not None,
    "lines of path and number, next to synsets.txt or classes.txt",
)
_add("cleanlab", _is_of_issues, "faults found by cleanlab or cleanvision, as notes on images")
_add(
    "roboflow",
    lambda s: not (s.is_json or s.path_column or s.label_column) and _is_one_hot(s),
    "Roboflow's _classes.csv: a column of 0 and 1 for each class",
    "tables",
)
_add("csv", lambda s: not s.is_json, "a table: path, label, optionally more columns", "tables")
