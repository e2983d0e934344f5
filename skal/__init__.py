"""skal: active learning for folders of images, on top of scikit-activeml and skorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import strategies as strategies
    from .active_learner import ActiveLearner as ActiveLearner
    from .calibration import calibrate as calibrate
    from .committee import Committee as Committee
    from .comparison import Comparison as Comparison
    from .comparison import compare as compare
    from .datasets import DATASETS as DATASETS
    from .datasets import ImageDataset as ImageDataset
    from .datasets import load_dataset as load_dataset
    from .embedding import embed as embed
    from .errors import SkalError as SkalError
    from .experiment import Run as Run
    from .experiment import resume as resume
    from .experiment import run as run
    from .learner import ImageClassifier as ImageClassifier
    from .models import MODELS as MODELS
    from .oracles import ORACLES as ORACLES
    from .oracles import Oracle as Oracle
    from .saving import load_classifier as load_classifier
    from .saving import save_classifier as save_classifier
    from .sharding import score as score
    from .strategies import STRATEGIES as STRATEGIES
    from .trackers import TRACKERS as TRACKERS
    from .trackers import Tracker as Tracker

__version__ = "0.1.0"

# imported when asked for: importing skal costs no torch
_LAZY = {
    "ActiveLearner": "active_learner",
    "Committee": "committee",
    "Comparison": "comparison",
    "DATASETS": "datasets",
    "ImageClassifier": "learner",
    "ImageDataset": "datasets",
    "MODELS": "models",
    "ORACLES": "oracles",
    "Oracle": "oracles",
    "Run": "experiment",
    "STRATEGIES": "strategies",
    "SkalError": "errors",
    "TRACKERS": "trackers",
    "Tracker": "trackers",
    "calibrate": "calibration",
    "compare": "comparison",
    "embed": "embedding",
    "load_classifier": "saving",
    "load_dataset": "datasets",
    "resume": "experiment",
    "run": "experiment",
    "save_classifier": "saving",
    "score": "sharding",
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
