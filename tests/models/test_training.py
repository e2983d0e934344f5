"""What a training does beside the default: schedules, averages, batches, warm starts, devices."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_up import Memory, bars, watched
from sklearn.base import clone
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from torch import Tensor, nn

import skal
from skal.core.errors import DataError, ParameterError, RunFolderError, UnknownNameError
from skal.core.seeding import derive_seed
from skal.models import Network
from skal.models import iterators as batches_module
from skal.models.devices import Device, computing_on
from skal.models.iterators import SliceBatches, resident, say_smaller
from skal.models.network import ImageModule
from skal.models.persistence import load_classifier, load_weights, save_classifier
from skal.models.training import TrainBatches
from skal.strategies.scores import ScoreRequest, parts_by_device, score_pool

FAST: dict[str, Any] = {"model": "lenet", "steps": 3, "n_init": 6, "n_query": 4, "n_rounds": 2}
OPTIONS: list[dict[str, Any]] = [
    {"label_smoothing": 0.1},
    {"average": "ema"},
    {"average": "swa"},
    {"clip_norm": 0.01},
    {"balanced": True},
    {"mixup": 0.4},
    {"patience": 1},
    {"schedule": "cosine"},
    {"mixup": 1.0, "label_smoothing": 0.1, "average": "ema", "balanced": True, "patience": 1},
]


def classifier(**params: Any) -> skal.ImageClassifier:
    return skal.ImageClassifier(**{"classes": [0, 1, 2], "steps": 30, "random_state": 0, **params})


@pytest.fixture
def y(tiny: skal.ImageDataset) -> np.ndarray:
    return np.where(np.arange(len(tiny.y)) < 30, tiny.y, -1)


def weights(fitted: skal.ImageClassifier) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in fitted.neural_net_.module_.state_dict().items()}


def all_of(batches: TrainBatches) -> list[Any]:
    """Return the batches of all epochs."""
    found = []
    while batches.left:
        found += list(batches)
    return found


class Watch(Callback):  # type: ignore[misc]
    """Keeps what happens in each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.weights: list[list[Tensor]] = []
        self.batches: list[Any] = []
        self.norms: list[float] = []

    def on_batch_begin(self, net: Any, batch: Any = None, **kwargs: Any) -> None:
        self.batches.append(batch)
        self.rates.append(net.optimizer_.param_groups[0]["lr"])

    def on_grad_computed(self, net: Any, named_parameters: Any = None, **kwargs: Any) -> None:
        grads = [p.grad.flatten() for _, p in named_parameters if p.grad is not None]
        self.norms.append(float(torch.cat(grads).norm()))

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        self.weights.append([p.detach().clone() for p in net.module_.parameters()])


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    """What a network says that was trained without any option."""
    data = bars()
    y = np.where(np.arange(len(data.y)) < 30, data.y, -1)
    proba: np.ndarray = classifier(steps=60).fit(data.X, y).predict_proba(data.X_test)
    return proba


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_learns_and_is_decided_by_the_seed(
    tiny: skal.ImageDataset, y: np.ndarray, options: dict[str, Any], plain: np.ndarray
) -> None:
    fitted = classifier(**options, steps=60).fit(tiny.X, y)
    assert fitted.score(tiny.X_test, tiny.y_test) > 0.9
    proba = fitted.predict_proba(tiny.X_test)
    assert np.array_equal(proba, clone(fitted).fit(tiny.X, y).predict_proba(tiny.X_test))
    assert not np.array_equal(proba, plain)


