"""skal's own strategies as those of scikit-activeml, and what they share."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from asking import INDEX, ask, labels
from skactiveml.classifier import ParzenWindowClassifier

import skal
from skal.core.errors import ParameterError
from skal.strategies import (
    STRATEGIES,
    TCM,
    Badge,
    CommitteeVariance,
    CoreSet,
    DiverseBatch,
    DiverseEntropy,
    ExpectedGradientLength,
    KMeansSampling,
    MCDropoutBALD,
    PowerBALD,
    PowerMargin,
    TypiClust,
    resolve_strategy,
)
from skal.strategies.base import GreedyBatch
from skal.strategies.scores import ScoredClassifier
from skal.testing import example_scores


class Images(ParzenWindowClassifier):  # type: ignore[misc]
    """A classifier of images that tells no embeddings."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Images:
        return super().fit(np.reshape(X, (len(X), -1)), y)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return super().predict_proba(np.reshape(X, (len(X), -1)))


class TestOnImages:
    def test_badge_asks_for_embeddings_without_being_told(self, tiny: skal.ImageDataset) -> None:
        y = np.where(np.arange(90) < 30, tiny.y, -1)
        fitted = skal.ImageClassifier(classes=[0, 1, 2], steps=5, random_state=0).fit(tiny.X, y)
        told = Badge({"extra_outputs": "emb"}, random_state=0)
        expected = told.query(tiny.X, y, fitted, fit_clf=False, batch_size=8)
        picks = Badge(random_state=0).query(tiny.X, y, fitted, fit_clf=False, batch_size=8)
        assert picks.tolist() == expected.tolist()

    def test_badge_takes_no_raw_images_for_embeddings(self, tiny: skal.ImageDataset) -> None:
        y = np.where(np.arange(90) < 30, tiny.y, -1)
        clf = Images(classes=[0, 1, 2], missing_label=-1)
        message = r"Images.predict_proba does not return embeddings; "
        with pytest.raises(ParameterError, match=f"{message}set clf_embedding_flag_name"):
            Badge().query(tiny.X, y, clf)
        with pytest.raises(ParameterError, match=f"{message}use a classifier .* extra_outputs="):
            CoreSet().query(tiny.X, y, clf)

    def test_weights_that_the_classifier_does_not_take_are_refused(
        self, tiny: skal.ImageDataset
    ) -> None:
        y = np.where(np.arange(90) < 30, tiny.y, -1)
        clf = skal.ImageClassifier(classes=[0, 1, 2], steps=1)
        with pytest.raises(ParameterError, match="only the head 'logistic'"):
            Badge().query(tiny.X, y, clf, sample_weight=np.ones(90))

    @pytest.mark.parametrize("query", [Badge(), MCDropoutBALD()])
    @pytest.mark.filterwarnings("ignore:.*batch_size")  # scikit-activeml's own, of a lesser batch
    def test_a_pool_without_candidates_gives_an_empty_batch(
        self, tiny: skal.ImageDataset, query: skal.strategies.BatchStrategy
    ) -> None:
        clf = skal.ImageClassifier(classes=[0, 1, 2], steps=1)
        for candidates in (None, [0, 1]):
            picks, utilities = query.query(
                tiny.X, tiny.y, clf, candidates=candidates, return_utilities=True
            )
            assert picks.shape == (0,)
            assert utilities.shape == (0, 90)


OWN = [name for name in STRATEGIES.names() if resolve_strategy(name).reads is not None]


def on(device: str, name: str) -> list[int]:
    """Picks of a strategy from scores of a network that computes there."""
    scores = dataclasses.replace(example_scores(n_images=400, n_features=32), device=device)
    return ask(name, scores=scores, y=labels(400), n=30).tolist()


