"""skal: active learning for folders of images, built on scikit-activeml and skorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core.lazy import attach

if TYPE_CHECKING:
    from . import strategies as strategies
    from .comparisons.compare import Comparison as Comparison
    from .comparisons.compare import compare as compare
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

__version__ = "0.2.0"

_LAZY = {
    "comparisons.compare": ("Comparison", "compare"),
    "core.errors": ("SkalError",),
    "datasets": ("DATASETS", "ImageDataset", "load_dataset"),
    "datasets.oracles": ("ORACLES", "Oracle"),
    "models": ("MODELS",),
    "models.calibration": ("calibrate",),
    "models.classifier": ("ImageClassifier",),
    "models.committee": ("Committee",),
    "models.features": ("embed",),
    "models.persistence": ("load_classifier", "save_classifier"),
    "prediction.pipeline": ("predict",),
    "runs.active_learner": ("ActiveLearner",),
    "runs.finished": ("Run",),
    "runs.run": ("resume", "run"),
    "runs.trackers": ("TRACKERS", "Tracker"),
    "strategies": ("STRATEGIES",),
}

__all__ = ["__version__", "strategies", *(name for names in _LAZY.values() for name in names)]
__getattr__ = attach(__name__, _LAZY)


def __dir__() -> list[str]:
    return sorted(__all__)