def test_every_option_is_kept_with_the_network(
    tiny: skal.ImageDataset, y: np.ndarray, tmp_path: Path
) -> None:
    fitted = classifier(**OPTIONS[-1], warm_start="shrink", clip_norm=1.0).fit(tiny.X, y)
    save_classifier(fitted, tmp_path)
    loaded = load_classifier(tmp_path)
    assert np.array_equal(loaded.predict_proba(tiny.X_test), fitted.predict_proba(tiny.X_test))
    for name in (*OPTIONS[-1], "warm_start", "clip_norm"):
        assert getattr(loaded, name) == getattr(fitted, name)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"warm_start": "onn"}, UnknownNameError, "did you mean on"),
        ({"average": "emma"}, UnknownNameError, "did you mean ema"),
        ({"label_smoothing": 1.0}, ParameterError, "expected a number of at least 0 and below 1"),
        ({"clip_norm": 0}, ParameterError, "clip_norm: got 0; expected a number above 0"),
        ({"mixup": -1}, ParameterError, "mixup: got -1; expected a number of at least 0"),
        ({"mixup": "a"}, ParameterError, "mixup: got 'a'; expected a number"),
        ({"schedule": "cosin"}, UnknownNameError, "did you mean cosine"),
        ({"schedule": "cosine", "patience": 2}, ParameterError, "has no effect with patience"),
        ({"patience": 0}, ParameterError, "patience: got 0; expected a whole number"),
        ({"patience": 2, "average": "swa"}, ParameterError, "patience or average swa, not both"),
    ],
)
def test_wrong_options_are_named(
    tiny: skal.ImageDataset, params: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        classifier(**params).fit(tiny.X, tiny.y)


# what each option does


def test_smoothed_labels_are_what_torch_says_they_are(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    fitted = classifier(label_smoothing=0.3).fit(tiny.X, y)
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    spread = 0.7 * nn.functional.one_hot(target, 3) + 0.1
    expected = -(spread * logits.log_softmax(1)).sum(1).mean()
    found = fitted.neural_net_.criterion_((logits, None), target)
    torch.testing.assert_close(found, expected)


def test_long_gradients_are_shortened(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    watch = Watch()
    classifier(clip_norm=0.01, callbacks=[("watch", watch)]).fit(tiny.X, y)
    assert watch.norms[0] == pytest.approx(0.01, rel=1e-3)
    assert max(watch.norms) < 0.0101


def test_swa_is_the_mean_over_the_last_quarter_of_the_steps(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    watch = Watch()
    fitted = classifier(average="swa", steps=40, callbacks=[("watch", watch)]).fit(tiny.X, y)
    assert len(watch.weights) == 40
    for found, *steps in zip(
        fitted.neural_net_.module_.parameters(), *watch.weights[30:], strict=True
    ):
        torch.testing.assert_close(found.detach(), torch.stack(steps).mean(0))
    np.testing.assert_allclose(watch.rates[30:], max(watch.rates) / 10, rtol=0.01)
    assert np.ptp(watch.rates[30:]) == 0


def test_ema_weighs_the_last_tenth_of_the_steps_most(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    watch = Watch()
    fitted = classifier(average="ema", steps=40, callbacks=[("watch", watch)]).fit(tiny.X, y)
    expected = watch.weights[0]
    for done, step in enumerate(watch.weights[1:], start=1):
        share = 1 / min(max(done / 10, 2), 4)  # a tenth of those done, or of all
        expected = [(1 - share) * a + share * b for a, b in zip(expected, step, strict=True)]
    for found, value in zip(fitted.neural_net_.module_.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), value)


def test_the_average_of_a_training_that_ends_early_is_of_its_end(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    watch = Watch()
    planned = {"average": "ema", "steps": 4000, "patience": 1}
    fitted = classifier(**planned, callbacks=[("watch", watch)]).fit(tiny.X, y)
    assert 10 < len(watch.weights) < 1000
    first, last = watch.weights[0], watch.weights[-1]
    for found, begun, ended in zip(
        fitted.neural_net_.module_.parameters(), first, last, strict=True
    ):
        assert torch.dist(found.detach(), ended) <= torch.dist(found.detach(), begun)


def test_averaged_networks_have_the_batch_norm_statistics_of_their_own_activations(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    fitted = classifier(average="ema", precision="fp32", train_batch_size=30).fit(tiny.X, y)
    module = fitted.neural_net_.module_
    first = module.network.backbone[0](module.eval().prepare(torch.from_numpy(tiny.X[:30])))
    norm = module.network.backbone[1]
    torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, first.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_balanced_batches_hold_all_classes_alike_and_all_images_of_each() -> None:
    y = np.repeat([0, 1, 2], [40, 8, 2])
    dataset = Dataset(np.arange(50, dtype=np.uint8)[:, None, None, None], y)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = all_of(TrainBatches(dataset, 12, steps=10, balanced=True))
    for _, labels in drawn:
        assert torch.bincount(labels).tolist() == [4, 4, 4]
    seen = torch.cat([images.flatten() for images, _ in drawn]).bincount(minlength=50)
    assert seen[:40].tolist() == [1] * 40  # 40 turns of the first class
    assert seen[40:48].tolist() == [5] * 8
    assert seen[48:].tolist() == [20, 20]


def test_classes_without_a_label_get_no_turn() -> None:
    dataset = Dataset(np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 0, 2, 2]))
    labels = torch.cat([y for _, y in all_of(TrainBatches(dataset, 4, steps=3, balanced=True))])
    assert torch.bincount(labels).tolist() == [6, 0, 6]


def test_mixup_mixes_images_and_labels_to_the_same_shares(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    watch = Watch()
    fitted = classifier(mixup=0.4, callbacks=[("watch", watch)]).fit(tiny.X, y)
    module, seen = fitted.neural_net_.module_.eval(), []
    module.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    shares = set()
    for mixed, labels in watch.batches:
        share, partners = float(mixed["shares"][0]), mixed["partners"]
        shares.add(share)
        assert sorted(partners.tolist()) == list(range(30))
        plain = module.prepare(mixed["images"])
        module(**mixed)
        torch.testing.assert_close(seen[-1], share * plain + (1 - share) * plain[partners])
        found = [tiny.X.tolist().index(image) for image in mixed["images"].tolist()]
        own = nn.functional.one_hot(torch.from_numpy(tiny.y[found]), 3)
        torch.testing.assert_close(labels, share * own + (1 - share) * own[partners])
    assert len(shares) == 30


def test_a_cosine_falls_from_the_highest_rate_to_none(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    watch = Watch()
    fitted = classifier(schedule="cosine", lr=0.01, callbacks=[("watch", watch)]).fit(tiny.X, y)
    expected = 0.01 * (1 + np.cos(np.pi * np.arange(30) / 30)) / 2
    np.testing.assert_allclose(watch.rates, expected, rtol=1e-6)
    cycle = classifier(lr=0.01).fit(tiny.X, y)
    other = weights(cycle)
    assert not all(torch.equal(w, other[name]) for name, w in weights(fitted).items())


def test_a_cosine_is_held_at_a_tenth_where_weights_are_averaged(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    watch = Watch()
    classifier(
        schedule="cosine", average="swa", steps=40, lr=0.01, callbacks=[("watch", watch)]
    ).fit(tiny.X, y)
    np.testing.assert_allclose(watch.rates[30:], 0.001, rtol=1e-6)
    assert watch.rates[0] == 0.01 and (np.diff(watch.rates[:31]) < 0).all()


def test_a_run_takes_the_schedule_and_repeats_it(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    run = skal.run(tiny, "margin", **FAST, schedule="cosine", out=tmp_path / "run")
    assert run.classifier.schedule == "cosine"
    assert 'schedule = "cosine"' in (tmp_path / "run/config.toml").read_text()
    plain = skal.run(tiny, "margin", **FAST)
    assert run.rounds[0]["nll"] != plain.rounds[0]["nll"]


def test_patience_ends_a_training_whose_loss_no_longer_falls(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    watch = Watch()
    fitted = classifier(patience=2, steps=2000, callbacks=[("watch", watch)]).fit(tiny.X, y)
    epochs = fitted.neural_net_.history
    losses = [batch["train_loss"] for epoch in epochs for batch in epoch["batches"]]
    rates = np.array(watch.rates) / max(watch.rates)
    assert len(losses) < 300
    assert fitted.score(tiny.X_test, tiny.y_test) > 0.9
    # it rises, holds until the loss is flat, falls by a quarter of that time, and ends near 0
    held = int(np.flatnonzero(rates == 1)[-1]) + 1
    assert rates[0] == pytest.approx(1 / 50)
    assert (rates[49:held] == 1).all()
    assert (np.diff(rates[held:]) < 0).all()
    assert rates[-1] < 0.2
    assert abs(len(rates) - math.floor(held * 1.25)) <= 1
    windows = [np.mean(losses[i : i + 10]) for i in range(50, held - 9, 10)]
    best = np.minimum.accumulate(windows)
    assert (best[-3] - best[-2:] < 0.01).all()


def test_patience_never_asks_for_more_steps_than_are_allowed(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    watch = Watch()
    classifier(patience=100, steps=60, callbacks=[("watch", watch)]).fit(tiny.X, y)
    assert len(watch.rates) == 60
    assert watch.rates[-1] < 0.1 * max(watch.rates)


# warm starts


class Start(Callback):  # type: ignore[misc]
    """Keeps the weights that each training starts from."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.seen.append({n: t.clone() for n, t in net.module_.state_dict().items()})


def second_start(
    tiny: skal.ImageDataset, y: np.ndarray, warm_start: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of a fit, those that the next starts from, and those of a fresh start."""
    start = Start()
    fitted = classifier(steps=3, warm_start=warm_start, callbacks=[start]).fit(tiny.X, y)
    before = weights(fitted)
    fitted.set_params(random_state=5).fit(tiny.X, y)
    classifier(steps=1, random_state=5, callbacks=[start]).fit(tiny.X, y)
    return before, *start.seen[1:]


def test_a_warm_start_is_from_the_weights_before(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    before, start, fresh = second_start(tiny, y, "on")
    assert all(torch.equal(start[name], before[name]) for name in before)
    assert not all(torch.equal(start[name], fresh[name]) for name in before)


def test_a_shrunk_start_is_between_the_weights_before_and_new_ones(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    before, start, fresh = second_start(tiny, y, "shrink")
    for name, values in before.items():
        trained = name.rsplit(".", 1)[-1] in ("weight", "bias")
        expected = 0.6 * values + 0.1 * fresh[name] if trained else values
        torch.testing.assert_close(start[name], expected)


def test_without_a_warm_start_a_fit_forgets_the_one_before(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    fitted = classifier().fit(tiny.X, y)
    before = weights(fitted)
    after = weights(fitted.fit(tiny.X, y))
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_warm_start_on_other_images_is_refused(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    fitted = classifier(warm_start="on", steps=1).fit(tiny.X, y)
    with pytest.raises(DataError, match=r"warm_start: .* had shape .* fit a new classifier"):
        fitted.fit(np.repeat(tiny.X, 3, axis=1), y)


@pytest.fixture
def straight(tiny: skal.ImageDataset, tmp_path: Path) -> skal.Run:
    """A run with warm starts that nobody stopped."""
    return skal.run(tiny, "badge", **FAST, warm_start="on", out=tmp_path / "straight")


def assert_same(found: skal.Run, straight: skal.Run) -> None:
    assert found.folder is not None and straight.folder is not None
    for name in ("queries.csv", "model.safetensors"):
        assert (found.folder / name).read_bytes() == (straight.folder / name).read_bytes(), name
    assert not list(found.folder.glob("checkpoint*"))


def test_a_run_with_warm_starts_goes_on_from_each_last_round(
    tiny: skal.ImageDataset, straight: skal.Run
) -> None:
    data = skal.ImageDataset(tiny.X, tiny.y, tiny.classes, tiny.X_test, tiny.y_test)
    learner = classifier(model="lenet", steps=3, warm_start="on")
    for number in range(3):
        picks = [row["index"] for row in straight.queries if row["round"] <= number]
        known = np.where(np.isin(np.arange(len(data.y)), picks), data.y, -1)
        learner.set_params(random_state=derive_seed(0, "training", number)).fit(data.X, known)
    expected = learner.predict_proba(tiny.X_test)
    assert np.array_equal(straight.classifier.predict_proba(tiny.X_test), expected)
    fresh = skal.run(tiny, "badge", **FAST)
    assert not np.array_equal(fresh.classifier.predict_proba(tiny.X_test), expected)


class Stop(Exception):
    """What a test stops a run with."""


class StopIn(skal.Tracker):
    def __init__(self, where: str) -> None:
        self.where = where

    def on_phase(self, round_number: int, phase: str) -> None:
        if self.where == f"{phase} {round_number}":
            raise Stop

    def on_round(self, row: Any) -> None:
        if self.where == f"round {row['round']}":
            raise Stop


@pytest.mark.parametrize(
    "where",
    ["training 0", "evaluating 0", "round 0", "querying 1", "evaluating 1", "round 1", "round 2"],
)
def test_a_stopped_run_with_warm_starts_ends_as_if_it_had_not_been(
    tiny: skal.ImageDataset, tmp_path: Path, straight: skal.Run, where: str
) -> None:
    with pytest.raises(Stop):
        folder = tmp_path / "run"
        skal.run(tiny, "badge", **FAST, warm_start="on", out=folder, trackers=[StopIn(where)])
    assert_same(skal.resume(tmp_path / "run", data=tiny), straight)


@pytest.mark.parametrize(
    "settings",
    [{"freeze": True}, {"stream": "in-order", "n_query": None, "budget": "30%"}],
    ids=["frozen", "stream"],
)
def test_frozen_backbones_and_streams_go_on_with_warm_starts(
    tiny: skal.ImageDataset, tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings = {**FAST, **settings, "warm_start": "shrink"}
    settings = {name: value for name, value in settings.items() if value is not None}
    strategy = "random" if "stream" in settings else "badge"
    expected = skal.run(tiny, strategy, **settings, out=tmp_path / "straight")
    with pytest.raises(Stop):
        trackers = [StopIn("evaluating 2")]
        skal.run(tiny, strategy, **settings, out=tmp_path / "run", trackers=trackers)
    assert_same(skal.resume(tmp_path / "run", data=tiny), expected)


KILLED = """
import os, signal, sys
import skal
from skal.runs.trackers import Tracker
class Killer(Tracker):
    def on_phase(self, number, phase):
        if (number, phase) == (1, "evaluating"):
            os.kill(os.getpid(), signal.SIGKILL)
skal.run("digits", "badge", model="lenet", steps=3, n_rounds=2, warm_start="shrink", seed=1,
         out=sys.argv[1], trackers=[Killer()])
"""


def test_a_killed_run_with_warm_starts_picks_the_same(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    resumed = skal.resume(tmp_path / "run")
    settings: dict[str, Any] = {"model": "lenet", "steps": 3, "n_rounds": 2, "seed": 1}
    skal.run("digits", "badge", **settings, warm_start="shrink", out=tmp_path / "straight")
    for name in ("queries.csv", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert resumed.summary["n_labeled"] == 60


def test_a_checkpoint_that_is_gone_is_named(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        trackers = [StopIn("querying 1")]
        skal.run(tiny, **FAST, warm_start="on", out=tmp_path / "run", trackers=trackers)
    (tmp_path / "run/checkpoint-0.safetensors").unlink()
    with pytest.raises(RunFolderError, match=r"checkpoint-0.* is missing or damaged"):
        skal.resume(tmp_path / "run", data=tiny)


def test_a_run_on_a_gpu_goes_on_with_the_very_network_of_the_last_round(
    tiny: skal.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, fits = skal.ImageClassifier.fit, []

    def counted(self: skal.ImageClassifier, *args: Any, **params: Any) -> skal.ImageClassifier:
        fits.append(self.random_state)
        return fit(self, *args, **params)

    monkeypatch.setattr(skal.ImageClassifier, "fit", counted)
    for device, n_fits in (("cpu", 3), ("mps", 2)):
        asked = SimpleNamespace(resolve=lambda *_, found=device: Device(found))
        monkeypatch.setattr("skal.runs.preparation.Device", asked)
        monkeypatch.setattr("skal.models.devices.resolve_device", lambda name: "cpu")
        straight = skal.run(tiny, "badge", **FAST, out=tmp_path / f"straight-{device}")
        folder = tmp_path / device
        with pytest.raises(Stop):
            skal.run(tiny, "badge", **FAST, out=folder, trackers=[StopIn("querying 1")])
        fits.clear()
        resumed = skal.resume(folder, data=tiny)
        assert resumed.config.device == device
        assert len(fits) == n_fits
        assert_same(resumed, straight)


@pytest.mark.parametrize("strategy", ["query-by-committee", "bald", "auto"])
def test_all_options_at_once_work_with_committees_samples_and_calibration(
    tiny: skal.ImageDataset, strategy: str
) -> None:
    run = skal.run(tiny, strategy, **FAST, **OPTIONS[-1], warm_start="on", calibrate="temperature")
    assert len({row["index"] for row in run.queries}) == 14


# devices


@pytest.mark.parametrize("strategy", ["margin", "badge", "bald", "core-set"])
def test_out_of_memory_halves_the_batch_says_so_once_and_gives_the_same_picks(
    tiny: skal.ImageDataset, strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    say_smaller.cache_clear()
    settings = {**FAST, "train_batch_size": 8, "precision": "fp32"}
    with watched(Memory(1000)) as model:
        expected = skal.run(tiny, strategy, **{**settings, "model": model}).queries
    memory = Memory(10)
    with watched(memory) as model, caplog.at_level("WARNING"):
        found = skal.run(tiny, strategy, **{**settings, "model": model}).queries
    assert found == expected
    assert max(memory.asked) == 30  # the test images, which come first
    lines = [r.message for r in caplog.records if "out of memory" in r.message]
    start = "out of memory on cpu: scoring continues in batches of"
    assert lines == [f"{start} 15", f"{start} 8"]


def test_smaller_batches_are_kept_for_the_next_time(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    memory = Memory(10)
    with watched(memory) as model:
        fitted = classifier(model=model, steps=2, train_batch_size=8).fit(tiny.X, y)
        memory.asked.clear()
        first = fitted.predict_proba(tiny.X)
        assert memory.asked[:5] == [90, 45, 23, 12, 6]
        memory.asked.clear()
        assert np.array_equal(score_pool(fitted, tiny.X).proba, first)
        assert set(memory.asked) == {6}


def test_out_of_memory_for_a_single_image_is_an_error(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    memory = Memory(1000, 1000, 0)
    with watched(memory) as model:
        fitted = classifier(model=model, steps=2).fit(tiny.X, y)
        for ask in (fitted.predict_proba, lambda X: score_pool(fitted, X)):
            with pytest.raises(torch.OutOfMemoryError):
                ask(tiny.X[:5])


def test_batches_that_are_sent_ahead_are_the_same_also_when_they_become_smaller() -> None:
    X = np.arange(50, dtype=np.uint8)[:, None, None, None]
    sent: list[list[int]] = []

    def send(pixels: Tensor) -> Callable[[], Tensor]:
        sent.append(pixels.flatten().tolist())
        return lambda: pixels

    batches = SliceBatches(Dataset(X), 20, rows=np.arange(49, -1, -1))
    seen: list[int] = []
    for images in batches._ahead(send):
        if len(images) > 9:
            batches.halve()
        else:
            seen += images.flatten().tolist()
    assert seen == list(range(49, -1, -1))
    assert [len(part) for part in sent] == [20, 20, 10, 10, 5, *[5] * 9]


def test_a_batch_that_could_not_be_sent_ahead_is_sent_again() -> None:
    X = np.arange(6, dtype=np.uint8)[:, None, None, None]
    failing = [False, True, False, True, True]

    def send(pixels: Tensor) -> Callable[[], Tensor]:
        if failing.pop(0):
            raise torch.OutOfMemoryError
        return lambda: pixels

    seen: list[int] = []
    with pytest.raises(torch.OutOfMemoryError):
        for images in SliceBatches(Dataset(X), 2)._ahead(send):
            seen += images.flatten().tolist()
    assert seen == [0, 1, 2, 3]


class TestResident:
    """A pool that a GPU holds; the CPU stands for one."""

    @pytest.fixture(autouse=True)
    def free(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Free bytes, of which half may be used."""
        free = [2**30]
        monkeypatch.setitem(batches_module.FREE_BYTES, "cpu", lambda device: free[0])
        return free

    def test_it_is_copied_once_while_it_lives(self) -> None:
        X = np.arange(30, dtype=np.uint8).reshape(5, 1, 2, 3)
        X.flags.writeable = False
        first = resident(X, torch.device("cpu"))
        assert first is not None
        assert np.array_equal(first.numpy(), X)
        assert resident(X, torch.device("cpu")) is first
        n_held = len(batches_module._RESIDENT)
        del X
        assert len(batches_module._RESIDENT) == n_held - 1

    def test_it_is_not_kept_if_it_may_change_or_does_not_fit(self, free: list[int]) -> None:
        X = np.zeros((5, 1, 2, 3), np.uint8)
        assert resident(X, torch.device("cpu")) is None
        X.flags.writeable = False
        free[0] = 2 * X.nbytes - 1
        assert resident(X, torch.device("cpu")) is None
        free[0] += 1
        assert resident(X, torch.device("cpu")) is not None

    def test_a_run_is_the_same_with_it(
        self, tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = {**FAST, "max_candidates": 40}
        copied: list[int] = []
        copy_to = batches_module._copy_to
        monkeypatch.setattr(
            batches_module, "_copy_to", lambda d, X: (copied.append(len(X)), copy_to(d, X))[1]
        )
        found = skal.run(tiny, "badge", **settings, seed=3)
        assert copied.count(90) == 1  # the pool, once for all rounds
        assert set(copied) & {row["n_labeled"] for row in found.rounds}  # what is trained on, too
        monkeypatch.delitem(batches_module.FREE_BYTES, "cpu")
        expected = skal.run(tiny, "badge", **settings, seed=3)
        assert found.queries == expected.queries
        X = tiny.X_test
        assert np.array_equal(
            found.classifier.predict_proba(X), expected.classifier.predict_proba(X)
        )


@pytest.mark.parametrize("rows", [None, np.arange(80, 3, -1)])
def test_several_devices_score_shards_to_the_same_scores(
    tiny: skal.ImageDataset, y: np.ndarray, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = classifier().fit(tiny.X, y)
    expected = score_pool(fitted, tiny.X, ScoreRequest(True, n_samples=3), rows=rows)
    n = len(expected)
    parts = parts_by_device(fitted, n, rows, devices=["cpu", "cpu", "cpu"])
    assert [part.start for part in parts] == [0, math.ceil(n / 3), math.ceil(2 * n / 3)]
    assert parts[0].classifier is fitted
    modules = {id(part.classifier.neural_net_.module_) for part in parts}
    assert len(modules) == 3
    monkeypatch.setattr("skal.strategies.scores._devices", lambda device, n: ["cpu", "cpu", "cpu"])
    found = score_pool(fitted, tiny.X, ScoreRequest(True, n_samples=3), rows=rows)
    for name in ("proba", "embeddings", "mc_proba"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)


Settings = tuple[Any, ...]


@pytest.fixture
def torch_settings() -> Iterator[Callable[[], Settings]]:
    """What torch computes with; after the test it is as before."""
    cuda, mkldnn, cudnn = (getattr(torch.backends, n) for n in ("cuda", "mkldnn", "cudnn"))

    def now() -> Settings:
        return (
            cuda.matmul.fp32_precision,
            mkldnn.matmul.fp32_precision,
            cudnn.deterministic,
            cudnn.benchmark,
            torch.utils.deterministic.fill_uninitialized_memory,
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    before = now()
    yield now
    torch.set_float32_matmul_precision("highest")
    cuda.matmul.fp32_precision, mkldnn.matmul.fp32_precision = before[:2]
    cudnn.deterministic, cudnn.benchmark = before[2:4]
    torch.use_deterministic_algorithms(before[5])


def old_and_new_tf32() -> Settings:
    """Ask by all of torch's ways; the old ones raise if the new ones say otherwise."""
    matmul = torch.backends.cuda.matmul
    return torch.get_float32_matmul_precision(), matmul.allow_tf32, matmul.fp32_precision


@pytest.mark.parametrize("before", [None, "highest", "high", "medium", "new ieee", "new tf32"])
def test_torch_computes_as_for_cuda_while_anybody_does_and_then_as_before(
    torch_settings: Callable[[], Settings], before: str | None
) -> None:
    if before is not None and before.startswith("new "):
        torch.backends.cuda.matmul.fp32_precision = before[4:]
    elif before is not None:
        torch.set_float32_matmul_precision(before)
    expected = torch_settings()
    with computing_on("cpu"):
        assert torch_settings() == expected
    with computing_on("cuda:1"):
        with computing_on("cuda"):
            assert old_and_new_tf32() == ("high", True, "tf32")
        assert torch_settings()[2:] == (True, False, False, True, True)
        assert old_and_new_tf32() == ("high", True, "tf32")
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch_settings() == expected
    old_and_new_tf32()  # none of them raises


def test_a_process_that_is_strictly_deterministic_stays_so(
    torch_settings: Callable[[], Settings],
) -> None:
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = True
    expected = torch_settings()
    with computing_on("cuda"):
        assert torch_settings()[2:] == (True, False, False, True, False)
    assert torch_settings() == expected


def test_torch_says_nothing_of_what_cannot_be_deterministic_and_else_is_heard() -> None:
    places = torch.tensor([0, 1])
    for _ in range(2):  # the filters may have been put back in between, as by catch_warnings
        with warnings.catch_warnings(), computing_on("cuda"):
            torch.zeros(2).put_(places, torch.ones(2))
            with pytest.raises(UserWarning, match="of another kind"):
                warnings.warn("of another kind", UserWarning, stacklevel=1)
            n_filters = len(warnings.filters)
            with computing_on("cuda"):
                assert len(warnings.filters) == n_filters


def test_a_network_is_trained_and_asked_with_these_settings(
    tiny: skal.ImageDataset, y: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def watched(function: Any) -> Any:
        def called(*args: Any) -> Any:
            seen.append(torch.are_deterministic_algorithms_enabled())
            return function(*args)

        return called

    monkeypatch.setattr(Network, "forward", watched(Network.forward))
    for module in ("training", "iterators"):
        monkeypatch.setattr(
            f"skal.models.{module}.computing_on", lambda device: computing_on("cuda")
        )
    fitted = classifier(steps=2).fit(tiny.X, y)
    assert len(list(fitted.iter_outputs(tiny.X_test))) == 1
    fitted.predict_proba(tiny.X_test)
    assert len(seen) == 4
    fitted.expected_gradient_length(tiny.X_test)
    assert len(seen) > 4 and all(seen)
    seen.clear()
    monkeypatch.setattr(ImageModule, "embed", watched(ImageModule.embed))
    fitted.backbone(tiny.X.shape[1:])(tiny.X_test)
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_compiled_backbone_says_the_same_and_can_be_copied_and_saved(
    tiny: skal.ImageDataset, y: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compile_eagerly(module: nn.Module, **options: Any) -> None:
        forward = module.forward
        calls.append(module)
        module._compiled_call_impl = lambda *args: forward(*args)

    calls: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    plain = classifier(precision="fp32").fit(tiny.X, y)
    assert not calls
    fitted = classifier(precision="fp32", compile=True).fit(tiny.X, y)
    assert calls == [fitted.neural_net_.module_.network.backbone]
    expected = plain.predict_proba(tiny.X_test)
    assert np.array_equal(fitted.predict_proba(tiny.X_test), expected)
    lengths = fitted.expected_gradient_length(tiny.X_test)
    assert np.array_equal(lengths, plain.expected_gradient_length(tiny.X_test))
    save_classifier(fitted, tmp_path)
    assert np.array_equal(load_classifier(tmp_path).predict_proba(tiny.X_test), expected)
    assert np.array_equal(fitted.replica("cpu").predict_proba(tiny.X_test), expected)
    assert len(calls) == 1
    again = classifier(precision="fp32", compile=True)
    load_weights(again, tmp_path / "model.safetensors", tiny.X)
    assert calls[1:] == [again.neural_net_.module_.network.backbone]


def test_a_long_training_says_how_far_it_is(
    tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Bar:
        def __init__(self, **options: Any) -> None:
            told.append("{total} {unit}s of {desc}".format(**options))

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            told.append("gone")

        def update(self) -> None:
            told.append("step")

    monkeypatch.setattr("skal.models.training.progress", Bar)
    skal.ImageClassifier("lenet", classes=range(3), steps=4, random_state=0).fit(tiny.X, tiny.y)
    assert told == ["4 steps of training", *["step"] * 4, "gone"]
