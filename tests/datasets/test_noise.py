from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_up import Interrupter, fits_heard

import skal
from skal.cli import main
from skal.core.errors import DataError, ParameterError, UnknownNameError, UsageError
from skal.core.seeding import derive_seed
from skal.datasets.noise import IMAGE_NOISE, add_noise
from skal.runs.config import SETTINGS, RunConfig
from skal.runs.metrics import evaluate

FAST: dict[str, Any] = {"model": "lenet", "steps": 2, "n_init": 6, "n_query": 4, "n_rounds": 2}
KINDS = ("gaussian", "salt-and-pepper")


@pytest.fixture
def grey() -> skal.ImageDataset:
    """Images of one grey, far enough from black and white that little is clipped."""
    X = np.full((40, 3, 32, 32), 128, np.uint8)
    y = np.arange(40) % 2
    unlabeled = np.full((5, 3, 32, 32), 128, np.uint8)
    return skal.ImageDataset(X, y, ("a", "b"), X[:4].copy(), y[:4], X_unlabeled=unlabeled)


def noisy(data: skal.ImageDataset, kind: str, rate: float, seed: int = 0) -> skal.ImageDataset:
    return add_noise(data, kind, rate, seed=seed, folder=Path("not needed"))


def test_the_settings_offer_the_noises_that_there_are() -> None:
    assert set(SETTINGS["image_noise"].choices) == set(IMAGE_NOISE) == set(KINDS)


# what the noise is


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_gaussian_noise_has_the_rate_of_white_as_its_standard_deviation(
    grey: skal.ImageDataset, rate: float
) -> None:
    difference = noisy(grey, "gaussian", rate).X.astype(float) - 128
    n = difference.size
    assert difference.std() == pytest.approx(255 * rate, rel=5 / np.sqrt(2 * n))
    assert abs(difference.mean()) < 5 * 255 * rate / np.sqrt(n)
    # each channel has its own
    red, green = difference[:, 0].ravel(), difference[:, 1].ravel()
    assert abs(np.corrcoef(red, green)[0, 1]) < 5 / np.sqrt(len(red))
    # three quarters lie within 1.15 standard deviations
    assert (abs(difference) < 1.1503 * 255 * rate).mean() == pytest.approx(0.75, abs=0.02)