class TestDevices:
    @pytest.mark.parametrize("name", OWN)
    def test_on_apples_gpus_which_know_no_float64_the_cpu_computes(self, name: str) -> None:
        assert on("mps", name) == on("cpu", name)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
    @pytest.mark.parametrize("name", OWN)
    def test_a_gpu_picks_what_the_cpu_picks(self, name: str) -> None:
        assert on("cuda", name) == on("cpu", name)


class TestGreedyBatch:
    def test_the_highest_that_is_left_is_picked_and_its_row_filled(self) -> None:
        values, rows = np.array([3, 9, 5], np.int64), np.empty((3, 3))
        batch = GreedyBatch(3, np.random.RandomState(0), rows)
        for number, (pick, row) in enumerate(
            [(1, [3, 9, 5]), (2, [3, np.nan, 5]), (0, [3, np.nan, np.nan])]
        ):
            assert batch.pick(values) == pick
            np.testing.assert_array_equal(rows[number], row)
        assert batch.picks.tolist() == [1, 2, 0]
        assert values.tolist() == [3, 9, 5]

    def test_ties_fall_at_random(self) -> None:
        draw = np.random.RandomState(0)
        seen = {GreedyBatch(1, draw).pick(np.array([1.0, 2.0, 2.0])) for _ in range(20)}
        assert seen == {1, 2}


EMBEDDED = [CoreSet, TypiClust, KMeansSampling]


LEARNING = [
    Badge, MCDropoutBALD, CoreSet, TypiClust, TCM, KMeansSampling, DiverseEntropy, DiverseBatch,
    PowerMargin, PowerBALD, CommitteeVariance, ExpectedGradientLength,
]  # fmt: skip


class TestOnTheirOwn:
    """skal's strategies as those of scikit-activeml: `query(X, y, clf)`."""

    @pytest.mark.parametrize("cls", LEARNING)
    def test_they_take_images_and_a_classifier_of_images(
        self, tiny: skal.ImageDataset, cls: type
    ) -> None:
        y = np.where(np.arange(90) < 12, tiny.y, -1)
        clf = skal.ImageClassifier("lenet", classes=[0, 1, 2], steps=2, random_state=0)
        picks, rows = cls(random_state=0).query(tiny.X, y, clf, batch_size=6, return_utilities=True)
        assert len(set(picks.tolist())) == 6
        assert (y[picks] == -1).all()
        assert rows.shape == (6, 90)
        assert np.isfinite(rows[0, 12:]).all()
        assert not hasattr(clf, "neural_net_")  # a clone was trained
        fitted = skal.ImageClassifier("lenet", classes=[0, 1, 2], steps=2, random_state=0)
        fitted.fit(tiny.X, y)
        again = cls(random_state=0).query(tiny.X, y, fitted, fit_clf=False, batch_size=6)
        assert again.tolist() == picks.tolist()

    @pytest.mark.parametrize("cls", EMBEDDED)
    def test_those_of_embeddings_alone_need_no_classifier(self, cls: type) -> None:
        X = example_scores().embeddings
        picks = cls(random_state=0).query(X, labels(), batch_size=6)
        assert len(set(picks.tolist())) == 6
        assert (labels()[picks] == -1).all()
        scored = cls(random_state=0).query(
            INDEX, labels(), ScoredClassifier(example_scores()), fit_clf=False, batch_size=6
        )
        assert scored.tolist() == picks.tolist()

    @pytest.mark.parametrize("cls", sorted(set(LEARNING) - set(EMBEDDED), key=str))
    def test_the_others_say_that_they_need_one(self, cls: type) -> None:
        with pytest.raises(TypeError, match="clf"):
            cls().query(example_scores().embeddings, labels())

    def test_what_is_labelled_counts_though_it_is_no_candidate(self) -> None:
        X = np.array([[0.0], [3.0], [4.0], [10.0]], np.float32)
        y = np.array([-1, -1, -1, 1])
        assert CoreSet().query(X, y, candidates=[1, 2]).tolist() == [1]
        assert CoreSet().query(X, y, candidates=X[1:3]).tolist() == [0]
