"""Temperature scaling, as users of a classifier notice it."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from torch import nn

import skal
from skal.core.durable import sha256
from skal.models import Network
from skal.models.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    calibrate,
    fit_temperature,
    uncalibrated,
)
from skal.models.inference import NotFittedError
from skal.models.persistence import load_classifier, save_classifier
from skal.runs.metrics import evaluate
from skal.strategies.scores import ScoreRequest, score_pool

N_LABELED = 45


def classifier(**params: object) -> skal.ImageClassifier:
    return skal.ImageClassifier(
        **{"classes": [0, 1, 2], "steps": 20, "random_state": 0, "precision": "fp32", **params}
    )


def at_temperature(value: float, fitted: skal.ImageClassifier) -> skal.ImageClassifier:
    fitted.neural_net_.module_.temperature.fill_(value)
    return fitted


def best_temperature(logits: np.ndarray, y: np.ndarray) -> float:
    """Minimise the likelihood's negative logarithm, with nothing of skal or scikit-learn."""

    def nll(log_temperature: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return -scaled[np.arange(len(y)), y].mean()

    found = minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    return float(np.exp(found.x))


def noisy_logits(n_classes: int, scale: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits that are right about their labels for the most part, and too sure of it."""
    rng = np.random.default_rng(0)
    y = rng.integers(n_classes, size=200)
    logits = rng.normal(size=(200, n_classes)) + 1.5 * np.eye(n_classes)[y]
    return (scale * logits).astype(np.float32), y


@pytest.fixture
def noisy(tiny: skal.ImageDataset) -> skal.ImageDataset:
    """Three classes, a third of whose labels are wrong: a network learns them by heart."""

    def spoil(y: np.ndarray) -> np.ndarray:
        number = np.arange(len(y)) // 3
        return np.where(number % 3 == 0, (y + 1 + number % 2) % 3, y)

    y, y_test = spoil(tiny.y), spoil(tiny.y_test)
    return skal.ImageDataset(tiny.X, y, tiny.classes, tiny.X_test, y_test, name="noisy")


@pytest.fixture
def y(noisy: skal.ImageDataset) -> np.ndarray:
    return np.where(np.arange(len(noisy.y)) < N_LABELED, noisy.y, -1)


class TestCalibrate:
    def test_a_network_that_is_too_sure_is_damped(
        self, noisy: skal.ImageDataset, y: np.ndarray
    ) -> None:
        X = np.concatenate([noisy.X[N_LABELED:], noisy.X_test])
        truth = np.concatenate([noisy.y[N_LABELED:], noisy.y_test])
        fitted = classifier(steps=60).fit(noisy.X, y)
        before = fitted.predict_proba(X)
        temperature = calibrate(fitted, noisy.X, y, seed=0)
        after = fitted.predict_proba(X)
        assert 1.5 < temperature <= MAX_TEMPERATURE
        assert temperature == fitted.temperature
        assert np.array_equal(after.argmax(axis=1), before.argmax(axis=1))
        worse, better = evaluate(truth, before), evaluate(truth, after)
        assert better["nll"] < worse["nll"] - 0.1
        assert better["ece"] < worse["ece"]
        np.testing.assert_allclose(uncalibrated(after, temperature), before, atol=1e-5)

    def test_it_is_the_likeliest_temperature_of_held_out_images(
        self, noisy: skal.ImageDataset, y: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trained_on, logits, labels = [], [], []
        of_class = skal.ImageClassifier

        def watched_fit(
            self: skal.ImageClassifier, X: np.ndarray, y: np.ndarray, **params: object
        ) -> object:
            trained_on.append(np.flatnonzero(y >= 0))
            return original_fit(self, X, y, **params)

        def watched_predict(self: skal.ImageClassifier, X: np.ndarray, **asked: object) -> object:
            held_out = np.setdiff1d(np.arange(N_LABELED), trained_on[-1])
            assert np.array_equal(X, noisy.X[held_out])
            answer = original_predict(self, X, **asked)
            logits.append(answer[1])
            labels.append(noisy.y[held_out])
            return answer

        fitted = classifier().fit(noisy.X, y)
        original_fit, original_predict = of_class.fit, of_class.predict_proba
        monkeypatch.setattr(of_class, "fit", watched_fit)
        monkeypatch.setattr(of_class, "predict_proba", watched_predict)
        temperature = calibrate(fitted, noisy.X, y, seed=0)
        assert len(logits) == 5
        assert sorted(map(len, labels)) == [9] * 5
        expected = best_temperature(np.concatenate(logits), np.concatenate(labels))
        assert temperature == pytest.approx(expected, rel=1e-4)

    def test_equal_seeds_give_equal_temperatures_and_others_differ(
        self, noisy: skal.ImageDataset, y: np.ndarray
    ) -> None:
        fitted = classifier(steps=5, random_state=np.random.RandomState(0)).fit(noisy.X, y)
        first = calibrate(fitted, noisy.X, y, seed=3)
        assert calibrate(fitted, noisy.X, y, seed=3) == first
        assert calibrate(fitted, noisy.X, y, seed=4) != first

    def test_nothing_but_the_temperature_changes(
        self, noisy: skal.ImageDataset, y: np.ndarray
    ) -> None:
        fitted = classifier(steps=5).fit(noisy.X, y)
        state = {k: v.clone() for k, v in fitted.neural_net_.module_.state_dict().items()}
        params, labels = fitted.get_params(), y.copy()
        calibrate(fitted, noisy.X, y, seed=0)
        after = fitted.neural_net_.module_.state_dict()
        assert {name for name in state if not state[name].equal(after[name])} == {"temperature"}
        assert fitted.get_params() == params
        assert np.array_equal(y, labels)

    def test_unlabelled_images_are_not_read(self, noisy: skal.ImageDataset, y: np.ndarray) -> None:
        fitted = classifier(steps=5).fit(noisy.X, y)
        other = noisy.X.copy()
        other[N_LABELED:] = 255
        first = calibrate(fitted, noisy.X, y, seed=0)
        assert calibrate(fitted, other, y, seed=0) == first

    def test_class_labels_may_be_any_integers(
        self, noisy: skal.ImageDataset, y: np.ndarray
    ) -> None:
        names = np.array([7, 12, 30])
        plain = classifier(steps=5).fit(noisy.X, y)
        named = classifier(steps=5, classes=names[::-1], missing_label=-5)
        y_named = np.where(y < 0, -5, names[y])
        named.fit(noisy.X, y_named)
        expected = calibrate(plain, noisy.X, y, seed=0)
        assert calibrate(named, noisy.X, y_named, seed=0) == pytest.approx(expected, rel=1e-5)

    def test_two_classes(self, noisy: skal.ImageDataset, y: np.ndarray) -> None:
        y = np.where(y == 2, -1, y)
        fitted = classifier(classes=[0, 1], steps=60).fit(noisy.X, y)
        before = fitted.predict_proba(noisy.X_test)
        temperature = calibrate(fitted, noisy.X, y, seed=0)
        assert temperature > 1
        after = fitted.predict_proba(noisy.X_test)
        np.testing.assert_allclose(uncalibrated(after, temperature), before, atol=1e-5)

    def test_rare_and_missing_classes_are_no_trouble(
        self, tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
    ) -> None:
        y = np.full(len(tiny.y), -1)
        y[[0, 3, 6, 1, 4, 2]] = [0, 0, 0, 1, 1, 2]  # of which one class once, and class 3 never
        fitted = classifier(classes=[0, 1, 2, 3], steps=5).fit(tiny.X, y)
        temperature = calibrate(fitted, tiny.X, y, seed=0)
        assert MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE
        assert temperature != 1
        assert not caplog.records

    @pytest.mark.parametrize("labeled", [[], [0], [0, 3, 6], [0, 1, 2]])
    def test_too_few_labels_leave_it_at_1_and_say_so(
        self, tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture, labeled: list[int]
    ) -> None:
        y = np.full(len(tiny.y), -1)
        y[labeled] = tiny.y[labeled]
        fitted = at_temperature(2, classifier(steps=1).fit(tiny.X, y))
        with caplog.at_level(logging.WARNING, logger="skal"):
            assert calibrate(fitted, tiny.X, y, seed=0) == 1
        assert fitted.temperature == 1
        n = len(labeled)
        assert f"not calibrated: got {n} labelled image{'s' * (n != 1)} of" in caplog.text
        assert "expected at least two of one class and one of another" in caplog.text

    def test_an_unfitted_one_is_refused(self, tiny: skal.ImageDataset) -> None:
        with pytest.raises(NotFittedError, match="only a fitted"):
            calibrate(classifier(), tiny.X, tiny.y, seed=0)


class TestFitTemperature:
    @pytest.mark.parametrize("n_classes", [2, 3, 10])
    @pytest.mark.parametrize("scale", [0.5, 1.0, 6.0])
    def test_it_is_as_an_independent_minimisation_finds(self, n_classes: int, scale: float) -> None:
        logits, y = noisy_logits(n_classes, scale)
        expected = max(best_temperature(logits, y), MIN_TEMPERATURE)
        assert fit_temperature(logits, y) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("missing", [0, 2, 3])
    def test_classes_without_a_label_keep_their_logits(self, missing: int) -> None:
        logits, y = noisy_logits(4)
        logits, y = logits[y != missing], y[y != missing]
        assert fit_temperature(logits, y) == pytest.approx(best_temperature(logits, y), rel=1e-4)

    def test_a_constant_in_each_row_makes_no_difference(self) -> None:
        logits, y = noisy_logits(3)
        like_proba = softmax(logits, axis=1)
        expected = best_temperature(like_proba, y)
        for values in (like_proba, like_proba + np.arange(200)[:, None]):
            assert fit_temperature(values, y) == pytest.approx(
                max(expected, MIN_TEMPERATURE), rel=1e-4
            )

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_it_is_bounded(self, n_classes: int) -> None:
        y = np.arange(60) % n_classes
        right = 0.1 * np.eye(n_classes)[y]
        assert fit_temperature(right, y) == MIN_TEMPERATURE
        assert fit_temperature(-right, y) == MAX_TEMPERATURE
        for extreme in (1e-30 * right, 1e30 * right, 0 * right):
            assert MIN_TEMPERATURE <= fit_temperature(extreme, y) <= MAX_TEMPERATURE

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_outputs_that_are_not_finite_leave_it_at_1_and_are_reported(
        self, caplog: pytest.LogCaptureFixture, value: float
    ) -> None:
        logits, y = noisy_logits(3)
        logits[5, 1] = value
        assert fit_temperature(logits, y) == 1
        assert "not finite" in caplog.text


class TestAClassifierAtATemperature:
    def test_all_that_it_says_agrees(self, noisy: skal.ImageDataset, y: np.ndarray) -> None:
        fitted = classifier(dropout=0.5).fit(noisy.X, y)
        plain, raw = fitted.predict_proba(noisy.X_test, extra_outputs="logits")
        plain_samples = fitted.sample_proba(noisy.X_test, 4)
        request = ScoreRequest(embeddings=True, n_samples=4)
        plain_scores = score_pool(fitted, noisy.X_test, request, random_state=0)
        at_temperature(2.5, fitted)
        proba, logits, embeddings = fitted.predict_proba(
            noisy.X_test, extra_outputs=["logits", "emb"]
        )
        scores = score_pool(fitted, noisy.X_test, request, random_state=0)
        assert scores.head is not None
        assert scores.mc_proba is not None
        np.testing.assert_allclose(logits, raw / 2.5, atol=1e-6)
        np.testing.assert_allclose(proba, softmax(logits, axis=1), atol=1e-6)
        np.testing.assert_allclose(scores.proba, proba, atol=1e-6)
        np.testing.assert_allclose(fitted.head_proba(embeddings), proba, atol=1e-6)
        np.testing.assert_allclose(scores.head(embeddings), proba, atol=1e-6)
        np.testing.assert_allclose(uncalibrated(proba, 2.5), plain, atol=1e-5)
        samples = fitted.sample_proba(noisy.X_test, 4)
        np.testing.assert_allclose(uncalibrated(samples, 2.5), plain_samples, atol=1e-5)
        samples = uncalibrated(scores.mc_proba, 2.5)
        np.testing.assert_allclose(samples, plain_scores.mc_proba, atol=1e-5)

    def test_samples_of_a_backbone_with_dropout_are_scaled_once(
        self, noisy: skal.ImageDataset, y: np.ndarray
    ) -> None:
        @skal.MODELS.register("dropout-in-backbone")
        def build(*, n_classes: int, in_channels: int, image_size: int, dropout: float) -> Network:
            backbone = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 4))
            return Network(backbone, nn.Linear(4, n_classes))

        try:
            fitted = classifier(model="dropout-in-backbone").fit(noisy.X, y)
        finally:
            skal.MODELS.remove("dropout-in-backbone")
        plain = fitted.sample_proba(noisy.X_test, 3)
        samples = at_temperature(2.5, fitted).sample_proba(noisy.X_test, 3)
        np.testing.assert_allclose(uncalibrated(samples, 2.5), plain, atol=1e-5)

    def test_it_is_1_until_another_is_fitted(self, tiny: skal.ImageDataset) -> None:
        assert classifier().temperature == 1
        fitted = classifier(steps=1).fit(tiny.X, tiny.y)
        assert fitted.temperature == 1
        with pytest.raises(AttributeError):
            fitted.temperature = 2  # type: ignore[misc]

    def test_training_starts_at_1_again(self, noisy: skal.ImageDataset, y: np.ndarray) -> None:
        plain, scaled = (classifier(steps=3).fit(noisy.X, y) for _ in range(2))
        at_temperature(2.5, scaled)
        scaled.partial_fit(noisy.X, np.full(len(y), -1))
        assert scaled.temperature == 2.5  # nothing was trained
        plain.partial_fit(noisy.X, np.full(len(y), -1))
        for trained in (plain, scaled):
            trained.partial_fit(noisy.X, y)
        assert scaled.temperature == 1
        expected = plain.predict_proba(noisy.X_test)
        assert np.array_equal(scaled.predict_proba(noisy.X_test), expected)
        assert at_temperature(2.5, scaled).fit(noisy.X, y).temperature == 1

    def test_a_pickle_keeps_it_and_a_clone_does_not(self, tiny: skal.ImageDataset) -> None:
        fitted = at_temperature(2.5, classifier(steps=1).fit(tiny.X, tiny.y))
        copy = pickle.loads(pickle.dumps(fitted))
        assert copy.temperature == 2.5
        assert np.array_equal(copy.predict_proba(tiny.X_test), fitted.predict_proba(tiny.X_test))
        assert clone(fitted).temperature == 1

    def test_a_saved_one_keeps_it(self, tiny: skal.ImageDataset, tmp_path: Path) -> None:
        fitted = at_temperature(2.5, classifier(steps=1).fit(tiny.X, tiny.y))
        save_classifier(fitted, tmp_path)
        loaded = load_classifier(tmp_path)
        assert loaded.temperature == 2.5
        assert np.array_equal(loaded.predict_proba(tiny.X_test), fitted.predict_proba(tiny.X_test))
        started = classifier(steps=1, weights=str(tmp_path / "model.safetensors"))
        assert started.fit(tiny.X, tiny.y).temperature == 1

    def test_one_saved_before_there_was_calibration_is_at_1(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        fitted = classifier(steps=1).fit(tiny.X, tiny.y)
        save_classifier(fitted, tmp_path)
        state = load_file(tmp_path / "model.safetensors")
        del state["temperature"]
        save_file(state, tmp_path / "model.safetensors")
        content = json.loads((tmp_path / "model.json").read_text())
        del content["checksum"]
        content["sha256"] = sha256((tmp_path / "model.safetensors").read_bytes())
        content["checksum"] = sha256(json.dumps(content, indent=2))
        (tmp_path / "model.json").write_text(json.dumps(content))
        loaded = load_classifier(tmp_path)
        assert loaded.temperature == 1
        assert np.array_equal(loaded.predict_proba(tiny.X_test), fitted.predict_proba(tiny.X_test))


class TestUncalibrated:
    @pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 3.0, 20.0])
    def test_it_gives_back_what_the_network_said(self, temperature: float) -> None:
        logits = np.random.default_rng(0).normal(size=(4, 50, 5))
        proba = softmax(logits / temperature, axis=-1).astype(np.float32)
        before = uncalibrated(proba, temperature)
        assert before.dtype == np.float32
        np.testing.assert_allclose(before, softmax(logits, axis=-1), atol=0.01)
        np.testing.assert_allclose(before.sum(axis=-1), 1, atol=1e-6)

    def test_zeros_stay_finite(self) -> None:
        before = uncalibrated(np.array([[1, 0, 0]], np.float32), 0.05)
        assert (before > 0).all()
        assert before[0, 1] < 0.01
