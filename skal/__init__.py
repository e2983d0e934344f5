"""skal: active learning for folders of images, on top of scikit-activeml and skorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import strategies as strategies
    from .comparisons.grid import Comparison as Comparison
    from .comparisons.grid import compare as compare
    from .core.errors import SkalError as SkalError
    from .datasets import DATASETS as DATASETS
    from .datasets import ImageDataset as ImageDataset
    from .datasets import load_dataset as load_dataset
    from .datasets.oracles import ORACLES as ORACLES
    from .datasets.oracles import Oracle as Oracle
    from .models import MODELS as MODELS
    from .models.calibration import calibrate as calibrate
    from .models.classifier import ImageClassifier as ImageClassifier
    from .models.committee import Committee as Committee
    from .models.features import embed as embed
    from .models.persistence import load_classifier as load_classifier
    from .models.persistence import save_classifier as save_classifier
    from .prediction.pipeline import predict as predict
    from .runs.active_learner import ActiveLearner as ActiveLearner
    from .runs.finished import Run as Run
    from .runs.run import resume as resume
    from .runs.run import run as run
    from .runs.trackers import TRACKERS as TRACKERS
    from .runs.trackers import Tracker as Tracker
    from .strategies import STRATEGIES as STRATEGIES

__version__ = "0.1.0"

# imported when asked for: importing skal costs no torch
_LAZY = {
    "ActiveLearner": "runs.active_learner",
    "Committee": "models.committee",
    "Comparison": "comparisons.grid",
    "DATASETS": "datasets",
    "ImageClassifier": "models.classifier",
    "ImageDataset": "datasets",
    "MODELS": "models",
    "ORACLES": "datasets.oracles",
    "Oracle": "datasets.oracles",
    "Run": "runs.finished",
    "STRATEGIES": "strategies",
    "SkalError": "core.errors",
    "TRACKERS": "runs.trackers",
    "Tracker": "runs.trackers",
    "calibrate": "models.calibration",
    "compare": "comparisons.grid",
    "embed": "models.features",
    "load_classifier": "models.persistence",
    "load_dataset": "datasets",
    "predict": "prediction.pipeline",
    "resume": "runs.run",
    "run": "runs.run",
    "save_classifier": "models.persistence",
}

__all__ = ["__version__", "strategies", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    if name == "strategies":
        return importlib.import_module(".strategies", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
