"""The contract of trackers: the hooks of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from ...core.registry import Registry
from ..config import RunConfig

Values: TypeAlias = Mapping[str, float]

TRACKERS: Registry[type[Tracker]] = Registry("tracker")
"""Classes of `Tracker`, or functions that return one, called with their own arguments only."""

# by import path: none of their packages is imported before it is used
TRACKERS.add(
    "wandb",
    "skal.runs.trackers.wandb:WandbTracker",
    summary="a run of Weights & Biases; extra wandb",
)
TRACKERS.add(
    "mlflow",
    "skal.runs.trackers.mlflow:MlflowTracker",
    summary="a run of MLflow, by default in mlflow.db; extra mlflow",
)
TRACKERS.add(
    "tensorboard",
    "skal.runs.trackers.tensorboard:TensorBoardTracker",
    summary="event files in the run folder's tensorboard/; extra tensorboard",
)


class Tracker:
    """Does nothing at any hook; subclasses override those that they need.

    The hooks are called in the order in which they stand here: `on_phase`, `skorch_callbacks` and
    `on_round` in each round, `on_close` of every tracker whose `on_start` returned. A run that is
    resumed starts its trackers again.

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
    raises. By default what it raises ends the run."""

    def check(self, folder: Path | None) -> None:
        """Raise if a run kept in `folder` could not be watched; nothing is written yet."""

    def on_start(self, config: RunConfig, folder: Path | None) -> None:
        """Be told that a run starts or is resumed, with all its settings resolved."""

    def on_phase(self, round_number: int, phase: str) -> None:
        """Be told that a part of a round starts: "querying", "training" or "evaluating"."""

    def skorch_callbacks(self, round_number: int) -> Sequence[Any]:
        """Return skorch callbacks that hear the training of a round's network, and no other."""
        return ()

    def on_round(self, row: Mapping[str, Any]) -> None:
        """Be told that a round is whole and on the disk, with its row of ``rounds.csv``."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Be told that the run is done, with the content of ``summary.json``."""

    def on_close(self) -> None:
        """Be told that the run is left, whether it is done, failed or was interrupted."""
