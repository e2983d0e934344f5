"""Checks of the names in a run's settings, before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import ParameterError
from ..datasets.loading import check_dataset
from ..models import MODELS
from ..strategies.catalogue import STRATEGIES
from ..strategies.streams import STREAM_STRATEGIES
from .config import RunConfig


def check_names(
    config: RunConfig, strategies: Sequence[str] = (), models: Sequence[str] = ()
) -> None:
    """Raise a SkalError if dataset, weights file, strategy or model do not exist. Names with a
    colon are skipped, since resolving them may import anything. A comparison passes several
    `strategies` and `models`.
    """
    known = STRATEGIES if config.stream == "off" else STREAM_STRATEGIES
    for name in strategies or [config.strategy]:
        if ":" not in name and name != "auto":
            known.resolve(name)
    for name in models or [config.model or ""]:
        if name and ":" not in name:
            MODELS.resolve(name)
    check_weights(config)
    check_dataset(config.dataset)


def check_weights(config: RunConfig) -> None:
    """Raise a ParameterError if the weights file does not exist."""
    if config.weights is not None and not Path(config.weights).is_file():
        raise ParameterError(f"weights: no such file: {config.weights!r}")
