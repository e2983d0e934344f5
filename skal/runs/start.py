"""The default network, and the size of the images that it is given."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ..core.errors import DataError
from ..core.kept import kept as kept_result
from ..core.kept import told_where
from ..core.text import counted
from ..datasets import DATASETS, ImageDataset, data_folder, folder_of
from ..datasets.decoding import Decoding
from ..datasets.index import count_images, may_have_classes
from ..datasets.loading import how_to_decode
from ..datasets.tables import MOST_NAMED, without_columns
from ..models import (
    BUNDLED_MODELS,
    FROZEN_MODEL,
    MODELS,
    PRETRAINED_MODEL,
    trained_model,
)
from ..models.backbone import Backbone
from ..models.devices import Device
from ..models.heads import HEADS
from ..models.settings import head_for
from .config import RunConfig
from .environment import ENGINE, package_version

SMALLEST = 32
"""Minimum height and width in pixels for the pretrained network as the default."""
MANY = 10_000
"""Number of array images from which on the duration of their pass is logged."""
SIZES = (224, 160, 112)
"""Candidate heights and widths in pixels to decode a folder at for the pretrained network."""
PASS_SECONDS = 60.0
"""Time limit for the network's pass over all images; if it is exceeded, a smaller size is used."""
MOST_PIXELS = 2**33
"""Limit in bytes for the decoded images on disk; if it is exceeded, a smaller size is used."""
TRIAL_SIZE, TRIAL_IMAGES, TRIAL_SECONDS = 112, 20_000, 1.0

_log = logging.getLogger("skal")


def with_network(config: RunConfig, image_size: int) -> RunConfig:
    """Fill in the default network, and the head of a frozen one, where the settings name none.

    Images of at least `SMALLEST` pixels get the pretrained network, frozen unless a setting asks
    for training. Smaller ones get a network trained from scratch, unless their dataset's fact
    `suits_frozen` says that a solved head on the frozen network is better. With `weights` or
    `pretrain` the network is trained, too.
    """
    changes: dict[str, object] = {}
    head = config.head or head_for({name: getattr(config, name) for name in config.given})
    if config.model is None:
        from_elsewhere = config.weights is not None or config.pretrain != "none"
        wanted = config.freeze or config.finetune or config.pretrained
        frozen = not (config.finetune or config.compile)
        is_solved = frozen and HEADS[head].solved
        known = DATASETS.resolve(config.dataset).facts if config.dataset in DATASETS else {}
        fits = image_size >= SMALLEST or (is_solved and known.get("suits_frozen"))
        if from_elsewhere or not (fits or wanted):
            changes["model"] = trained_model(image_size)
        else:
            model = FROZEN_MODEL if is_solved else PRETRAINED_MODEL
            changes.update(model=model, pretrained=True, freeze=frozen)
    if (changes.get("freeze") or config.freeze) and config.head is None:
        changes["head"] = head
    return config.replace(**changes) if changes else config


def no_class(name: str, unused: Mapping[str, str] | None = None) -> DataError:
    """Return the error for images without classes, with the reasons why tables are `unused`."""
    some = islice((unused or {}).items(), MOST_NAMED)
    reasons = "".join(f"; {table} is not used: {why}" for table, why in some)
    return DataError(
        f"{name} has no classes; put the images of each class into a folder named like the class, "
        "or add a table with the class of each image next to them, or label them with `skal label`"
        f"{reasons}"
    )


def check_folder(config: RunConfig, data: str | Path) -> None:
    """Raise `no_class` if a folder cannot have classes, before its images are decoded."""
    root = folder_of(data, config.data_dir)
    if root is not None and root.is_dir() and not may_have_classes(root):
        raise no_class(root.resolve().name, without_columns(root))


def decoding_for(config: RunConfig) -> Decoding:
    """Return how to decode files: cropped to squares as the pretrained weights expect."""
    geometry = "cover"
    if config.model is not None and (config.pretrained or config.weights):
        geometry = str(MODELS.resolve(config.model).facts.get("geometry", "cover"))
    return how_to_decode(geometry, config.white, config.pages)


