"""The target accuracy: whether it is reached, and a forecast of how many more labels it takes.

The forecast assumes that the error follows a power law in the number of labels, as learning curves
mostly do over the range of one project. Its interval is a bootstrap over images and networks
(B. Efron. Bootstrap Methods. Annals of Statistics 7, 1979), which covers sampling and training
noise. It does not cover that the power law may fail for later labels.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .sample import PLENTY, Accuracy

DRAWS = 1000
LEAST_NETWORKS = 5
"""Networks with different numbers of labels needed for a forecast."""
FARTHEST = 20
"""The farthest forecast, as a multiple of the labels so far."""
LABELS_A_TEST = 10
"""Labels per test answer."""


class Forecast(NamedTuple):
    """The number of labels still needed, with its 95 % interval; infinity means never."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isinf(self.low):
            return "not within reach at this rate"
        low = _rounded(self.low)
        if math.isinf(self.middle):
            return f"at least {low} more labels at this rate, or never"
        never = math.isinf(self.high)
        span = f"from {low}, perhaps never" if never else f"{low} to {_rounded(self.high)}"
        return f"about {_rounded(self.middle)} more labels at this rate ({span})"


def _rounded(number: float) -> str:
    """Return a number rounded up to two significant digits."""
    if number <= 0:
        return "0"
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return f"{math.ceil(number / unit) * unit:,}"


def forecast(n_labeled: NDArray[Any], wrong: NDArray[Any], wanted: float) -> Forecast | None:
    """Return how many more labels the target accuracy needs.

    Parameters
    ----------
    n_labeled : ndarray of int, shape (n_networks,)
        How many labels each network was trained on, ascending.
    wrong : ndarray of bool, shape (n_networks, n_images)
        Whether each network is wrong on each test image.
    wanted : float
        The target accuracy, below 1.

    Returns
    -------
    Forecast or None
        None if there are too few networks or images.
    """
    n_networks, n_images = wrong.shape
    if n_networks < LEAST_NETWORKS or n_images < PLENTY or n_labeled[0] == n_labeled[-1]:
        return None
    draw = np.random.default_rng(0)
    images = draw.multinomial(n_images, np.full(n_images, 1 / n_images), DRAWS)
    networks = draw.multinomial(n_networks, np.full(n_networks, 1 / n_networks), DRAWS)
    images[0], networks[0] = 1, 1  # the original sample
    error = (images @ wrong.T.astype(float) + 0.5) / (n_images + 1)
    x, y = np.log(n_labeled.astype(float)), np.log(error)
    weights = networks * error / (1 - error)  # inverse variance of the log error
    total = weights.sum(1)
    x_mean, y_mean = (weights * x).sum(1) / total, (weights * y).sum(1) / total
    from_mean = x - x_mean[:, None]
    spread = (weights * from_mean**2).sum(1)
    slope = (weights * from_mean * y).sum(1) / np.where(spread > 0, spread, np.inf)
    falls = np.where(slope < 0, slope, -1e-9)
    reached = x_mean + (math.log(1 - wanted) - y_mean) / falls
    at = np.where(
        reached < math.log(FARTHEST * n_labeled[-1]), np.exp(np.minimum(reached, 50)), np.inf
    )
    more = (at - n_labeled[-1]) * LABELS_A_TEST / (LABELS_A_TEST - 1)
    low, high = np.quantile(more, (0.025, 0.975), method="inverted_cdf")
    return Forecast(float(more[0]), float(low), float(high))


def n_to_be_sure(accuracy: Accuracy, wanted: float) -> int | None:
    """Return how many more test answers would confirm the target at the current accuracy.

    None if the accuracy is below the target.
    """
    if accuracy.value <= wanted:
        return None
    numbers = range(accuracy.n + 1, 2**50)
    return 1 + bisect_left(
        numbers, True, key=lambda n: Accuracy.of(accuracy.value * n, n).low >= wanted
    )


class Verdict(NamedTuple):
    """Whether the `wanted` accuracy is reached with 95 % confidence, and a line of text."""

    wanted: float
    is_reached: bool
    text: str


def judge(wanted: float, accuracy: Accuracy | None, ahead: Forecast | None) -> Verdict:
    """Return whether the target is reached, and what it would take."""
    if accuracy is None or accuracy.n < PLENTY:
        n = accuracy.n if accuracy else 0
        message = f"too early to say: {n} of {PLENTY} answers to randomly drawn images"
    elif accuracy.low >= wanted:
        return Verdict(wanted, True, "reached: the whole interval is above")
    elif (n_more := n_to_be_sure(accuracy, wanted)) is not None and n_more > FARTHEST * accuracy.n:
        message = "the accuracy is too close to the target to tell whether it is reached"
    elif n_more is not None:
        message = (
            f"probably reached, but the test set is too small to be sure: {_rounded(n_more)} more "
            f"answers to randomly drawn images would confirm it, with about "
            f"{_rounded(n_more * LABELS_A_TEST)} more labels"
        )
    else:
        missed = "not reached" if accuracy.high < wanted else "probably not reached yet"
        message = f"{missed}: {ahead or 'too early to forecast how many more labels it takes'}"
    return Verdict(wanted, False, message)
