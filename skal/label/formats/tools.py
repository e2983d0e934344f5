"""Readers of files of labelling tools and dataset managers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from ...core.errors import DataError
from ...core.text import counted
from ...datasets.addresses import MOST_CANDIDATES, names_image
from ...datasets.columns import PATHS, Cells, find_column, lines_of
from ..notes import Note, in_words
from . import ISSUE, MOST_KEYS, SCORES, VISION, Row, Source, names_beside, number_of, only
from .tables import may_be_guarded

_log = logging.getLogger("skal")


def read_label_studio(source: Source) -> Iterator[Row]:
    """Read tasks without skipped annotations.

    The latest annotation of each annotator and task counts, and all annotations without annotator.
    """
    questions: set[str] = set()
    field, data = source.path_column, [task["data"] for task in source.objects]
    if field and data and not any(_text_at(one, field) for one in data):
        raise DataError(_without_field(source.name, field, data[0]))
    yield from rows_of_tasks(
        source.objects, source.name, source.choice, questions, source.path_column
    )
    if source.choice and source.choice not in questions:
        found = ", ".join(sorted(questions)) or "none"
        raise DataError(f"{source.name} has no question {source.choice!r} (found: {found})")
    if len(questions) > 1 and not source.choice:  # each task answers one, but not the same one
        raise DataError(
            f"{source.name} has answers to {', '.join(sorted(questions))}; name one with --choice"
        )
    n_bare = sum(not task.get("annotations", task.get("completions")) for task in source.objects)
    if n_bare:
        _log.info("%s: %s without an annotation", source.name, counted(n_bare, "task"))


def rows_of_tasks(
    tasks: Iterable[Mapping[str, Any]],
    name: str,
    choice: str | None,
    questions: set[str],
    field: str | None = None,
) -> Iterator[Row]:
    """Yield the rows of tasks in a file called `name`; see `read_label_studio`.

    The answered questions are added to `questions`. Images are in `field`, if given, or as found by
    `address_of`.
    """
    n_outdone = n_read = 0
    without: Counter[str] = Counter()
    for number, task in enumerate(tasks, start=1):
        where = f"task {task.get('id', number)}"
        data = task["data"]
        given = task.get("annotations", task.get("completions"))
        latest: dict[str, Row] = {}
        for annotation in _in_time(_list_of(given, where, "annotations")):
            label = _chosen(annotation, where, choice, questions)
            if label is None:
                without[_why_not(annotation)] += 1
                continue
            n_read += 1
            address = _address(where, data, field)
            who, seconds = _who(annotation, data), number_of(annotation.get("lead_time"))
            source_of, time = str(data.get("source", "")), _time_of(annotation)
            row = Row(where, address, label, "label", who, seconds, source_of, time)
            if not who:  # perhaps from several people, so that none replaces another
                yield row
                continue
            n_outdone += who in latest
            latest[who] = row
        yield from latest.values()
    _tell_others(name, without, n_read)
    if n_outdone:
        _log.info(
            "%s: %s not count, because the same annotator gave a later one",
            name,
            counted(n_outdone, "earlier annotation does", "earlier annotations do"),
        )


_SKIPPED, _EMPTY = "skipped", "empty"


def _why_not(annotation: Mapping[str, Any]) -> str:
    """Return why an annotation has no class: skipped, empty, or its type if not choices."""
    if annotation.get("was_cancelled"):
        return _SKIPPED
    items = [item for item in annotation.get("result") or () if isinstance(item, dict)]
    kinds = {kind for item in items if isinstance(kind := item.get("type"), str)}
    return min(kinds - {"choices"}, default=_EMPTY)


def _tell_others(name: str, without: Mapping[str, int], n_read: int) -> None:
    """Log why annotations have no class; raise a DataError if all are of other types."""
    others = sorted(without.keys() - {_SKIPPED, _EMPTY})
    if others and not n_read:
        raise DataError(
            f"{name} has annotations of type {', '.join(others)}, but none of type choices, which "
            "are classes of images; nothing was imported"
        )
    if without:
        counts = ", ".join(f"{n} {why}" for why, n in sorted(without.items()))
        _log.info("%s: annotations without a class: %s", name, counts)


def _address(where: str, data: Mapping[str, Any], field: str | None) -> str:
    if not field:
        return address_of(data, where=where)
    address = _text_at(data, field) or _text_at(data, "path")
    if not address:
        raise DataError(_without_field(where, field, data))
    return address


def _without_field(where: str, field: str, data: Mapping[str, Any]) -> str:
    found = ", ".join(list(data)[:MOST_KEYS]) or "nothing"
    return f"{where} has no text in the field {field!r} (found: {found})"


def address_of(
    data: Mapping[str, Any],
    name: str = "image",
    where: str = "a task",
    remedy: str = "name its field with --path-column",
) -> str:
    """Return the image's address in the data of a task.

    It is in the field "path", which skal writes, else in `name`, else the only image name, else the
    only text. Raise a DataError if there are several.
    """
    given = _text_at(data, "path") or _text_at(data, name)
    if given:
        return given
    texts = [value for value in data.values() if isinstance(value, str)]
    found = dict.fromkeys([text for text in texts if names_image(text)] or texts)
    if len(found) > 1:
        candidates = ", ".join(f"{text!r:.50}" for text in [*found][:MOST_CANDIDATES])
        raise DataError(f"{where}: its image may be {candidates}; {remedy}")
    return next(iter(found), "")


def _text_at(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _in_time(annotations: list[Any]) -> list[Any]:
    """Return annotations sorted by time, or as listed if some have none."""
    times: list[Any] = [_time_of(one) for one in annotations]
    if None in times:
        return annotations
    return [one for _, one in sorted(zip(times, annotations, strict=True), key=itemgetter(0))]


def _time_of(annotation: Any) -> float | None:
    """Return when an annotation was updated, else created, in seconds; None if unknown."""
    for name in ("updated_at", "created_at"):
        value = annotation.get(name) if isinstance(annotation, dict) else None
        if isinstance(value, int | float):
            return float(value)
        try:
            time = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            continue
        if time is not None:
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    return None


def _list_of(value: Any, where: str, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"{where}: {what}: got {value!r:.50}; expected a list")
    return value


def _chosen(annotation: Any, where: str, choice: str | None, questions: set[str]) -> str | None:
    """Return the class of an annotation; None if it was skipped or has none.

    The questions that it answers are added to `questions`.
    """
    if not isinstance(annotation, dict):
        raise DataError(f"{where}: got an annotation {annotation!r:.50}; expected an object")
    if annotation.get("was_cancelled"):
        return None
    chosen: dict[str, list[Any]] = {}
    for item in _list_of(annotation.get("result"), where, "result"):
        kind = item.get("type") if isinstance(item, dict) else None
        if not isinstance(kind, str | None):
            raise DataError(f"{where}: got the result type {kind!r:.50}; expected text")
        if kind == "choices":
            value = item.get("value")
            if isinstance(value, dict):
                answers = _list_of(value.get("choices"), where, "choices")
                chosen.setdefault(str(item.get("from_name")), []).extend(answers)
    questions.update(chosen)
    answers = [one for name, some in chosen.items() if choice in (None, name) for one in some]
    if len(answers) > 1:
        asked = f" for {', '.join(chosen)} (--choice selects one)" if len(chosen) > 1 else ""
        raise DataError(
            f"{where} has the choices {', '.join(map(str, answers))}{asked}; expected one"
        )
    if answers and not isinstance(answers[0], str):
        raise DataError(f"{where}: got the choice {answers[0]!r:.50}; expected text")
    return answers[0] if answers else None


def _who(annotation: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return the annotator: ours if skal exported the annotation, else Label Studio's user."""
    ours = data.get("annotators")
    for item in annotation["result"]:
        name = item.get("id") if isinstance(item, dict) else None
        if isinstance(ours, dict) and isinstance(name, str) and name in ours:
            return str(ours[name])
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    return "" if by in (None, "") else f"label-studio-{by}"


