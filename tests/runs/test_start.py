"""What network one gets who names none, and images of what size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import skal
from skal.core.errors import ParameterError
from skal.runs.config import RunConfig, read_config
from skal.runs.preparation import resolve_settings
from skal.runs.start import MANY, SIZES, images_a_second, input_size, log_pass, with_network

LAST_LAYER = {"model": "efficientnet-lite0", "pretrained": True, "freeze": True}
FROZEN = {**LAST_LAYER, "model": "efficientnet-lite0-stages", "head": "logistic"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty colour images of two classes: red and blue noise."""
    rng = np.random.default_rng(0)
    for number in range(20):
        pixels = rng.integers(0, 90, (40, 40, 3), dtype=np.uint8)
        pixels[..., 2 * (number % 2)] += 150
        place = tmp_path / "images" / ("red", "blue")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "images"


def facts(config: RunConfig, names: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


class TestNetwork:
    def test_images_get_the_bundled_network_frozen(self) -> None:
        assert facts(with_network(RunConfig(), 32), FROZEN) == FROZEN

    @pytest.mark.parametrize(
        ("settings", "size", "expected"),
        [
            ({}, 28, {"model": "small-cnn", "freeze": False, "pretrained": False}),
            ({"dataset": "fashion-mnist"}, 28, FROZEN),
            (
                {"dataset": "fashion-mnist", "steps": 5},
                28,
                {"model": "small-cnn", "freeze": False},
            ),
            ({"dataset": "fashion-mnist", "compile": True}, 28, {"model": "small-cnn"}),
            ({"dataset": "arrays:fashion-mnist"}, 28, {"model": "small-cnn"}),
            ({"dataset": "mnist"}, 28, {"model": "small-cnn", "freeze": False}),
            ({"dataset": "no-such-dataset"}, 28, {"model": "small-cnn"}),
            ({"freeze": True}, 28, FROZEN),
            ({"finetune": True}, 64, {"model": "efficientnet-lite0", "freeze": False}),
            ({"steps": 5}, 64, {**LAST_LAYER, "head": "linear"}),
            ({"freeze": True, "head": "mlp"}, 64, {**LAST_LAYER, "head": "mlp"}),
            ({"pretrained": True}, 28, FROZEN),
            ({"compile": True}, 64, {"model": "efficientnet-lite0", "freeze": False}),
            ({"pretrain": "simclr"}, 48, {"model": "small-cnn", "freeze": False}),
            ({"pretrain": "simclr"}, 64, {"model": "resnet18", "pretrained": False}),
            ({"model": "lenet"}, 64, {"model": "lenet", "freeze": False, "head": None}),
            ({"model": "resnet18", "freeze": True}, 64, {"head": "logistic"}),
        ],
    )
    def test_settings_decide(
        self, settings: dict[str, Any], size: int, expected: dict[str, Any]
    ) -> None:
        assert facts(with_network(RunConfig(**settings), size), expected) == expected

    def test_a_setting_that_a_solved_head_has_no_use_for_is_refused_beside_it(self) -> None:
        with pytest.raises(ParameterError, match=r"lr: got 0\.1, which has no effect with head"):
            RunConfig(freeze=True, head="logistic", lr=0.1)


def test_of_many_images_it_is_said_before_how_long_the_pass_takes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "skal")
    for n in (MANY - 1, MANY):
        X = np.broadcast_to(np.uint8(0), (n, 1, 28, 28))
        data = skal.ImageDataset(
            X=X, y=np.zeros(n, np.int64), classes=("a", "b"), X_test=X[:2], y_test=np.arange(2)
        )
        config = resolve_settings(RunConfig(freeze=True), data)
        log_pass(config, data, lambda _: 500.0)
        told = "the network runs once over 10000 images, about 20 s" in caplog.text
        assert told is (n == MANY)


