"""What is checked and filled in before a run: settings, and the data that they name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..core.errors import DataError, ParameterError
from ..core.seeding import derive_seed
from ..core.settings import SETTINGS, RunConfig, resolve_count, resolve_share
from ..datasets import DATASETS, ImageDataset, data_folder, load_dataset
from ..datasets.base import one_line
from ..datasets.noise import add_noise
from ..datasets.oracles import Oracle, make_oracle
from ..models import MODELS, default_model
from ..models.devices import resolve_bf16, resolve_device, torch_seed
from ..models.module import ImageModule
from ..models.training import default_lr
from .pretraining import check_pretraining
from .record import free_name

DROPOUT = 0.25

_log = logging.getLogger("skal")


def check_settings(config: RunConfig) -> None:
    """Check what can be checked before the data are loaded.

    Raises
    ------
    UsageError
        If a name or a value is not valid.
    """
    if config.model is not None:
        MODELS.entry(config.model)
    if config.pretrained and config.weights:
        raise ParameterError("give pretrained or weights, not both")
    if config.weights is not None and not Path(config.weights).is_file():
        raise ParameterError(f"weights: there is no file {config.weights!r}")
    _check_backbone(config)
    resolve_device(config.device)
    check_pretraining(config)
    place = "pool" if config.stream == "off" else "stream"
    for setting in SETTINGS.values():
        if setting.metadata.get("acts_in", place) != place and _is_chosen(config, setting):
            raise ParameterError(
                f"{setting.name}: got {getattr(config, setting.name)!r}, which changes nothing "
                f"{'without a' if place == 'pool' else 'in a'} stream; leave it out"
            )
    for kind, rate in (("image_noise", "noise_rate"), ("label_noise_kind", "label_noise")):
        chosen = getattr(config, kind) != SETTINGS[kind].default
        if chosen and not getattr(config, rate):
            _log.info("%s changes nothing, for %s is 0%%", kind, rate)


def _check_backbone(config: RunConfig) -> None:
    """Check what is said about the training of the backbone."""
    if config.freeze and config.finetune:
        raise ParameterError("give freeze or finetune, not both: the one trains no backbone")
    if config.head != SETTINGS["head"].default and not config.freeze:
        raise ParameterError(
            f"head: got {config.head!r}, which changes nothing without freeze; leave it out"
        )
    kept = "freeze" if config.freeze else "finetune"
    if getattr(config, kept) and not _has_weights(config):
        _log.warning(
            "%s: the backbone starts from random weights; give it some by --pretrained, --weights "
            "FILE or --pretrain",
            kept,
        )


def _has_weights(config: RunConfig) -> bool:
    return bool(config.pretrained or config.weights or config.pretrain != "none")


def _is_chosen(config: RunConfig, setting: Field[Any]) -> bool:
    """Tell whether a setting is not its default, however that is written."""
    value, default = getattr(config, setting.name), getattr(RunConfig, setting.name)
    if setting.type == "Share":
        return resolve_share(setting.name, value) != resolve_share(setting.name, default)
    return str(value) != str(default)


def load_images(config: RunConfig, data: str | Path) -> ImageDataset:
    """Load the dataset of a run; see `load_dataset`, and `image_size_for`."""
    return load_dataset(data, image_size_for(config, data), config.data_dir, config.seed)


def image_size_for(config: RunConfig, data: str | Path) -> int | None:
    """Return the size that images are to have; None for the dataset's own.

    A folder's is, where the settings name none, what the weights are made for that the model
    starts from.
    """
    named = isinstance(data, str) and data in DATASETS
    if config.image_size or named or not config.model or not (config.pretrained or config.weights):
        return config.image_size
    size: int | None = MODELS.entry(config.model).facts.get("image_size")
    return size


def check_usable(data: ImageDataset) -> None:
    """Check that a network can be trained and tested on the data.

    Raises
    ------
    DataError
        If there are fewer than two classes, no pool or no test set.
    """
    if not data.classes:
        raise DataError(
            f"{data.name} has no class; the images of each class belong into a folder of their "
            "own, named as the class is"
        )
    if len(data.classes) == 1:
        raise DataError(
            f"{data.name} has the class {data.classes[0]!r} alone; a classifier needs two or more"
        )
    if not len(data.X):
        raise DataError(f"{data.name} has no labelled image to simulate labelling with")
    if not len(data.X_test):
        raise DataError(f"{data.name} has no test image; a class needs two images or more")


def resolve_settings(config: RunConfig, data: ImageDataset) -> RunConfig:
    """Fill in what the data decide, so that the configuration repeats the run anywhere.

    Raises
    ------
    ParameterError
        If no image would be left to train on.
    """
    n_valid = resolve_count("n_valid", config.n_valid, len(data.X), lowest=0)
    if n_valid >= len(data.X):
        raise ParameterError(
            f"n_valid: got {config.n_valid!r}, but the pool has {len(data.X)} images, and one at "
            "least must be left to train on"
        )
    model = config.model or default_model(data.image_size)
    device = resolve_device(config.device)
    if data.split_seed not in (None, config.seed):
        _log.warning(
            "the test set was drawn by seed %d, not the run's %d: config.toml will not repeat it",
            data.split_seed,
            config.seed,
        )
    return config.replace(
        dataset=data.source.get("dataset") or _name_of_arrays(data),
        model=model,
        n_init=resolve_count("n_init", config.n_init, len(data.X)),
        n_query=resolve_count("n_query", config.n_query, len(data.X)),
        n_valid=n_valid,
        image_size=data.image_size,
        lr=config.lr or default_lr(model, config.optimizer, config.freeze),
        data_dir=data.source.get("data_dir") or str(data_folder(config.data_dir).resolve()),
        device=device,
        precision="bf16" if resolve_bf16(config.precision, device) else "fp32",
        weights=None if config.weights is None else str(Path(config.weights).resolve()),
    )


def with_noise(config: RunConfig, data: ImageDataset) -> ImageDataset:
    """Return the data with the noise on their images that the settings, resolved, ask for.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    rate = float(config.noise_rate)
    if not rate:
        return data
    seed, folder = derive_seed(config.seed, "noise"), Path(str(config.data_dir)) / "cache"
    return add_noise(data, config.image_noise, rate, seed=seed, folder=folder)


