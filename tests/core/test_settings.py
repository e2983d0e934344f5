from __future__ import annotations

import inspect
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skal
from skal.core.errors import ParameterError, UnknownNameError, UsageError
from skal.core.settings import SETTINGS, RunConfig, read_config, resolve_count


def test_run_has_the_defaults_of_the_settings() -> None:
    parameters = inspect.signature(skal.run).parameters
    renamed = {"dataset": "data"}
    for setting in fields(RunConfig):
        parameter = parameters[renamed.get(setting.name, setting.name)]
        if setting.name == "dataset":
            assert parameter.default is inspect.Parameter.empty
        elif setting.name == "strategy_params":
            assert parameter.default is None and RunConfig().strategy_params == {}
        else:
            assert parameter.default == setting.default, setting.name
    not_settings = {"data", "oracle", "out", "trackers"}
    assert parameters.keys() - not_settings == SETTINGS.keys() - {"dataset"}


def test_settings_come_back_from_toml(tmp_path: Path) -> None:
    config = RunConfig(
        dataset="a folder/caf\udce9",
        strategy="badge",
        strategy_params={"gamma": 0.1, "nested": {"list": [1, 2]}},
        n_init="10%",
        n_query=7,
        lr=1e-4,
        steps=3,
        pretrained=True,
    )
    path = tmp_path / "config.toml"
    path.write_bytes(config.to_toml().encode(errors="surrogateescape"))
    assert RunConfig(**read_config(path)) == config


def test_what_is_not_set_is_not_in_toml() -> None:
    kept = tomllib.loads(RunConfig().to_toml())
    assert kept["n_init"] == 20
    assert not {"model", "steps", "epochs", "strategy_params"} & kept.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_rounds": -1}, "n_rounds: got -1; expected a whole number from 0 on"),
        ({"n_rounds": 1.5}, "n_rounds: got 1.5"),
        ({"n_rounds": None}, "n_rounds: got None"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed: got True"),
        ({"steps": 0}, "steps: got 0; expected a whole number from 1 on"),
        ({"epochs": "3"}, "epochs: got '3'"),
        ({"train_batch_size": 0}, "train_batch_size"),
        ({"image_size": 0}, "image_size"),
        ({"steps": 1, "epochs": 1}, "give steps or epochs, not both"),
        ({"lr": 0}, "lr: got 0; expected a number above 0"),
        ({"lr": float("nan")}, "lr: got nan"),
        ({"lr": float("inf")}, "lr: got inf"),
        ({"lr": "fast"}, "lr: got 'fast'"),
        ({"lr": True}, "lr: got True"),
        ({"clip_norm": 0}, "clip_norm: got 0; expected a number above 0"),
        ({"mixup": -0.1}, "mixup: got -0.1; expected a number from 0 on"),
        ({"label_smoothing": 1}, "label_smoothing: got 1; expected a number from 0 on and below 1"),
        ({"label_smoothing": None}, "label_smoothing: got None"),
        ({"patience": 0}, "patience: got 0; expected a whole number from 1 on"),
        ({"patience": 3, "average": "swa"}, "average swa has a schedule of its own: leave"),
        ({"warm_start": "shrunk"}, "unknown warm start 'shrunk'; did you mean shrink?"),
        ({"pretrain": "simclar"}, "unknown pretrain 'simclar'; did you mean simclr?"),
        ({"dataset": 5}, "dataset: got 5; expected text"),
        ({"model": 5}, "model: got 5; expected text"),
        ({"pretrained": "yes"}, "pretrained: got 'yes'; expected true or false"),
        ({"strategy_params": "gamma=3"}, "strategy_params: got 'gamma=3'; expected a table"),
        ({"optimizer": "sgdd"}, "unknown optimizer 'sgdd'; did you mean sgd?"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"precision": "fp16"}, "unknown precision 'fp16'; did you mean"),
        ({"init_strategy": "kmeans"}, "unknown init strategy 'kmeans'; did you mean k-means?"),
    ],
)
def test_values_that_are_not_valid_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        RunConfig(**settings)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


def test_numpys_numbers_are_numbers() -> None:
    config = RunConfig(seed=np.int64(3), lr=np.float32(0.5), n_rounds=np.int32(1))
    assert (config.seed, config.lr, config.n_rounds) == (3, 0.5, 1)
    assert tomllib.loads(config.to_toml())["seed"] == 3


@pytest.mark.parametrize(
    ("value", "n_pool", "expected"),
    [
        (20, 1000, 20),
        ("20", 1000, 20),
        (np.int64(4), 1000, 4),
        ("10%", 1000, 100),
        ("2.5%", 1000, 25),
        (" 5 % ", 60, 3),
        ("100%", 7, 7),
        ("0.1%", 10, 1),
        (500, 10, 500),
    ],
)
def test_counts_and_shares(value: Any, n_pool: int, expected: int) -> None:
    assert resolve_count("n", value, n_pool) == expected


@pytest.mark.parametrize(
    "value", [0, -1, "0", "0%", "-5%", "101%", "many", "", "%", 1.5, True, None, "nan%", "1e2"]
)
def test_what_is_neither_count_nor_share_is_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"n_init: got .* expected a number from 1 on, or"):
        resolve_count("n_init", value, 100)


def test_a_file_may_set_only_some(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text('n_query = "5%"\n[strategy_params]\ngamma = 3\n')
    assert read_config(path) == {"n_query": "5%", "strategy_params": {"gamma": 3}}


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("n_quary = 3\n", UnknownNameError, "'n_quary'; did you mean n_query"),
        ("n_query = \n", ParameterError, "is not TOML"),
        (b"\xff\xfe", ParameterError, "is not TOML"),
        (None, ParameterError, "cannot read .*No such file"),
    ],
)
def test_files_that_are_no_settings_are_refused(
    tmp_path: Path, content: Any, error: type[Exception], message: str
) -> None:
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=message):
        read_config(path)
