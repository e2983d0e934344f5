"""Every setting of a run, once: for Python, the command line and ``config.toml``. No torch here."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import tomli_w

from .errors import ParameterError, UnknownNameError

Count = int | str
Share = float | str


INIT_STRATEGIES = ("random", "stratified", "k-means", "typiclust", "probcover")
SWA_AND_PATIENCE = "average swa has a schedule of its own: leave patience out, or take ema"
HEADS = ("linear", "mlp")
LABEL_NOISE_KINDS = ("uniform", "pairs", "class=A:B")

_LOWEST = {"n_rounds": 0, "seed": 0}
_WORDS: Mapping[Any, tuple[Any, str]] = {
    "str": (str, "text"),
    "str | None": (str, "text"),
    "bool": (bool, "true or false"),
    "Mapping[str, Any]": (Mapping, "a table of names and values"),
    "Sequence[str]": (list | tuple, "a list of names"),
    "Sequence[Share]": (list | tuple, "a list of shares"),
}


def _setting(default: Any, help: str, **facts: Any) -> Any:
    metadata = {"help": help, **facts}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that are checked when made.

    Field metadata tell the command line how to show them: `help`, `metavar`, `choices`, and
    `option` (its name where that differs). `acts_in` says of what acts in a pool or a stream alone
    in which.
    """

    def __post_init__(self) -> None:
        for setting in fields(self):
            name, value = setting.name, getattr(self, setting.name)
            if value is None and setting.type.endswith("None"):
                continue
            if setting.type.startswith("int"):
                # numpy's integers become plain ones, which TOML can hold
                object.__setattr__(self, name, _whole(name, value, _LOWEST.get(name, 1)))
            elif setting.type in _WORDS:
                expected, word = _WORDS[setting.type]
                if not isinstance(value, expected):
                    raise ParameterError(f"{name}: got {value!r}; expected {word}")
            choices = setting.metadata.get("choices")
            if choices and value not in choices:
                raise UnknownNameError(name.replace("_", " "), str(value), choices)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that are set, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in values.items()
        }
        return {name: value for name, value in plain.items() if value not in (None, {}, ())}

    def to_toml(self) -> str:
        """Return the settings as TOML."""
        return tomli_w.dumps(self.as_dict())

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some settings changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """The settings of a run.

    Raises
    ------
    ParameterError, UnknownNameError
        If a value is not valid, as far as that can be told without the dataset.
    """

    dataset: str = _setting("digits", "A dataset's name, or a folder of images", metavar="NAME|DIR")
    strategy: str = _setting("auto", "A query strategy's name, or module:Class", metavar="NAME")
    strategy_params: Mapping[str, Any] = _setting(
        {}, "An argument of the strategy; may be repeated", metavar="K=V", option="strategy-param"
    )
    model: str | None = _setting(
        None,
        "A network's name, or module:builder; by default small-cnn below 64 px, else resnet18",
        metavar="NAME",
    )
    n_init: Count = _setting(20, "Images labelled at the start, or their share", metavar="N|P%")
    n_query: Count = _setting(
        20, "Images labelled each round, or their share", metavar="N|P%", acts_in="pool"
    )
    n_rounds: int = _setting(5, "Rounds after the initial one", metavar="N")
    init_strategy: str = _setting(
        "random",
        "How the initial images are chosen",
        choices=INIT_STRATEGIES,
    )
    explore: Share = _setting(
        "0%", "Share of each batch that is drawn at random", metavar="P%", acts_in="pool"
    )
    max_candidates: int | None = _setting(
        None,
        "The strategy sees a fresh random subset of so many images each round",
        metavar="N",
        acts_in="pool",
    )
    calibrate: str = _setting(
        "none",
        "Scale the network's confidence by cross-validation on the labelled images",
        choices=("none", "temperature"),
    )
    stop: str = _setting(
        "notice",
        "Say, or end, when further labels change predictions little; alone: end",
        choices=("off", "notice", "end"),
        bare="end",
    )
    stream: str = _setting(
        "off",
        "Present the pool once, in n-rounds chunks, deciding at once; alone: in-order",
        choices=("off", "in-order", "shuffled"),
        bare="in-order",
    )
    budget: Share = _setting(
        "10%", "Share of a stream that may be labelled", metavar="P%", acts_in="stream"
    )
    image_noise: str = _setting(
        "gaussian",
        "The noise on the training images, if any",
        choices=("gaussian", "salt-and-pepper"),
    )
    noise_rate: Share = _setting(
        "0%",
        "How much of it: the standard deviation as a share of white, or the share of pixels",
        metavar="P%",
    )
    label_noise: Share = _setting("0%", "Share of the pool's labels that are wrong", metavar="P%")
    label_noise_kind: str = _setting(
        "uniform",
        "Which wrong label is given: any, the next class, or that of A become B",
        metavar="|".join(LABEL_NOISE_KINDS),
    )
    n_valid: Count = _setting(
        0,
        "Labelled images set apart to watch the training by, which count as labels spent",
        metavar="N|P%",
    )
    seed: int = _setting(0, "Decides all that is random", metavar="N")
    image_size: int | None = _setting(
        None,
        "Height and width in pixels; by default the dataset's own, for folders 48, or what the "
        "model's weights are made for",
        metavar="N",
    )
    steps: int | None = _setting(
        None,
        "Optimiser steps a round; by default 200, or 20 epochs if those are more",
        metavar="N",
    )
    epochs: int | None = _setting(None, "Passes over the labelled images instead", metavar="N")
    train_batch_size: int = _setting(64, "Images an optimiser step", metavar="N")
    optimizer: str = _setting("adamw", "The optimiser", choices=("adamw", "sgd"))
    lr: float | None = _setting(
        None, "Highest learning rate; by default what suits the model", metavar="F"
    )
    warm_start: str = _setting(
        "off",
        "Start each round from the last one's weights, or those shrunk and perturbed; alone: on",
        choices=("off", "on", "shrink"),
        bare="on",
    )
    label_smoothing: float = _setting(
        0.0, "Share of each label that is spread over all classes", metavar="F"
    )
    average: str = _setting(
        "none", "End each training with averaged weights", choices=("none", "ema", "swa")
    )
    clip_norm: float | None = _setting(None, "Shorten longer gradients to this", metavar="F")
    balanced: bool = _setting(False, "Let all classes take turns in the batches")
    mixup: float = _setting(0.0, "Mix images in pairs, to shares from Beta(F, F)", metavar="F")
    patience: int | None = _setting(
        None, "End a training when its loss has not fallen for so many epochs", metavar="N"
    )
    pretrain: str = _setting(
        "none",
        "Train the backbone on the pool's images without labels first; alone: simclr",
        choices=("none", "simclr"),
        bare="simclr",
    )
    pretrain_steps: int = _setting(1000, "Optimiser steps of that", metavar="N")
    pretrained: bool = _setting(False, "Start from the model's own pretrained weights")
    weights: str | None = _setting(
        None,
        "Start from the weights in this file: a state dict, or a run's model.safetensors",
        metavar="FILE",
    )
    freeze: bool = _setting(
        False, "Keep the backbone as it starts: run it once an image, and train a head alone"
    )
    finetune: bool = _setting(False, "Train the backbone at a tenth of the learning rate")
    head: str = _setting("linear", "What is trained on a frozen backbone", choices=HEADS)
    device: str = _setting("auto", "Where to compute", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = _setting(
        "auto", "bf16 where the device is fast at it, if auto", choices=("auto", "fp32", "bf16")
    )
    compile: bool = _setting(False, "Compile the network by torch, which pays on GPUs")
    data_dir: str | None = _setting(
        None, "Where data lie; by default $SKAL_DATA_DIR, else ./data", metavar="DIR"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.epochs is not None:
            raise ParameterError("give steps or epochs, not both")
        for name in ("lr", "clip_norm"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _number(name, getattr(self, name), above=0.0))
        for name, below in (("label_smoothing", 1.0), ("mixup", math.inf)):
            object.__setattr__(self, name, _number(name, getattr(self, name), below=below))
        if self.patience is not None and self.average == "swa":
            raise ParameterError(SWA_AND_PATIENCE)
        for name in ("n_init", "n_query"):
            resolve_count(name, getattr(self, name), 100)
        resolve_count("n_valid", self.n_valid, 100, lowest=0)
        shares = {"explore": 0.0, "budget": 1e-9, "noise_rate": 0.0, "label_noise": 0.0}
        for name, least in shares.items():
            # one way to write them, so that settings can be compared
            object.__setattr__(self, name, resolve_share(name, getattr(self, name), least))
        kind = self.label_noise_kind
        if kind not in LABEL_NOISE_KINDS and not re.fullmatch("class=.+:.+", kind, re.DOTALL):
            raise UnknownNameError("label noise kind", kind, LABEL_NOISE_KINDS)


@dataclass(frozen=True, kw_only=True)
class GridConfig(Settings):
    """The settings of a comparison, beside those of its runs.

    Raises
    ------
    ParameterError, UnknownNameError
        If a value is not valid.
    """

    strategies: Sequence[str] = _setting(
        ("random", "margin", "badge"),
        "Query strategies; NAME?K=V&K=V gives one arguments; random is added",
        metavar="A,B",
    )
    seeds: int = _setting(10, "How many seeds, from --seed on", metavar="N")
    models: Sequence[str] = _setting((), "Networks, if several", metavar="A,B")
    noise_rates: Sequence[Share] = _setting((), "Rates of image noise, if several", metavar="R,R")
    label_noises: Sequence[Share] = _setting((), "Rates of label noise, if several", metavar="R,R")
    jobs: int | None = _setting(
        None, "So many at a time; by default 1, on a cluster as many as it takes", metavar="N"
    )
    threads: int | None = _setting(
        None, "Threads of each; by default the processors over the jobs", metavar="N"
    )
    backend: str = _setting(
        "loky", "Where: processes here, or a cluster", choices=("loky", "dask", "ray")
    )
    scheduler: str | None = _setting(
        None, "The cluster's address; without, one is started here", metavar="ADDRESS"
    )
    html: bool = _setting(False, "Write report.html, too")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("strategies", "models"):
            for value in getattr(self, name):
                if not isinstance(value, str):
                    raise ParameterError(f"{name}: got {value!r}; expected a list of names")
        for name in ("noise_rates", "label_noises"):
            rates = tuple(resolve_share(name, rate) for rate in getattr(self, name))
            object.__setattr__(self, name, rates)
        for name in ("strategies", "models", "noise_rates", "label_noises"):
            # once each, in the order given
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        if not self.strategies:
            raise ParameterError("strategies: got none; expected names, such as random and badge")


SETTINGS = {setting.name: setting for setting in fields(RunConfig)}
GRID_SETTINGS = {setting.name: setting for setting in fields(GridConfig)}
GRID = "compare"
"""The table of a settings file that only comparisons read."""


def read_config(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file.

    Parameters
    ----------
    path : Path
        As `RunConfig.to_toml` writes it; it may set only some. The table `compare` may hold those
        of `GridConfig`.

    Returns
    -------
    dict
        Settings by name; those of the table under ``"compare"``, if there is one.

    Raises
    ------
    ParameterError, UnknownNameError
        If it is not TOML, or has a key that is no setting.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError as error:
        raise ParameterError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"{str(path)!r} is not TOML: {error}") from error
    grid = values.get(GRID, {})
    if not isinstance(grid, dict):
        raise ParameterError(f"{path}: compare is {grid!r}; expected a table, [compare]")
    for names, known in ((values.keys() - {GRID}, SETTINGS), (grid, GRID_SETTINGS)):
        for name in sorted(names):
            if name not in known:
                table = " in [compare]" if known is GRID_SETTINGS else ""
                raise UnknownNameError(f"setting{table} in {path}:", name, known)
    return values


def parse_params(pairs: Iterable[str]) -> dict[str, Any]:
    """Parse arguments ``K=V``; a value that is a Python literal is taken as that, else as text.

    Raises
    ------
    ParameterError
        If one has no name, or no ``=``.
    """
    params = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise ParameterError(f"strategy-param: got {pair!r}; expected NAME=VALUE")
        try:
            params[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            params[name] = text
    return params


def resolve_count(name: str, value: Count, n_pool: int, lowest: int = 1) -> int:
    """Turn a count or a share into a count.

    Parameters
    ----------
    name : str
        The setting, for the message.
    value : int or str
        ``20``, ``"20"`` or ``"10%"``; a share is rounded, if it is above 0 to at least 1.
    n_pool : int
        What the share is of.
    lowest : {0, 1}
        What it may be at least.

    Returns
    -------
    int

    Raises
    ------
    ParameterError
        If it is neither.
    """
    text = str(value).strip()
    try:
        if isinstance(value, bool):
            raise ValueError
        if text.endswith("%"):
            share = float(text[:-1])
            if 0 < share <= 100:
                return max(1, round(share / 100 * n_pool))
            if share == lowest == 0:
                return 0
        elif int(text) >= lowest:
            return int(text)
    except ValueError:
        pass
    raise ParameterError(
        f"{name}: got {value!r}; expected a number from {lowest} on, or a share such as 10%"
    )


def resolve_share(name: str, value: Share, lowest: float = 0.0) -> float:
    """Turn a share into a number.

    Parameters
    ----------
    name : str
        The setting, for the message.
    value : float or str
        ``0.1``, ``"0.1"`` or ``"10%"``.
    lowest : float
        What it may be at least; at most it is 1.

    Returns
    -------
    float

    Raises
    ------
    ParameterError
        If it is no share.
    """
    text = str(value).strip()
    try:
        if isinstance(value, bool):
            raise ValueError
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        if lowest <= share <= 1:
            return share
    except ValueError:
        pass
    least = "0%" if lowest == 0 else "more than 0%"
    raise ParameterError(f"{name}: got {value!r}; expected a share from {least} to 100%, or 0.1")


def _whole(name: str, value: Any, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
        raise ParameterError(f"{name}: got {value!r}; expected a whole number from {lowest} on")
    return int(value)


def _number(name: str, value: Any, *, above: float | None = None, below: float = math.inf) -> float:
    """Check a number: above a bound, or from 0 on, and below another."""
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        if (number >= 0 if above is None else number > above) and number < below:
            return number
    least = "from 0 on" if above is None else f"above {above:g}"
    most = "" if below == math.inf else f" and below {below:g}"
    raise ParameterError(f"{name}: got {value!r}; expected a number {least}{most}")
