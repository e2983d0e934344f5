"""The run folder: what a run leaves, safely, and how it is gone on with."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import platform
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .config import RunConfig, read_config
from .errors import RunExistsError, RunFolderError
from .files import fsync_folder, write_atomic

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece")
SECONDS = ("fit_seconds", "score_seconds", "query_seconds")
ROUND_COLUMNS = ("round", "n_labeled", *METRICS, *SECONDS)
QUERY_COLUMNS = ("round", "rank", "index", "path", "label")
PACKAGES = (
    "skal",
    "scikit-activeml",
    "skorch",
    "torch",
    "torchvision",
    "scikit-learn",
    "numpy",
    "Pillow",
)

_log = logging.getLogger("skal")


@dataclass
class Journal:
    """An append-only file of JSON lines, each with the CRC-32 of its text before it.

    Parameters
    ----------
    path : Path
        The file; made when first written to.
    """

    path: Path

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one entry and wait until it is on the disk."""
        text = json.dumps(entry, allow_nan=True)
        with self.path.open("ab") as file:
            start = file.tell()
            try:
                file.write(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, start)
                raise

    def read(self) -> list[dict[str, Any]]:
        """Return the whole entries; a torn last line, as a crash leaves it, is cut off.

        Raises
        ------
        RunFolderError
            If a line before the last does not match its checksum.
        """
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        entries: list[dict[str, Any]] = []
        for number, line in enumerate(lines):
            entry = _parse_line(line)
            if entry is None:
                if number + 1 < len(lines):
                    raise RunFolderError(f"{self.path}, line {number + 1}: damaged")
                os.truncate(self.path, sum(map(len, lines[:number])))
                break
            entries.append(entry)
        return entries


def _parse_line(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    entry: dict[str, Any] = json.loads(text)
    return entry


@dataclass
class Record:
    """What happened in a run: the labels that came in each round, and the metrics.

    Parameters
    ----------
    folder : Path, optional
        Where it is kept; without, in memory alone.
    queries : list of dict
        One an image: `round`, `rank`, `index`, `path`, `label`, in the order of labelling.
    rounds : list of dict
        One a round, with the columns of ``rounds.csv``.
    labels : list of (indices, class ids)
        One a round, in order.
    seconds : float
        How long the run took up to the last whole round, over all its parts.
    """

    folder: Path | None = None
    queries: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    labels: list[tuple[list[int], list[int]]] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def create(cls, folder: Path | None, config: RunConfig, device: str) -> Record:
        """Make the folder of a new run.

        Raises
        ------
        RunExistsError
            If there is something of that name; it is not touched.
        OSError
            If it cannot be made.
        """
        if folder is None:
            return cls()
        check_free(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        write_atomic(folder / "config.toml", config.to_toml())
        write_atomic(folder / "environment.json", _json(environment(device)))
        fsync_folder(folder.parent)
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> tuple[Record, RunConfig]:
        """Open the folder of a run, up to what was written whole.

        Raises
        ------
        RunFolderError
            If it is not a run folder, or damaged.
        """
        if not (folder / "config.toml").is_file():
            raise RunFolderError(f"{str(folder)!r} is not a run folder (it has no config.toml)")
        record = cls(folder)
        for entry in record._journal.read():
            record._apply(entry)
        return record, RunConfig(**read_config(folder / "config.toml"))

    @property
    def finished(self) -> bool:
        """Whether the run is done."""
        return self.folder is not None and (self.folder / "summary.json").is_file()

    def add_labels(
        self,
        indices: Sequence[int],
        labels: Sequence[int],
        paths: Sequence[str],
        names: Sequence[str],
    ) -> None:
        """Keep the labels that the next round is trained on, as soon as they are given."""
        entry = {
            "event": "labels",
            "indices": [int(index) for index in indices],
            "labels": [int(label) for label in labels],
            "paths": list(paths),
            "names": list(names),
        }
        self._keep(entry)
        self._write_csv("queries.csv", QUERY_COLUMNS, self.queries)

    def add_round(self, row: Mapping[str, Any], seconds: float) -> None:
        """Keep a whole round: its metrics, and the seconds that the run took until now."""
        self._keep({"event": "round", "row": dict(row), "seconds": seconds})
        self._write_csv("rounds.csv", ROUND_COLUMNS, self.rounds)

    def write(self, name: str, content: str | bytes) -> None:
        """Write another file of the folder, as a whole."""
        if self.folder is not None:
            write_atomic(self.folder / name, content)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``, which says that the run is done."""
        self.write("summary.json", _json(summary))

    def rewrite_tables(self) -> None:
        """Write the CSV files anew, in case a crash came between the journal and them."""
        self._write_csv("queries.csv", QUERY_COLUMNS, self.queries)
        self._write_csv("rounds.csv", ROUND_COLUMNS, self.rounds)

    @property
    def _journal(self) -> Journal:
        assert self.folder is not None
        return Journal(self.folder / "journal.jsonl")

    def _keep(self, entry: dict[str, Any]) -> None:
        if self.folder is not None:
            self._journal.append(entry)
        self._apply(entry)

    def _apply(self, entry: Mapping[str, Any]) -> None:
        if entry["event"] == "round":
            self.rounds.append(dict(entry["row"]))
            self.seconds = entry["seconds"]
            return
        columns = zip(entry["indices"], entry["paths"], entry["names"], strict=True)
        for rank, (index, path, name) in enumerate(columns):
            values = (len(self.labels), rank, index, path, name)
            self.queries.append(dict(zip(QUERY_COLUMNS, values, strict=True)))
        self.labels.append((entry["indices"], entry["labels"]))

    def _write_csv(
        self, name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        # names of files may hold bytes that are no UTF-8
        self.write(name, text.getvalue().encode(errors="surrogateescape"))


def check_free(folder: Path) -> None:
    """Make sure that nothing is overwritten.

    Raises
    ------
    RunExistsError
        If there is something of that name.
    """
    if folder.exists() or folder.is_symlink():
        unfinished = (folder / "config.toml").is_file() and not (folder / "summary.json").exists()
        advice = f", or go on with it: skal resume {folder}" if unfinished else ""
        raise RunExistsError(
            f"{str(folder)!r} exists and is not overwritten; choose another name by --out{advice}"
        )


def free_name(folder: Path) -> Path:
    """Return the path itself if nothing is there, else the first of path-2, path-3, ..."""

    def candidates() -> Iterator[Path]:
        yield folder
        number = 2
        while True:
            yield folder.with_name(f"{folder.name}-{number}")
            number += 1

    return next(path for path in candidates() if not path.exists() and not path.is_symlink())


def environment(device: str) -> dict[str, Any]:
    """Say what a run ran on: versions, device, threads, platform."""
    import torch

    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else platform.processor(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "command": sys.argv,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
