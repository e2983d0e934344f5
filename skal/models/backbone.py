"""Frozen backbones, which compute features from pixels."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.dataset import Dataset
from torch import Tensor

from ..core.errors import DataError
from ..core.kept import kept
from ..datasets.base import Images
from .devices import Device, computing_on, torch_seed
from .engine import speed_up
from .iterators import SliceBatches, run_batches
from .network import ImageModule, Network, freeze, headless, scales, uncompiled
from .weights import Weights

FORMAT_VERSION = 2
"""Part of the cache key of features; raise it whenever their values change."""
LARGEST_LOSS = 1e-3
"""Largest relative error of float16 features; rounding causes at most half of it."""
PROBE_SIDE = 4
"""Size of probe images, in patches of one colour: many networks barely react to pixel noise."""
SAME = {False: 1e-2, True: 3e-2}
"""Relative difference up to which features are the same, in float32 and in bfloat16."""

NOT_FINITE = "the features of the backbone are NaN or infinite"

_log = logging.getLogger("skal")

Features: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen backbone with everything that determines its features.

    `key` is a hash of the weights and of the preparation of images; `image_shape` is (channels,
    height, width). `network` has the weights and the preparation of images, but may be without code
    until `module` builds it.
    """

    network: Network
    device: str
    image_shape: tuple[int, ...]
    key: str
    make: Callable[[], ImageModule]

    @classmethod
    def build(
        cls,
        model: str,
        image_shape: tuple[int, ...],
        device: Device,
        *,
        pretrained: bool = False,
        weights: Weights | None = None,
    ) -> Backbone:
        """Build and freeze a model's backbone; parameters and errors as in `build_network`."""
        with torch_seed(0):  # for weights that are not loaded
            start = {"pretrained": pretrained, "weights": weights}
            module = headless(model, device.bf16, image_shape, **start)
        freeze(module)
        key = key_of(model, module.network, image_shape, device.bf16)
        module.to(device.name)
        # not a lambda, which cannot be pickled
        return cls(module.network, device.name, tuple(image_shape), key, partial(_itself, module))

    @cached_property
    def module(self) -> ImageModule:
        """The network in evaluation mode, on the device."""
        return self.make()

    @cached_property
    def answers(self) -> Answers | None:
        """The network's features of two probe images, see `answers_of`; they never change."""
        return answers_of(self.module, self.image_shape, self.device)

    def stream(
        self, X: Images, rows: NDArray[np.int64] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the features of images, or some rows of them, in order, in batches (b, n_features).

        Raises DataError if they are not finite.
        """
        size = Device(self.device).scoring_batch_size(self.module.input_size or X.shape[-1])
        size = max(size, speed_up(self.module, X, rows))
        batches = SliceBatches(Dataset(X), size, rows, self.device)
        for features in run_batches(batches, self._embed):
            if not np.isfinite(features).all():
                raise DataError(NOT_FINITE)
            yield features

    def _embed(self, images: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            features: NDArray[np.float32] = self.module.embed(images).cpu().numpy()
        return features

    def __call__(self, X: Images) -> Features:
        """Return the features of images, (n, n_features), in the dtype that `compact` chooses."""
        return compact(np.concatenate(list(self.stream(X))))


def _itself(module: ImageModule) -> ImageModule:
    return module


def key_of(model: str, network: Network, image_shape: tuple[int, ...], bf16: bool) -> str:
    """Hash the weights and the preparation of pixels."""
    facts = [FORMAT_VERSION, model, [*image_shape], bf16, getattr(network, "input_size", None)]
    facts += [scale.tolist() for scale in scales(network)]
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=8)
    for name, tensor in sorted(network.backbone.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class Answers(NamedTuple):
    """A network's features of two probe images, and the tolerated relative difference."""

    found: NDArray[np.float32]
    share: float

    def are_like(self, other: NDArray[np.float32]) -> bool:
        if self.found.shape != other.shape:
            return False
        return float(np.linalg.norm(self.found - other)) <= self.share * float(
            np.linalg.norm(other)
        )


def answers_of(module: ImageModule, image_shape: tuple[int, ...], device: str) -> Answers | None:
    """Return the features of two probe images by a network in evaluation mode, on the device.

    Returns None if they are not reproducible, so that networks cannot be compared by them.
    """
    answers = Answers(_answers(module, image_shape, device), SAME[module.bf16])
    return answers if answers.are_like(_answers(module, image_shape, device)) else None


def place_of(answers: Answers | None, place: Path) -> Path:
    """Return the path under which to cache a network's results, separate from those of other code.

    A hash of the weights does not cover the code that runs them. The features of two probe images
    are therefore stored next to the results and compared; they cannot be hashed, since their last
    digits depend on device and threads. `place` is a name without suffix in an existing folder; the
    result is `place`, or the first of ``place-2``, ``place-3``, ... with the same probe features.
    Raises OSError if the folder cannot be written to.
    """
    if answers is None:
        return place

    def save(path: Path) -> None:
        with path.open("wb") as file:  # given a name, numpy would add a suffix
            np.save(file, answers.found)

    for number in itertools.count(1):
        name = place.name if number == 1 else f"{place.name}-{number}"
        probe = place.with_name(f"{name}.probe.npy")
        is_new = not probe.exists()
        kept(probe, "compares networks", save)
        if answers.are_like(np.load(probe)):
            break
    if is_new and number > 1:
        _log.warning("the network's code has changed since %s was created", place)
    return place.with_name(name)


def _answers(module: ImageModule, image_shape: tuple[int, ...], device: str) -> NDArray[np.float32]:
    """Return a network's features of two fixed images, each of a few colours."""
    channels, height, width = image_shape
    colours = np.random.default_rng(0).integers(
        0, 256, (2, channels, PROBE_SIDE, PROBE_SIDE), dtype=np.uint8
    )
    rows, columns = (np.arange(size) * PROBE_SIDE // size for size in (height, width))
    images = torch.from_numpy(colours[:, :, rows[:, None], columns])
    # some networks use random numbers in the forward pass
    with torch_seed(0), torch.no_grad(), computing_on(device), uncompiled(module.network):
        answers: NDArray[np.float32] = module.embed(images.to(device)).cpu().numpy()
    if not np.isfinite(answers).all():
        raise DataError(NOT_FINITE)
    return answers


def compact(features: NDArray[np.float32]) -> Features:
    """Return finite features as float16 if that hardly changes them, else as they are."""
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    lost = float(np.linalg.norm(half.astype(np.float32) - features))
    return half if lost <= LARGEST_LOSS * float(np.linalg.norm(features)) else features
