from __future__ import annotations

import inspect
import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skal
from skal.comparisons.config import GridConfig
from skal.core.errors import ParameterError, UnknownNameError, UsageError
from skal.core.kinds import resolve_count
from skal.core.settings import override, settings_of
from skal.datasets.noise import IMAGE_NOISE
from skal.models.heads import HEADS
from skal.models.settings import ClassifierSettings
from skal.runs.config import SETTINGS, TRAINING_SETTINGS, RunConfig, read_config


@pytest.mark.parametrize("takes", [skal.run, skal.compare])
def test_signature_and_help_show_every_setting_and_its_default(takes: Any) -> None:
    parameters = inspect.signature(takes).parameters
    decided = {"dataset", "strategy"} | ({"strategy_params"} if takes is skal.compare else set())
    for name in SETTINGS.keys() - decided:
        assert parameters[name].default == SETTINGS[name].default
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert re.search(rf"^ *{name} : ", takes.__doc__, re.MULTILINE), name
    assert "settings" not in parameters and "**settings" not in takes.__doc__


def test_the_classifier_has_the_training_settings_with_their_defaults() -> None:
    parameters = inspect.signature(skal.ImageClassifier).parameters
    for name, setting in settings_of(ClassifierSettings).items():
        assert parameters[name].default == setting.default
        assert re.search(rf"^ *{name} : ", str(skal.ImageClassifier.__doc__), re.MULTILINE), name
    assert skal.ImageClassifier().get_params().keys() >= TRAINING_SETTINGS.keys()


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
        ({"n_rounds": -1}, "n_rounds: got -1; expected a whole number from 0 to 1000000"),
        ({"n_rounds": 1.5}, "n_rounds: got 1.5"),
        ({"n_rounds": None}, "n_rounds: got None"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed: got True"),
        (
            {"n_rounds": 10**9},
            "n_rounds: got 1000000000; expected a whole number from 0 to 1000000",
        ),
        ({"steps": 0}, "steps: got 0; expected a whole number from 1 to 1000000000"),
        ({"steps": 10**12}, "steps: got 1000000000000"),
        ({"epochs": "3"}, "epochs: got '3'"),
        ({"train_batch_size": 0}, "train_batch_size"),
        ({"train_batch_size": 10**9}, "train_batch_size"),
        ({"image_size": 0}, "image_size: got 0; expected a whole number from 8 to 4096"),
        ({"image_size": 100_000}, "image_size: got 100000; expected a whole number from 8 to 4096"),
        ({"n_quary": 3}, "unknown setting 'n_quary'; did you mean n_query"),
        ({"steps": 1, "epochs": 1}, "give steps or epochs, not both"),
        ({"lr": 0}, "lr: got 0; expected a number above 0"),
        ({"lr": float("nan")}, "lr: got nan"),
        ({"lr": float("inf")}, "lr: got inf"),
        ({"lr": "fast"}, "lr: got 'fast'"),
        ({"lr": True}, "lr: got True"),
        ({"clip_norm": 0}, "clip_norm: got 0; expected a number above 0"),
        ({"mixup": -0.1}, "mixup: got -0.1; expected a number of at least 0"),
        ({"label_smoothing": 1}, "label_smoothing: got 1; expected a number of at least 0 and"),
        ({"label_smoothing": None}, "label_smoothing: got None"),
        ({"patience": 0}, "patience: got 0; expected a whole number from 1 to 1000000"),
        ({"patience": 3, "average": "swa"}, "give patience or average swa, not both: average swa"),
        ({"pretrained": True, "weights": "f"}, "give pretrained or weights, not both"),
        ({"freeze": True, "finetune": True}, "give freeze or finetune, not both: freeze trains"),
        (
            {"freeze": True, "compile": True},
            "give freeze or compile, not both: a frozen",
        ),
        ({"warm_start": "shrunk"}, "unknown warm start 'shrunk'; did you mean shrink?"),
        ({"pretrain": "simclar"}, "unknown pretrain 'simclar'; did you mean simclr?"),
        ({"dataset": 5}, "dataset: got 5; expected text"),
        ({"model": 5}, "model: got 5; expected text"),
        ({"pretrained": "yes"}, "pretrained: got 'yes'; expected true or false"),
        ({"strategy_params": "gamma=3"}, "strategy_params: got 'gamma=3'; expected a table"),
        ({"optimizer": "sgdd"}, "unknown optimizer 'sgdd'; did you mean sgd?"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"precision": "fp16"}, "unknown precision 'fp16'; did you mean"),
    ],
)
def test_values_that_are_not_valid_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        RunConfig(**settings)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": "linear"}, "head: got 'linear', which has no effect without freeze; add"),
        ({"head": "mlp"}, "head: got 'mlp', which has no effect without freeze"),
        ({"budget": "10%"}, "budget: got 0.1, which has no effect without stream"),
        ({"explore": 0, "stream": "in-order"}, "explore: got 0.0, which has no effect with str"),
        ({"n_query": 20, "stream": "shuffled"}, "n_query: got 20, which has no effect with str"),
        ({"max_candidates": 9, "stream": "in-order"}, "max_candidates: got 9"),
        ({"pretrain_steps": 1000}, "pretrain_steps: got 1000, which has no effect without pre"),
        ({"image_noise": "gaussian"}, "image_noise: got 'gaussian', which has no effect without"),
        ({"image_noise": "gaussian", "noise_rate": "0%"}, "image_noise: got 'gaussian'"),
        ({"label_noise_kind": "uniform"}, "label_noise_kind: got 'uniform'"),
    ],
)
def test_what_is_given_and_changes_nothing_is_refused_even_if_it_is_the_default(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        RunConfig(**given)
    assert str(caught.value).startswith(message)
    with pytest.raises(ParameterError, match=re.escape(message)):
        skal.run("digits", **given)


def test_a_scheduler_needs_a_cluster() -> None:
    with pytest.raises(ParameterError, match="has no effect without backend dask or ray"):
        GridConfig(scheduler="tcp://x:1")
    assert GridConfig(scheduler="tcp://x:1", backend="dask").scheduler == "tcp://x:1"


def test_settings_that_are_written_make_the_same_ones_again() -> None:
    for config in (
        RunConfig(),
        RunConfig(stream="in-order", budget="30%"),
        RunConfig(freeze=True, head="mlp", noise_rate=0.2, image_noise="salt-and-pepper"),
    ):
        written = config.as_dict()
        assert RunConfig(**written) == config
        assert RunConfig(**written).as_dict() == written
        assert pickle.loads(pickle.dumps(config)).given == config.given
    assert not {"budget", "head", "image_noise"} & RunConfig().as_dict().keys()
    assert "n_query" not in RunConfig(stream="in-order").as_dict()


def test_what_a_change_puts_out_of_action_is_left_out() -> None:
    noisy = RunConfig(noise_rate=0.1, image_noise="salt-and-pepper")
    assert noisy.replace(noise_rate=0) == RunConfig()
    assert noisy.replace(seed=1).image_noise == "salt-and-pepper"
    assert RunConfig(stream="in-order").replace(n_query=7).given == {"stream"}
    with pytest.raises(ParameterError, match="n_rounds"):
        noisy.replace(n_rounds=-1)


@pytest.mark.parametrize(
    ("before", "now", "left"),
    [
        ({"n_init": 3, "seed": 1}, {"n_init": 4}, {"seed": 1, "n_init": 4}),
        ({"steps": 3}, {"epochs": 2}, {"epochs": 2}),
        ({"freeze": True, "head": "mlp"}, {"finetune": True}, {"finetune": True}),
        ({"freeze": True, "head": "mlp"}, {"freeze": False}, {"freeze": False}),
        ({"average": "swa"}, {"patience": 2}, {"patience": 2}),
        ({"n_query": 5}, {"stream": "in-order"}, {"stream": "in-order"}),
        ({"head": "mlp"}, {"seed": 1}, {"head": "mlp", "seed": 1}),  # wrong before, wrong now
        ({"head": "mlp"}, {"freeze": True}, {"head": "mlp", "freeze": True}),
    ],
)
def test_what_is_given_now_wins_over_what_contradicts_it(
    before: dict[str, Any], now: dict[str, Any], left: dict[str, Any]
) -> None:
    assert override(SETTINGS, before, now) == left


def test_every_choice_has_something_behind_it() -> None:
    assert SETTINGS["image_noise"].choices == tuple(IMAGE_NOISE)
    assert SETTINGS["head"].choices == tuple(HEADS)


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
    with pytest.raises(ParameterError, match=r"n_init: got .* a whole number of at least 1, or"):
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
