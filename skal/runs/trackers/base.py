"""The base class of trackers, and their registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from ...core.registry import Registry
from ..config import RunConfig

Values: TypeAlias = Mapping[str, float]

TRACKERS: Registry[type[Tracker]] = Registry("tracker")
"""Subclasses of `Tracker`, or functions that return one, called with their own arguments only."""

# by import path, so that their packages are imported only when used
TRACKERS.add(
    "wandb",
    "skal.runs.trackers.wandb:WandbTracker",
    summary="logs to Weights & Biases; extra wandb",
)
TRACKERS.add(
    "mlflow",
    "skal.runs.trackers.mlflow:MlflowTracker",
    summary="logs to MLflow, by default to mlflow.db; extra mlflow",
)
TRACKERS.add(
    "tensorboard",
    "skal.runs.trackers.tensorboard:TensorBoardTracker",
    summary="writes event files to tensorboard/ in the run folder; extra tensorboard",
)


class Tracker:
    """Base class of trackers: all hooks do nothing; subclasses override those that they need.

    Hooks are called in the order of their definition: `on_phase`, `skorch_callbacks` and `on_round`
    in each round, `on_close` for every tracker whose `on_start` returned. Resuming a run starts its
    trackers again.

    Examples
    --------
    >>> import skal
    >>> class Printer(skal.Tracker):
    ...     def on_round(self, row):
    ...         print(row["round"], row["n_labeled"])
    >>> run = skal.run("digits", "random", n_rounds=1, steps=5, trackers=[Printer()])
    0 20
    1 40
    """

    may_fail: ClassVar[bool] = False
    """Whether the run continues without the tracker, with a warning, when a hook after `on_start`
    raises. By default the exception ends the run."""

    def check(self, folder: Path | None) -> None:
        """Raise if a run in `folder` cannot be tracked; called before anything is written."""

    def on_start(self, config: RunConfig, folder: Path | None) -> None:
        """Handle the start of a new or resumed run, with its resolved settings."""

    def on_phase(self, round_number: int, phase: str) -> None:
        """Handle the start of a phase of a round: "querying", "training" or "evaluating"."""

    def skorch_callbacks(self, round_number: int) -> Sequence[Any]:
        """Return skorch callbacks for the training of a round's network."""
        return ()

    def on_round(self, row: Mapping[str, Any]) -> None:
        """Handle the end of a round, which is on disk, with its row of ``rounds.csv``."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Handle the end of a finished run, with the content of ``summary.json``."""

    def on_close(self) -> None:
        """Release resources after the run finished, failed or was interrupted."""
