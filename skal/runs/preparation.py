"""Preparation of a run: load images, resolve settings, and check that all of it can work."""

from __future__ import annotations

import logging
from pathlib import Path

from ..core.errors import DataError, ParameterError, UnknownNameError
from ..core.kinds import resolve_count
from ..core.seeding import derive_seed
from ..core.text import counted
from ..datasets import DATASETS, ImageDataset, data_folder
from ..datasets.doubles import tell_doubles, without_doubles
from ..datasets.loading import load_as
from ..datasets.noise import add_noise
from ..models import BUNDLED_MODELS, MODELS
from ..models.backbone import Backbone
from ..models.build import try_network
from ..models.classifier import ImageClassifier
from ..models.devices import Device, resolve_device, torch_seed
from ..models.inference import check_input
from ..models.kept_backbone import ready_backbone
from ..models.net import default_lr
from ..models.network import ImageModule
from ..strategies.cold_start import resolve_init_strategy
from .config import SETTINGS, RunConfig
from .names import check_weights
from .pretraining import check_pretraining
from .record import free_name
from .start import check_folder, decoding_for, input_size, no_class, with_network

_log = logging.getLogger("skal")


def check_settings(config: RunConfig) -> None:
    """Raise a `UsageError` for mistakes in the settings that show without loading the data."""
    if config.model is not None:
        MODELS.resolve(config.model)
    if config.init_strategy is not None:
        resolve_init_strategy(config.init_strategy)
    check_weights(config)
    resolve_device(config.device)
    check_pretraining(config)
    if config.model in BUNDLED_MODELS and not (config.pretrained or config.weights):
        _log.warning(
            "model %s starts from random weights, since --pretrained is not given; use "
            "--pretrained --freeze for its pretrained weights, frozen",
            config.model,
        )
    kept = next((name for name in ("freeze", "finetune") if getattr(config, name)), None)
    has_weights = config.pretrained or config.weights or config.pretrain != "none"
    if kept and config.model and not has_weights:
        _log.warning(
            "%s: the backbone starts from random weights; load trained ones with --pretrained, "
            "--weights FILE or --pretrain",
            kept,
        )


def load_images(config: RunConfig, data: str | Path) -> ImageDataset:
    """Load the dataset of a run, and report duplicate images."""
    loaded = load_silently(config, data)
    if not config.drop_duplicates:  # else `without_duplicates` reports those that it drops
        tell_doubles(loaded)
    return loaded


def load_silently(config: RunConfig, data: str | Path) -> ImageDataset:
    """Load the dataset of a run, without a report of duplicates, which matter only where something
    is trained or measured; see `load_as`, `input_size` and `decoding_for`.
    """
    check_folder(config, data)
    size = input_size(config, data)
    return load_as(data, size, config.data_dir, config.seed, decoding_for(config))


def load_again(config: RunConfig) -> ImageDataset:
    """Load the dataset of a resumed run; raise a `DataError` if it was made from arrays."""
    try:
        return load_images(config, config.dataset)
    except UnknownNameError as error:
        raise DataError(
            f"the run's dataset {config.dataset!r} cannot be loaded by name; resume the run from "
            "Python: skal.resume(folder, data=...)"
        ) from error


def without_duplicates(config: RunConfig, data: ImageDataset) -> ImageDataset:
    """Drop duplicates from the pool, if the settings ask for it."""
    return without_doubles(data) if config.drop_duplicates else data


def with_noise(config: RunConfig, data: ImageDataset) -> ImageDataset:
    """Add the image noise of the settings; raise a `DataError` if it cannot be written."""
    rate = float(config.noise_rate)
    if not rate:
        return data
    seed, folder = derive_seed(config.seed, "noise"), config.cache
    return add_noise(data, config.image_noise, rate, seed=seed, folder=folder)