def images_a_second(config: RunConfig) -> float:
    """Return the speed of the pretrained backbone on this machine at `TRIAL_SIZE`.

    It is measured once and cached, so that later runs choose the same image size.
    """
    device = Device.resolve(config.device, config.precision)
    cache = data_folder(config.data_dir) / "cache"
    # machines with other hardware or versions may share the data folder
    facts = (
        platform.node(),
        platform.machine(),
        torch.__version__,
        package_version(ENGINE),
        torch.get_num_threads(),
        device,
    )
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=6).hexdigest()
    path = cache / f"speed-{PRETRAINED_MODEL}-{device.name.replace(':', '-')}-{digest}.json"

    def measure(path: Path) -> None:
        path.write_text(json.dumps({"images_a_second": _trial(device)}))

    with told_where("the speed of the network", cache):
        kept_result(path, "tries how fast the network is", measure)
    try:
        speed = float(json.loads(path.read_text())["images_a_second"])
    except (KeyError, TypeError, ValueError):
        speed = 0.0
    if not speed > 0:
        raise DataError(f"{str(path)!r} has no valid speed of the network; remove the file")
    return speed


def _trial(device: Device) -> float:
    """Return the speed of the fastest batch, which other processes slowed down least."""
    shape = (3, TRIAL_SIZE, TRIAL_SIZE)
    backbone = Backbone.build(PRETRAINED_MODEL, shape, device, pretrained=True)
    images = np.broadcast_to(np.uint8(0), (TRIAL_IMAGES, *shape))
    speeds: list[float] = []
    batches = backbone.stream(images)
    next(batches)  # warm-up: the engine is compiled for this batch
    start = last = time.perf_counter()
    for features in batches:
        now = time.perf_counter()
        speeds.append(len(features) / (now - last))
        last = now
        if now > start + TRIAL_SECONDS:
            break
    return max(speeds)


def input_size(
    config: RunConfig, data: str | Path, speed: Callable[[RunConfig], float] = images_a_second
) -> int | None:
    """Return the height and width in pixels to load images at, None for their own.

    The settings come first. For a folder and a named network, it is the size that the pretrained
    weights expect. For the default network, it is the largest of `SIZES` that `PASS_SECONDS` and
    `MOST_PIXELS` allow, where `speed` returns this machine's images per second at `TRIAL_SIZE`.
    """
    root = None if config.image_size else folder_of(data, config.data_dir)
    if root is None:
        return config.image_size
    if config.model is None:
        chosen = with_network(config, SIZES[0])
        if chosen.model in BUNDLED_MODELS and root.is_dir():
            # training sees each image many times per round
            return _affordable(root, speed(config)) if chosen.freeze else SIZES[-1]
    elif config.pretrained or config.weights:
        facts = MODELS.resolve(config.model).facts
        frozen_size = facts.get("frozen_image_size") if config.freeze else None
        size: int | None = frozen_size or facts.get("image_size")
        return size
    return None


def _affordable(root: Path, speed: float) -> int:
    most = int(MOST_PIXELS / (3 * SIZES[-1] ** 2))
    n = count_images(root, most)
    for size in SIZES:
        seconds = _pass_seconds(n, size, speed)
        fits = seconds <= PASS_SECONDS and 3 * size**2 * n <= MOST_PIXELS
        if fits or size == SIZES[-1]:
            if n:
                _log_size(n if n < most else None, size, seconds)
            return size
    raise AssertionError


def _pass_seconds(n: int, size: int, speed: float) -> float:
    """Return the seconds of a pass over `n` images; `speed` is in images/s at `TRIAL_SIZE`."""
    return n / speed * (size / TRIAL_SIZE) ** 2


@lru_cache(maxsize=256)
def _log_size(n: int | None, size: int, seconds: float) -> None:
    """Log the chosen size, and how to change it, once per process."""
    images = (
        f"{counted(n, 'image')}, about {max(seconds, 1):.0f} s" if n is not None else "all images"
    )
    _log.info(
        "images at %d px: the network runs once over %s, unless its features are cached; "
        "--image-size N sets another size",
        size,
        images,
    )


def log_pass(
    config: RunConfig, data: ImageDataset, speed: Callable[[RunConfig], float] = images_a_second
) -> None:
    """Log how long the default network's pass over many array images takes."""
    n, size = len(data.X), max(data.image_size, TRIAL_SIZE)
    if config.model == FROZEN_MODEL and config.freeze and n >= MANY and not data.paths:
        seconds = _pass_seconds(n, size, speed(config))
        _log.info(
            "the network runs once over %d images, about %.0f s, unless its features are cached",
            n,
            max(seconds, 1),
        )


def describe(config: RunConfig) -> str:
    """Return a line that names the default network, and the flags that change it."""
    if config.model not in BUNDLED_MODELS:
        return f"network: {config.model}, trained from scratch; --model chooses another"
    how = f"frozen, with head {config.head}" if config.freeze else "trained"
    other = "--finetune trains it, " if config.freeze else ""
    return f"network: {config.model}, pretrained on ImageNet, {how}; {other}--model chooses another"
