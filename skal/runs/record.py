"""The run folder: what a run leaves, safely, and how it is resumed."""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.durable import fsync_folder, remove_leftovers, write_atomic
from ..core.errors import RunExistsError, RunFolderError, UnknownNameError, UsageError
from ..datasets import ImageDataset
from .config import RunConfig, read_config
from .journal import Journal

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece")
SECONDS = ("fit_seconds", "score_seconds", "query_seconds")
ROUND_COLUMNS = ("round", "n_labeled", *METRICS, *SECONDS)
ROUND_LINE = (
    "round %(round)d/%(of)d: %(n_labeled)d labels, accuracy %(accuracy).4f  "
    "(fit %(fit_seconds).1f s, score %(score_seconds).1f s, query %(query_seconds).1f s)"
)
"""What is said of a round."""
_FIXED = frozenset(ROUND_COLUMNS)
QUERY_COLUMNS = ("round", "rank", "index", "path", "label")
VALID_COLUMNS = ("index", "path", "label")
SKIPPED_COLUMNS = ("path", "reason")
JOURNAL = "journal.jsonl"
SUMMARY = "summary.json"
ENVIRONMENT = "environment.json"
EVALUATION = "evaluation.json"
_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Answers:
    """Labels that were given: class ids by pool index, paths (none for arrays), class names."""

    indices: list[int]
    labels: list[int]
    paths: list[str]
    names: list[str]

    @classmethod
    def of(cls, data: ImageDataset, picks: NDArray[np.int64], labels: NDArray[np.int64]) -> Answers:
        """Return the labels of images of a dataset."""
        paths = [data.paths[index] for index in picks] if data.paths else [""] * len(picks)
        names = [data.classes[label] for label in labels]
        return cls([*map(int, picks)], [*map(int, labels)], paths, names)


def class_ids(labels: ArrayLike, classes: Sequence[str]) -> NDArray[Any]:
    """Return ids or names as ids; an `UnknownNameError` is raised for other names."""
    given = np.atleast_1d(labels)
    if given.dtype.kind == "O":
        given = np.array(given.tolist())  # as pandas hands over both names and numbers
    if given.dtype.kind != "U":
        return given
    ids = {name: number for number, name in enumerate(classes)}
    for name in given:
        if name not in ids:
            raise UnknownNameError("class", str(name), ids)
    return np.array([ids[name] for name in given], dtype=np.int64)


