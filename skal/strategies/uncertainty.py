"""Measures of predictive uncertainty; higher is less certain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS_AT_ONCE = 2**20  # in float64, 8 MiB


def least_confidence(proba: NDArray[Any]) -> NDArray[np.float64]:
    """Return one minus the probability of the most probable class, in [0, 1 - 1/C]."""
    return np.asarray(1 - np.asarray(proba, np.float64).max(axis=1))


def margin(proba: NDArray[Any]) -> NDArray[np.float64]:
    """Return one minus the gap between the two most probable classes, in [0, 1]."""
    if proba.shape[1] < 2:
        return np.zeros(len(proba))
    top = np.partition(np.asarray(proba, np.float64), -2, axis=1)[:, -2:]
    return np.asarray(1 - (top[:, 1] - top[:, 0]))


def entropy(proba: NDArray[Any]) -> NDArray[np.float64]:
    """Return the entropy over the last axis, in nats, in [0, log C]."""
    values = np.asarray(proba, np.float64)
    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    return np.asarray(-(values * logs).sum(axis=-1))


MEASURES: Mapping[str, Callable[[NDArray[Any]], NDArray[np.float64]]] = MappingProxyType(
    {"entropy": entropy, "margin": margin, "least-confidence": least_confidence}
)
"""Functions of class probabilities, shape (n, n_classes), to uncertainties, shape (n,)."""


def by_blocks(
    measure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    mc_proba: NDArray[Any],
    numbers: int = NUMBERS_AT_ONCE,
) -> NDArray[np.float64]:
    """Apply `measure` to `mc_proba`, shape (n_samples, n, n_classes), in blocks of images.

    `measure` maps float64 samples, shape (n_samples, b, n_classes), to b numbers, one per image.
    A block has at most `numbers` values, but at least one image.
    """
    n_samples, n, n_classes = mc_proba.shape
    height = max(1, numbers // max(n_samples * n_classes, 1))
    parts = [
        measure(mc_proba[:, start : start + height].astype(np.float64))
        for start in range(0, max(n, 1), height)
    ]
    return np.concatenate(parts)
