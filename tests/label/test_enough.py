"""Is it enough: the wanted accuracy, and the labels that it would take."""

from __future__ import annotations

import math

import numpy as np
import pytest

from skal.label.enough import Forecast, forecast, judge, n_to_be_sure
from skal.label.sample import PLENTY, Accuracy


def made(seed: int, last: int, *, exponent: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A test sample of 150 images and 30 networks, whose error is a power of the labels."""
    draw = np.random.default_rng(seed)
    n_labeled = np.unique(np.linspace(20, last, 30).astype(int))
    difficulty = draw.random(150)
    other = draw.random((len(n_labeled), 150))
    seen = np.where(draw.random(other.shape) < 0.7, difficulty, other)
    return n_labeled, seen < (n_labeled**-exponent)[:, None]


def test_the_interval_holds_what_it_takes_as_often_as_it_says() -> None:
    last, wanted = 400, 0.962
    truth = ((1 - wanted) ** -2 - last) * 10 / 9  # one more label in ten is of the test
    found = [forecast(*made(seed, last), wanted) for seed in range(60)]
    held = sum(ahead.low <= truth <= ahead.high for ahead in found if ahead)
    assert held >= 54
    middles = [ahead.middle for ahead in found if ahead]
    assert truth / 2 < np.median(middles) < truth * 2


def test_networks_that_do_not_get_better_never_reach_it() -> None:
    n_labeled, _ = made(0, 400)
    wrong = np.random.default_rng(0).random((len(n_labeled), 150)) < 0.3
    ahead = forecast(n_labeled, wrong, 0.99)
    assert ahead is not None
    assert math.isinf(ahead.high)
    assert str(ahead) == "not within reach at this rate"


@pytest.mark.parametrize(("networks", "images"), [(4, 150), (30, 20)])
def test_of_too_little_nothing_is_foreseen(networks: int, images: int) -> None:
    n_labeled, wrong = made(0, 400)
    assert forecast(n_labeled[:networks], wrong[:networks, :images], 0.99) is None


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        ((123, 40, 900), "about 130 more labels at this rate (40 to 900)"),
        ((123, -5, math.inf), "about 130 more labels at this rate (from 0, perhaps never)"),
        ((math.inf, 1234, math.inf), "at least 1,300 more labels at this rate, or never"),
    ],
)
def test_a_forecast_says_how_unsure_it_is(ahead: tuple[float, float, float], told: str) -> None:
    assert str(Forecast(*ahead)) == told


def test_it_is_reached_when_all_of_the_interval_is_above() -> None:
    assert judge(0.9, Accuracy.of(195, 200), None).is_reached
    assert not judge(0.9, Accuracy.of(185, 200), None).is_reached
    assert not judge(0.9, Accuracy.of(20, 20), None).is_reached  # too few answers for a figure


def test_a_small_sample_says_how_many_more_answers_would_show_it() -> None:
    accuracy = Accuracy.of(95, 100)
    n_more = n_to_be_sure(accuracy, 0.9)
    assert n_more is not None
    enough, too_few = (Accuracy.of(0.95 * n, n) for n in (100 + n_more, 99 + n_more))
    assert enough.low >= 0.9 > too_few.low
    assert "too small to be sure" in judge(0.9, accuracy, None).text
    assert "too close" in judge(0.9499, accuracy, None).text


def test_what_is_not_reached_says_what_it_takes() -> None:
    ahead = Forecast(200, 100, 300)
    assert judge(0.9, Accuracy.of(70, 100), ahead).text == f"not reached: {ahead}"
    assert judge(0.9, Accuracy.of(88, 100), ahead).text == f"probably not reached yet: {ahead}"
    assert "too early to forecast" in judge(0.9, Accuracy.of(70, 100), None).text


def test_judged_after_each_answer_it_is_reached_by_chance_as_often_as_documented() -> None:
    wanted, last = 0.9, 600
    enough = {
        n: next(k for k in range(n + 1) if k == n or Accuracy.of(k, n).low >= wanted)
        for n in range(PLENTY, last + 1)
    }
    right = (np.random.default_rng(0).random((4000, last)) < wanted).cumsum(axis=1)
    is_reached = right[:, PLENTY - 1 :] >= np.array([*enough.values()])
    assert 0.11 < is_reached.any(axis=1).mean() < 0.17
    assert is_reached[:, -1].mean() < 0.03
