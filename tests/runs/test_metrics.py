from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
)

from skal.runs.metrics import (
    area_under_curve,
    describe_errors,
    evaluate,
    expected_calibration_error,
    pool_errors,
)


def predictions(n: int = 400, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(n_classes, 0.4), n)
    y = np.where(rng.random(n) < 0.6, proba.argmax(1), rng.integers(0, n_classes, n))
    return y, proba


def ece_by_a_loop(y: np.ndarray, proba: np.ndarray, n_bins: int = 15) -> float:
    total = 0.0
    for number in range(n_bins):
        low, high = number / n_bins, (number + 1) / n_bins
        inside = [i for i in range(len(y)) if low < float(proba[i].max()) <= high]
        if inside:
            accuracy = sum(proba[i].argmax() == y[i] for i in inside) / len(inside)
            confidence = sum(float(proba[i].max()) for i in inside) / len(inside)
            total += len(inside) / len(y) * abs(accuracy - confidence)
    return total


def test_metrics_agree_with_scikit_learns() -> None:
    y, proba = predictions()
    found = evaluate(y, proba)
    predicted = proba.argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, predicted))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(y, predicted, average="macro"))
    assert found["nll"] == pytest.approx(log_loss(y, proba, labels=range(4)))
    assert found["ece"] == pytest.approx(ece_by_a_loop(y, proba), abs=1e-9)
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_ece_is_the_loop_of_its_definition(seed: int) -> None:
    y, proba = predictions(seed=seed, n_classes=3)
    found = expected_calibration_error(y, proba, n_bins=10)
    assert found == pytest.approx(ece_by_a_loop(y, proba, n_bins=10), abs=1e-9)


def test_ece_of_certain_predictions_is_their_error_rate() -> None:
    proba = np.eye(2)[[0, 0, 1, 1]]
    assert expected_calibration_error(np.array([0, 0, 1, 1]), proba) == 0
    assert expected_calibration_error(np.array([0, 1, 1, 1]), proba) == pytest.approx(0.25)


def test_classes_without_test_images_count_for_nothing() -> None:
    y = np.array([0, 0, 1, 1])
    proba = np.eye(3)[[0, 2, 1, 1]]
    found = evaluate(y, proba)
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1.0) / 2)


def test_a_class_that_is_never_predicted_warns_nobody() -> None:
    found = evaluate(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    assert found["balanced_accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_nll_of_an_impossible_truth_is_large_and_finite() -> None:
    nll = evaluate(np.array([1]), np.array([[1.0, 0.0]], np.float32))["nll"]
    assert 80 < nll < 100


def test_aulc_is_the_mean_height_of_the_curve() -> None:
    # by hand: 10 labels at a mean of 0.3, then 30 at a mean of 0.6, over 40
    rounds = [
        {"n_labeled": 10, "accuracy": 0.2},
        {"n_labeled": 20, "accuracy": 0.4},
        {"n_labeled": 50, "accuracy": 0.8},
    ]
    assert area_under_curve(rounds) == pytest.approx((10 * 0.3 + 30 * 0.6) / 40)


def test_aulc_of_one_round_is_its_accuracy() -> None:
    assert area_under_curve([{"n_labeled": 20, "accuracy": 0.7}]) == 0.7


def test_errors_are_counted_by_class_and_by_confidence() -> None:
    y, proba = predictions(n_classes=4)
    names = ["a", "b", "c", "d"]
    found = describe_errors(y, proba, names)
    assert found["classes"] == names
    assert found["confusion"] == confusion_matrix(y, proba.argmax(1), labels=range(4)).tolist()
    bins = found["calibration"]
    assert bins["edges"] == [i / 15 for i in range(16)]
    for low, high, *described in zip(
        bins["edges"],
        bins["edges"][1:],
        *(bins[name] for name in ("count", "confidence", "accuracy")),
        strict=False,
    ):
        inside = [i for i in range(len(y)) if low < proba[i].max() <= high]
        assert described[0] == len(inside)
        if inside:
            assert described[1] == pytest.approx(np.mean([proba[i].max() for i in inside]))
            assert described[2] == pytest.approx(
                np.mean([proba[i].argmax() == y[i] for i in inside])
            )
        else:
            assert described[1:] == [None, None]
    assert json.loads(json.dumps(found)) == found


def test_the_bins_of_calibration_add_up_to_its_error() -> None:
    y, proba = predictions()
    bins = describe_errors(y, proba, "abcd")["calibration"]
    gaps = [
        count * abs(accuracy - confidence)
        for count, accuracy, confidence in zip(
            bins["count"], bins["accuracy"], bins["confidence"], strict=True
        )
        if count
    ]
    assert sum(gaps) / len(y) == pytest.approx(expected_calibration_error(y, proba))


def test_pooled_errors_are_those_of_all_images_together() -> None:
    parts = [predictions(n=n, seed=n) for n in (30, 200, 7)]
    pooled = pool_errors([describe_errors(y, proba, "abcd") for y, proba in parts])
    together = describe_errors(*map(np.concatenate, zip(*parts, strict=True)), "abcd")
    assert pooled["confusion"] == together["confusion"]
    found, expected = pooled["calibration"], together["calibration"]
    assert found["count"] == expected["count"] and found["edges"] == expected["edges"]
    for name in ("confidence", "accuracy"):
        for one, other in zip(found[name], expected[name], strict=True):
            assert one == (None if other is None else pytest.approx(other))
    assert json.loads(json.dumps(pooled)) == pooled
