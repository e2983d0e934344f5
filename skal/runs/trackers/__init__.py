"""Hooks for whoever wants to watch a run, and those who do: wandb, MLflow, TensorBoard."""

from .base import TRACKERS, Tracker
from .logger import RunLogger
from .watching import Watchers, check_trackers, make_trackers, watching

__all__ = [
    "TRACKERS",
    "RunLogger",
    "Tracker",
    "Watchers",
    "check_trackers",
    "make_trackers",
    "watching",
]
