"""Hooks for whoever wants to watch a run, and those who do: wandb, MLflow, TensorBoard."""

from .base import TRACKERS, Tracker, Watchers, check_trackers, make_trackers, watching
from .logger import RunLogger

__all__ = [
    "TRACKERS",
    "RunLogger",
    "Tracker",
    "Watchers",
    "check_trackers",
    "make_trackers",
    "watching",
]

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
