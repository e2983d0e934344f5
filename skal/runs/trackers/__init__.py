"""Trackers: hooks to watch a run, and those for wandb, MLflow and TensorBoard."""

from .base import TRACKERS as TRACKERS
from .base import Tracker as Tracker
from .logger import RunLogger as RunLogger
from .watching import Watchers as Watchers
from .watching import check_trackers as check_trackers
from .watching import make_trackers as make_trackers
from .watching import watching as watching