def read_cleanlab(source: Source) -> Iterator[Row]:
    """Read the faults that cleanlab or cleanvision found in each image, as notes.

    The images are in a column, or in the table's index, whose column has no name.
    """
    table = Cells(source.text)
    names = [name.strip() for name in next(iter(table), [])]
    faults = {n: found[1] for n, name in enumerate(names) if (found := ISSUE.fullmatch(name))}
    if not faults:
        raise DataError(
            f"{source.name} has no column is_..._issue of cleanlab or cleanvision "
            f"(found: {', '.join(names):.100}); nothing was imported"
        )
    tool = "cleanvision" if VISION.issuperset(faults.values()) else "cleanlab"
    kinds = tuple(map(in_words, faults.values()))
    of_path = _column_of_images(source, names)
    is_empty = True
    for cells in filter(None, table):
        is_empty = False
        where = f"line {table.line}"
        if len(cells) != len(names):
            raise DataError(f"{where} has {len(cells)} fields; expected {len(names)}")
        row = dict(zip(names, cells, strict=True))
        address = cells[of_path]
        if not names[of_path] and address.strip().isdecimal():
            raise DataError(
                f"{source.name} has row numbers instead of images; nothing was imported: add a "
                "column of paths before writing it (issues['path'] = paths)"
            )
        there = [name for n, name in faults.items() if _is_true(where, cells[n])]
        notes = [Note(tool, _told(name, row), _score(name, row)) for name in there]
        yield may_be_guarded(Row(where, address, tool=tool, notes=notes, faults=kinds))
    if is_empty:
        raise DataError(
            f"{source.name} has no rows, not even for images without faults; nothing was imported"
        )


