"""skorch callbacks of the user's own see a training's epochs, and act on it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    LRScheduler,
    ProgressBar,
)

import skal
from skal.core.errors import ParameterError


def classifier(**params: Any) -> skal.ImageClassifier:
    options = {"model": "lenet", "classes": [0, 1, 2], "epochs": 8, "train_batch_size": 8}
    return skal.ImageClassifier(**{**options, "random_state": 0, **params})


@pytest.fixture
def y(tiny: skal.ImageDataset) -> np.ndarray:
    return np.where(np.arange(len(tiny.y)) < 30, tiny.y, -1)


class Count(Callback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.begun, self.ended, self.batches = 0, 0, 0

    def on_epoch_begin(self, net: Any, **facts: Any) -> None:
        self.begun += 1

    def on_epoch_end(self, net: Any, **facts: Any) -> None:
        self.ended += 1

    def on_batch_end(self, net: Any, **facts: Any) -> None:
        self.batches += 1


@pytest.mark.parametrize(
    ("budget", "n_epochs", "n_batches"),
    [
        ({"epochs": 8}, 8, 30),
        ({"epochs": 1}, 1, 4),
        ({"steps": 30, "epochs": None}, 8, 30),
        ({"steps": 9, "epochs": None}, 3, 9),  # the third pass is cut
        ({"epochs": 3, "balanced": True, "mixup": 0.4}, 3, 12),
        ({"epochs": 3, "freeze": True}, 3, 12),
    ],
    ids=str,
)
def test_a_pass_over_the_labelled_images_is_an_epoch(
    tiny: skal.ImageDataset, y: np.ndarray, budget: dict[str, Any], n_epochs: int, n_batches: int
) -> None:
    count = Count()
    fitted = classifier(**budget, callbacks=[count]).fit(tiny.X, y)
    assert (count.begun, count.ended, count.batches) == (n_epochs, n_epochs, n_batches)
    history = fitted.neural_net_.history
    assert history[:, "epoch"] == list(range(1, n_epochs + 1))
    assert sum(history[:, "train_batch_count"]) == n_batches
    assert all(np.isfinite(history[:, "train_loss"]))


@pytest.mark.parametrize("n_labeled", [1, 2, 7])
def test_few_images_have_epochs_too(tiny: skal.ImageDataset, n_labeled: int) -> None:
    count = Count()
    few = np.where(np.arange(len(tiny.y)) < n_labeled, tiny.y, -1)
    classifier(steps=5, epochs=None, callbacks=[count]).fit(tiny.X, few)
    assert (count.ended, count.batches) == (5, 5)


def test_patience_ends_within_an_epoch_and_callbacks_hear_of_it(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    count = Count()
    fitted = classifier(
        model="small-cnn", steps=2000, epochs=None, patience=2, callbacks=[count]
    ).fit(tiny.X, y)
    assert count.begun == count.ended == len(fitted.neural_net_.history) < 100


@pytest.mark.parametrize("in_thread", [False, True])
def test_early_stopping_ends_the_training(
    tiny: skal.ImageDataset, y: np.ndarray, in_thread: bool
) -> None:
    count = Count()
    stop = EarlyStopping("train_loss", patience=2, threshold=10, threshold_mode="abs")
    stopped = classifier(callbacks=[count, stop])
    if in_thread:
        thread = threading.Thread(target=stopped.fit, args=(tiny.X, y))
        thread.start()
        thread.join()
    else:
        stopped.fit(tiny.X, y)
    assert count.ended == 3
    assert stopped.predict(tiny.X_test).shape == (30,)


def test_early_stopping_loads_the_best_weights_of_the_training(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    kept: list[dict[str, torch.Tensor]] = []

    class Keep(Callback):  # type: ignore[misc]
        def on_epoch_end(self, net: Any, **facts: Any) -> None:
            kept.append({n: t.clone() for n, t in net.module_.state_dict().items()})

    worse = EarlyStopping("train_loss", patience=3, lower_is_better=False, load_best=True)
    fitted = classifier(epochs=20, callbacks=[Keep(), worse]).fit(tiny.X, y)
    losses = fitted.neural_net_.history[:, "train_loss"]
    assert len(losses) < 20
    for name, value in fitted.neural_net_.module_.state_dict().items():
        assert torch.equal(value, kept[int(np.argmax(losses))][name])


@pytest.mark.parametrize("options", [{}, {"use_caching": False}], ids=str)
@pytest.mark.parametrize("mixup", [0, 0.4])
@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss"])
def test_scores_of_the_training_images_are_kept_by_epoch(
    tiny: skal.ImageDataset, y: np.ndarray, scoring: str, mixup: float, options: dict[str, Any]
) -> None:
    score = EpochScoring(scoring, on_train=True, name="score", lower_is_better=False, **options)
    fitted = classifier(epochs=20, mixup=mixup, callbacks=[score]).fit(tiny.X, y)
    scores = fitted.neural_net_.history[:, "score"]
    assert len(scores) == 20
    assert scores[-1] > scores[0]
    if options or mixup:  # of the weights at the end of the epoch
        labeled = y >= 0
        proba = fitted.predict_proba(tiny.X[labeled])
        expected = {
            "accuracy": (proba.argmax(1) == y[labeled]).mean(),
            "neg_log_loss": np.log(proba[np.arange(30), y[labeled]]).mean(),
        }
        assert scores[-1] == pytest.approx(expected[scoring], abs=1e-5)


def test_a_scheduler_of_ones_own_takes_the_place_of_the_cycle(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    rates: list[float] = []

    class Watch(Callback):  # type: ignore[misc]
        def on_epoch_begin(self, net: Any, **facts: Any) -> None:
            rates.append(net.optimizer_.param_groups[0]["lr"])

    steps = LRScheduler("StepLR", step_size=2, gamma=0.1)
    classifier(lr=0.01, callbacks=[Watch(), steps]).fit(tiny.X, y)
    assert rates == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    plateau = LRScheduler("ReduceLROnPlateau", monitor="train_loss")
    assert classifier(callbacks=[plateau]).fit(tiny.X, y).predict(tiny.X_test).shape == (30,)


def test_progress_bars_and_checkpoints_work(
    tiny: skal.ImageDataset, y: np.ndarray, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Checkpoint("train_loss_best", dirname=tmp_path, f_pickle=None)
    classifier(callbacks=[ProgressBar(), checkpoint]).fit(tiny.X, y)
    assert "0/4" in capsys.readouterr().err
    assert (tmp_path / "params.pt").stat().st_size > 1000


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"callbacks": [EarlyStopping()]}, "EarlyStopping monitors 'valid_loss', but .* no valid"),
        ({"callbacks": [("c", Checkpoint())]}, "Checkpoint monitors 'valid_loss_best'"),
        ({"callbacks": [EpochScoring("accuracy")]}, "EpochScoring scores a validation set"),
        (
            {"callbacks": [BatchScoring("accuracy", on_train=True)], "mixup": 0.4},
            "BatchScoring needs the labels of each batch, which mixup mixes",
        ),
        ({"callbacks": [LRScheduler()], "patience": 2}, "patience and the LRScheduler"),
        ({"callbacks": [LRScheduler()], "schedule": "cosine"}, "schedule and the LRScheduler"),
    ],
)
def test_what_a_callback_cannot_have_is_said_before_anything_is_trained(
    tiny: skal.ImageDataset, y: np.ndarray, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        classifier(**params).fit(tiny.X, y)


@pytest.mark.parametrize("freeze", [False, True])
def test_a_network_is_initialised_for_images_and_not_trained(
    tiny: skal.ImageDataset, y: np.ndarray, freeze: bool
) -> None:
    with pytest.raises(ParameterError, match=r"got no images; .* initialize\(X\)"):
        classifier().initialize()
    network = classifier(freeze=freeze).initialize(tiny.X)
    assert network.predict_proba(tiny.X_test).shape == (30, 3)
    untrained = classifier(freeze=freeze).fit(tiny.X, np.full(90, -1))
    own = network.neural_net_.module_.network.head.state_dict()
    for name, value in untrained.neural_net_.module_.network.head.state_dict().items():
        assert torch.equal(value, own[name])
    network.partial_fit(tiny.X, y)
