"""A backbone that stays as it is: pixels in, features out."""

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
"""Part of the key of features: raise it whenever they come out otherwise."""
LARGEST_LOSS = 1e-3
"""Share of their length that features may lose as float16, which rounds by at most half of it."""
PROBE_SIDE = 4
"""Width in colours of the images of a probe: noise would look alike to many a network."""
SAME = {False: 1e-2, True: 3e-2}
"""Share of their length that features may differ by elsewhere, in float32 and in bfloat16."""

NOT_FINITE = "the backbone answers with NaN or infinity"

_log = logging.getLogger("skal")

Features: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Backbone:
    """The backbone of a network, frozen, with all that decides what it makes of an image.

    The key is a hash of the weights and of how images are prepared, the shape channels, height and
    width of the images. `network` has the weights, and says how images are prepared; its code may
    be missing until `module` is asked for.
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
        """Build a model's backbone and freeze it; parameters and errors as of `build_network`."""
        with torch_seed(0):  # what no weights are given for
            start = {"pretrained": pretrained, "weights": weights}
            module = headless(model, device.bf16, image_shape, **start)
        freeze(module)
        key = key_of(model, module.network, image_shape, device.bf16)
        module.to(device.name)
        # no lambda, which cannot be pickled
        return cls(module.network, device.name, tuple(image_shape), key, partial(_itself, module))

    @cached_property
    def module(self) -> ImageModule:
        """The network in evaluation mode, on the device."""
        return self.make()

    @cached_property
    def answers(self) -> Answers | None:
        """What the network makes of two images, see `answers_of`: it does not change."""
        return answers_of(self.module, self.image_shape, self.device)

    def stream(
        self, X: Images, rows: NDArray[np.int64] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the features of images, or some rows of them, in batches (b, n_features), in order.

        It raises DataError if they are NaN or infinite.
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
        """Return the features of images, (n, n_features), as `compact` keeps them."""
        return compact(np.concatenate(list(self.stream(X))))


def _itself(module: ImageModule) -> ImageModule:
    return module


def key_of(model: str, network: Network, image_shape: tuple[int, ...], bf16: bool) -> str:
    """Hash the weights, and what becomes of pixels before they meet them."""
    facts = [FORMAT_VERSION, model, [*image_shape], bf16, getattr(network, "input_size", None)]
    facts += [scale.tolist() for scale in scales(network)]
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=8)
    for name, tensor in sorted(network.backbone.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class Answers(NamedTuple):
    """What a network makes of two images, and the share of its length that it may differ by."""

    found: NDArray[np.float32]
    share: float

    def are_like(self, other: NDArray[np.float32]) -> bool:
        if self.found.shape != other.shape:
            return False
        return float(np.linalg.norm(self.found - other)) <= self.share * float(
            np.linalg.norm(other)
        )


def answers_of(module: ImageModule, image_shape: tuple[int, ...], device: str) -> Answers | None:
    """Return what a network (in evaluation mode, on the device) makes of two images; None if it
    draws from generators of its own, so that nothing can be told by its answers.
    """
    answers = Answers(_answers(module, image_shape, device), SAME[module.bf16])
    return answers if answers.are_like(_answers(module, image_shape, device)) else None


def place_of(answers: Answers | None, place: Path) -> Path:
    """Return where to keep what is made by a network, apart from that of other code.

    A hash of the weights says nothing of the code that runs them. So what the network makes of two
    images is kept beside, and compared: not hashed, since it depends on device and threads in its
    last digits. The place is a name without a suffix in a folder that exists; what is returned is
    that, or the first of ``place-2``, ``place-3``, ... whose network answered alike. It raises
    OSError if nothing can be written there.
    """
    if answers is None:
        return place

    def save(path: Path) -> None:
        with path.open("wb") as file:  # by name numpy would add a suffix
            np.save(file, answers.found)

    for number in itertools.count(1):
        name = place.name if number == 1 else f"{place.name}-{number}"
        probe = place.with_name(f"{name}.probe.npy")
        is_new = not probe.exists()
        kept(probe, "compares networks", save)
        if answers.are_like(np.load(probe)):
            break
    if is_new and number > 1:
        _log.warning("the network's code has changed since %s was made", place)
    return place.with_name(name)


def _answers(module: ImageModule, image_shape: tuple[int, ...], device: str) -> NDArray[np.float32]:
    """Return what a network makes of two images of a few colours each, always the same."""
    channels, height, width = image_shape
    colours = np.random.default_rng(0).integers(
        0, 256, (2, channels, PROBE_SIDE, PROBE_SIDE), dtype=np.uint8
    )
    rows, columns = (np.arange(size) * PROBE_SIDE // size for size in (height, width))
    images = torch.from_numpy(colours[:, :, rows[:, None], columns])
    # some networks draw numbers when they answer
    with torch_seed(0), torch.no_grad(), computing_on(device), uncompiled(module.network):
        answers: NDArray[np.float32] = module.embed(images.to(device)).cpu().numpy()
    if not np.isfinite(answers).all():
        raise DataError(NOT_FINITE)
    return answers


def compact(features: NDArray[np.float32]) -> Features:
    """Return finite features as float16, if they are hardly changed by that."""
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    lost = float(np.linalg.norm(half.astype(np.float32) - features))
    return half if lost <= LARGEST_LOSS * float(np.linalg.norm(features)) else features
