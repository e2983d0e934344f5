"""The head that is solved: against scikit-learn, and as users of a frozen backbone notice it."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

import skal
from skal.core.errors import DataError, ParameterError
from skal.core.few_labels import FEW_LABELS
from skal.models.logistic import SHARES, STRENGTHS, factors, solve
from skal.models.persistence import load_classifier, save_classifier


def problem(n: int, seed: int = 0, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Real images as features of length 1, their pixels or a wider layer on these, and classes."""
    X, y = load_digits(return_X_y=True)
    if width > X.shape[1]:
        X = np.maximum(X @ np.random.default_rng(0).normal(size=(X.shape[1], width)), 0)
    rows = np.random.default_rng(seed).choice(len(X), n, replace=False)
    return X[rows] / np.linalg.norm(X[rows], axis=1, keepdims=True), y[rows].astype(np.int64)


def of_sklearn(
    X: np.ndarray, y: np.ndarray, C: float, weights: np.ndarray | None = None
) -> tuple[LogisticRegression, np.ndarray]:
    """Fit scikit-learn's on centred features and a constant one, whose weight is the bias."""
    center = np.average(X, axis=0, weights=weights)
    model = LogisticRegression(C=C, fit_intercept=False, tol=1e-10, max_iter=10_000)
    return model.fit(with_ones(X - center), y, sample_weight=weights), center


def with_ones(X: np.ndarray) -> np.ndarray:
    return np.column_stack([X, np.ones(len(X))])


