"""Self-supervised pretraining of the backbone before the first round: SimCLR."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import update_bn

from ..core.errors import DataError, ParameterError, is_out_of_memory
from ..core.kept import Facts, find, kept, make_cache_folder, told_where
from ..core.memory import let_go_of_pages, take_mapped
from ..core.progress import progress
from ..core.text import counted
from ..datasets.base import Images
from . import optimizers
from .backbone import answers_of, place_of
from .devices import Device, computing_on, torch_seed
from .net import default_lr
from .network import ImageModule, headless
from .settings import OPTIMIZERS
from .tensors import content_of, tensors_of
from .training import shuffled

BATCH_SIZE = 256
GROUP = 8
"""Images that share a view's random parameters: one by one, views cost more than the network."""
PROJECTION = 128
TEMPERATURE = 0.5
SMALLEST_CROP = 0.2
COLOR_STRENGTH = 0.5
EVERY = 10
"""Steps averaged for each point of the loss curve."""
BATCHES_OF_STATISTICS = 20
FORMAT_VERSION = 1
"""Part of the cache key; raise it whenever training gives other weights."""
OUT_OF_MEMORY = (
    "out of memory on %s: pretraining continues in batches of %d, which changes the weights, since "
    "each image is contrasted with fewer others"
)
WAS_OUT_OF_MEMORY = (
    "the cached backbone was pretrained in batches of %d, since memory ran out; remove %s to "
    "pretrain it again in larger batches"
)

Weights = Mapping[str, Tensor]
Views = Callable[[Tensor], Tensor]

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Pretrained:
    """A pretrained backbone: its state dict on the CPU, and the mean loss of every 10 steps."""

    weights: Weights
    losses: list[float]


@dataclass(frozen=True)
class SimCLR:
    """Parameters of SimCLR [1]_, which trains a network to recognise views of the same image.

    Views (without blur), projection head and loss are those of the package lightly. The learning
    rate follows one cycle up to the model's own. A step uses 256 images, or all if there are fewer.
    If a GPU runs out of memory the batch is halved, which changes the weights and is logged. `seed`
    determines initialisation, batches and views; `start` has the arguments `pretrained` and
    `weights` of `build_network`; with `flip` views may be mirrored.

    References
    ----------
    .. [1] T. Chen, S. Kornblith, M. Norouzi, G. Hinton. A Simple Framework for Contrastive Learning
       of Visual Representations. ICML 2020.
    """

    model: str
    steps: int
    seed: int
    start: Mapping[str, Any] | None = None
    flip: bool = True


def pretrain(
    plan: SimCLR, pools: Sequence[Images], device: Device, cache: Path | None = None
) -> Pretrained:
    """Train the backbone of a model on images without labels.

    The images are in one or more arrays, uint8 of shape (n, channels, height, width); memmaps are
    read batch by batch. Weights are cached in the folder `cache`. Raises ParameterError or
    DataError if `steps` is below 1, there are fewer than two images, or the training diverges.
    """
    if plan.steps < 1:
        raise ParameterError(f"steps={plan.steps}; expected 1 or more")
    n_images = sum(map(len, pools))
    if n_images < 2:
        raise DataError(f"got {counted(n_images, 'image')}; pretraining needs at least two")
    image_shape = pools[0].shape[1:]
    with torch_seed(plan.seed):
        module = headless(plan.model, device.bf16, image_shape, **(plan.start or {}))
        module.to(device.name)
        training = _Training(plan, module, pools, device.name)
        if cache is None:
            return training.run()
        facts = [FORMAT_VERSION, plan.model, plan.steps, plan.seed, plan.flip, device.bf16]
        facts += [*_digests(module, pools), module.mean.tolist(), module.std.tolist()]
        facts += [module.input_size]
        key = hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
        with told_where("the pretrained weights", cache):
            make_cache_folder(cache)
            place = cache / f"pretrain-{key}"
            place = place_of(answers_of(module.eval(), image_shape, device.name), place)
            path = place.with_suffix(".safetensors")

            def make(temporary: Path) -> Facts:
                trained = training.run()
                temporary.write_bytes(content_of(trained.weights))
                return {"losses": trained.losses, "batch_size": training.batch_size}

            if find(path) is not None:
                _log.info("using the pretrained backbone in %s", path)
            kept_facts = kept(path, "pretrains the same backbone", make)
            batch_size = kept_facts.get("batch_size", training.batch_size)
            if batch_size < training.batch_size:  # from the cache: training here would have warned
                _log.warning(WAS_OUT_OF_MEMORY, batch_size, path)
            # not memory-mapped, since truncating a mapped file kills the process
            return Pretrained(tensors_of(path.read_bytes()), kept_facts["losses"])


def _digests(module: ImageModule, pools: Sequence[Images]) -> Iterator[str]:
    """Hash the images and the initial weights."""
    pixels = hashlib.blake2b(digest_size=16)
    for images in pools:
        pixels.update(repr(images.shape).encode())
        for start in range(0, len(images), BATCH_SIZE):
            pixels.update(np.ascontiguousarray(images[start : start + BATCH_SIZE]).data)
            let_go_of_pages(images)
    yield pixels.hexdigest()
    weights = hashlib.blake2b(digest_size=16)
    for name, tensor in module.network.backbone.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    yield weights.hexdigest()


