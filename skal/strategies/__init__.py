"""Query strategies: a catalogue, skal's own, and `select`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .catalogue import STRATEGIES
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
    from .selection import check_strategy_works as check_strategy_works
    from .selection import resolve_strategy as resolve_strategy
    from .selection import select as select
    from .streams import StreamSampler as StreamSampler
    from .typiclust import TCM as TCM
    from .typiclust import TypiClust as TypiClust

__all__ = [
    "STRATEGIES",
    "STREAM_STRATEGIES",
    "TCM",
    "Badge",
    "BatchStrategy",
    "CommitteeVariance",
    "CoreSet",
    "DiverseBatch",
    "DiverseEntropy",
    "ExpectedGradientLength",
    "KMeansSampling",
    "MCDropoutBALD",
    "MaxHerding",
    "PowerBALD",
    "PowerMargin",
    "ProbCover",
    "ScoreStrategy",
    "StreamSampler",
    "TypiClust",
    "check_strategy_works",
    "resolve_strategy",
    "select",
]

# imported when asked for, since scikit-activeml imports torch
_LAZY = {
    "Badge": "badge",
    "BatchStrategy": "base",
    "CommitteeVariance": "committee",
    "CoreSet": "core_set",
    "DiverseBatch": "diverse",
    "DiverseEntropy": "diverse",
    "ExpectedGradientLength": "gradient_length",
    "KMeansSampling": "k_means",
    "MCDropoutBALD": "bald",
    "MaxHerding": "coverage",
    "PowerBALD": "power",
    "PowerMargin": "power",
    "ProbCover": "coverage",
    "ScoreStrategy": "base",
    "StreamSampler": "streams",
    "TCM": "typiclust",
    "TypiClust": "typiclust",
    "check_strategy_works": "selection",
    "resolve_strategy": "selection",
    "select": "selection",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
