"""The network of who names none, and the size of the images that it is given."""

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
"""Height and width in pixels from which on the pretrained network is the default."""
MANY = 10_000
"""Images of whose pass it is said before how long it takes; of folders it always is."""
SIZES = (224, 160, 112)
"""Heights and widths in pixels that a folder may be decoded at for the pretrained network."""
PASS_SECONDS = 60.0
"""What the one pass of the network over all images may take; more buys a smaller size."""
MOST_PIXELS = 2**33
"""Bytes that the decoded images may take on the disk, for more than the smallest size."""
TRIAL_SIZE, TRIAL_IMAGES, TRIAL_SECONDS = 112, 20_000, 1.0

_log = logging.getLogger("skal")


def with_network(config: RunConfig, image_size: int) -> RunConfig:
    """Fill in the network, and the head of a frozen one, where the settings name none.

    Images of `SMALLEST` and more get the pretrained network, frozen unless a setting says how it is
    to be trained. Smaller ones get one that is trained from nothing, unless their dataset's fact
    `suits_frozen` says that a solved head on the frozen network is better. Settings that say where
    to start from get a network that is trained, too.
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
    """Return the error of who has images without any class, and why tables are `unused`."""
    some = islice((unused or {}).items(), MOST_NAMED)
    told = "".join(f"; {table} is not used: {why}" for table, why in some)
    return DataError(
        f"{name} has no class; the images of each class belong into a folder of their own, named "
        "as the class is, or a table beside them names the class of each; `skal label` asks you "
        f"for them{told}"
    )


def check_folder(config: RunConfig, data: str | Path) -> None:
    """Raise `no_class` of a folder that cannot have one, before all its images are decoded."""
    root = folder_of(data, config.data_dir)
    if root is not None and root.is_dir() and not may_have_classes(root):
        raise no_class(root.resolve().name, without_columns(root))


def decoding_for(config: RunConfig) -> Decoding:
    """Return how files are to be decoded: cut to squares as the network's pretrained weights are
    made for.
    """
    geometry = "cover"
    if config.model is not None and (config.pretrained or config.weights):
        geometry = str(MODELS.resolve(config.model).facts.get("geometry", "cover"))
    return how_to_decode(geometry, config.white, config.pages)


def images_a_second(config: RunConfig) -> float:
    """Return the speed of the pretrained backbone on this machine at `TRIAL_SIZE`, as first tried.

    It is kept with the caches, so that the size of the images, and all that follows from it, is the
    same in the next run.
    """
    device = Device.resolve(config.device, config.precision)
    cache = data_folder(config.data_dir) / "cache"
    # of this machine, with these versions: a shared folder of data is used by several
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
        raise DataError(f"{str(path)!r} has no speed of the network; remove it")
    return speed


def _trial(device: Device) -> float:
    """Return the speed of the quickest of some batches, which other work slowed down least."""
    shape = (3, TRIAL_SIZE, TRIAL_SIZE)
    backbone = Backbone.build(PRETRAINED_MODEL, shape, device, pretrained=True)
    images = np.broadcast_to(np.uint8(0), (TRIAL_IMAGES, *shape))
    speeds: list[float] = []
    batches = backbone.stream(images)
    next(batches)  # which the engine is made for
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
    """Return the height and width in pixels that images are to be loaded at, None for their own.

    It is that of the settings; of a folder for a named network what its pretrained weights were
    made for, and for the default one the largest of `SIZES` at which a pass over all images is
    quick enough on this machine, of which `speed` tells the images a second at `TRIAL_SIZE`.
    """
    root = None if config.image_size else folder_of(data, config.data_dir)
    if root is None:
        return config.image_size
    if config.model is None:
        chosen = with_network(config, SIZES[0])
        if chosen.model in BUNDLED_MODELS and root.is_dir():
            # trained, it sees each image many times a round
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
                _tell(n if n < most else None, size, seconds)
            return size
    raise AssertionError


def _pass_seconds(n: int, size: int, speed: float) -> float:
    """Return what a pass over `n` images takes, of so many a second at `TRIAL_SIZE`."""
    return n / speed * (size / TRIAL_SIZE) ** 2


@lru_cache(maxsize=256)
def _tell(n: int | None, size: int, seconds: float) -> None:
    """Say once what was chosen, and what chooses otherwise."""
    images = (
        f"{counted(n, 'image')}, about {max(seconds, 1):.0f} s" if n is not None else "all images"
    )
    _log.info(
        "images at %d px: the network runs once over %s, unless its features are kept already; "
        "--image-size N chooses another size",
        size,
        images,
    )


def tell_pass(
    config: RunConfig, data: ImageDataset, speed: Callable[[RunConfig], float] = images_a_second
) -> None:
    """Say how long the pass of the default network over many images takes that are no files."""
    n, size = len(data.X), max(data.image_size, TRIAL_SIZE)
    if config.model == FROZEN_MODEL and config.freeze and n >= MANY and not data.paths:
        seconds = _pass_seconds(n, size, speed(config))
        _log.info(
            "the network runs once over %d images, about %.0f s, unless its features are kept "
            "already",
            n,
            max(seconds, 1),
        )


def describe(config: RunConfig) -> str:
    """Say what network was chosen for who named none, and which flag chooses otherwise."""
    if config.model not in BUNDLED_MODELS:
        return f"network: {config.model}, trained from nothing; --model chooses another"
    how = f"frozen, with head {config.head}" if config.freeze else "trained"
    other = "--finetune trains it, " if config.freeze else ""
    return f"network: {config.model}, pretrained on ImageNet, {how}; {other}--model chooses another"
