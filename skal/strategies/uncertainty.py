"""How uncertain a prediction is, measured in three ways; the higher, the less certain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnknownNameError


def least_confidence(proba: NDArray[Any]) -> NDArray[np.float64]:
    """Return one minus the probability of the likeliest class, in [0, 1 - 1/C]."""
    result: NDArray[np.float64] = 1 - np.asarray(proba, np.float64).max(axis=1)
    return result


def margin(proba: NDArray[Any]) -> NDArray[np.float64]:
    """Return one minus the gap between the two likeliest classes, in [0, 1]."""
    if proba.shape[1] < 2:
        return np.zeros(len(proba))
    top = np.partition(np.asarray(proba, np.float64), -2, axis=1)[:, -2:]
    gap: NDArray[np.float64] = 1 - (top[:, 1] - top[:, 0])
    return gap


def entropy(proba: NDArray[Any]) -> NDArray[np.float64]:
    """Return the entropy over the last axis, in nats, in [0, log C]."""
    values = np.asarray(proba, np.float64)
    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    result: NDArray[np.float64] = -(values * logs).sum(axis=-1)
    return result


MEASURES: Mapping[str, Callable[[NDArray[Any]], NDArray[np.float64]]] = MappingProxyType(
    {"entropy": entropy, "margin": margin, "least-confidence": least_confidence}
)
"""Functions of class probabilities, shape (n, n_classes), to uncertainties, shape (n,)."""


def measure(name: str, proba: NDArray[Any]) -> NDArray[np.float64]:
    """Return uncertainties by the measure of that name.

    Raises
    ------
    UnknownNameError
        If there is none; the message has the nearest names.
    """
    if name not in MEASURES:
        raise UnknownNameError("measure of uncertainty", str(name), MEASURES)
    return MEASURES[name](proba)