def _column_of_images(source: Source, names: Sequence[str]) -> int:
    wanted = [source.path_column.lower()] if source.path_column else [*PATHS, ""]
    column = find_column(names, wanted)
    if column is None:
        expected = source.path_column or "path"
        raise DataError(
            f"{source.name} has no column {expected!r} with the images (found: "
            f"{', '.join(names)}); name it with --path-column, or add one before writing the table "
            "(issues['path'] = paths)"
        )
    return column


def _is_true(where: str, cell: str) -> bool:
    said = cell.strip().lower()
    if said not in ("true", "1", "false", "0"):
        raise DataError(f"{where} has {cell!r:.50}; expected True or False")
    return said in ("true", "1")


def _told(fault: str, row: Mapping[str, str]) -> str:
    """Return a fault in words, for a wrong label with the suggested class."""
    other = row.get("predicted_label", "").strip() if fault == "label" else ""
    named = "" if not other or other.isdecimal() else f", rather {other}"
    return in_words(fault) + named


def _score(fault: str, row: Mapping[str, str]) -> float | None:
    names = (f"{fault}_{what}" for what in SCORES)
    return next((number_of(row[name]) for name in names if name in row), None)


def read_coco(source: Source) -> Iterator[Row]:
    """Read the category of each image; raise a DataError for several."""
    categories = _by_id(source, "categories")
    images, labels = _by_id(source, "images"), dict[Any, set[Any]]()
    for one in source.object["annotations"]:
        image, category = one.get("image_id"), one.get("category_id")
        if not (_is_key(image, images) and _is_key(category, categories)):
            raise DataError(
                f"{source.name} has an annotation of image {image!r} and category {category!r}; "
                "expected ids of its images and categories"
            )
        name = categories[category].get("name")
        if not isinstance(name, str | int):
            raise DataError(f"{source.name}: the category {category!r} has no name")
        labels.setdefault(image, set()).add(name)
    for number, image in enumerate(source.object["images"], start=1):
        where, own = f"image {image.get('id', number)}", labels.get(image.get("id"), set())
        message = "the categories {}; skal reads one class per image, not detections"
        label = only(sorted(map(str, own)), where, message)
        yield Row(where, str(image.get("file_name", "")), label)


def _by_id(source: Source, what: str) -> dict[Any, Any]:
    listed = source.object[what]
    found = {key: one for one in listed if isinstance(key := one.get("id"), _KEYS)}
    if len(found) < len(listed):
        raise DataError(f"{source.name}: some of its {what} have no unique id")
    return found


_KEYS = (str, int, float)
"""Types of ids."""


def _is_key(key: Any, found: Mapping[Any, Any]) -> bool:
    return isinstance(key, _KEYS) and key in found