@dataclass
class Record:
    """What happened in a run; without a folder it is kept in memory only. `queries` has one row an
    image in the order of labelling, `rounds` and `labels` (indices, class ids) one a round,
    `seconds` those of all parts up to the last whole round, `facts` what must still hold on
    resuming, `query_seconds` and `details` what the newest and all choices took and need,
    `predicted` the last round's predictions for stopping, and `valid` the labelled held-out images.
    """

    folder: Path | None = None
    queries: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    labels: list[tuple[list[int], list[int]]] = field(default_factory=list)
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    query_seconds: dict[str, float] = field(default_factory=dict)
    details: list[dict[str, Any]] = field(default_factory=list)
    predicted: list[int] | None = None
    valid: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        folder: Path | None,
        config: RunConfig,
        environment: Mapping[str, Any],
        facts: Mapping[str, Any] | None = None,
    ) -> Record:
        """Make the folder of a new run; `facts` are what a resumed run must agree in. Raises a
        `RunExistsError` if there is something of that name, an `OSError` if it cannot be made.
        """
        if folder is None:
            return cls()
        check_free(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        record = cls(folder)
        try:
            record._keep({"event": "start", "facts": dict(facts or {})})
            write_atomic(folder / ENVIRONMENT, _json(environment))
            # last: it makes a run folder of it
            write_atomic(folder / "config.toml", config.to_toml())
            fsync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return record

    @classmethod
    def open(cls, folder: Path) -> tuple[Record, RunConfig]:
        """Open a run folder, up to what was written whole; `RunFolderError` if it is damaged."""
        config = cls.read_config(folder)
        record = cls(folder)
        for entry in record._journal.read():
            record._apply(entry)
        remove_leftovers(folder)
        return record, config

    @staticmethod
    def read_config(folder: Path) -> RunConfig:
        """Return the settings of a run folder; `RunFolderError` if it is damaged."""
        check_run_folder(folder)
        try:
            return RunConfig(**read_config(folder / "config.toml"))
        except UsageError as error:
            raise RunFolderError(f"{str(folder)!r}: {error}") from error

    @property
    def finished(self) -> bool:
        """Whether the run is done."""
        return self.folder is not None and (self.folder / SUMMARY).is_file()

    def add_labels(
        self, answers: Answers, seconds: Mapping[str, float], details: Mapping[str, Any]
    ) -> None:
        """Keep the labels that the next round is trained on, as soon as they are given."""
        entry = {"event": "labels", **asdict(answers), "seconds": dict(seconds)}
        if details:
            entry["details"] = dict(details)
        self._keep(entry)
        self._write_csv("queries.csv", QUERY_COLUMNS, self.queries)

    def add_valid(self, answers: Answers) -> None:
        """Keep the labels of the images that are held out, before anything is trained."""
        self._keep({"event": "valid", **asdict(answers)})
        self._write_valid()

    def write_skipped(self, skipped: Sequence[tuple[str, str]]) -> None:
        """Write which files could not be read, and why; no file if there are none."""
        if skipped:
            rows = [dict(zip(SKIPPED_COLUMNS, row, strict=True)) for row in skipped]
            self._write_csv("skipped.csv", SKIPPED_COLUMNS, rows)

    def add_round(
        self, row: Mapping[str, Any], seconds: float, predicted: ArrayLike | None = None
    ) -> None:
        """Keep a whole round: its metrics, and the seconds that the run took until now."""
        entry = {"event": "round", "row": dict(row), "seconds": seconds}
        if predicted is not None:
            entry["predicted"] = np.asarray(predicted).tolist()
        self._keep(entry)
        self._write_rounds()

    def write(self, name: str, content: str | bytes) -> None:
        """Write another file of the folder, as a whole."""
        if self.folder is not None:
            write_atomic(self.folder / name, content)

    def remove(self, name: str) -> None:
        """Remove a file of the folder, if it is there."""
        if self.folder is not None:
            (self.folder / name).unlink(missing_ok=True)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``, which says that the run is done."""
        self.write(SUMMARY, _json(summary))

    def read_summary(self) -> dict[str, Any]:
        """Return the content of ``summary.json``; `RunFolderError` if it is damaged."""
        assert self.folder is not None
        try:
            summary: dict[str, Any] = json.loads((self.folder / SUMMARY).read_bytes())
        except ValueError as error:
            raise RunFolderError(f"{self.folder / 'summary.json'}: {error}") from error
        return summary

    def rewrite_tables(self) -> None:
        """Write the CSV files anew, in case a crash came between the journal and them."""
        if self.valid:
            self._write_valid()
        self._write_csv("queries.csv", QUERY_COLUMNS, self.queries)
        self._write_rounds()

    def _write_valid(self) -> None:
        columns = (self.valid[name] for name in ("indices", "paths", "names"))
        rows = [dict(zip(VALID_COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]
        self._write_csv("valid.csv", VALID_COLUMNS, rows)

    def _write_rounds(self) -> None:
        more = [name for name in (self.rounds[0] if self.rounds else ()) if name not in _FIXED]
        self._write_csv("rounds.csv", (*ROUND_COLUMNS, *more), self.rounds)

    @cached_property
    def _journal(self) -> Journal:
        assert self.folder is not None
        return Journal(self.folder / JOURNAL)

    def _keep(self, entry: dict[str, Any]) -> None:
        if self.folder is not None:
            self._journal.append(entry)
        self._apply(entry)

    def _apply(self, entry: Mapping[str, Any]) -> None:
        if entry["event"] == "start":
            self.facts = dict(entry["facts"])
            return
        if entry["event"] == "round":
            self.rounds.append(dict(entry["row"]))
            self.seconds = entry["seconds"]
            self.predicted = entry.get("predicted")
            return
        if entry["event"] == "valid":
            self.valid = {name: values for name, values in entry.items() if name != "event"}
            return
        self.query_seconds = dict(entry["seconds"])
        columns = zip(entry["indices"], entry["paths"], entry["names"], strict=True)
        for rank, (index, path, name) in enumerate(columns):
            values = (len(self.labels), rank, index, path, name)
            self.queries.append(dict(zip(QUERY_COLUMNS, values, strict=True)))
        self.labels.append((entry["indices"], entry["labels"]))
        self.details.append(dict(entry.get("details", {})))

    def _write_csv(
        self, name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write(name, text.getvalue())


class _LogFile(logging.FileHandler):
    """Raises, where logging's own would print a traceback and go on: say, of a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if isinstance(error, OSError):
            error.filename = self.baseFilename
        raise


@contextmanager
def log_file(folder: Path | None) -> Iterator[None]:
    """Keep in the folder's ``log.txt``, if there is a folder, what the logger `skal` says."""
    if folder is None:
        yield
        return
    handler = _LogFile(folder / "log.txt", encoding="utf-8", errors="surrogateescape")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level = _log.level
    _log.addHandler(handler)
    _log.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        _log.setLevel(level)
        _log.removeHandler(handler)
        handler.close()


def check_run_folder(folder: Path) -> None:
    """Raise a `RunFolderError` if a folder is not that of a run."""
    if not folder.is_dir():
        raise RunFolderError(f"there is no run folder {str(folder)!r}")
    if not (folder / "config.toml").is_file():
        raise RunFolderError(f"{str(folder)!r} is not a run folder (it has no config.toml)")
    if not (folder / JOURNAL).is_file():
        raise RunFolderError(f"the run's journal {str(folder / JOURNAL)!r} is gone")


def check_free(folder: Path) -> None:
    """Raise a `RunExistsError` if there is something of that name."""
    if folder.exists() or folder.is_symlink():
        unfinished = (folder / "config.toml").is_file() and not (folder / SUMMARY).exists()
        advice = f", or resume it: skal resume {quote(str(folder))}" if unfinished else ""
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


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