class _Training:
    """Trains step by step, in smaller batches if memory runs out."""

    def __init__(
        self, plan: SimCLR, module: ImageModule, pools: Sequence[Images], device: str
    ) -> None:
        self.plan, self.module, self.pools, self.device = plan, module, pools, device
        self._n = sum(map(len, pools))
        self.batch_size = min(BATCH_SIZE, self._n)

    def run(self) -> Pretrained:
        """Train, and return the weights and losses."""
        training, losses = self._losses(), list[float]()
        with (
            progress(total=self.plan.steps, desc="pretraining", unit="step") as bar,
            computing_on(self.device),
        ):
            while some := list(islice(training, EVERY)):  # avoids waiting for the GPU in each step
                losses += _checked(some, len(losses))
                bar.update(len(some))
            # batch norm must have the statistics of images, not of views
            clean = (_take(self.pools, next(self._rows)) for _ in range(BATCHES_OF_STATISTICS))
            update_bn(clean, self.module, torch.device(self.device))
        steps, images = counted(len(losses), "step"), counted(self._n, "image")
        message = "pretrained in %s on %s: loss %.2f to %.2f"
        _log.info(message, steps, images, losses[0], losses[-1])
        state = self.module.network.backbone.state_dict()
        means = [float(np.mean(losses[i : i + EVERY])) for i in range(0, len(losses), EVERY)]
        return Pretrained({n: t.detach().cpu().contiguous() for n, t in state.items()}, means)

    def _losses(self) -> Iterator[Tensor]:
        """Yield the loss of each step."""
        from lightly.loss import NTXentLoss
        from lightly.models.modules.heads import SimCLRProjectionHead

        self._views = simclr_views(self.pools[0].shape[2], self.plan.flip)
        one = _take(self.pools, torch.arange(1)).to(self.device)
        n_features = self.module.eval().embed(one).shape[1]
        self._head = SimCLRProjectionHead(n_features, n_features, PROJECTION).to(self.device)
        self._loss_of = NTXentLoss(TEMPERATURE)
        kind, options = OPTIMIZERS["adamw"]
        weights = [*self.module.network.backbone.parameters(), *self._head.parameters()]
        new = getattr(optimizers, kind)
        optimizer: Any = new(weights, fused=self.device != "mps", **options)
        highest = default_lr(self.plan.model, "adamw")
        rate = OneCycleLR(optimizer, highest, total_steps=max(self.plan.steps, 4) + 1)
        self._rows = shuffled(self._n, self.batch_size)
        self.module.train()
        done = 0
        while done < self.plan.steps:
            optimizer.zero_grad()
            loss = self._backward(next(self._rows))
            if loss is None:
                self.batch_size //= 2
                self._rows = shuffled(self._n, self.batch_size)
                _log.warning(OUT_OF_MEMORY, self.device, self.batch_size)
                continue
            optimizer.step()
            rate.step()
            done += 1
            yield loss

    def _backward(self, rows: Tensor) -> Tensor | None:
        """Compute gradients and return the loss; None if memory runs out."""
        try:
            images = _take(self.pools, rows).to(self.device)
            views = torch.cat([self._views(images), self._views(images)])
            loss: Tensor = self._loss_of(*self._head(self.module.embed(views)).chunk(2))
            loss.backward()  # type: ignore[no-untyped-call]
        except Exception as error:
            # the contrastive loss needs at least two images
            if len(rows) < 4 or not is_out_of_memory(error):
                raise
            return None
        return loss.detach()


def _checked(losses: Sequence[Tensor], n_before: int) -> list[float]:
    """Return the losses of some steps as numbers; raise DataError if any is not finite."""
    numbers: list[float] = torch.stack(list(losses)).tolist()
    finite = np.isfinite(numbers)
    if not finite.all():
        first = n_before + int(np.argmin(finite)) + 1
        raise DataError(f"pretraining diverged: its loss is NaN or infinite from step {first} on")
    return numbers


def _take(pools: Sequence[Images], rows: Tensor) -> Tensor:
    """Return rows of the concatenated pools."""
    numbers = rows.numpy()
    images = np.empty((len(numbers), *pools[0].shape[1:]), np.uint8)
    start = 0
    for pool in pools:
        own = (numbers >= start) & (numbers < start + len(pool))
        images[own] = take_mapped(pool, numbers[own] - start)
        start += len(pool)
    return torch.from_numpy(images)


def simclr_views(image_size: int, flip: bool) -> Views:
    """Return a function that makes a random view of each image: crop, mirror, colours, grey.

    It maps uint8 images (n, channels, height, width), `image_size` pixels wide, to views of the
    same shape, which are mirrored only with `flip`. Random groups of 8 images share parameters.
    """
    from lightly.transforms.simclr_transform import SimCLRViewTransform

    whole = SimCLRViewTransform(
        image_size,
        cj_strength=COLOR_STRENGTH,
        min_scale=SMALLEST_CROP,
        gaussian_blur=0.0,
        hf_prob=0.5 if flip else 0.0,
        normalize=None,
    )
    # lightly's own transforms take single images and use numpy's global generator: rotation and
    # blur, which are off, and scaling, which ImageModule does
    steps: Iterable[Any] = whole.transform.transforms
    changes = [step for step in steps if type(step).__module__.startswith("torchvision.")]

    def view(images: Tensor) -> Tensor:
        order = torch.randperm(len(images), device=images.device)
        views = torch.empty_like(images)
        for group in torch.split(order, GROUP):
            part = images[group]
            for change in changes:
                part = change(part)
            views[group] = part
        return views

    return view