class TestSize:
    @pytest.mark.parametrize(
        ("speed", "size"), [(1000.0, 224), (1.0, 160), (0.5, 112), (0.001, 112)]
    )
    def test_it_is_the_largest_that_is_quick_enough(
        self, speed: float, size: int, folder: Path
    ) -> None:
        assert input_size(RunConfig(), folder, lambda _: speed) == size

    def test_a_network_that_is_trained_gets_the_smallest(self, folder: Path) -> None:
        assert input_size(RunConfig(finetune=True), folder, lambda _: 1000.0) == 112

    def test_what_is_named_is_taken(self, folder: Path) -> None:
        assert input_size(RunConfig(image_size=80), folder) == 80
        assert input_size(RunConfig(model="small-cnn"), folder) is None
        assert input_size(RunConfig(), "digits") is None
        assert input_size(RunConfig(pretrain="simclr"), folder) is None

    def test_flowers_are_a_folder_of_photographs(self, tmp_path: Path) -> None:
        for number in range(4):
            place = tmp_path / "flowers/train" / ("daisy", "rose")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40)).save(place / f"{number}.jpg")
        config = RunConfig(dataset="flowers", data_dir=str(tmp_path))
        assert input_size(config, "flowers", lambda _: 1000.0) == SIZES[0]
        assert input_size(config, "digits", lambda _: 1000.0) is None

    def test_the_speed_is_tried_once_and_kept(self, tmp_path: Path) -> None:
        config = RunConfig(data_dir=str(tmp_path))
        first = images_a_second(config)
        assert first > 0
        assert images_a_second(config) == first
        (kept,) = (tmp_path / "cache").glob("speed-*.json")
        assert str(first) in kept.read_text()


def test_a_run_on_a_folder_names_all_that_was_chosen_and_can_be_repeated(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "skal")
    budget = {"n_init": 4, "n_query": 2, "n_rounds": 1, "data_dir": str(tmp_path / "data")}
    done = skal.run(folder, out=tmp_path / "run", **budget)
    assert done.rounds[-1]["accuracy"] == 1
    assert facts(done.config, FROZEN) == FROZEN and done.config.image_size in SIZES
    assert (done.config.strategy, done.config.init_strategy) == ("uncertainty-herding", "herding")
    assert done.rounds[-1]["head_C"] > 0 and 0 <= done.rounds[-1]["stages_share"] < 1
    assert "images at 224 px: the network runs once over 20 images" in caplog.text
    assert (
        "efficientnet-lite0-stages, pretrained on ImageNet, frozen, with head logistic"
        in caplog.text
    )
    settings = read_config(tmp_path / "run/config.toml")
    again = skal.run(settings.pop("dataset"), **settings)
    assert again.queries == done.queries


AGAIN = """
import sys, skal
folder, data_dir, out = sys.argv[1:]
skal.run(folder, out=out, data_dir=data_dir, n_init=4, n_query=2, n_rounds=1)
print("timm" in sys.modules)
"""


def test_a_run_on_kept_features_imports_no_code_of_the_network_and_is_the_same(
    folder: Path, tmp_path: Path
) -> None:
    data_dir = str(tmp_path / "data")
    first = skal.run(
        folder, out=tmp_path / "first", data_dir=data_dir, n_init=4, n_query=2, n_rounds=1
    )
    command = [sys.executable, "-c", AGAIN, str(folder), data_dir, str(tmp_path / "again")]
    # the very same code, wherever the tests are run
    environment = {**os.environ, "PYTHONPATH": str(Path(skal.__file__).parents[1])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
    for name in ("model.safetensors", "queries.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    data = skal.load_dataset(folder, data_dir=data_dir, image_size=first.config.image_size)
    loaded = skal.load_classifier(tmp_path / "again")
    assert (loaded.predict(data.X_test) == first.classifier.predict(data.X_test)).all()


def test_a_first_set_by_herding_changes_no_later_pick(folder: Path, tmp_path: Path) -> None:
    budget = {"n_init": 4, "n_query": 3, "n_rounds": 2, "data_dir": str(tmp_path / "data")}
    data = skal.load_dataset(folder, image_size=64, data_dir=tmp_path / "data")

    def learner() -> skal.ActiveLearner:
        classifier = skal.ImageClassifier(classes=range(len(data.classes)), **FROZEN)
        return skal.ActiveLearner(data, classifier, strategy="uncertainty-herding", **budget)

    first, other = learner(), learner()
    picks = first.query()
    assert first.pool.memo(None), "what was found of the embeddings serves the next rounds"
    first.teach(picks, data.y[picks])
    other.restore(first.pool.y, 1)
    assert not other.pool.memo(None)
    assert first.query().tolist() == other.query().tolist()