def who_labels(
    config: RunConfig,
    data: ImageDataset,
    oracle: Oracle | Callable[[NDArray[np.int64]], ArrayLike] | str | None = None,
) -> Oracle:
    """Return the oracle of a run, with the label noise that the settings ask for.

    Raises
    ------
    SkalError
        See `make_oracle`.
    """
    return make_oracle(
        oracle,
        data,
        derive_seed(config.seed, "oracle"),
        label_noise=float(config.label_noise),
        label_noise_kind=config.label_noise_kind,
    )


def _name_of_arrays(data: ImageDataset) -> str:
    """Return a name that is nobody else's: arrays cannot be loaded by it."""
    return f"arrays:{data.name}" if data.name in DATASETS else data.name


def check_network(config: RunConfig, data: ImageDataset) -> None:
    """Build the network and run it once, so that what does not fit is found before all else.

    Raises
    ------
    SkalError
        If it cannot be built, or takes no images of this size.
    """
    with torch_seed(0):
        module = ImageModule(
            str(config.model),
            (),
            False,
            n_classes=len(data.classes),
            in_channels=data.X.shape[1],
            image_size=data.image_size,
            dropout=DROPOUT,
            pretrained=config.pretrained,
            weights=config.weights,
        )
    image = torch.zeros(1, *data.X.shape[1:], dtype=torch.uint8)
    try:
        with torch.inference_mode():
            module.eval()(image)
    except Exception as error:  # whatever the layers of foreign networks raise
        raise DataError(
            f"the model {config.model!r} does not take images of {data.image_size} px "
            f"({one_line(error)}); choose another size by --image-size, or another model"
        ) from error


def default_folder(config: RunConfig, data: ImageDataset) -> Path:
    """Return ``runs/<dataset>-<strategy>-<model>-s<seed>``, with a number where that is taken."""
    name = f"{data.name}-{config.strategy}-{config.model}-s{config.seed}"
    return free_name(Path("runs") / name_of_folder(name))


def name_of_folder(text: str) -> str:
    """Return a text without what a folder's name cannot have."""
    return "".join("." if character in ':/\\?*"<>|' else character for character in text)


def plain_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments that a TOML file can hold, and the names of the others."""
    plain, others = {}, []
    for name, value in params.items():
        try:
            plain[name] = _plain_value(value)
        except TypeError:
            others.append(name)
    return plain, others


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain_value(item) for key, item in value.items()}
    if isinstance(value, str | int | float):
        return value
    raise TypeError
