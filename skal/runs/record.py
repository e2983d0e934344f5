"""The run folder: written so that a crash loses nothing, and read to resume a run."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.durable import encoded, fsync_folder, remove_leftovers, sha256, write_atomic
from ..core.errors import RunExistsError, RunFolderError, UnknownNameError, UsageError
from ..core.tables import GrowingTable, csv_of
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
"""Log line of a round."""
QUERY_COLUMNS = ("round", "rank", "index", "path", "label")
VALID_COLUMNS = ("index", "path", "label")
SKIPPED_COLUMNS = ("path", "reason")
CONFIG = "config.toml"
GRID_FILE = "compare.toml"
"""Settings of a comparison's grid; the file marks a comparison's folder."""
QUERIES, ROUNDS = "queries.csv", "rounds.csv"
JOURNAL = "journal.jsonl"
SUMMARY = "summary.json"
ENVIRONMENT = "environment.json"
EVALUATION = "evaluation.json"
LONGEST_END = 2**16
"""Upper limit for the size of a journal's "end" entry, in bytes."""
MAY_CHANGE = frozenset(("dataset", "data_dir", "device", "weights", "n_rounds"))
"""Settings that may be edited before resuming: data can move, rounds can be added."""
_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Answers:
    """Labels received: pool indices, class ids, paths (empty for arrays) and class names."""

    indices: list[int]
    labels: list[int]
    paths: list[str]
    names: list[str]

    @classmethod
    def of(cls, data: ImageDataset, picks: NDArray[np.int64], labels: NDArray[np.int64]) -> Answers:
        """Return the answers for images of a dataset, from class ids."""
        paths = [data.paths[index] for index in picks] if data.paths else [""] * len(picks)
        names = [data.classes[label] for label in labels]
        return cls([*map(int, picks)], [*map(int, labels)], paths, names)


def class_ids(labels: ArrayLike, classes: Sequence[str]) -> NDArray[Any]:
    """Return class ids from ids or names; raise an `UnknownNameError` for unknown names."""
    given = np.atleast_1d(labels)
    if given.dtype.kind == "O":
        given = np.array(given.tolist())  # pandas uses this dtype for names and numbers alike
    if given.dtype.kind != "U":
        return given
    ids = {name: number for number, name in enumerate(classes)}
    for name in given:
        if name not in ids:
            raise UnknownNameError("class", str(name), ids)
    return np.array([ids[name] for name in given], dtype=np.int64)


