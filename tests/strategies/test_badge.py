"""BADGE, against gradients that are spelt out."""

from __future__ import annotations

import numpy as np
import pytest
import skactiveml.pool
from asking import INDEX, NONE_LABELED, ask, made
from skactiveml.classifier import ParzenWindowClassifier
from skactiveml.pool import SubSamplingWrapper

from skal.strategies import (
    Badge,
)
from skal.strategies.scores import ScoredClassifier, Scores
from skal.testing import N_IMAGES, example_scores


def gradients(scores: Scores) -> np.ndarray:
    """The gradient embeddings, spelt out: (n, C * D)."""
    error = scores.proba.astype(float) - np.eye(3)[scores.proba.argmax(1)]
    return np.einsum("nc,nd->ncd", error, scores.embeddings.astype(float)).reshape(N_IMAGES, -1)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def naive_badge(scores: Scores, n: int, seed: int) -> list[int]:
    """k-means++ among gradients that are built, n x (C * D), in float64."""
    draw = np.random.RandomState(seed)
    proba = scores.proba.astype(np.float64)
    error = proba - np.eye(proba.shape[1])[proba.argmax(1)]
    g = (error[:, :, None] * scores.embeddings[:, None].astype(np.float64)).reshape(len(proba), -1)
    picks = [int((g**2).sum(1).argmax())]
    squared = np.full(len(g), np.inf)
    while len(picks) < n:
        squared = np.minimum(squared, ((g - g[picks[-1]]) ** 2).sum(1))
        cumulated = np.cumsum(squared)
        level = draw.random_sample() * cumulated[-1]
        picks.append(int(np.searchsorted(cumulated, level, "right")))
    return picks


class TestBadge:
    def test_the_first_pick_is_the_longest_gradient(self) -> None:
        assert ask("badge", n=3)[0] == np.linalg.norm(gradients(example_scores()), axis=1).argmax()

    def test_later_picks_are_drawn_by_the_squared_distance_to_the_nearest(self) -> None:
        scores, g = example_scores(), gradients(example_scores())
        weights = np.empty((6, N_IMAGES))
        rng = np.random.RandomState(0)
        picks = Badge().pick(scores, 6, rng, weights)
        for number in range(1, 6):
            squared = ((g[:, None] - g[picks[:number]]) ** 2).sum(2).min(1)
            expected = squared / squared.sum()
            expected[picks[:number]] = np.nan
            np.testing.assert_allclose(weights[number], expected, atol=1e-6)

    def test_draws_follow_those_weights(self) -> None:
        scores, g, rng = example_scores(), gradients(example_scores()), np.random.RandomState(0)
        first = np.linalg.norm(g, axis=1).argmax()
        squared = ((g - g[first]) ** 2).sum(1)
        second = [Badge().pick(scores, 2, rng)[1] for _ in range(2000)]
        seen = np.bincount(second, minlength=N_IMAGES) / 2000
        np.testing.assert_allclose(seen, squared / squared.sum(), atol=0.025)

    @pytest.mark.parametrize("problem", range(20))
    def test_picks_are_those_of_the_gradients_spelt_out_in_float64(self, problem: int) -> None:
        rng = np.random.default_rng(problem)
        n, n_classes = int(rng.integers(60, 900)), int(rng.integers(2, 13))
        n_features, n_picks = int(rng.integers(1, 48)), int(rng.integers(5, 40))
        embeddings = rng.normal(size=(n, n_features))
        logits = rng.normal(size=(n, n_classes)) * rng.choice([0.5, 2, 6])
        if problem % 2:  # clusters, where a new centre is far from most images
            cluster = rng.integers(0, 10, n)
            embeddings = 3 * rng.normal(size=(10, n_features))[cluster] + 0.3 * embeddings
            logits = 4 * rng.normal(size=(10, n_classes))[cluster] + 0.3 * logits
        scores = made(softmax(logits), embeddings)
        seed = int(rng.integers(2**31))
        picks = Badge().pick(scores, n_picks, np.random.RandomState(seed))
        assert picks.tolist() == naive_badge(scores, n_picks, seed)

    def test_the_first_draw_agrees_with_scikit_activemls(self) -> None:
        # its further ones do not: there the origin stays a centre
        scores = example_scores()
        params = {"clf_embedding_flag_name": {"extra_outputs": "emb"}, "missing_label": -1}
        given = {"clf": ScoredClassifier(scores), "fit_clf": False, "return_utilities": True}
        ours, our_utilities = Badge(**params).query(INDEX, NONE_LABELED, **given)
        theirs, their_utilities = skactiveml.pool.Badge(**params).query(
            INDEX, NONE_LABELED, **given
        )
        assert ours.tolist() == list(theirs)
        np.testing.assert_allclose(our_utilities, their_utilities, atol=1e-6)

    def test_images_that_coincide_are_drawn_evenly_and_once(self) -> None:
        scores = example_scores(ties=True)
        picks = [tuple(ask("badge", scores=scores, seed=seed)) for seed in range(200)]
        assert all(len(set(batch)) == 8 for batch in picks)
        assert len({batch[1] for batch in picks}) > 40

    def test_certain_predictions_have_no_gradient_and_still_make_a_batch(self) -> None:
        proba = np.eye(3, dtype=np.float32)[np.arange(N_IMAGES) % 3]
        scores = Scores(np.arange(3), proba, example_scores().embeddings)
        assert len(set(ask("badge", scores=scores, n=20).tolist())) == 20

    def test_it_takes_the_place_of_scikit_activemls_with_any_classifier(self) -> None:
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(40, 2)), np.full(40, -1)
        y[:6] = [0, 1, 2, 0, 1, 2]
        classifier = ParzenWindowClassifier(classes=[0, 1, 2], missing_label=-1)
        query = Badge(random_state=0)
        picks = query.query(X, y, classifier, batch_size=5)
        assert len(set(picks.tolist())) == 5
        assert (y[picks] == -1).all()
        wrapped = SubSamplingWrapper(query, max_candidates=10, missing_label=-1, random_state=0)
        picks = wrapped.query(X, y, batch_size=3, clf=classifier)
        assert len(set(np.asarray(picks).tolist())) == 3
        labelled = query.query(X, y, classifier, candidates=[0, 1, 7, 9], batch_size=2)
        assert set(labelled.tolist()) == {7, 9}
