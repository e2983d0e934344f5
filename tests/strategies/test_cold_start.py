"""Cold start: `--init-strategy`, as a run and a loop in steps have it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skal
from skal.core.errors import ParameterError, UnknownNameError
from skal.datasets.oracles import FunctionOracle, Oracle, TrueLabels
from skal.runs.config import SETTINGS
from skal.strategies.catalogue import INIT_STRATEGIES
from skal.strategies.cold_start import COMPONENTS

START: dict[str, Any] = {"model": "lenet", "steps": 1, "n_init": 8, "n_rounds": 0, "stop": "off"}
DIVERSE = ("k-means", "typiclust", "probcover", "herding")
N_GROUPS = 6


@pytest.fixture
def grouped(tiny: skal.ImageDataset) -> skal.ImageDataset:
    """Six kinds of images, told apart by where a bright square is; half of all are of one kind."""
    rng = np.random.default_rng(1)
    kinds = rng.permutation(np.repeat(np.arange(N_GROUPS), [45, 9, 9, 9, 9, 9]))
    X = rng.integers(0, 40, (len(kinds), 1, 12, 12), dtype=np.uint8)
    for image, kind in zip(X, kinds, strict=True):
        row, column = 4 * (kind // 3), 4 * (kind % 3)
        image[0, row : row + 4, column : column + 4] += 200
    classes = tuple(f"kind {kind}" for kind in range(N_GROUPS))
    return skal.ImageDataset(X, kinds, classes, X[:12], kinds[:12], name="grouped")


@pytest.fixture
def weights(tiny: skal.ImageDataset, tmp_path: Path) -> Path:
    """Weights of a network that tells the classes of `tiny` apart."""
    settings = {**START, "steps": 60, "n_init": 30, "out": tmp_path / "pretraining"}
    return skal.run(tiny, "random", **settings).folder / "model.safetensors"


def start(data: skal.ImageDataset, init_strategy: str, **changes: Any) -> list[int]:
    settings: Mapping[str, Any] = {"strategy": "random", **START, **changes}
    if "stream" in settings:
        settings = {name: value for name, value in settings.items() if name != "n_query"}
    run = skal.run(data, init_strategy=init_strategy, **settings)
    return [row["index"] for row in run.queries]


def test_every_name_can_be_chosen() -> None:
    assert set(INIT_STRATEGIES.names()) == {"random", "stratified", *DIVERSE}
    assert SETTINGS["init_strategy"].default is None


@pytest.mark.parametrize("name", INIT_STRATEGIES.names())
@pytest.mark.parametrize("n", [1, 8, 89])
def test_as_many_images_as_asked_for_are_chosen_each_once(
    tiny: skal.ImageDataset, name: str, n: int
) -> None:
    picks = start(tiny, name, n_init=n)
    assert len(picks) == len(set(picks)) == n
    assert set(picks) <= set(range(90))


@pytest.mark.parametrize("name", INIT_STRATEGIES.names())
def test_the_start_depends_on_the_seed_and_not_on_the_strategy(
    tiny: skal.ImageDataset, name: str
) -> None:
    first = start(tiny, name, seed=3)
    for strategy in ("random", "margin", "bald"):
        assert start(tiny, name, seed=3, strategy=strategy) == first
    assert start(tiny, name, seed=3, strategy="split", stream="shuffled") == first
    assert start(tiny, name, seed=4) != first


@pytest.mark.parametrize("name", ["random", *DIVERSE])
def test_a_loop_in_steps_starts_from_the_same_images_as_a_run(
    tiny: skal.ImageDataset, name: str
) -> None:
    classifier = skal.ImageClassifier("lenet", classes=range(3))
    learner = skal.ActiveLearner(tiny, classifier, init_strategy=name, seed=3)
    assert learner.query(8).tolist() == start(tiny, name, seed=3)


@pytest.mark.parametrize("name", INIT_STRATEGIES.names())
def test_more_than_there_are_is_the_whole_pool(tiny: skal.ImageDataset, name: str) -> None:
    assert sorted(start(tiny, name, n_init=500)) == list(range(90))


@pytest.mark.parametrize("name", ["random", *DIVERSE])
def test_that_there_are_fewer_is_said(
    tiny: skal.ImageDataset, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    start(tiny, name, n_init=91)
    assert "asked for 91 images, but only 90 are left: taking them" in caplog.text


def test_a_wrong_name_is_refused_with_the_nearest_and_nothing_is_written(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    message = r"unknown init strategy 'typicluster'; did you mean typiclust\?"
    with pytest.raises(UnknownNameError, match=message):
        start(tiny, "typicluster", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UnknownNameError, match=message):
        classifier = skal.ImageClassifier("lenet", classes=range(3))
        skal.ActiveLearner(tiny, classifier, init_strategy="typicluster")


# stratified


@pytest.mark.parametrize("n", [2, 7, 9, 23])
def test_a_stratified_start_has_the_same_number_of_each_class(
    tiny: skal.ImageDataset, n: int
) -> None:
    counts = np.bincount(tiny.y[start(tiny, "stratified", n_init=n)], minlength=3)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


def test_what_a_rare_class_lacks_the_others_give(tiny: skal.ImageDataset) -> None:
    rare = replace(tiny, y=np.where(np.arange(90) < 2, 0, 1 + np.arange(90) % 2))
    counts = np.bincount(rare.y[start(rare, "stratified", n_init=12)])
    assert counts.tolist() == [2, 5, 5]


def test_a_stratified_start_is_drawn_by_the_oracle_and_not_by_the_datasets_labels(
    tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    truth = np.arange(90) // 30
    picks = start(tiny, "stratified", n_init=12, oracle=TrueLabels(truth))
    assert Counter(truth[picks].tolist()) == {0: 4, 1: 4, 2: 4}
    assert "initial set: stratified, drawn by the oracle" in caplog.text


class Person(Oracle):
    def label(self, indices: np.ndarray) -> np.ndarray:
        return indices % 3


@pytest.mark.parametrize(
    ("oracle", "name"),
    [
        (lambda indices: indices % 3, "FunctionOracle"),
        (FunctionOracle(lambda indices: indices % 3), "FunctionOracle"),
        (Person(), "Person"),
    ],
)
def test_a_stratified_start_is_refused_where_nobody_knows_the_labels(
    tiny: skal.ImageDataset, oracle: Any, name: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        start(tiny, "stratified", oracle=oracle)
    assert str(caught.value) == (
        f"{name} does not know labels in advance, so the initial set cannot be "
        "stratified; choose another init_strategy, such as random"
    )
    assert caught.value.exit_code == 2


def test_a_loop_in_steps_cannot_start_stratified(tiny: skal.ImageDataset) -> None:
    classifier = skal.ImageClassifier("lenet", classes=range(3))
    with pytest.raises(ParameterError, match="needs an oracle that knows the labels"):
        skal.ActiveLearner(tiny, classifier, init_strategy="stratified").query(3)


# diverse


@pytest.mark.parametrize("name", DIVERSE)
def test_a_diverse_start_has_kinds_of_images_that_a_random_one_misses(
    grouped: skal.ImageDataset, name: str
) -> None:
    def n_kinds(init_strategy: str) -> list[int]:
        starts = (start(grouped, init_strategy, n_init=N_GROUPS, seed=seed) for seed in range(3))
        return [len(set(grouped.y[picks])) for picks in starts]

    assert min(n_kinds(name)) >= N_GROUPS - 1
    assert max(n_kinds("random")) < N_GROUPS - 1


@pytest.mark.parametrize("name", DIVERSE)
def test_images_of_the_same_pixels_are_no_obstacle(tiny: skal.ImageDataset, name: str) -> None:
    X = np.zeros_like(tiny.X)
    X[40:] = 255
    picks = start(replace(tiny, X=X), name)
    assert len(set(picks)) == 8
    assert {index < 40 for index in picks} == {True, False}


@pytest.mark.parametrize("name", DIVERSE)
def test_without_weights_the_run_says_that_it_goes_by_the_pixels(
    tiny: skal.ImageDataset, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    start(tiny, name, out=tmp_path / "run")
    line = (
        f"initial set: {name} on {COMPONENTS} principal components of the pixels "
        "(there is no pretrained network)"
    )
    assert line in caplog.messages
    assert line in (tmp_path / "run/log.txt").read_text()


@pytest.mark.parametrize("name", DIVERSE)
def test_with_weights_the_run_goes_by_their_embeddings_and_says_so(
    tiny: skal.ImageDataset,
    tmp_path: Path,
    weights: Path,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "skal")
    picks = start(tiny, name, n_init=3, weights=weights, out=tmp_path / "run")
    assert set(tiny.y[picks]) == {0, 1, 2}  # these weights know the classes
    line = f"initial set: {name} on embeddings by lenet with {weights}"
    assert line in caplog.messages
    assert line in (tmp_path / "run/log.txt").read_text()
    assert start(tiny, name, n_init=3, weights=weights) == picks
    assert start(tiny, name, n_init=3) != picks


def test_looking_at_the_images_beforehand_does_not_change_the_training(
    tiny: skal.ImageDataset, weights: Path
) -> None:
    def predictions(look: bool) -> np.ndarray:
        settings: dict[str, Any] = {"steps": 3, "weights": weights, "random_state": 0}
        classifier = skal.ImageClassifier("lenet", classes=range(3), **settings)
        learner = skal.ActiveLearner(tiny, classifier, init_strategy="k-means")
        if look:
            learner.query(8)
        return learner.teach(np.arange(9), tiny.y[:9]).classifier.predict_proba(tiny.X_test)

    assert np.array_equal(predictions(look=True), predictions(look=False))


def test_a_random_start_needs_no_embeddings(
    tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    start(tiny, "random")
    assert "initial set" not in caplog.text