class TestSolution:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize(
        ("n", "width"),  # fewer and more labels than there are features, few and many of both
        [(30, 64), (60, 64), (200, 64), (600, 64), (300, 500), (500, 300)],
    )
    def test_it_is_the_optimum_that_scikit_learn_finds(
        self, n: int, width: int, weighted: bool
    ) -> None:
        X, labels = problem(n, width=width)
        y = np.unique(labels, return_inverse=True)[1]  # it knows of classes that have a label alone
        n_classes = int(y.max()) + 1
        weights = np.random.default_rng(1).uniform(0.2, 2, n) if weighted else np.ones(n)
        weights /= weights.mean()
        found = solve([X], y, n_classes, weights)
        theirs, center = of_sklearn(X, y, found.C, weights)
        others, _ = problem(500, seed=1, width=width)
        ours = others @ found.weights.T + found.bias
        expected = theirs.decision_function(with_ones(others - center))
        # scikit-learn's default tolerance is off by 0.1 and more
        np.testing.assert_allclose(softmax(ours, axis=1), softmax(expected, axis=1), atol=5e-3)

    @pytest.mark.parametrize("seed", range(4))
    def test_differences_below_the_rounding_of_float32_do_not_hinder(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        distinct = rng.standard_normal((60, 400)) * np.exp(4 * rng.standard_normal(400))
        distinct += 100 * rng.standard_normal(400)  # the same for all
        X = distinct[np.arange(300) % 60]
        X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
        y = np.arange(300) % 60 % 3
        found = solve([X], y, 3, np.ones(300))
        theirs, center = of_sklearn(X.astype(float), y, found.C)
        ours = softmax(X @ found.weights.T + found.bias, axis=1)
        np.testing.assert_allclose(ours, theirs.predict_proba(with_ones(X - center)), atol=5e-3)

    def test_uneven_weights_do_not_tell_equal_images_apart(self) -> None:
        rng = np.random.default_rng(0)
        X = rng.standard_normal((400, 800))
        X[:130] = X[0]
        X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
        y = rng.integers(0, 4, 400)
        weights = np.exp(1.5 * rng.standard_normal(400))
        weights /= weights.mean()
        assert weights.max() > 12
        found = solve([X], y, 4, weights)
        theirs, center = of_sklearn(X.astype(float), y, found.C, weights)
        ours = softmax(X @ found.weights.T + found.bias, axis=1)
        np.testing.assert_allclose(ours, theirs.predict_proba(with_ones(X - center)), atol=1e-3)
        assert found.loss == pytest.approx(log_loss(y, ours, sample_weight=weights), abs=1e-4)

    @pytest.mark.parametrize("n", [100, 400])  # as many as are compared, and more
    def test_two_parts_are_one_with_their_share(self, n: int) -> None:
        X, y = problem(n, width=500)
        other = problem(n, width=300)[0]  # the same images
        weights = np.random.default_rng(1).uniform(0.2, 2, n)
        weights /= weights.mean()
        found = solve([X, other], y, 10, weights)
        scale = np.repeat(factors(found.share, 2), [500, 300])
        together = np.concatenate([X, other], axis=1) * scale
        theirs, center = of_sklearn(together, y, found.C, weights)
        ours = together @ (found.weights / scale).T + found.bias
        expected = theirs.decision_function(with_ones(together - center))
        assert found.share in SHARES
        # scikit-learn's default tolerance is off by 0.1 and more
        np.testing.assert_allclose(softmax(ours, axis=1), softmax(expected, axis=1), atol=5e-3)

    @pytest.mark.parametrize("n", [80, 150, 400])
    def test_its_strength_is_the_best_by_cross_validation(self, n: int) -> None:
        X, y = problem(n)
        largest = int(np.bincount(y).max())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", FEW_LABELS, UserWarning)
            folds = list(StratifiedKFold(min(5, largest), shuffle=True, random_state=0).split(X, y))
        losses = []
        for C in STRENGTHS:
            proba = np.zeros((n, 10))
            for train, test in folds:
                center = X.mean(axis=0)
                model = LogisticRegression(C=C, fit_intercept=False, tol=1e-8, max_iter=10_000)
                model.fit(with_ones(X[train] - center), y[train])
                proba[test[:, None], model.classes_] = model.predict_proba(
                    with_ones(X[test] - center)
                )
            losses.append(log_loss(y, proba, labels=range(10)))
        # found in fewer digits and dimensions: of two that are as good it may be either
        chosen = losses[STRENGTHS.index(solve([X], y, 10, np.ones(n)).C)]
        assert chosen <= 1.02 * min(losses) < 0.9 * max(losses)

    @pytest.mark.parametrize(("n", "width"), [(100, 64), (300, 500)])
    def test_the_same_labels_give_the_same_bits(self, n: int, width: int) -> None:
        X, y = problem(n, width=width)
        one, other = (solve([X], y, 10, np.ones(n)) for _ in range(2))
        assert np.array_equal(one.weights, other.weights) and one.C == other.C

    def test_a_class_without_a_label_is_possible(self) -> None:
        X, y = problem(60)
        known = np.flatnonzero(y != 3)
        found = solve([X[known]], y[known], 10, np.ones(len(known)))
        logits = X @ found.weights.T + found.bias
        proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert proba[:, 3].min() > 1e-6 and (proba.argmax(axis=1) != 3).all()

    def test_images_that_are_all_alike_are_no_reason_to_fail(self) -> None:
        X = np.repeat(problem(1, width=300)[0], 300, axis=0)
        y = np.arange(300, dtype=np.int64) % 3
        found = solve([X], y, 3, np.ones(300))
        assert np.abs(X @ found.weights.T + found.bias).max() < 1e-3

    @pytest.mark.parametrize("n_parts", [1, 2])
    @pytest.mark.parametrize("n", [2, 3, 20, 300])
    @pytest.mark.parametrize("apart", [0, 1e-7, 1e-5, 1e-3])
    def test_nor_are_such_that_are_almost_alike(self, apart: float, n: int, n_parts: int) -> None:
        rng = np.random.default_rng(0)
        parts, weights = [], rng.uniform(0.1, 3, n)
        for _ in range(n_parts):
            part = rng.random(500) + apart * rng.normal(size=(n, 500))
            parts.append(part / np.linalg.norm(part, axis=1, keepdims=True))
        y = np.arange(n, dtype=np.int64) % 3
        found = solve(parts, y, 3, weights / weights.mean())
        proba = np.concatenate(parts, axis=1) @ found.weights.T + found.bias
        assert np.isfinite(proba).all()
        if not apart:  # then nothing tells one from another
            assert np.abs(proba - proba[0]).max() < 1e-6

    @pytest.mark.parametrize("labels", [[0], [0, 0, 0], [0, 1], [0, 1, 2]])
    def test_few_labels_are_enough(self, labels: list[int]) -> None:
        X, _ = problem(len(labels))
        found = solve([X], np.array(labels), 3, np.ones(len(labels)))
        assert (np.argmax(X @ found.weights.T + found.bias, axis=1) == labels).all()


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray]:
    X, y = problem(600, seed=2)
    return X.astype(np.float32), y


def head(**params: Any) -> skal.ImageClassifier:
    return skal.ImageClassifier(freeze=True, classes=range(10), random_state=0, **params)


