"""Tables, lists of objects and JSON lines: a row an image."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...core.errors import DataError, MissingExtraError
from ..names import unguarded
from . import LABELS, PATHS, Row, Source, number_of

METADATA = "-metadata"
"""Behind the name of a job of Ground Truth, where it says what its number means."""


def _columns(source: Source, names: Sequence[str]) -> tuple[str, str]:
    """Return the names of the columns of images and labels."""
    twice = [name for name, n in Counter(names).items() if n > 1]
    chosen = []
    wanted = {"path": (source.path_column, PATHS), "label": (source.label_column, LABELS)}
    for what, (given, known) in wanted.items():
        found = [given.lower()] if given else [name for name in known if name in names][:1]
        if not found or found[0] not in names:
            expected = repr(given) if given else repr(what)
            raise DataError(
                f"{source.name} has no column {expected} (found: {', '.join(names) or 'nothing'}); "
                f"expected path and label, or --path-column and --label-column"
            )
        if found[0] in twice:
            raise DataError(f"{source.name} has two columns {found[0]!r}; rename one")
        chosen.append(found[0])
    return chosen[0], chosen[1]


def read_csv(source: Source) -> Iterator[Row]:
    """Read a row an image; columns by number are of a table without a header."""
    text = source.text
    separator = None
    if text[:4].lower() == "sep=":  # which Excel writes before the header
        first, _, text = text.partition("\n")
        separator = first.strip()[4:5]
    header = text.partition("\n")[0]
    separator = separator or max(",;\t", key=header.count)  # of equally many the comma
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    if (source.path_column or "").isdecimal():
        n = len(next(csv.reader([header], delimiter=separator), []))
        rows.fieldnames = [str(number) for number in range(1, n + 1)]
    names = [str(name).strip().lower() for name in rows.fieldnames or []]
    rows.fieldnames = names
    path, label = _columns(source, names)
    try:
        for cells in rows:
            where = f"line {rows.line_num}"
            if None in cells:
                raise DataError(f"{source.name}, {where} has more fields than the header")
            yield _row(where, cells, path, label)
    except csv.Error as error:
        raise DataError(f"{source.name}, line {rows.line_num}: {error}") from error


def read_json(source: Source) -> Iterator[Row]:
    """Read a list of flat objects as the rows of a table."""
    return _of_objects(source, enumerate(source.objects, start=1), "entry")


def read_json_lines(source: Source) -> Iterator[Row]:
    """Read an object a line."""

    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(io.StringIO(source.text), start=1):
            if not line.strip():
                continue
            try:
                one = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{source.name}, line {number} is not JSON: {error}") from error
            if not isinstance(one, dict):
                raise DataError(f"{source.name}, line {number} is no object: {line.strip():.50}")
            yield number, one

    return _of_objects(source, objects(), "line")


def _of_objects(
    source: Source, objects: Iterable[tuple[int, Mapping[str, Any]]], unit: str
) -> Iterator[Row]:
    for number, one in objects:
        where = f"{unit} {number}"
        cells = _flat(source, where, one)
        yield _row(where, cells, *_columns(source, list(cells)))


def _flat(source: Source, where: str, one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of an object, whose label may be a class name in an object within.

    So do Vertex AI and Ground Truth, the latter beside a number: of its job "animal" the name
    stands in "animal-metadata". Several of them are an error if no column is named.
    """
    cells = {key.lower(): value for key, value in one.items()}
    inner = {key: _class_name(value) for key, value in cells.items() if isinstance(value, dict)}
    flat = {key: value for key, value in cells.items() if key not in inner}
    wanted = (source.label_column or "").lower()
    for key in (wanted, f"{wanted}{METADATA}"):
        if key in inner:
            flat[wanted] = inner[key]
    if wanted:
        return flat
    names = {key: name for key, name in inner.items() if name is not None}
    beside = [c for c in LABELS if c in flat and c + METADATA not in names][:1]
    if names and len(names) + len(beside) > 1:
        said = {**names, **{key: flat[key] for key in beside}}
        told = ", ".join(f"{key.removesuffix(METADATA)} {name!r}" for key, name in said.items())
        raise DataError(
            f"{source.name}, {where} has several classes ({told}); name one by --label-column"
        )
    if names:
        (flat["label"],) = names.values()
    return flat


def _class_name(value: Mapping[str, Any]) -> Any:
    return value.get("displayName", value.get("class-name"))


def _text(value: Any) -> str:
    """Return what a cell says; a whole number is written as one, though a table has it as 1.0."""
    if value is None or value != value:  # which is how tables write that there is none
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return unguarded(str(value).strip())


def _row(where: str, cells: Mapping[str, Any], path: str, label: str) -> Row:
    """Make a row of named cells, of which those that skal itself writes are known."""
    who = cells.get("annotator")
    return Row(
        where,
        _text(cells.get(path)),
        _text(cells.get(label)) or None,
        str(cells.get("action") or "").strip(),
        "" if who in (None, "") else unguarded(str(who).strip()),
        number_of(cells.get("seconds", cells.get("lead_time"))),
        str(cells.get("source") or "").strip(),
    )


def read_parquet(source: Source) -> Iterator[Row]:
    """Read a row an image; it needs pyarrow."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", f"to read {source.name}, skal") from error
    file = parquet.ParquetFile(source.path)
    names = [name.lower() for name in file.schema_arrow.names]
    path, label = _columns(source, names)
    start = 1
    for batch in file.iter_batches():
        for number, cells in enumerate(batch.to_pylist(), start=start):
            yield _row(f"row {number}", dict(zip(names, cells.values(), strict=True)), path, label)
        start += len(batch)


def read_roboflow(source: Source) -> Iterator[Row]:
    """Read the class whose column has a 1; several of them are an error."""
    lines = csv.reader(io.StringIO(source.text, newline=""))
    _, *classes = [name.strip() for name in next(lines)]
    for address, *cells in filter(None, lines):
        where = f"line {lines.line_num}"
        own = [name for name, cell in zip(classes, cells, strict=False) if cell.strip() == "1"]
        if not {cell.strip() for cell in cells} <= {"0", "1"}:
            raise DataError(f"{source.name}, {where} has other cells than 0 and 1")
        if len(own) > 1:
            raise DataError(
                f"{source.name}, {where} has the classes {', '.join(own)}; expected one"
            )
        yield Row(where, address.strip(), own[0] if own else None)
