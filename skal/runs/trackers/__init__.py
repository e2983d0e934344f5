"""Hooks for whoever wants to watch a run, and those who do: wandb, MLflow, TensorBoard.

`base` states the contract; `callbacks` hear a training; `logger` is what those that log a run
elsewhere share; `watching` tells them all.
"""

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
