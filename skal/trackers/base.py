"""Hooks for whoever wants to watch a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .config import RunConfig
from .records import SECONDS
from .registry import Registry

TRACKERS: Registry[type[Tracker]] = Registry("tracker")

_log = logging.getLogger("skal")


class Tracker:
    """Does nothing at any hook; subclasses override those that they need."""

    def on_start(self, config: RunConfig, folder: Path | None) -> None:
        """Be told that a run starts or goes on, with all its settings resolved."""

    def on_phase(self, round_number: int, phase: str) -> None:
        """Be told that a part of a round starts: "querying", "training" or "evaluating"."""

    def on_round(self, row: Mapping[str, Any]) -> None:
        """Be told that a round is whole and on the disk, with its row of ``rounds.csv``."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Be told that the run is done, with the content of ``summary.json``."""

    def on_close(self) -> None:
        """Be told that the run is left, whether it is done, failed or was interrupted."""


def make_trackers(trackers: Sequence[Tracker | str]) -> list[Tracker]:
    """Return trackers, those that are named made without arguments.

    Raises
    ------
    UnknownNameError
        If a name is not one of `TRACKERS`.
    """
    return [TRACKERS.get(t)() if isinstance(t, str) else t for t in trackers]


class Watchers(Tracker):
    """Passes every hook on, and says a line a round."""

    def __init__(self, trackers: Sequence[Tracker], config: RunConfig) -> None:
        self.trackers, self.n_rounds = trackers, config.n_rounds

    def on_phase(self, round_number: int, phase: str) -> None:
        for tracker in self.trackers:
            tracker.on_phase(round_number, phase)

    def on_round(self, row: Mapping[str, Any]) -> None:
        _log.info(
            "round %d/%d: %d labels, accuracy %.4f  (fit %.1f s, score %.1f s, query %.1f s)",
            row["round"],
            self.n_rounds,
            row["n_labeled"],
            row["accuracy"],
            *(row[name] for name in SECONDS),
        )
        for tracker in self.trackers:
            tracker.on_round(row)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.on_end(summary)


@contextmanager
def watching(
    trackers: Sequence[Tracker], config: RunConfig, folder: Path | None
) -> Iterator[Watchers]:
    """Start the trackers, yield one that stands for all, and close those that were started."""
    with ExitStack() as stack:
        for tracker in trackers:
            tracker.on_start(config, folder)
            stack.callback(tracker.on_close)
        yield Watchers(trackers, config)
