"""Readers of tables, lists of objects and JSON lines, with a row per image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, islice
from operator import itemgetter
from typing import Any

from ...core.errors import DataError, MissingExtraError
from ...core.text import counted
from ...datasets.columns import LABELS, PATHS, Cells, find_column, fits, lines_of, rival_of
from ..names import unguarded
from . import COLUMNS, ISSUE, Row, Source, number_of, only, parsed, plain_row
from .known import named_by_keys

MORE = frozenset(("action", "annotator", "seconds", "lead_time", "source"))
"""Columns that are read in addition to image and label."""
AT_ONCE = 1000
"""Lines of JSON to parse together."""
_NESTED = frozenset((dict, list))
Block = tuple[int, Sequence[Mapping[str, Any]]]
"""The number of the first object, and the objects."""
PREDICTED = {"path", "class", "probability"}
"""Columns of a table of ``skal predict``."""
METADATA = "-metadata"
"""Suffix of a Ground Truth job's name, under which the class name is found."""

_log = logging.getLogger("skal")


class _NoColumnError(DataError):
    """There is no column of labels; `found` is empty if there is none of images either."""

    def __init__(self, message: str, found: Sequence[str]) -> None:
        super().__init__(message)
        self.found = found


def _columns(
    source: Source, names: Sequence[str], written: Sequence[str], cells: Sequence[Any]
) -> tuple[str, str]:
    """Return the columns of images and labels, given lower-case and `written` names, and the
    `cells` of the first row.
    """
    if not source.label_column and {*names} >= PREDICTED:
        wanted = {*LABELS} - PREDICTED
        other = next((name for name in written if name.lower() in wanted), None)
        content = "no labels by people" if other is None else f"a column {other!r}"
        raise DataError(
            f"{source.name} has a network's predictions (skal predict), and {content}; nothing was "
            f"imported: use --label-column {other or 'class'} to import "
            f"{'that column' if other else 'the predictions'} as labels"
        )
    chosen: list[str] = []
    columns = {"path": (source.path_column, PATHS), "label": (source.label_column, LABELS)}
    small = {name.lower(): name for name in written}
    as_is = [small.get(name, name) for name in names]
    for what, (given, known) in columns.items():
        try:
            column = find_column(names, [given.lower()] if given else known, written)
        except DataError as error:
            raise DataError(f"{source.name}: {error}") from error
        if column is None:
            expected = repr(given) if given else repr(what)
            message = "" if given else named_by_keys(names)
            if message:
                raise DataError(f"{source.name} is {message}; nothing was imported")
            faults = [name for name in names if ISSUE.fullmatch(name)]
            hint = f"; --format cleanlab imports faults ({faults[0]}) as notes" if faults else ""
            found = ", ".join(written) or "nothing"
            raise _NoColumnError(
                f"{source.name} has no column {expected} (found: {found}); expected path and "
                f"label, or --path-column and --label-column{hint}",
                chosen,
            )
        chosen.append(names[column])
        rival = None if given or what == "label" else rival_of(names, cells, column)
        if rival is not None:
            raise DataError(
                f"{source.name} may have its images in the column {as_is[column]!r} or in "
                f"{as_is[rival]!r}; name one with --path-column"
            )
    return chosen[0], chosen[1]


def read_csv(source: Source) -> Iterator[Row]:
    """Read a row per image; numbers as columns mean a table without a header."""
    table = Cells(source.text)
    header = next(filter(None, table), [])
    written, first = [name.strip() for name in header], []
    if (source.path_column or "").isdecimal():
        written, first = [str(number) for number, _ in enumerate(header, start=1)], [header]
    names = [name.lower() for name in written]
    first = first or [*islice(table, 1)]
    path, label = _columns(source, names, written, first[0] if first else ())
    n, of_path, of_label = len(names), names.index(path), names.index(label)
    last = max(of_path, of_label)
    cut: list[str] = []
    is_plain = MORE.isdisjoint({*names} - {path, label})
    is_of_skal = path == COLUMNS[0] and {*COLUMNS}.issubset(names)
    for cells in chain(first, table):
        where = f"line {table.line}"
        if is_plain and len(cells) == n:
            row = plain_row(where, cells[of_path], _cell(cells[of_label]) or None)
            yield may_be_guarded(row) if "'" in row.address else row
        elif len(cells) > n and not fits(cells, names, last):
            raise DataError(f"{where} has more fields than the header")
        elif any(map(str.strip, cells)):
            if len(cells) <= last:
                cut.append(where)
            row = _row(where, dict(zip(names, cells, strict=False)), path, label, _cell)
            yield may_be_guarded(row, is_of_skal) if "'" in row.address else row
    if cut:
        _log.warning(
            "%s: %s with too few cells (the first is %s)",
            source.name,
            counted(len(cut), "row"),
            cut[0],
        )


