"""Hooks for whoever wants to watch a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import RunConfig
from .registry import Registry

TRACKERS: Registry[type[Tracker]] = Registry("tracker")


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
