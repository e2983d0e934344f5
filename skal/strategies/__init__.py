"""Query strategies: a catalogue, skal's own, and `select`.

Examples
--------
>>> import numpy as np
>>> import skal
>>> data = skal.load_dataset("digits")
>>> y = np.full(len(data.X), -1)
>>> y[:50] = data.y[:50]
>>> clf = skal.ImageClassifier("small-cnn", classes=range(10), steps=5, random_state=0)
>>> badge = skal.strategies.Badge(
...     clf_embedding_flag_name={"extra_outputs": "emb"}, missing_label=-1, random_state=0
... )
>>> badge.query(data.X, y, clf, batch_size=5).shape
(5,)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.lazy import attach
from .catalogue import INIT_STRATEGIES, STRATEGIES
from .streams import STREAM_STRATEGIES

if TYPE_CHECKING:
    from .badge import Badge as Badge
    from .bald import MCDropoutBALD as MCDropoutBALD
    from .base import BatchStrategy as BatchStrategy
    from .base import ScoreStrategy as ScoreStrategy
    from .committee import CommitteeVariance as CommitteeVariance
    from .core_set import CoreSet as CoreSet
    from .coverage import MaxHerding as MaxHerding
    from .coverage import ProbCover as ProbCover
    from .diverse import DiverseBatch as DiverseBatch
    from .diverse import DiverseEntropy as DiverseEntropy
    from .gradient_length import ExpectedGradientLength as ExpectedGradientLength
    from .k_means import KMeansSampling as KMeansSampling
    from .power import PowerBALD as PowerBALD
    from .power import PowerMargin as PowerMargin
    from .resolve import resolve_strategy as resolve_strategy
    from .selection import select as select
    from .streams import StreamSampler as StreamSampler
    from .trial import check_strategy_works as check_strategy_works
    from .typiclust import TCM as TCM
    from .typiclust import TypiClust as TypiClust
    from .uncertainty_herding import UncertaintyHerding as UncertaintyHerding

_LAZY = {
    "badge": ("Badge",),
    "bald": ("MCDropoutBALD",),
    "base": ("BatchStrategy", "ScoreStrategy"),
    "committee": ("CommitteeVariance",),
    "core_set": ("CoreSet",),
    "coverage": ("MaxHerding", "ProbCover"),
    "diverse": ("DiverseBatch", "DiverseEntropy"),
    "gradient_length": ("ExpectedGradientLength",),
    "k_means": ("KMeansSampling",),
    "power": ("PowerBALD", "PowerMargin"),
    "resolve": ("resolve_strategy",),
    "selection": ("select",),
    "streams": ("StreamSampler",),
    "trial": ("check_strategy_works",),
    "typiclust": ("TCM", "TypiClust"),
    "uncertainty_herding": ("UncertaintyHerding",),
}

__all__ = [
    "INIT_STRATEGIES",
    "STRATEGIES",
    "STREAM_STRATEGIES",
    *(name for names in _LAZY.values() for name in names),
]
__getattr__ = attach(__name__, _LAZY)