def test_gaussian_noise_is_clipped_and_not_wrapped_around(grey: skal.ImageDataset) -> None:
    black, white = (replace(grey, X=np.full_like(grey.X, level)) for level in (0, 255))
    assert noisy(black, "gaussian", 0.1).X.max() < 150
    assert noisy(white, "gaussian", 0.1).X.min() > 105
    assert (noisy(black, "gaussian", 0.1).X == 0).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_salt_and_pepper_make_the_share_of_pixels_black_or_white_evenly(
    grey: skal.ImageDataset, rate: float
) -> None:
    X = noisy(grey, "salt-and-pepper", rate).X
    assert not np.ptp(X, axis=1).any()  # all channels of a pixel
    error = 5 / np.sqrt(X[:, 0].size)
    assert (X[:, 0] == 0).mean() == pytest.approx(rate / 2, abs=error)
    assert (X[:, 0] == 255).mean() == pytest.approx(rate / 2, abs=error)
    assert (X[:, 0] == 128).mean() == pytest.approx(1 - rate, abs=error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_higher_rate_is_more_of_the_same_noise(grey: skal.ImageDataset, kind: str) -> None:
    low, high = (noisy(grey, kind, rate).X.astype(int) - 128 for rate in (0.1, 0.3))
    assert (abs(high) >= abs(low)).all()
    assert (abs(high) > abs(low)).mean() > 0.1
    assert (high * low >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_decided_by_the_seed_and_the_index_alone(
    grey: skal.ImageDataset, kind: str
) -> None:
    X = noisy(grey, kind, 0.2).X
    assert np.array_equal(noisy(grey, kind, 0.2).X, X)
    assert (noisy(grey, kind, 0.2, seed=1).X != X).mean() > 0.1
    fewer = replace(grey, X=grey.X[:7], y=grey.y[:7])
    assert np.array_equal(noisy(fewer, kind, 0.2).X, X[:7])
    assert len({image.tobytes() for image in X}) == len(X)


@pytest.mark.parametrize("kind", KINDS)
def test_training_images_alone_get_noise(grey: skal.ImageDataset, kind: str) -> None:
    found = noisy(grey, kind, 0.2)
    assert (grey.X == 128).all() and (grey.X_unlabeled == 128).all()
    assert found.X_test is grey.X_test and (found.X_test == 128).all()
    assert (found.X_unlabeled != 128).mean() > 0.1
    assert not np.array_equal(found.X_unlabeled, found.X[:5])
    assert found.X.dtype == np.uint8
    assert np.array_equal(found.y, grey.y) and found.classes == grey.classes


def test_a_noise_that_there_is_not_is_refused(grey: skal.ImageDataset) -> None:
    with pytest.raises(UnknownNameError, match="unknown image noise 'gauss'; did you mean"):
        noisy(grey, "gauss", 0.1)


# where it is kept


@pytest.mark.parametrize("view", [lambda X: X, lambda X: X[3:], np.asarray])
def test_mapped_images_become_mapped_ones_chunk_by_chunk_and_leave_nothing(
    tmp_path: Path, view: Any
) -> None:
    shape = (800, 3, 64, 64)
    images = np.memmap(tmp_path / "images", np.uint8, "w+", shape=shape)
    X = view(images)
    data = skal.ImageDataset(X, np.zeros(len(X), np.int64), ("a", "b"))
    tracemalloc.start()
    try:
        found = add_noise(data, "salt-and-pepper", 0.5, seed=0, folder=tmp_path / "new/cache")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes / 10
    assert isinstance(found.X, np.memmap) and not found.X.flags.writeable
    assert found.X.shape == X.shape
    assert [path.name for path in (tmp_path / "new/cache").iterdir()] == ["CACHEDIR.TAG"]
    in_memory = noisy(replace(data, X=np.array(X)), "salt-and-pepper", 0.5)
    assert not isinstance(in_memory.X, np.memmap)
    assert np.array_equal(found.X, in_memory.X)


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    images = np.memmap(tmp_path / "images", np.uint8, "w+", shape=(4, 1, 8, 8))
    data = skal.ImageDataset(images, np.zeros(4, np.int64), ("a", "b"))
    with pytest.raises(DataError, match=r"cannot write the noisy images to .* --data-dir"):
        add_noise(data, "gaussian", 0.5, seed=0, folder=tmp_path / "images/cache")


# in a run


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """All images and labels that networks were given to train on."""
    return fits_heard(monkeypatch)


def test_a_rate_alone_means_gaussian_noise_and_none_means_none(
    tiny: skal.ImageDataset, trained_on: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    skal.run(tiny, **FAST, seed=3, noise_rate=0.3)
    expected = noisy(tiny, "gaussian", 0.3, seed=derive_seed(3, "noise")).X
    assert len(trained_on) == 3
    assert all(np.array_equal(X, expected) for X, _ in trained_on)
    trained_on.clear()
    skal.run(tiny, **FAST, noise_rate=0)
    assert all(np.array_equal(X, tiny.X) for X, _ in trained_on)


def test_the_noise_is_the_same_for_every_strategy_and_the_test_set_stays_clean(
    tiny: skal.ImageDataset, trained_on: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    settings = {**FAST, "image_noise": "salt-and-pepper", "noise_rate": "30%"}
    runs = [skal.run(tiny, name, **settings) for name in ("random", "margin", "bald")]
    assert not np.array_equal(trained_on[0][0], tiny.X)
    assert all(np.array_equal(X, trained_on[0][0]) for X, _ in trained_on)
    assert all(run.queries[:6] == runs[0].queries[:6] for run in runs)
    for run in runs:
        expected = evaluate(tiny.y_test, run.classifier.predict_proba(tiny.X_test))
        assert run.rounds[-1]["nll"] == pytest.approx(expected["nll"])


def test_from_pure_noise_nothing_is_learnt(tiny: skal.ImageDataset) -> None:
    settings = {**FAST, "steps": 60, "n_init": 30, "n_rounds": 0}
    clean = skal.run(tiny, **settings)
    pure = skal.run(tiny, **settings, image_noise="salt-and-pepper", noise_rate=1)
    assert clean.rounds[0]["accuracy"] == 1
    assert pure.rounds[0]["accuracy"] < 0.8


NOISES: tuple[Mapping[str, Any], ...] = (
    {"noise_rate": 0.2},
    {"noise_rate": 0.2, "image_noise": "salt-and-pepper"},
    {"label_noise": "20%"},
    {"label_noise": 0.5, "label_noise_kind": "pairs", "noise_rate": 0.1},
    {"label_noise": 1, "label_noise_kind": "class=3:8", "n_valid": 9},
)


@pytest.mark.parametrize("noise", NOISES, ids=str)
def test_a_noisy_run_is_gone_on_with_by_its_folder_alone(
    tmp_path: Path, noise: dict[str, Any]
) -> None:
    settings = {**FAST, **noise, "seed": 5}
    straight = skal.run("digits", "badge", **settings, out=tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        skal.run(
            "digits",
            "badge",
            **settings,
            out=tmp_path / "run",
            trackers=[Interrupter("evaluating 1")],
        )
    resumed = skal.resume(tmp_path / "run")
    for name in ("queries.csv", "model.safetensors", "config.toml", "learning_curve.svg"):
        expected = (tmp_path / "straight" / name).read_bytes()
        assert (tmp_path / "run" / name).read_bytes() == expected, name
    assert resumed.rounds[-1]["nll"] == straight.rounds[-1]["nll"]


def test_the_noise_of_a_run_cannot_be_changed_before_going_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        skal.run(
            "digits",
            **FAST,
            noise_rate=0.2,
            out=tmp_path / "run",
            trackers=[Interrupter("evaluating 1")],
        )
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text().replace("noise_rate = 0.2", "noise_rate = 0.3"))
    with pytest.raises(UsageError, match=r"noise_rate in config.toml was 0.2 .* and is now 0.3"):
        skal.resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_rate": 1.5}, "noise_rate: got 1.5; expected a share from 0% to 100%"),
        ({"noise_rate": "-1%"}, "noise_rate: got '-1%'"),
        ({"label_noise": "much"}, "label_noise: got 'much'; expected a share"),
        ({"image_noise": "gausian"}, "unknown image noise 'gausian'; did you mean gaussian?"),
        ({"label_noise_kind": "pair"}, "unknown label noise kind 'pair'; did you mean pairs?"),
        ({"label_noise_kind": "class=3"}, "unknown label noise kind 'class=3'; did you mean"),
        ({"label_noise_kind": 3}, "label_noise_kind: got 3; expected text"),
    ],
)
def test_settings_that_are_not_valid_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        RunConfig(**settings)
    assert str(caught.value).startswith(message)


def test_noise_is_asked_for_by_flags_and_kept_in_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["run", "--noise-rate", "0.1", "--label-noise", "20%", "--label-noise-kind", "pairs"]
    words += ["--n-valid", "5", "--n-rounds", "0", "--steps", "1", "--out", str(out)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert (out / "rounds.csv").read_text().splitlines()[1].split(",")[1] == "25"
    config = (out / "config.toml").read_text().splitlines()
    for line in (
        'image_noise = "gaussian"',
        "noise_rate = 0.1",
        "label_noise = 0.2",
        'label_noise_kind = "pairs"',
        "n_valid = 5",
    ):
        assert line in config


@pytest.mark.parametrize("kind", [{"image_noise": "gaussian"}, {"label_noise_kind": "pairs"}])
def test_a_kind_of_noise_without_a_rate_is_refused(
    tiny: skal.ImageDataset, kind: dict[str, str]
) -> None:
    with pytest.raises(ParameterError, match="has no effect without"):
        skal.run(tiny, **FAST, **kind)


def test_a_classes_name_that_is_wrong_is_said_before_anything_is_written(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="'midle'; did you mean middle"):
        skal.run(
            tiny,
            **FAST,
            label_noise=0.1,
            label_noise_kind="class=midle:top",
            out=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()