def check_usable(data: ImageDataset) -> None:
    """Raise a `DataError` if there are fewer than two classes, no pool or no test set."""
    if not data.classes:
        raise no_class(data.name)
    if len(data.classes) == 1:
        raise DataError(
            f"{data.name} has only the class {data.classes[0]!r}; a classifier needs two or more"
        )
    if not len(data.X):
        raise DataError(f"{data.name} has no labelled training images to simulate labelling with")
    if not len(data.X_test):
        raise no_test_image(data)


def no_test_image(data: ImageDataset) -> DataError:
    """Return the error for a dataset without test images, which says how to get some."""
    of_what = "files, whose pages stay together," if data.pages == "all" else "images"
    hint = f"a class needs two {of_what} or more"
    if data.root is None:
        hint = "pass X_test and y_test to skal.ImageDataset to measure accuracy"
    return DataError(f"{data.name} has no test images; {hint}")


def resolve_settings(config: RunConfig, data: ImageDataset) -> RunConfig:
    """Fill in the settings that depend on the data, so that the configuration repeats the run
    anywhere. Raise a `ParameterError` if `n_valid` leaves no image to train on.
    """
    n, size = len(data.X), data.image_size
    n_init, n_query = (
        resolve_count(name, getattr(config, name), n) for name in ("n_init", "n_query")
    )
    n_valid = resolve_count("n_valid", config.n_valid, n, lowest=0)
    if n_valid >= n:
        raise ParameterError(
            f"n_valid: got {config.n_valid!r}, but the pool has {counted(n, 'image')} and at least "
            "one must remain to train on"
        )
    # the prefix keeps arrays named like a registered dataset from being loaded by that name
    name = data.source.get("dataset") or "arrays:" * (data.name in DATASETS) + data.name
    config = with_network(config.replace(dataset=name), size)
    lr = config.lr or default_lr(str(config.model), config.optimizer, config.freeze)
    device = Device.resolve(config.device, config.precision)
    if data.split_seed not in (None, config.seed):
        _log.warning(
            "the test set was drawn with seed %d, not the run's seed %d: config.toml will not "
            "repeat this run",
            data.split_seed,
            config.seed,
        )
    return config.replace(
        init_strategy=config.init_strategy or ("herding" if config.freeze else "random"),
        n_init=n_init,
        n_query=n_query,
        n_valid=n_valid,
        image_size=size if SETTINGS["image_size"].contains(size) else None,
        lr=lr,
        white=data.white or config.white,
        data_dir=data.source.get("data_dir") or str(data_folder(config.data_dir).resolve()),
        device=device.name,
        precision="bf16" if device.bf16 else "fp32",
        weights=config.absolute_weights,
    )


def check_network(template: ImageClassifier, data: ImageDataset, cache: Path) -> Backbone | None:
    """Build the network and run it once on the CPU, unless that is known to work; raise a
    `SkalError` if it fails. Return the backbone of a network that is frozen and runs on the CPU,
    where all rounds share it; else None.
    """
    check_input(data.X[:1])
    shape, n_classes = data.X.shape[1:], len(data.classes)
    if template.freeze and resolve_device(template.device) == "cpu":
        return ready_backbone(template, shape, cache)
    with torch_seed(0):
        module = ImageModule(
            template.model,
            (),
            False,
            n_classes=n_classes,
            in_channels=shape[0],
            image_size=shape[1],
            dropout=template.dropout,
            pretrained=template.pretrained,
            weights=template.weights,
        )
    try_network(template.model, module, shape, n_classes)
    return None


def default_folder(config: RunConfig, data: ImageDataset) -> Path:
    """Return ``runs/<dataset>-<strategy>-<model>-s<seed>``, with a number if that is taken."""
    name = f"{data.name}-{config.strategy}-{config.model}-s{config.seed}"
    return free_name(Path("runs") / name_of_folder(name))


def name_of_folder(text: str) -> str:
    """Replace characters that a folder's name cannot have."""
    return "".join("." if character in ':/\\?*"<>|' else character for character in text)
