"""`RunLogger`: base class of trackers that log a run to another tool."""

from __future__ import annotations

import csv
import importlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...core.durable import write_atomic
from ...core.errors import MissingExtraError, SkalError
from ..config import SETTINGS, RunConfig
from ..record import JOURNAL, ROUND_COLUMNS
from .base import Tracker, Values

TRACKING = "tracking.json"
DEFAULT_GROUP = "skal"
_CELLS = "cells"
_NOT_SENT = (JOURNAL, TRACKING, "model.json", "model.safetensors")


@dataclass
class Progress:
    """How far a run has been logged, as kept in ``tracking.json``: the tool's run id, its local
    folder (never an address, which may hold a password), rounds sent, and optimiser steps so far.
    """

    run_id: str | None = None
    place: str | None = None
    rounds: int = 0
    steps: int = 0


class RunLogger(Tracker, ABC):
    """Logs a run to another tool; a resumed run continues the same log. It logs the settings at the
    start, rows of ``rounds.csv`` by number of labels, losses by optimiser steps over all trainings
    (`batch_loss` is a mean of ten), and at the end the summary and all files but the network.
    Errors at the start become a `SkalError`; after later ones the run continues without it.
    """

    may_fail = True
    name: ClassVar[str]
    """Registered name; also the extra to install."""
    package: ClassVar[str]
    """Package that must be importable."""

    def __init__(self) -> None:
        self.progress = Progress()
        self._folder: Path | None = None
        self._done = False
        with self._starting():
            module = importlib.import_module(self.package)
            if module.__file__ is None:  # a folder of the same name, such as the one wandb creates
                raise ImportError(name=self.package)

    def __str__(self) -> str:
        return f"tracker {self.name}"

    @abstractmethod
    def open(self, config: RunConfig, folder: Path | None) -> None:
        """Start a run in the tool and set ``progress.run_id``, or resume that run."""

    @abstractmethod
    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Log settings: strings, numbers, booleans, lists."""

    @abstractmethod
    def log_round(self, values: Values, n_labeled: int) -> None:
        """Log the metrics of a round at its number of labels."""

    @abstractmethod
    def log_training(self, values: Values, step: int) -> None:
        """Log losses of a training at its number of optimiser steps."""

    @abstractmethod
    def log_summary(self, values: Values, n_labeled: int, files: Sequence[Path]) -> None:
        """Log the values of ``summary.json`` that are not logged yet, and copies of files."""

    @abstractmethod
    def close(self, done: bool) -> None:
        """Mark the run as finished or stopped."""

    def connect(self, folder: Path | None) -> None:
        """Raise if the service, or the run to resume, cannot be reached."""

    def check(self, folder: Path | None) -> None:
        with self._starting():
            self._read_progress(folder)
            self.connect(folder)

    def on_start(self, config: RunConfig, folder: Path | None) -> None:
        with self._starting():
            before = self._read_progress(folder)
            self.open(config, folder)
            try:
                if not before:
                    self.log_settings(flat(config.as_dict()))
                self._write_progress()
                for row in _rows(folder)[self.progress.rounds :]:  # not logged before
                    self.on_round(row)
            except BaseException:
                self.close(done=False)
                raise

    def skorch_callbacks(self, round_number: int) -> Sequence[Any]:
        from .callbacks import StepLogger

        return (StepLogger(self),)

    def on_round(self, row: Mapping[str, Any]) -> None:
        n_labeled = int(row["n_labeled"])
        self.log_round({k: v for k, v in _numbers(row).items() if k != "n_labeled"}, n_labeled)
        self.progress.rounds = int(row["round"]) + 1
        self._write_progress()

    def on_end(self, summary: Mapping[str, Any]) -> None:
        folder = self._folder
        files = sorted(folder.iterdir()) if folder else []
        known = {*SETTINGS, *ROUND_COLUMNS}
        self.log_summary(
            {name: value for name, value in _numbers(summary).items() if name not in known},
            int(summary["n_labeled"]),
            [f for f in files if f.is_file() and f.name[0] != "." and f.name not in _NOT_SENT],
        )
        self._done = True

    def on_close(self) -> None:
        self.close(self._done)

    @contextmanager
    def _starting(self) -> Iterator[None]:
        try:
            yield
        except SkalError:
            raise
        except ImportError as error:
            package = error.name or self.package
            raise MissingExtraError(package, self.name, str(self)) from error
        except Exception as error:
            reason = str(error).strip() or type(error).__name__
            advice = ""
            if self.progress.run_id is not None:
                advice = f" (the run was logged before; see {self._folder}/{TRACKING})"
            raise SkalError(f"{self} cannot start: {reason}{advice}") from error

    def _read_progress(self, folder: Path | None) -> bool:
        """Read ``tracking.json``; return whether the run was logged before."""
        self._folder = folder
        kept = read_tracking(folder).get(self.name)
        self.progress = Progress(**kept or {})
        return kept is not None

    def _write_progress(self) -> None:
        if self._folder is not None:
            content = {**read_tracking(self._folder), self.name: asdict(self.progress)}
            write_atomic(self._folder / TRACKING, json.dumps(content, indent=2) + "\n")


def read_tracking(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Return the content of a run's ``tracking.json``: how far each tracker has logged it."""
    try:
        content: dict[str, Any] = json.loads((folder / TRACKING).read_bytes()) if folder else {}
    except FileNotFoundError:
        return {}
    return content


def run_name(config: RunConfig, folder: Path | None) -> str:
    """Return a run's name: its folder's, or without one a name made from the settings."""
    if folder is None:
        return f"{config.dataset}-{config.strategy}-{config.model}-s{config.seed}"
    return folder.resolve().name


def group_of(folder: Path | None) -> str:
    """Return the name of the comparison's folder that a run is in, else `DEFAULT_GROUP`."""
    parent = folder.resolve().parent if folder else Path()
    return parent.parent.name if parent.name == _CELLS else DEFAULT_GROUP


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to names such as ``table.name``."""
    result = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{name}."))
        else:
            result[prefix + name] = value
    return result


def _rows(folder: Path | None) -> list[dict[str, str]]:
    """Return the rows of a run's ``rounds.csv``, if it exists."""
    try:
        text = (folder / "rounds.csv").read_text() if folder else ""
    except FileNotFoundError:
        text = ""
    return list(csv.DictReader(text.splitlines()))


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers among the values, including those given as text."""
    numbers = {}
    for name, value in values.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            numbers[name] = number
    return numbers