class TestClassifier:
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_features_that_are_not_finite_are_an_error(
        self, features: tuple[np.ndarray, np.ndarray], value: float
    ) -> None:
        X, y = features
        X = X.copy()
        X[3, 5] = value
        with pytest.raises(DataError, match="features of labelled images are NaN or infinite"):
            head().fit(X[:100], y[:100])

    def test_it_is_the_head_of_a_frozen_backbone(
        self, features: tuple[np.ndarray, np.ndarray]
    ) -> None:
        X, y = features
        fitted = head().fit(X[:200], y[:200])
        assert fitted.head_used == "logistic" and fitted.strength in STRENGTHS
        expected, center = of_sklearn(X[:200].astype(float), y[:200], fitted.strength)
        proba = expected.predict_proba(with_ones(X[200:] - center))
        np.testing.assert_allclose(fitted.predict_proba(X[200:]), proba, atol=1e-3)
        assert fitted.score(X[200:], y[200:]) > 0.85
        assert len(fitted.neural_net_.history) == 1
        assert fitted.neural_net_.history[-1, "train_loss"] < 0.5

    def test_a_setting_of_the_training_by_gradients_trains_it_by_gradients(self) -> None:
        assert head(steps=10).head_used == "linear" and head(steps=10).strength is None
        with pytest.raises(ParameterError, match=r"steps: got 10, .* with head logistic"):
            head(steps=10, head="logistic").fit(*problem(20))

    def test_dropout_samples_differ_around_what_it_predicts(
        self, features: tuple[np.ndarray, np.ndarray]
    ) -> None:
        X, y = features
        fitted = head().fit(X[:200], y[:200])
        samples = fitted.sample_proba(X[200:300], 50)
        assert samples.std(axis=0).max() > 0.01
        agreement = samples.mean(axis=0).argmax(axis=1) == fitted.predict(X[200:300])
        assert agreement.mean() > 0.9

    def test_balanced_weighs_classes_alike(self, features: tuple[np.ndarray, np.ndarray]) -> None:
        X, y = features
        ones, sevens = np.flatnonzero(y == 8), np.flatnonzero(y == 3)
        rows = np.concatenate([ones[:40], sevens[:3]])
        rest = sevens[3:]
        found = [
            head(balanced=b).fit(X[rows], y[rows]).predict_proba(X[rest]) for b in (False, True)
        ]
        assert found[1][:, 3].mean() > found[0][:, 3].mean()

    def test_weights_of_images_count(self, features: tuple[np.ndarray, np.ndarray]) -> None:
        X, y = features
        weights = np.where(y[:200] == 5, 10.0, 1.0)
        plain = head().fit(X[:200], y[:200])
        weighed = head().fit(X[:200], y[:200], sample_weight=weights)
        share = [np.mean(fitted.predict_proba(X[200:])[:, 5]) for fitted in (plain, weighed)]
        assert share[1] > share[0]
        for wrong, message in (
            (weights[:9], "has shape"),
            (0 * weights, "is 0, negative, NaN"),
            (np.inf * weights, "is 0, negative, NaN"),
            (["a"] * 200, "expected one number per image"),
        ):
            with pytest.raises(DataError, match=message):
                head().fit(X[:200], y[:200], sample_weight=wrong)
        again = head().fit(X[:100], y[:100])
        again.partial_fit(X[:200], y[:200], sample_weight=weights)
        assert np.array_equal(again.predict_proba(X[200:]), weighed.predict_proba(X[200:]))
        with pytest.raises(ParameterError, match="only the head 'logistic'"):
            head(steps=5).fit(X[:200], y[:200], sample_weight=weights)

    def test_it_is_saved_with_its_strength(self, tiny: skal.ImageDataset, tmp_path: Path) -> None:
        y = np.full(90, -1)
        y[:30] = tiny.y[:30]
        fitted = skal.ImageClassifier(freeze=True, classes=range(3), random_state=0).fit(tiny.X, y)
        save_classifier(fitted, tmp_path)
        loaded = load_classifier(tmp_path)
        assert loaded.strength == fitted.strength
        assert np.array_equal(loaded.predict_proba(tiny.X_test), fitted.predict_proba(tiny.X_test))

    def test_training_on_solves_it_for_the_labels_given(
        self, features: tuple[np.ndarray, np.ndarray]
    ) -> None:
        X, y = features
        again = head().fit(X[:100], y[:100]).partial_fit(X[:200], y[:200])
        once = head().fit(X[:200], y[:200])
        assert np.array_equal(again.predict_proba(X[200:]), once.predict_proba(X[200:]))


@pytest.mark.parametrize("n_parts", [1, 2])
def test_many_labels_take_the_memory_of_four_copies_of_their_features(n_parts: int) -> None:
    """Of 64,000 images and the default network a copy is a gigabyte."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3000, 600)).astype(np.float32)
    y = rng.integers(0, 3, len(features))
    parts = [part.copy() for part in np.split(features, n_parts, axis=1)]
    tracemalloc.start()
    try:
        solve(parts, y, 3, np.ones(len(features)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4.2 * features.nbytes  # beside the features that are given
