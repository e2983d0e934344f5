"""Backbones trained on images without labels, before the first round."""

from __future__ import annotations

import csv
import importlib.util
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from made_up import Memory, model_of, resident_of_files, watched
from skorch.callbacks import Callback

import skal
from skal.core.errors import DataError, MissingExtraError, ParameterError
from skal.models.devices import Device
from skal.models.network import ImageModule
from skal.models.self_supervision import Pretrained, SimCLR, pretrain, simclr_views

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lightly") is None, reason="needs the extra ssl"
)
FAST: dict[str, Any] = {"model": "lenet", "steps": 3, "n_init": 6, "n_query": 4, "n_rounds": 1}
SIMCLR: dict[str, Any] = {"pretrain": "simclr", "pretrain_steps": 12}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (40, 3, 12, 12), dtype=np.uint8)


class Trainings:
    """What was trained, and not found: the number of images of each, as the log has it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "skal")
        self._caplog = caplog

    def __eq__(self, other: object) -> bool:
        return list(self) == other

    def __iter__(self) -> Iterator[int]:
        for message in self._caplog.messages:
            if found := re.match(r"pretrained in \d+ steps on (\d+) images", message):
                yield int(found[1])

    def __len__(self) -> int:
        return sum(1 for _ in self)


@pytest.fixture
def trainings(caplog: pytest.LogCaptureFixture) -> Trainings:
    return Trainings(caplog)


def train(
    *pools: np.ndarray,
    model: str = "lenet",
    steps: int = 2,
    seed: int = 0,
    cache: Path | None = None,
    **options: Any,
) -> Pretrained:
    return pretrain(SimCLR(model, steps, seed, **options), pools, Device("cpu"), cache)


def test_views_of_an_image_become_more_alike_than_those_of_others() -> None:
    digits = skal.load_dataset("digits").X[:128]

    def alike(weights: Any) -> float:
        options: dict[str, Any] = {"n_classes": 2, "in_channels": 1, "image_size": 8}
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            module = ImageModule("small-cnn", (), False, dropout=0.0, **options)
            if weights:
                module.network.backbone.load_state_dict(weights)
            module.train()  # batch norm by the views themselves
            view, X = simclr_views(8, flip=False), torch.from_numpy(digits[:64])
            embedded = [module.embed(view(X)) for _ in range(2)]
            first, second = (torch.nn.functional.normalize(values) for values in embedded)
        similar = first @ second.T
        others = similar[~torch.eye(64, dtype=torch.bool)]
        return float((similar.diag().mean() - others.mean()) / others.std())

    trained = train(digits, model="small-cnn", steps=50, flip=False)
    assert trained.losses[-1] < trained.losses[0] - 0.3
    assert alike(trained.weights) > 1.5 * alike(None)


def test_views_keep_shape_and_type_and_differ(images: np.ndarray) -> None:
    X = torch.from_numpy(images)
    for pixels in (X, X[:, :1]):
        view = simclr_views(12, flip=True)
        first, second = view(pixels), view(pixels)
        assert first.shape == pixels.shape
        assert first.dtype == torch.uint8
        assert not torch.equal(first, second)
        assert not torch.equal(first, pixels)


def test_images_are_mirrored_only_where_that_keeps_their_class() -> None:
    left = torch.zeros(400, 1, 8, 8, dtype=torch.uint8)
    left[..., :4] = 255

    def mirrored(flip: bool) -> float:
        views = simclr_views(8, flip)(left).float()
        return float((views[..., 7] > views[..., 0] + 50).any(-1).any(-1).float().mean())

    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert mirrored(False) == 0
        assert 0.2 < mirrored(True) < 0.8


def test_the_seed_decides_the_weights_and_the_callers_state_is_left_alone(
    images: np.ndarray,
) -> None:
    torch.manual_seed(5)
    state, drawn = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    found = [train(images, steps=3, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], drawn)  # noqa: NPY002
    same, other = (
        all(torch.equal(found[0].weights[n], found[k].weights[n]) for n in found[0].weights)
        for k in (1, 2)
    )
    assert same
    assert not other


def test_several_pools_are_as_one(images: np.ndarray) -> None:
    whole = train(images)
    parts = train(images[:7], images[7:30], images[30:])
    assert all(torch.equal(parts.weights[n], whole.weights[n]) for n in whole.weights)


def test_one_image_is_too_few(images: np.ndarray) -> None:
    with pytest.raises(DataError, match="got 1 image; pretraining needs"):
        train(images[:1])


def test_a_training_has_a_step_at_least(images: np.ndarray) -> None:
    with pytest.raises(ParameterError, match="steps=0; expected 1 or more"):
        train(images, steps=0)


def test_what_was_trained_is_found_again_unless_anything_differs(
    images: np.ndarray, tmp_path: Path, trainings: Trainings
) -> None:
    def ask(X: np.ndarray = images, **changes: Any) -> Pretrained:
        return train(X, cache=tmp_path, **changes)

    first, again = ask(), ask()
    assert len(trainings) == 1
    assert again.losses == first.losses
    assert all(torch.equal(again.weights[n], first.weights[n]) for n in first.weights)
    other = images.copy()
    other[-1, 0, 0, 0] ^= 1
    ask(other)
    ask(model="small-cnn")
    ask(steps=3)
    ask(seed=1)
    ask(flip=False)
    ask(start={"weights": dict(first.weights)})
    assert len(trainings) == 7


def test_what_other_code_was_trained_with_the_same_start_is_not_taken_for_it(
    images: np.ndarray, tmp_path: Path, trainings: Trainings
) -> None:
    def ask(*code: Any) -> Pretrained:
        with model_of(*code) as name:
            return train(images, model=name, cache=tmp_path)

    ways: list[Any] = [(torch.relu,), (torch.tanh,), (torch.relu, 0.4)]
    found = [ask(*code) for code in ways]
    assert len(trainings) == 3
    assert [ask(*code).losses for code in ways] == [one.losses for one in found]
    assert len(trainings) == 3


def test_a_damaged_file_is_made_again(
    images: np.ndarray,
    tmp_path: Path,
    trainings: Trainings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = train(images, cache=tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    changed = bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]])
    for content in (b"", whole[:100], whole[:-5], changed):
        path.write_bytes(content)
        again = train(images, cache=tmp_path)
        assert "is damaged and is made again" in caplog.text
        assert all(torch.equal(again.weights[n], first.weights[n]) for n in first.weights)
        assert path.read_bytes() == whole
    assert len(trainings) == 5


def test_a_run_waits_for_another_that_trains_the_same(
    images: np.ndarray, tmp_path: Path, trainings: Trainings
) -> None:
    train(images, cache=tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    content = path.read_bytes()
    path.unlink()
    waiting = threading.Thread(target=lambda: train(images, cache=tmp_path))
    with FileLock(path.with_name(f".{path.name}.lock")):  # the other one's
        waiting.start()
        waiting.join(timeout=0.3)
        assert waiting.is_alive()
        path.write_bytes(content)
    waiting.join()
    assert len(trainings) == 1


def test_batches_are_halved_where_memory_runs_out_and_that_is_said(
    images: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(25, training=True)
    with watched(memory, normalised=True) as model:
        found = train(images, model=model, steps=12)
    # the statistics of batch norm are taken of images, not of views
    assert memory.asked == [80, 40] + 12 * [20] + 20 * [10]
    assert len(found.losses) == 2
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [line.partition(", which")[0] for line in said] == [
        f"out of memory on cpu: pretraining continues in batches of {n}" for n in (20, 10)
    ]
    assert "which changes the weights" in said[0]


def test_weights_of_smaller_batches_are_never_taken_without_a_word(
    images: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(*2 * [100], 50, *30 * [100], training=True)
    with watched(memory) as model:
        first = train(images, model=model, steps=5, cache=tmp_path)
        (path,) = tmp_path.glob("*.safetensors")
        told = "was pretrained in batches of 20"
        assert told not in caplog.text
        again = train(images, model=model, steps=5, cache=tmp_path)
        assert again.losses == first.losses
        assert told in caplog.text and f"remove {path}" in caplog.text
        caplog.clear()
        path.unlink()
        train(images, model=model, steps=5, cache=tmp_path)
        train(images, model=model, steps=5, cache=tmp_path)
    assert "out of memory" not in caplog.text and "memory ran out" not in caplog.text


def test_the_last_steps_are_done_too_if_memory_runs_out_later(images: np.ndarray) -> None:
    memory = Memory(*10 * [100], 50, training=True)
    with watched(memory) as model:
        train(images, model=model, steps=25)
    assert memory.asked[:26] == 10 * [80] + [80] + 15 * [40]


def test_two_images_that_do_not_fit_are_an_error(images: np.ndarray) -> None:
    memory = Memory(3, training=True)
    with watched(memory) as model, pytest.raises(torch.OutOfMemoryError):
        train(images, model=model, steps=5)
    assert memory.asked == [80, 40, 20, 10, 4]


def test_a_loss_that_is_not_finite_ends_it_soon(images: np.ndarray) -> None:
    asked: list[int] = []

    def diverge(n: int, training: bool) -> float:
        if training:
            asked.append(n)
        return float("nan") if training and len(asked) == 14 else 1.0

    with (
        watched(diverge) as model,
        pytest.raises(DataError, match="diverged: its loss is NaN or infinite from step 14 on"),
    ):
        train(images, model=model, steps=1000)
    assert len(asked) == 20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_pool_larger_than_memory_does_not_stay_in_it(tmp_path: Path) -> None:
    shape = (40_000, 1, 28, 28)
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    X = np.load(tmp_path / "x.npy", mmap_mode="r")
    resident = [resident_of_files()]

    def look(n: int, training: bool) -> float:  # all was read for the key
        resident.append(resident_of_files())
        return 1.0

    with watched(look) as model:
        train(X, model=model, steps=1, cache=tmp_path)
    assert len(resident) > 2
    assert max(resident) - resident[0] < X.nbytes / 4


# in a run


@pytest.fixture
def pool(tiny: skal.ImageDataset) -> skal.ImageDataset:
    """With images that nobody has labelled."""
    return skal.ImageDataset(
        tiny.X[:60],
        tiny.y[:60],
        tiny.classes,
        tiny.X_test,
        tiny.y_test,
        name="tiny",
        X_unlabeled=tiny.X[60:],
    )


class Starts(skal.Tracker):
    """Keeps the weights of the first layer that each training starts from."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def skorch_callbacks(self, round_number: int) -> Any:
        def keep(net: Any, **facts: Any) -> None:
            self.seen.append(next(net.module_.network.backbone.parameters()).detach().clone())

        callback = Callback()
        callback.on_train_begin = keep
        return (callback,)