def read_datumaro(source: Source) -> Iterator[Row]:
    """Read the label of each item, whose id is its path without a suffix."""
    listed = source.object["categories"]["label"]["labels"]
    names = {n: one["name"] for n, one in enumerate(listed) if isinstance(one.get("name"), str)}
    if len(names) < len(listed):
        raise DataError(f"{source.name}: some of its labels have no name")
    for item in source.object["items"]:
        where = f"item {item.get('id')!r}"
        given = [a.get("label_id") for a in item.get("annotations", ()) if a.get("type") == "label"]
        for one in given:
            if not _is_key(one, names):
                raise DataError(f"{where} has the label {one!r}, which is not a class")
        address = item.get("image", {}).get("path") or str(item.get("id", ""))
        own = [names[one] for one in dict.fromkeys(given)]
        yield Row(where, address, only(own, where, "the labels {}; expected one"))


def read_fiftyone(source: Source) -> Iterator[Row]:
    """Read labels by path without a suffix; they are names, numbers of classes, or objects."""
    classes = source.object["classes"] or []
    for address, label in source.object["labels"].items():
        label = label.get("label") if isinstance(label, dict) else label
        if isinstance(label, int) and not isinstance(label, bool):
            if not 0 <= label < len(classes):
                raise DataError(f"{address!r} has the label {label}, which is not a class")
            label = classes[label]
        yield Row(repr(address), address, None if label is None else str(label))


def read_skactiveml_annotation(source: Source) -> Iterator[Row]:
    """Read manual annotations by path; automatic ones are ignored."""
    for address, one in dict(source.object.get("manual", source.object)).items():
        label, seconds = one["label"], number_of(one.get("total_view_duration"))
        if label == "DISCARDED":
            yield Row(repr(address), address, None, "bad", seconds=seconds)
        else:
            label = None if label == "MISSING_LABEL" else str(label)
            yield Row(repr(address), address, label, seconds=seconds)


def read_via(source: Source) -> Iterator[Row]:
    """Read an attribute of each file, which --label-column names if there are several."""
    files = source.object.get("_via_img_metadata", source.object)
    if not any(one.get("file_attributes") for one in files.values()):
        regions = [one.get("regions") for one in files.values()]
        n = sum(len(some) for some in regions if isinstance(some, list | dict))
        if n:
            raise DataError(
                f"{source.name} has {counted(n, 'region')}, but no file attributes with classes"
            )
    first = source.label_column
    if first and not any(first in (one.get("file_attributes") or ()) for one in files.values()):
        raise DataError(f"{source.name} has no file attribute {first!r}")
    for one in files.values():
        address, attributes = str(one.get("filename", "")), one.get("file_attributes") or {}
        where = repr(address)
        if not isinstance(attributes, dict):
            raise DataError(f"{where} has the attributes {attributes!r:.50}; expected an object")
        wanted = source.label_column or only(
            attributes, where, "the attributes {}; name one with --label-column"
        )
        first = first or wanted
        if wanted and wanted != first:
            raise DataError(
                f"{where} has the attribute {wanted}, but an earlier file {first}; name one with "
                "--label-column"
            )
        value = attributes.get(wanted)
        if isinstance(value, dict):  # check boxes
            ticked = [name for name, is_set in value.items() if is_set]
            value = only(ticked, where, "{} ticked; expected one")
        yield Row(where, address, str(value) if value else None)


def read_imagenet_txt(source: Source) -> Iterator[Row]:
    """Read a path and a class number per line; a file next to the source has the names."""
    names = names_beside(source)
    if names is None:
        raise DataError(f"there is no synsets.txt or classes.txt next to {source.name}")
    for number, line in enumerate(lines_of(source.text), start=1):
        if not line.strip():
            continue
        address, *rest = line.strip().rsplit(maxsplit=1)
        if not rest:
            raise DataError(f"line {number}: {address!r:.50}; expected a path and a number")
        (label,) = rest
        if not label.isdecimal() or int(label) >= len(names):
            raise DataError(
                f"line {number}: got {label!r}; expected a number from 0 to {len(names) - 1}"
            )
        yield Row(f"line {number}", address.strip(), names[int(label)])
