"""How often a network is right, and how sure that is."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple, Self

ENOUGH, PLENTY = 10, 30
"""Answers of the test sample from which on an accuracy is stated, and before its interval."""


class Accuracy(NamedTuple):
    """A share of images classified right, with its 95 % interval (Wilson, 1927)."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, n_right: int, n: int) -> Self:
        """Compute it from counts; `n` is 1 or more."""
        z = NormalDist().inv_cdf(0.975)
        value, spread = n_right / n, z * z / n
        middle = (value + spread / 2) / (1 + spread)
        half = math.sqrt(value * (1 - value) * spread + spread * spread / 4) / (1 + spread)
        return cls(value, max(0.0, middle - half), min(1.0, middle + half), n)

    def __str__(self) -> str:
        sample = f"{self.n} images drawn at random and kept out of training"
        if self.n < ENOUGH:
            return f"too early to say: there are answers to {sample}; {ENOUGH} are needed"
        if self.n < PLENTY:
            return (
                f"{self.low:.3f} to {self.high:.3f} at 95 % confidence, on {sample} "
                f"({self.value:.3f} of them right)"
            )
        return (
            f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f} at 95 % confidence, on {sample})"
        )