def may_be_guarded(row: Row, is_sure: bool = False) -> Row:
    """Return a row with its address unguarded if `is_sure`, else with the unguarded one added."""
    if is_sure:
        return row._replace(address=unguarded(row.address))
    address = row.address.strip()
    plain = unguarded(address)
    return row if plain == address else row._replace(plain=plain)


def read_json(source: Source) -> Iterator[Row]:
    """Read a list of flat objects like the rows of a table."""
    return _of_objects(source, [(1, source.objects)], "entry")


def read_json_lines(source: Source) -> Iterator[Row]:
    """Read JSON lines, an object per line."""

    def blocks() -> Iterator[Block]:
        lines, start = lines_of(source.text), 1
        while block := list(islice(lines, AT_ONCE)):
            whole = _parsed(block)
            if whole:
                yield start, whole
            else:
                yield from _one_by_one(enumerate(block, start))
            start += len(block)

    return _of_objects(source, blocks(), "line")


def _parsed(lines: Sequence[str]) -> list[dict[str, Any]]:
    """Return the objects of lines, parsed fast as one text; an empty list if this fails."""
    try:
        found = [one for (one,) in parsed(f"[[{'],['.join(lines)}]]")]
    except (ValueError, RecursionError):
        return []
    return found if len(found) == len(lines) and set(map(type, found)) == {dict} else []


def _one_by_one(lines: Iterable[tuple[int, str]]) -> Iterator[Block]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            one = parsed(line)
        except DataError as error:
            raise DataError(f"line {number}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} is not JSON: {error}") from error
        if not isinstance(one, dict):
            raise DataError(f"line {number} is not an object: {line.strip():.50}")
        yield number, [one]


def _of_objects(source: Source, blocks: Iterable[Block], unit: str) -> Iterator[Row]:
    columns = _Columns(source)
    for start, block in blocks:
        first = tuple(block[0]) if block else ()
        if len(first) == 2 and _is_all_text(block, first):
            columns.where, columns.cells = f"{unit} {start}", (*block[0].values(),)
            if names := columns.plain(first):
                pairs = map(itemgetter(*names), block)
                for number, (address, label) in enumerate(pairs, start):
                    yield plain_row(f"{unit} {number}", address, label.strip() or None)
                continue
        for number, one in enumerate(block, start):
            columns.where = where = f"{unit} {number}"
            columns.cells = (*one.values(),)
            is_flat = _NESTED.isdisjoint(map(type, one.values()))
            names = columns.plain(tuple(one)) if is_flat else None
            if names:
                yield plain_row(where, _address(one[names[0]]), _text(one[names[1]]) or None)
            else:
                cells = _flat(source, where, one, columns)
                columns.cells = (*cells.values(),)
                yield _row(where, cells, *columns.of(tuple(cells), tuple(one)))
    columns.check()