@pytest.mark.pictures
def test_each_round_starts_from_the_weights_and_the_curve_is_kept(
    pool: skal.ImageDataset, tmp_path: Path, trainings: Trainings
) -> None:
    starts, folder = Starts(), tmp_path / "run"
    run = skal.run(pool, "badge", **FAST, **SIMCLR, out=folder, trackers=[starts])
    assert trainings == [90]  # X and X_unlabeled, and no test image
    first, second = starts.seen
    assert torch.equal(first, second)
    rows = list(csv.DictReader((folder / "pretrain.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["10", "20"]
    assert all(0 < float(row["loss"]) < 10 for row in rows)
    for form in ("png", "svg"):
        assert (folder / f"pretrain.{form}").stat().st_size > 1000
    loaded = skal.load_classifier(folder)
    assert np.array_equal(
        loaded.predict_proba(pool.X_test), run.classifier.predict_proba(pool.X_test)
    )
    assert 'pretrain = "simclr"' in (folder / "config.toml").read_text()
    assert "pretrained in 12 steps" in (folder / "log.txt").read_text()


def test_a_stopped_run_goes_on_from_the_same_weights(
    pool: skal.ImageDataset, tmp_path: Path, trainings: Trainings
) -> None:
    class Stop(skal.Tracker):
        def on_phase(self, round_number: int, phase: str) -> None:
            if (round_number, phase) == (1, "training"):
                raise KeyboardInterrupt

    straight = skal.run(pool, "badge", **FAST, **SIMCLR, out=tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        skal.run(pool, "badge", **FAST, **SIMCLR, out=tmp_path / "run", trackers=[Stop()])
    resumed = skal.resume(tmp_path / "run", data=pool)
    assert len(trainings) == 1
    assert resumed.queries == straight.queries
    one, two = (tmp_path / name / "model.safetensors" for name in ("run", "straight"))
    assert one.read_bytes() == two.read_bytes()


def test_a_frozen_backbone_may_be_the_pretrained_one(pool: skal.ImageDataset) -> None:
    run = skal.run(pool, "badge", **FAST, **SIMCLR, freeze=True)
    plain = skal.run(pool, "badge", **FAST, freeze=True)
    proba = run.classifier.predict_proba(pool.X_test)
    assert not np.array_equal(proba, plain.classifier.predict_proba(pool.X_test))


def test_without_the_extra_it_is_said_before_anything_is_done(
    pool: skal.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'lightly'.*skal\[ssl\]"):
        skal.run(pool, "badge", **FAST, **SIMCLR, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_steps_are_a_whole_number(pool: skal.ImageDataset) -> None:
    with pytest.raises(ParameterError, match="pretrain_steps: got 0"):
        skal.run(pool, "badge", **FAST, pretrain="simclr", pretrain_steps=0)


def test_nothing_is_pretrained_on_what_is_held_out(
    tiny: skal.ImageDataset, trainings: Trainings
) -> None:
    skal.run(tiny, "random", **FAST, **SIMCLR)
    skal.run(tiny, "random", **FAST, **SIMCLR, n_valid=30)
    assert trainings == [90, 60]
