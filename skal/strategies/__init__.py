"""Query strategies: a catalogue, skal's own, and `select`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .catalogue import STRATEGIES

if TYPE_CHECKING:
    from .badge import Badge as Badge
    from .bald import MCDropoutBALD as MCDropoutBALD
    from .base import BatchStrategy as BatchStrategy
    from .base import ScoreStrategy as ScoreStrategy
    from .selection import check_strategy_works as check_strategy_works
    from .selection import resolve_strategy as resolve_strategy
    from .selection import select as select

__all__ = [
    "STRATEGIES",
    "Badge",
    "BatchStrategy",
    "MCDropoutBALD",
    "ScoreStrategy",
    "check_strategy_works",
    "resolve_strategy",
    "select",
]

# imported when asked for, since scikit-activeml imports torch
_LAZY = {
    "Badge": "badge",
    "BatchStrategy": "base",
    "MCDropoutBALD": "bald",
    "ScoreStrategy": "base",
    "check_strategy_works": "selection",
    "resolve_strategy": "selection",
    "select": "selection",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
