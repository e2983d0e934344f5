"""Writers of predictions: CSV, one Parquet file, or a folder of Parquet files."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.durable import fsync_file, fsync_folder, remove_leftovers, sha256
from ..core.errors import RunExistsError, UsageError, require

if TYPE_CHECKING:
    import pyarrow as pa

    from .predictor import Rows


MANIFEST = "_skal.json"
"""Starts with an underscore, so that readers of Parquet folders skip it."""
CSV_HEAD = b"path,class,probability,"
"""The first bytes of a table of predictions."""
OTHERS = frozenset((".txt", ".tsv", ".json", ".jsonl", ".xlsx", ".xls", ".pq", ".feather", ".npz"))
"""Suffixes of unsupported formats, which are not taken for names of folders."""


@dataclass(frozen=True)
class Form:
    """A file format; `is_one_file` merges the parts, `measures` adds uncertainties by default."""

    name: str
    suffix: str
    is_one_file: bool
    measures: bool

    def check_place(self, out: Path) -> None:
        """Raise an error if the output cannot be created or replaced, or its package is missing."""
        above = out.absolute().parent
        if self.is_one_file:
            if not above.is_dir():
                raise UsageError(f"out: the folder {str(out.parent)!r} does not exist")
            if out.is_dir():
                raise UsageError(f"out: {str(out)!r} is a folder; expected the name of a file")
        elif out.is_file():
            raise UsageError(
                f"out: {str(out)!r} is a file; expected the name of a folder, or one that ends in "
                ".csv or .parquet"
            )
        elif out.is_dir():
            check_parts(out)
        if out.exists():
            return
        existing = next(folder for folder in (above, *above.parents) if folder.exists())
        if not existing.is_dir():
            raise UsageError(f"out: {str(existing)!r} is a file; expected a folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise UsageError(f"out: the folder {str(existing)!r} is not writable")

    def write(self, lots: Sequence[Rows], path: Path, classes: Sequence[str]) -> None:
        """Write a part, from at least one batch of rows."""
        raise NotImplementedError

    def join(self, parts: Sequence[Path], path: Path, n_unreadable: int) -> None:
        """Write all parts to one file, with one part at a time in memory."""
        raise NotImplementedError

    def merge(self, parts: Sequence[Path], out: Path, n_unreadable: int) -> None:
        """Join all parts in a temporary file next to them, then rename it atomically."""
        temporary = parts[0].parent / "whole.tmp"
        try:
            self.join(parts, temporary, n_unreadable)
            fsync_file(temporary)
            temporary.replace(out)
            fsync_folder(out.parent)
        except OSError as error:
            error.filename = str(out)  # missing in the system's "disk full" error
            raise

    def is_finished(self, out: Path, names: Sequence[str]) -> bool:
        """Return whether a file already has the rows of these parts; raise a RunExistsError if it
        must not be replaced.
        """
        raise NotImplementedError

    def n_unreadable(self, out: Path) -> int:
        """Return the number of empty rows in a finished file."""
        raise NotImplementedError


class Csv(Form):
    """Text, with one line per image."""

    def check_place(self, out: Path) -> None:
        super().check_place(out)
        if out.is_file():
            with out.open("rb") as file:
                if file.read(len(CSV_HEAD)) not in (CSV_HEAD, b""):
                    raise _exists(out)

    def is_finished(self, out: Path, names: Sequence[str]) -> bool:
        """Return False: CSV does not record what its rows depend on, so it is always rewritten."""
        self.check_place(out)
        return False

    def write(self, lots: Sequence[Rows], path: Path, classes: Sequence[str]) -> None:
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(["path", *_flat(lots[0])])
            for lot in lots:
                columns = _flat(lot).values()
                values = zip(*columns, strict=True)
                for image, is_read in zip(lot.paths, lot.read, strict=True):
                    cells = next(values) if is_read else [""] * len(columns)
                    texts = (cell if isinstance(cell, str) else f"{cell:.6f}" for cell in cells)
                    lines.writerow([image, *texts])

    def join(self, parts: Sequence[Path], path: Path, n_unreadable: int) -> None:
        with path.open("wb") as whole:
            for number, part in enumerate(parts):
                with part.open("rb") as file:
                    names = file.readline()
                    whole.write(b"" if number else names)
                    shutil.copyfileobj(file, whole)


def _flat(lot: Rows) -> dict[str, NDArray[Any]]:
    """Return the columns, with matrices split into single columns."""
    flat: dict[str, NDArray[Any]] = {}
    for name, values in lot.columns.items():
        if values.ndim == 1:
            flat[name] = values
        else:
            flat.update({f"{name}_{k}": values[:, k] for k in range(values.shape[1])})
    return flat


class Parquet(Form):
    """A table of typed columns, written with pyarrow."""

    def check_place(self, out: Path) -> None:
        require("pyarrow", "parquet", "Parquet")
        super().check_place(out)

    def write(self, lots: Sequence[Rows], path: Path, classes: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        facts = {
            "classes": list(classes),
            "n_unreadable": sum(int((~lot.read).sum()) for lot in lots),
        }
        table = pa.concat_tables([_table(lot) for lot in lots])
        pq.write_table(table.replace_schema_metadata({"skal": json.dumps(facts)}), path)

    def join(self, parts: Sequence[Path], path: Path, n_unreadable: int) -> None:
        import pyarrow.parquet as pq

        facts = {
            "classes": _facts(parts[0])["classes"],
            "n_unreadable": n_unreadable,
            "key": sha256("".join(part.name for part in parts))[:16],
        }
        schema = pq.read_schema(parts[0]).with_metadata({"skal": json.dumps(facts)})
        with pq.ParquetWriter(path, schema) as writer:
            for part in parts:
                table = pq.read_table(part)
                writer.write_table(table.replace_schema_metadata(schema.metadata))

    def is_finished(self, out: Path, names: Sequence[str]) -> bool:
        """Return whether a file has these rows; raise a RunExistsError if it has others."""
        if not self.is_one_file or not out.exists():
            return False
        if _facts(out).get("key") == sha256("".join(names))[:16]:
            return True
        raise _exists(out)

    def n_unreadable(self, out: Path) -> int:
        return int(_facts(out)["n_unreadable"])


def check_parts(folder: Path) -> None:
    """Raise a RunExistsError if a folder holds anything but predictions."""
    if (folder / MANIFEST).is_file():
        return
    remove_leftovers(folder, MANIFEST)  # left by a process that was killed at its start
    if any(folder.iterdir()):
        raise RunExistsError(
            f"{str(folder)!r} is not empty and holds no predictions (it has no {MANIFEST}); choose "
            "another name with --out"
        )


def _exists(out: Path) -> RunExistsError:
    return RunExistsError(
        f"{str(out)!r} exists and holds something else; choose another name with --out"
    )


def _table(lot: Rows) -> pa.Table:
    import pyarrow as pa

    # unreadable files get null values
    rows = pa.array(np.cumsum(lot.read) - 1, mask=~lot.read)
    columns = {name: _column(values).take(rows) for name, values in lot.columns.items()}
    # bytes that are not UTF-8 become backslash escapes
    paths = [path.encode(errors="backslashreplace").decode() for path in lot.paths]
    errors = [lot.unread.get(path) for path in lot.paths]
    return pa.table(
        {
            "path": pa.array(paths, pa.string()),
            **columns,
            "error": pa.array(errors, pa.string()),
        }
    )


def _column(values: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    if values.ndim == 2:
        # pyarrow before 26 cannot read lists of a fixed size back if one is null
        starts = pa.array(np.arange(0, values.size + 1, values.shape[1], dtype=np.int32))
        return pa.ListArray.from_arrays(starts, pa.array(values.ravel()))
    return pa.array(values, pa.string() if values.dtype == object else None)


def _facts(path: Path) -> dict[str, Any]:
    """Return skal's entries in a file's metadata, empty if there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        facts = json.loads(metadata.get(b"skal", b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return facts if isinstance(facts, dict) else {}


FORMS = {
    form.name: form
    for form in (
        Csv("csv", ".csv", is_one_file=True, measures=False),
        Parquet("parquet", ".parquet", is_one_file=True, measures=True),
        Parquet("folder", ".parquet", is_one_file=False, measures=True),
    )
}


ONE_FILE = {form.suffix: form.name for form in FORMS.values() if form.is_one_file}


def form_of(out: Path) -> Form:
    """Return the form for a suffix, a folder for others; reject those that look like a table's."""
    suffix = out.suffix.lower()
    is_like_ours = suffix not in ONE_FILE and get_close_matches(suffix, ONE_FILE, cutoff=0.7)
    if (suffix in OTHERS or is_like_ours) and not out.is_dir():
        raise UsageError(
            f"out: got {str(out)!r}; expected a file name with .csv or .parquet, or a folder name"
        )
    return FORMS[ONE_FILE.get(suffix, "folder")]
