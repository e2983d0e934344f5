"""One pass over the pool, and the classifier that answers from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.utils.validation import check_is_fitted

import skal
from skal.core.errors import ParameterError
from skal.strategies.scores import (
    LEAST_PER_DEVICE,
    HeadClassifier,
    ScoredClassifier,
    ScoreRequest,
    least_for_all_devices,
    parts_by_device,
    score_pool,
)
from skal.testing import example_scores


@pytest.fixture
def fitted(tiny: skal.ImageDataset) -> skal.ImageClassifier:
    y = np.where(np.arange(len(tiny.y)) < 30, tiny.y, -1)
    return skal.ImageClassifier(classes=[0, 1, 2], steps=10, random_state=0).fit(tiny.X, y)


def test_one_pass_gives_what_separate_calls_give(
    fitted: skal.ImageClassifier, tiny: skal.ImageDataset
) -> None:
    scores = score_pool(fitted, tiny.X, ScoreRequest(True, n_samples=4), random_state=7)
    proba, embeddings = fitted.predict_proba(tiny.X, extra_outputs="emb")
    assert np.array_equal(scores.proba, proba)
    assert np.array_equal(scores.embeddings, embeddings)
    assert np.array_equal(scores.mc_proba, fitted.sample_proba(tiny.X, 4, random_state=7))
    assert len(scores) == len(tiny.X)


def test_the_pool_is_read_once_and_in_order(
    fitted: skal.ImageClassifier, tiny: skal.ImageDataset
) -> None:
    read: list[tuple[int, int]] = []

    class Watched(np.ndarray):
        def __getitem__(self, key: object) -> np.ndarray:
            if isinstance(key, slice):
                read.append((key.start, key.stop))
            return np.asarray(self)[key]

    fitted.neural_net_.iterator_valid__batch_size = 16
    score_pool(fitted, tiny.X.view(Watched), ScoreRequest(True, n_samples=5))
    assert read == [(start, min(start + 16, 90)) for start in range(0, 90, 16)]


def test_only_what_is_asked_for_is_kept(
    fitted: skal.ImageClassifier, tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    np.save(tmp_path / "X.npy", tiny.X)
    scores = score_pool(fitted, np.load(tmp_path / "X.npy", mmap_mode="r"))
    assert scores.embeddings is None
    assert scores.mc_proba is None
    assert np.array_equal(scores.proba, fitted.predict_proba(tiny.X))


def test_an_empty_pool_has_empty_scores(
    fitted: skal.ImageClassifier, tiny: skal.ImageDataset
) -> None:
    scores = score_pool(fitted, tiny.X[:0], ScoreRequest(True, n_samples=4))
    assert scores.proba.shape == (0, 3)
    assert scores.embeddings.shape == (0, fitted.neural_net_.module_.network.head[-1].in_features)
    assert scores.mc_proba.shape == (4, 0, 3)


def test_some_rows_have_the_scores_that_they_have_among_all(
    fitted: skal.ImageClassifier, tiny: skal.ImageDataset
) -> None:
    request = ScoreRequest(True, n_samples=4, gradient_length=True)
    rows = np.array([70, 3, 41])
    expected = score_pool(fitted, tiny.X, request, random_state=7).take(rows)
    found = score_pool(fitted, tiny.X, request, rows=rows, random_state=7)
    assert len(expected) == len(found) == 3
    for name in ("proba", "embeddings", "mc_proba", "gradient_length"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5)
    assert len(score_pool(fitted, tiny.X, request, rows=rows[:0]).gradient_length) == 0


def test_what_was_not_computed_is_not_there_for_some_rows_either() -> None:
    bare = replace(example_scores(n_samples=0), embeddings=None, gradient_length=None)
    some = bare.take(np.array([5, 0]))
    assert np.array_equal(some.proba, bare.proba[[5, 0]])
    assert (some.embeddings, some.mc_proba, some.gradient_length) == (None, None, None)


def test_each_gpu_gets_enough_images_to_be_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def on(device: str) -> skal.ImageClassifier:
        net = SimpleNamespace(device=device)
        return SimpleNamespace(neural_net_=net, replica=on)  # type: ignore[return-value]

    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert least_for_all_devices(on("cuda")) == 3 * LEAST_PER_DEVICE
    for n, n_devices in ((0, 1), (1, 1), (2, 2), (3, 3), (90, 3)):
        parts = parts_by_device(on("cuda"), n * LEAST_PER_DEVICE)
        used = [str(part.classifier.neural_net_.device) for part in parts]
        assert used == ["cuda", "cuda:1", "cuda:2"][:n_devices]
    assert len(parts_by_device(on("cuda"), 2 * LEAST_PER_DEVICE - 1)) == 1
    assert len(parts_by_device(on("cpu"), 90 * LEAST_PER_DEVICE)) == 1
    assert least_for_all_devices(on("cpu")) == 1


def test_the_scored_classifier_answers_rows_in_any_order() -> None:
    scores = example_scores()
    scored = ScoredClassifier(scores)
    check_is_fitted(scored)
    rows = np.array([[5], [0], [59]])
    proba, embeddings = scored.predict_proba(rows, extra_outputs="emb")
    assert np.array_equal(proba, scores.proba[[5, 0, 59]])
    assert np.array_equal(embeddings, scores.embeddings[[5, 0, 59]])
    labels, logits = scored.predict(rows, extra_outputs=["logits"])
    assert labels.tolist() == scores.proba[[5, 0, 59]].argmax(1).tolist()
    assert scored.predict(rows).tolist() == labels.tolist()
    powers = np.exp(logits)
    np.testing.assert_allclose(powers / powers.sum(1, keepdims=True), proba, atol=1e-6)
    assert np.array_equal(scored.sample_proba(rows, 3), scores.mc_proba[:3, [5, 0, 59]])
    assert np.array_equal(scored.sample_proba(rows), scores.mc_proba[:, [5, 0, 59]])
    lengths = scored.expected_gradient_length(rows)
    assert np.array_equal(lengths, scores.gradient_length[[5, 0, 59]])


def test_the_head_classifier_answers_changed_embeddings() -> None:
    scores = example_scores()
    head = HeadClassifier(scores)
    changed = scores.embeddings[:4] * 0.5
    assert np.array_equal(head.predict_proba(changed), scores.head(changed))
    # the network's head takes nothing but float32
    _, embeddings = head.predict_proba(changed.astype(np.float64), extra_outputs="emb")
    assert embeddings.dtype == np.float32
    assert np.array_equal(embeddings, changed)


def test_it_says_what_it_cannot_answer() -> None:
    scored = ScoredClassifier(example_scores())
    with pytest.raises(ParameterError, match="pass fit_clf=False"):
        scored.fit(np.zeros((2, 1)), [0, 1])
    with pytest.raises(ParameterError, match="have no output 'embs'"):
        scored.predict_proba(np.zeros((2, 1)), extra_outputs="embs")
    with pytest.raises(ParameterError, match="asked for 30 samples; the scores have 20"):
        scored.sample_proba(np.zeros((2, 1)), 30)
    bare = ScoredClassifier(replace(example_scores(n_samples=0), gradient_length=None))
    with pytest.raises(ParameterError, match="asked for 1 samples; the scores have 0"):
        bare.sample_proba(np.zeros((2, 1)), 1)
    with pytest.raises(ParameterError, match="asked for samples; the scores have 0"):
        bare.sample_proba(np.zeros((2, 1)))
    with pytest.raises(ParameterError, match="the scores have no gradient lengths"):
        bare.expected_gradient_length(np.zeros((2, 1)))