class _Columns:
    """The columns of images and labels, which must be the same in all objects."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._chosen: dict[str, tuple[str, str]] = {}
        self._problem: DataError | None = None
        self.where = ""
        self.cells: Sequence[Any] = ()
        self.of, self.plain = cache(self._of), cache(self._plain)

    def _of(self, names: Sequence[str], written: Sequence[str]) -> tuple[str, str | None]:
        """Return the columns of image and label of an object, given its lower-case and `written`
        names; the latter is None if the object has no label.
        """
        found: Sequence[str]
        try:
            found = _columns(self._source, names, written, self.cells)
        except _NoColumnError as error:
            if not error.found:
                raise
            self._problem, found = self._problem or error, error.found
        as_is = {name: name for name in names} | {name.lower(): name for name in written}
        for what, name in zip(("path", "label"), found, strict=False):
            self.check_same(what, as_is[name], what)
        return found[0], found[1] if len(found) > 1 else None

    def check_same(self, what: str, name: str, option: str) -> None:
        """Raise a DataError if an object uses another name for a column than an earlier one."""
        first, there = self._chosen.setdefault(what, (name, self.where))
        if first.lower() != name.lower():
            raise DataError(
                f"{there} has {first!r} and {self.where} has {name!r}; name one with "
                f"--{option}-column"
            )

    def _plain(self, names: Sequence[str]) -> tuple[str, str] | None:
        """Return the written names of the columns; None if there are others, or no label."""
        small = {name.lower(): name for name in names}
        if len(small) < len(names):
            return None
        path, label = self.of(tuple(small), tuple(names))
        is_plain = MORE.isdisjoint(small.keys() - {path, label})
        return (small[path], small[label]) if label is not None and is_plain else None

    def check(self) -> None:
        """Raise a DataError if no object had a label."""
        if self._problem is not None and "label" not in self._chosen:
            raise self._problem


def _is_all_text(block: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bool:
    """Return whether all objects have only these two names, with text values, as in most files."""
    one, other = names
    try:
        cells = [*map(itemgetter(one), block), *map(itemgetter(other), block)]
    except KeyError:
        return False
    return set(map(type, cells)) == {str} and set(map(len, block)) == {2}


def _flat(source: Source, where: str, one: Mapping[str, Any], columns: _Columns) -> dict[str, Any]:
    """Return the cells of an object, whose label may be a class name in a nested object.

    Vertex AI and Ground Truth nest labels; for Ground Truth's job "animal", "animal" is a number
    and "animal-metadata" has the name. Raise a DataError for several, if no column is named.
    """
    cells = {key.lower(): value for key, value in one.items()}
    if len(cells) < len(one):
        raise DataError(f"{where} has two columns with the same name: {', '.join(one)}")
    inner = {
        key: value.get("displayName", value.get("class-name"))
        for key, value in cells.items()
        if isinstance(value, dict) and "choices" not in value
    }
    if not inner:
        return cells
    flat = {key: value for key, value in cells.items() if key not in inner}
    wanted = (source.label_column or "").lower()
    for key in (wanted, f"{wanted}{METADATA}"):
        if key in inner:
            flat[wanted] = inner[key]
    if wanted:
        return flat
    written = {key.lower(): key for key in one}

    def shown(key: str) -> str:
        return written[key][: len(key.removesuffix(METADATA))]

    names = {key: name for key, name in inner.items() if name is not None}
    beside = [c for c in LABELS if c in flat and c + METADATA not in names][:1]
    if names and len(names) + len(beside) > 1:
        said = {**names, **{key: flat[key] for key in beside}}
        classes = ", ".join(f"{shown(key)} {name!r}" for key, name in said.items())
        raise DataError(f"{where} has several classes ({classes}); name one with --label-column")
    if names:
        ((key, flat["label"]),) = names.items()
        columns.check_same("class", shown(key), "label")
    return flat


def _text(value: Any) -> str:
    """Return a cell as text; whole floats such as 1.0 are written as integers."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value:  # NaN: an empty cell
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _one_of(where: str, value: Any) -> Any:
    """Return the value of a label, unpacking lists of one class and Label Studio's choices."""
    if isinstance(value, dict) and "choices" in value:
        value = value["choices"]
    if not isinstance(value, list):
        return value
    if not all(isinstance(one, str) for one in value):
        raise DataError(f"{where}: got the label {value!r:.50}; expected the name of a class")
    return only(value, where)


def _cell(value: Any) -> str:
    """Return a cell as text, unguarded."""
    text = _text(value)
    return unguarded(text) if text[:1] == "'" else text


def _address(value: Any) -> str:
    """Return the address in a cell; names of images may have surrounding space."""
    return value if isinstance(value, str) else _text(value)


def _row(
    where: str,
    cells: Mapping[str, Any],
    path: str,
    label: str | None,
    text: Callable[[Any], str] = _text,
) -> Row:
    """Make a row from named cells, including the other columns that skal exports."""
    said = _one_of(where, cells.get(label)) if label else None
    row = Row(where, _address(cells.get(path)), text(said) or None)
    if MORE.isdisjoint(cells):
        return row
    if not MORE.isdisjoint((path, label)):
        cells = {name: cell for name, cell in cells.items() if name not in (path, label)}
    return row._replace(
        action=str(cells.get("action") or "").strip(),
        annotator=text(cells.get("annotator")),
        seconds=number_of(cells.get("seconds", cells.get("lead_time"))),
        source=str(cells.get("source") or "").strip(),
    )


def read_parquet(source: Source) -> Iterator[Row]:
    """Read a row per image; requires pyarrow."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", f"to read {source.name}, skal") from error
    file = parquet.ParquetFile(source.path)
    written = file.schema_arrow.names
    names = [name.lower() for name in written]
    first: dict[str, Any] = next((batch.to_pylist()[0] for batch in file.iter_batches(1)), {})
    path, label = _columns(source, names, written, [*first.values()])
    start = 1
    for batch in file.iter_batches():
        for number, cells in enumerate(batch.to_pylist(), start=start):
            yield _row(f"row {number}", dict(zip(names, cells.values(), strict=True)), path, label)
        start += len(batch)


def read_roboflow(source: Source) -> Iterator[Row]:
    """Read the class whose column has a 1; raise a DataError for several."""
    table = Cells(source.text)
    _, *classes = [name.strip() for name in next(filter(None, table))]
    for address, *cells in filter(None, table):
        where = f"line {table.line}"
        if len(cells) != len(classes):
            raise DataError(f"{where} has {len(cells) + 1} fields; expected {len(classes) + 1}")
        own = [name for name, cell in zip(classes, cells, strict=True) if cell.strip() == "1"]
        if not {cell.strip() for cell in cells} <= {"0", "1"}:
            raise DataError(f"{where} has cells other than 0 and 1")
        yield may_be_guarded(Row(where, address, only(own, where)))
