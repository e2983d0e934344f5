"""How networks are trained and run: batches, learning rate, device, precision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from .errors import ParameterError
from .models import MODELS

OPTIMIZERS: Mapping[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.01}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "lr": 0.05}),
}
MIN_STEPS = 200
MIN_EPOCHS = 20
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
DEFAULT_LR = 0.003
PIXELS_PER_BATCH = {"cpu": 100_000, "cuda": 4_000_000}


class TrainBatches:
    """Whole shuffled batches, for a number of optimiser steps and not of epochs.

    Every batch is full: what is left of one pass over the images goes into the same batch as the
    start of the next, so there is no last batch of one image, which batch norm could not take.

    Parameters
    ----------
    dataset : skorch.dataset.Dataset
        With arrays `X` and `y`.
    batch_size : int
        At most; never more than the images there are, but at least two, for batch norm.
    steps, epochs : int, optional
        Number of batches, or of passes over the images; with neither, `MIN_STEPS` batches or
        `MIN_EPOCHS` passes, whichever is more.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        steps: int | None = None,
        epochs: int | None = None,
    ) -> None:
        self.X, self.y = dataset.X, torch.as_tensor(dataset.y)
        self.batch_size = max(min(batch_size, len(self.y)), 2)
        passes = MIN_EPOCHS if epochs is None else epochs
        by_passes = math.ceil(passes * len(self.y) / self.batch_size)
        self.steps = steps or (max(MIN_STEPS, by_passes) if epochs is None else by_passes)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        queue = torch.empty(0, dtype=torch.int64)
        for _ in range(self.steps):
            while len(queue) < self.batch_size:
                queue = torch.cat([queue, torch.randperm(len(self.y))])
            rows, queue = queue[: self.batch_size], queue[self.batch_size :]
            yield torch.from_numpy(self.X[rows.numpy()]), self.y[rows]


class OneCycle(Callback):
    """One cycle of the learning rate over each fit (Smith and Topin, 2019).

    The momentum (AdamW's beta1) goes the other way, from 0.95 to 0.85 and back.

    skorch's own LRScheduler wants the cycle's length beforehand and counts on over fits; here it
    depends on how many images are labelled by then.

    Parameters
    ----------
    max_lr : float
        Highest learning rate.
    """

    def __init__(self, max_lr: float) -> None:
        self.max_lr = max_lr

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        steps = len(net.get_iterator(net.get_dataset(X, y), training=True))
        # torch divides by parts of the cycle, none of which may be empty
        self.schedule_ = OneCycleLR(net.optimizer_, self.max_lr, total_steps=max(steps, 4) + 1)

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        if training:
            self.schedule_.step()


class SliceBatches:
    """Whole batches in order, for predictions; of no images, one empty batch.

    Parameters
    ----------
    dataset : skorch.dataset.Dataset
        With an array `X`.
    batch_size : int
        Images a batch.
    """

    def __init__(self, dataset: Dataset, batch_size: int) -> None:
        self.X, self.batch_size = dataset.X, batch_size

    def __len__(self) -> int:
        return max(math.ceil(len(self.X) / self.batch_size), 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        nothing = torch.empty(0)
        for start in range(0, max(len(self.X), 1), self.batch_size):
            # a copy, since torch will not take a read-only memmap
            yield torch.from_numpy(np.array(self.X[start : start + self.batch_size])), nothing


def default_lr(model: str, optimizer: str) -> float:
    """Return the highest learning rate to use when none is given."""
    options = OPTIMIZERS[optimizer][1]
    return float(options.get("lr") or MODELS.entry(model).facts.get("lr", DEFAULT_LR))


def scoring_batch_size(device: str, image_size: int) -> int:
    """Return how many images to score at once: what was measured to be fastest.

    On a CPU a batch's feature maps should stay near the caches; a GPU wants to be filled.
    """
    pixels = PIXELS_PER_BATCH.get(device, PIXELS_PER_BATCH["cuda"])
    return int(np.clip(2 ** round(math.log2(pixels / image_size**2)), 16, 8192))


def resolve_device(device: str) -> str:
    """Return the device that "auto" stands for; check that another one is there.

    Raises
    ------
    ParameterError
        If the device is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, found in there.items() if found)
    if not there[device]:
        having = ", ".join(name for name, found in there.items() if found)
        raise ParameterError(f"device {device!r} is not there; this machine has: {having}")
    return device


def resolve_bf16(precision: str, device: str) -> bool:
    """Tell whether to compute in bfloat16: if asked to, or where the device does so natively."""
    if precision != "auto":
        return precision == "bf16"
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False
    return _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    # torch 2.10 has the probes only
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)