@dataclass
class Record:
    """The state of a run; without a folder it is kept in memory only. `queries` has one row per
    image in the order of labelling, `rounds` and `labels` (indices, class ids) one per round.
    `seconds` is the total time up to the last complete round, `query_seconds` that of the newest
    choice. `details` has what replaying each choice needs, `predicted` the last predictions of the
    stop set, `valid` the labelled held-out images, `digests` the SHA-256 of files that are read
    again. `facts` must still hold on resuming, `environment` is that of the start, and `summary` is
    None until the run has finished.

    The journal is the source of truth: the tables and JSON files next to it are derived from it,
    and rewritten where they differ.
    """

    folder: Path | None = None
    queries: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    labels: list[tuple[list[int], list[int]]] = field(default_factory=list)
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    query_seconds: dict[str, float] = field(default_factory=dict)
    details: list[dict[str, Any]] = field(default_factory=list)
    predicted: list[int] | None = None
    valid: dict[str, list[Any]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] | None = None

    @classmethod
    def create(
        cls,
        folder: Path,
        config: RunConfig,
        environment: Mapping[str, Any],
        facts: Mapping[str, Any] | None = None,
    ) -> Record:
        """Create the folder of a new run; `facts` must still hold when it is resumed. Raise a
        `RunExistsError` if the name is taken, an `OSError` if the folder cannot be created.
        """
        check_free(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        record = cls(folder)
        try:
            start = {"event": "start", "facts": dict(facts or {}), "environment": dict(environment)}
            record._keep(start)
            write_atomic(folder / ENVIRONMENT, _json(environment))
            write_atomic(folder / CONFIG, config.to_toml())
            fsync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return record

    @classmethod
    def open(cls, folder: Path) -> tuple[Record, RunConfig]:
        """Open a run folder, dropping a torn last entry; raise a `RunFolderError` if damaged."""
        record, config = cls.read(folder, cut=True)
        remove_leftovers(folder)
        if record._settings() is None:
            record.write(CONFIG, config.to_toml())
        return record, config

    @classmethod
    def read(cls, folder: Path, cut: bool = False) -> tuple[Record, RunConfig]:
        """Return the same as `open`, but write nothing; for `cut` see `Journal.read`."""
        check_run_folder(folder)
        record = cls(folder)
        for entry in record._journal.read(cut):
            record._apply(entry)
        if not record.facts:
            raise RunFolderError(f"{folder / JOURNAL}, line 1: damaged; start a new run")
        return record, record._read_config()

    def _read_config(self) -> RunConfig:
        """Return the settings in ``config.toml``, or those of the start if the file is damaged. In
        a finished run edits count only for `MAY_CHANGE`, which do not affect its results.
        """
        assert self.folder is not None
        began: dict[str, Any] = self.facts.get("config", {})
        config = self._settings()
        if config is None:
            _log.warning("%s is damaged: using the run's journal instead", self.folder / CONFIG)
            return RunConfig(**began)
        now = config.as_dict()
        changed = {name: value for name, value in began.items() if now.get(name) != value}
        if not (self.finished and changed):
            return config
        for name, value in changed.items():
            change = (self.folder / CONFIG, name, now.get(name), value)
            if name in MAY_CHANGE:
                _log.info("%s: %s is %r, and was %r in the run", *change)
            else:
                _log.warning("%s: %s is %r, but the run used %r, which is kept", *change)
        return config.replace(**{n: v for n, v in changed.items() if n not in MAY_CHANGE})

    def _settings(self) -> RunConfig | None:
        """Read ``config.toml``; return None if it is damaged and the journal has a copy."""
        assert self.folder is not None
        try:
            return RunConfig(**read_config(self.folder / CONFIG))
        except UsageError as error:
            if "config" in self.facts:
                return None
            raise RunFolderError(f"{str(self.folder)!r}: {error}") from error

    @property
    def finished(self) -> bool:
        """Whether the run has finished."""
        return self.summary is not None

    def add_labels(
        self, answers: Answers, seconds: Mapping[str, float], details: Mapping[str, Any]
    ) -> None:
        """Record the labels that the next round is trained on, as soon as they arrive."""
        entry = {"event": "labels", **asdict(answers), "seconds": dict(seconds)}
        if details:
            entry["details"] = dict(details)
        self._keep(entry)
        self._write_tables()

    def add_valid(self, answers: Answers) -> None:
        """Record the labels of the held-out images."""
        self._keep({"event": "valid", **asdict(answers)})
        self.write("valid.csv", self._valid_text())

    def write_skipped(self, skipped: Sequence[tuple[str, str]]) -> None:
        """Write ``skipped.csv`` with the unreadable files and the reasons, if there are any."""
        if skipped:
            rows = [dict(zip(SKIPPED_COLUMNS, row, strict=True)) for row in skipped]
            self.write("skipped.csv", csv_of(SKIPPED_COLUMNS, rows))

    def add_round(
        self, row: Mapping[str, Any], seconds: float, predicted: ArrayLike | None = None
    ) -> None:
        """Record a complete round: its metrics, and the total seconds of the run so far."""
        entry = {"event": "round", "row": dict(row), "seconds": seconds}
        if predicted is not None:
            entry["predicted"] = np.asarray(predicted).tolist()
        self._keep(entry)
        self._write_tables()

    def _write_tables(self) -> None:
        """Append new journal entries to the tables. If that fails nothing is lost: the next call,
        or `repair`, writes them.
        """
        if self.folder is None:
            return
        for table, rows in zip(self._tables, (self.queries, self.rounds), strict=True):
            try:
                if rows:
                    table.take(rows)
            except OSError as error:
                _log.warning("%s cannot be written yet, skal will try again: %s", table.path, error)

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file of the folder atomically, if there is a folder."""
        if self.folder is not None:
            write_atomic(self.folder / name, content)

    def keep_config(self, config: RunConfig) -> None:
        """Record settings that were edited before resuming, and log the changes."""
        before, now = self.facts.get("config", {}), config.as_dict()
        for name in sorted(now):
            if before.get(name) != now[name]:
                _log.info("%s was %r, and is %r in %s", name, before.get(name), now[name], CONFIG)
        if before != now:
            self._keep({"event": "config", "config": now})

    def write_kept(self, name: str, content: bytes) -> None:
        """Write a file that is read again later, and record its SHA-256 in the journal."""
        if self.folder is not None:
            write_atomic(self.folder / name, content)
            self._keep({"event": "file", "name": name, "sha256": sha256(content)})

    def is_whole(self, name: str) -> bool:
        """Return whether a file of `write_kept` exists and matches its SHA-256."""
        content = _content(self.folder / name) if self.folder and name in self.digests else None
        return content is not None and sha256(content) == self.digests[name]

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``, and mark the run as finished."""
        self._write_tables()
        self._keep({"event": "end", "summary": dict(summary)})
        self.write(SUMMARY, _json(summary))

    def repair(self) -> None:
        """Rewrite derived files that differ from the journal, after a crash or damage."""
        assert self.folder is not None
        for name, text in self.altered().items():
            self.write(name, text)

    def altered(self) -> dict[str, str]:
        """Return the derived files that differ from the journal, with their right content; warn
        about those that were edited or damaged.
        """
        assert self.folder is not None
        altered = {}
        for name, made in self._texts().items():
            text, found = encoded(made), _content(self.folder / name)
            if found == text:
                continue
            altered[name] = made
            if found is not None and not text.startswith(found):  # a shorter one is from a crash
                _log.warning("%s differs from the run's journal, which counts", self.folder / name)
        return altered

    def _texts(self) -> dict[str, str]:
        """Return the files that are derived from the journal, by name."""
        texts = {
            QUERIES: csv_of(QUERY_COLUMNS, self.queries),
            ROUNDS: csv_of(ROUND_COLUMNS, self.rounds),
        }
        if self.valid:
            texts["valid.csv"] = self._valid_text()
        if self.environment:
            texts[ENVIRONMENT] = _json(self.environment)
        if self.summary is not None:
            texts[SUMMARY] = _json(self.summary)
        return texts

    def _valid_text(self) -> str:
        columns = (self.valid[name] for name in ("indices", "paths", "names"))
        rows = [dict(zip(VALID_COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]
        return csv_of(VALID_COLUMNS, rows)

    @cached_property
    def _tables(self) -> Sequence[GrowingTable]:
        assert self.folder is not None
        columns = {QUERIES: QUERY_COLUMNS, ROUNDS: ROUND_COLUMNS}
        return [GrowingTable(self.folder / name, columns[name]) for name in columns]

    @cached_property
    def _journal(self) -> Journal:
        assert self.folder is not None
        return Journal(self.folder / JOURNAL)

    def _keep(self, entry: dict[str, Any]) -> None:
        if self.folder is not None:
            self._journal.append(entry)
        self._apply(entry)

    def _apply(self, entry: Mapping[str, Any]) -> None:
        match entry["event"]:
            case "start":
                self.facts = dict(entry["facts"])
                self.environment = dict(entry.get("environment", {}))
            case "config":
                self.facts["config"] = entry["config"]
            case "file":
                self.digests[entry["name"]] = entry["sha256"]
            case "valid":
                self.valid = {name: values for name, values in entry.items() if name != "event"}
            case "labels":
                self.query_seconds = dict(entry["seconds"])
                columns = zip(entry["indices"], entry["paths"], entry["names"], strict=True)
                for rank, row in enumerate(columns):
                    values = (len(self.labels), rank, *row)
                    self.queries.append(dict(zip(QUERY_COLUMNS, values, strict=True)))
                self.labels.append((entry["indices"], entry["labels"]))
                self.details.append(dict(entry.get("details", {})))
            case "round":
                self.rounds.append(dict(entry["row"]))
                self.seconds, self.predicted = entry["seconds"], entry.get("predicted")
            case "end":
                self.summary = entry["summary"]
        if entry["event"] in ("valid", "labels", "round"):  # a finished run was continued
            self.summary = None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def is_begun(folder: Path) -> bool:
    """Return whether a folder holds a run, by its journal's first line."""
    try:
        with (folder / JOURNAL).open("rb") as file:
            return file.readline().endswith(b"\n")
    except OSError:
        return False


def is_finished(folder: Path) -> bool:
    """Return whether a folder holds a finished run, by its journal's last line."""
    last = Journal(folder / JOURNAL).last(LONGEST_END)
    return last is not None and last["event"] == "end"


class _LogFile(logging.FileHandler):
    """Raises errors, such as a full disk, where logging's own handler prints and continues."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if isinstance(error, OSError):
            error.filename = self.baseFilename
        raise


@contextmanager
def log_file(folder: Path | None) -> Iterator[None]:
    """Write messages of the logger `skal` to the folder's ``log.txt``, if there is a folder."""
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
    """Raise a `RunFolderError` if a folder is missing or is not a run folder."""
    if not folder.is_dir():
        raise RunFolderError(f"there is no run folder {str(folder)!r}")
    if is_begun(folder) or ((folder / JOURNAL).is_file() and (folder / CONFIG).is_file()):
        return
    if not (folder / CONFIG).is_file():
        message = f"{str(folder)!r} is not a run folder (it has no {CONFIG})"
        if (folder / GRID_FILE).is_file():
            message = f"{str(folder)!r} is a comparison; repeat its skal compare to resume it"
        raise RunFolderError(message)
    raise RunFolderError(f"the run's journal {str(folder / JOURNAL)!r} is missing")


def check_free(folder: Path) -> None:
    """Raise a `RunExistsError` if the path exists, a `RunFolderError` if its parent is a file or
    not writable.
    """
    above = next((place for place in folder.parents if place.exists()), Path())
    if not above.is_dir():
        raise RunFolderError(f"cannot create {str(folder)!r}: {str(above)!r} is a file")
    if folder.exists() or folder.is_symlink():
        unfinished = is_begun(folder) and not is_finished(folder)
        advice = f", or resume it: skal resume {quote(str(folder))}" if unfinished else ""
        raise RunExistsError(
            f"{str(folder)!r} already exists; choose another name with --out{advice}"
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise RunFolderError(f"cannot create {str(folder)!r}: {str(above)!r} is not writable")


def free_name(folder: Path) -> Path:
    """Return the path itself if it is free, else the first free one of path-2, path-3, ..."""
    others = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(path for path in chain([folder], others) if not os.path.lexists(path))


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
