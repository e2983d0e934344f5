"""A model: a backbone, a head, and all around them from uint8 pixels to float32 outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.errors import ParameterError
from .build import build_network
from .heads import HEADS, STAGES_SHARE, scaling_for
from .logistic import factors, solve

HEADLESS_CLASSES = 2
"""Of a network whose head nobody asks."""
_CHANNELWISE = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Network(nn.Module):
    """A backbone that embeds images, and a head that classifies embeddings.

    All dropout belongs into the head: what comes before it is then computed once however many
    Monte-Carlo samples are wanted. (Dropout in the backbone works too, at the price of a whole
    pass per sample.)

    Parameters
    ----------
    backbone : nn.Module
        Images (n, channels, height, width) to embeddings (n, n_features).
    head : nn.Module
        Embeddings to logits (n, n_classes).
    mean, std : tuple of float
        What the pixels, scaled to [0, 1], are normalised with: one value, or one per channel.
    in_channels : int, optional
        Channels that the backbone insists on; grey images are repeated then.
    input_size : int, optional
        Height and width in pixels that the backbone insists on; images are scaled to it then.

    Notes
    -----
    ``forward`` returns ``(logits, embeddings)``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] = (0.25,),
        in_channels: int | None = None,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.mean = mean
        self.std = std
        self.in_channels = in_channels
        self.input_size = input_size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.backbone(images)
        return self.head(embeddings), embeddings

    def classify(self, embeddings: Tensor) -> Tensor:
        """Return the logits of embeddings."""
        logits: Tensor = self.head(embeddings)
        return logits


def linear_head(n_features: int, n_classes: int, dropout: float) -> nn.Sequential:
    """Return dropout and one linear layer, the head of every model of skal."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(n_features, n_classes))


class FrozenNetwork(Network):
    """Scaling, neck and head on the features of a model's backbone, which is not trained.

    ``forward`` takes features (n, n_features), or, once it has a backbone, images. All but the
    backbone is computed in float32. The head is one of `HEADS`; the buffer `strength` of one that
    is solved is the C of its last fit, a float32 scalar, and `share`, where there are features of
    earlier stages, what it gave to these.
    """

    strength: Tensor
    share: Tensor

    def __init__(
        self, model: str, n_features: int, n_classes: int, dropout: float, head: str
    ) -> None:
        kind = HEADS[head]
        neck, width = kind.neck(n_features)
        super().__init__(nn.Identity(), linear_head(width, n_classes, dropout))
        self.n_features = n_features
        self.scaling = scaling_for(head, model, n_features)
        self.neck = neck
        self.is_solved = kind.solved
        if kind.solved:
            self.register_buffer("strength", torch.zeros(()))
        if self.parts:
            self.register_buffer("share", torch.zeros(()))

    @property
    def has_backbone(self) -> bool:
        """Whether it takes images."""
        return self.has_weights and not isinstance(self.backbone, WeightsAlone)

    @property
    def has_weights(self) -> bool:
        """Whether it has those of a backbone, perhaps without its code."""
        return not isinstance(self.backbone, nn.Identity)

    def take_backbone(self, network: Network) -> None:
        """Put the backbone of another network, and how its input is prepared, into this one."""
        self.backbone = freeze(network.backbone)
        for name in ("mean", "std", "in_channels", "input_size"):
            setattr(self, name, getattr(network, name))

    def solve(self, features: Tensor, y: Tensor, weights: NDArray[np.float64]) -> float:
        """Give the last layer its optimum on labelled features; return the loss there."""
        last: Any = self.head[-1]  # type: ignore[index]
        labels = y.numpy()
        with torch.no_grad():
            embeddings = self.neck(self.scaling(features.to(last.weight.device)))
            inputs = embeddings.cpu().double().numpy()
            # the chosen share is in the weights, so that embeddings stay as they are
            widths = self.parts or inputs.shape[1:]
            scale = np.repeat(factors(STAGES_SHARE, len(widths)), widths)
            parts = np.split(inputs / scale, np.cumsum(widths)[:-1], axis=1)
            found = solve(parts, labels, len(last.bias), weights)
            last.weight.copy_(torch.from_numpy(found.weights / scale))
            last.bias.copy_(torch.from_numpy(found.bias))
            self.strength.fill_(found.C)
            if self.parts:
                self.share.fill_(found.share)
        return found.loss

    @property
    def parts(self) -> tuple[int, ...]:
        """The numbers of features of a last layer and of earlier stages, if there are both."""
        return getattr(self.scaling, "parts", ())

    def train(self, mode: bool = True) -> FrozenNetwork:
        super().train(mode)
        self.backbone.eval()  # its batch norm must not go on learning
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = images if images.ndim == 2 else self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            embeddings = self.neck(self.scaling(features))
        return self.classify(embeddings), embeddings

    def classify(self, embeddings: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            return super().classify(embeddings.float())


class WeightsAlone(nn.Module):
    """The tensors of a backbone by their names, without its code: it embeds nothing."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            *parents, own = name.split(".")
            module: nn.Module = self
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, nn.Module())
                module = module.get_submodule(parent)
            module.register_buffer(own, tensor)


def freeze(backbone: nn.Module) -> nn.Module:
    """Keep a backbone as it is: in evaluation mode, without gradients and without dropout."""
    for module in backbone.modules():
        if "Dropout" in type(module).__name__:
            setattr(module, "p", 0.0)  # noqa: B010 (mypy takes attributes for tensors)
    return backbone.requires_grad_(False).eval()


def flip(images: Tensor) -> Tensor:
    """Mirror each image with probability 1/2."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def shift(images: Tensor) -> Tensor:
    """Move each image by up to an eighth of its size in both directions; black comes in."""
    n, _, height, width = images.shape
    most = max(1, height // 8)
    padded = F.pad(images, (most,) * 4)
    down, right = torch.randint(0, 2 * most + 1, (2, n, 1), device=images.device)
    rows = (down + torch.arange(height, device=images.device))[:, :, None]
    columns = (right + torch.arange(width, device=images.device))[:, None, :]
    number = torch.arange(n, device=images.device)[:, None, None]
    return padded[number, :, rows, columns].permute(0, 3, 1, 2)


AUGMENTATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"flip": flip, "shift": shift}
)
"""Per-sample changes of pixels (n, channels, height, width) that keep an image's class."""


class ImageModule(nn.Module):
    """Everything between uint8 pixels and a network, on the device.

    Scales to [0, 1], augments while training (by names of `AUGMENTATIONS`), normalises, lays out
    channels last, runs the network under autocast (in bfloat16 with `bf16`), and divides its logits
    by the temperature; its outputs are float32. The buffer `temperature`, a float32 scalar, is 1
    while training; see `skal.models.calibration`. The options are those of `build_network`.

    With `freeze` the network is one of `HEADS` on `n_features` features of a backbone that is not
    trained. It has none until `take_backbone` gives it one; from then on its input may be images,
    too.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(
        self,
        model: str,
        augmentation: Sequence[str],
        bf16: bool,
        *,
        freeze: bool = False,
        head: str = "linear",
        n_features: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if freeze:
            assert n_features is not None
            n_classes, dropout = options["n_classes"], options["dropout"]
            self.network: Network = FrozenNetwork(model, n_features, n_classes, dropout, head)
        else:
            self.network = build_network(model, **options)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.augmentation = () if freeze else tuple(augmentation)
        self.bf16 = bf16
        self._prepare_as(self.network)
        self.register_buffer("temperature", torch.ones(()))

    def _prepare_as(self, network: Network) -> None:
        """Take over how a network's input is prepared."""
        device = next(chain(network.parameters(), network.buffers())).device
        self.in_channels = network.in_channels or -1
        self.input_size = getattr(network, "input_size", None)
        for name, values in zip(("mean", "std"), scales(network), strict=True):
            self.register_buffer(name, values.to(device))

    def take_backbone(self, other: Network) -> None:
        """Give a frozen network the backbone of another one, and how images get there."""
        assert isinstance(self.network, FrozenNetwork)
        self.network.take_backbone(other)
        self._prepare_as(other)

    def prepare(self, images: Tensor) -> Tensor:
        """Turn uint8 pixels into the network's input; features are that already."""
        if images.ndim == 2:
            return images.float()
        pixels = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        if self.training:
            for name in self.augmentation:
                pixels = AUGMENTATIONS[name](pixels)
        if self.input_size not in (None, pixels.shape[-1]):
            pixels = F.interpolate(pixels, self.input_size, mode="bilinear", antialias=True)
        pixels = (pixels.expand(-1, self.in_channels, -1, -1) - self.mean).div_(self.std)
        return pixels.contiguous(memory_format=torch.channels_last)

    def embed(self, images: Tensor) -> Tensor:
        """Return the backbone's output for uint8 pixels, float32 of shape (n, n_features)."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            features: Tensor = self.network.backbone(self.prepare(images))
        return features.float()

    def forward(
        self, images: Tensor, partners: Tensor | None = None, shares: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            inputs = self.prepare(images)
            if partners is not None and shares is not None:  # mixup
                own = shares.view(-1, *(1,) * (inputs.ndim - 1))
                inputs = own * inputs + (1 - own) * inputs[partners]
            logits, embeddings = self.network(inputs)
        return logits.float() / self.temperature, embeddings.float()

    def classify(self, embeddings: Tensor) -> Tensor:
        """Return the logits that `forward` returns with these embeddings."""
        with torch.autocast(embeddings.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.network.classify(embeddings)
        return logits.float() / self.temperature


def scales(network: Network) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation that a network wants pixels normalised with, (1, c, 1, 1)
    with one channel or as many as it has.
    """
    mean, std = (
        torch.tensor(getattr(network, name, (0.5,))).view(1, -1, 1, 1) for name in ("mean", "std")
    )
    return mean, std


def headless(model: str, bf16: bool, image_shape: tuple[int, ...], **start: Any) -> ImageModule:
    """Build a module of which only the backbone is wanted; `start` is of `build_network`."""
    return ImageModule(
        model,
        (),
        bf16,
        n_classes=HEADLESS_CLASSES,
        in_channels=image_shape[0],
        image_size=image_shape[1],
        dropout=0.0,
        **start,
    )


@contextmanager
def uncompiled(network: Network) -> Iterator[None]:
    """Run a network inside the block as it is written, also if its backbone was compiled."""
    backbone: Any = network.backbone
    compiled, backbone._compiled_call_impl = backbone._compiled_call_impl, None
    try:
        yield
    finally:
        backbone._compiled_call_impl = compiled


class DropoutSampler:
    """Draws dropout samples from a module in evaluation mode: Monte-Carlo dropout.

    Each sample has one mask per dropout layer, the same for all images, which `seed` decides. It
    raises ParameterError if the network has no dropout.
    """

    def __init__(self, module: ImageModule, n_samples: int, seed: int) -> None:
        kinds = (nn.Dropout, *_CHANNELWISE)
        self.layers = [m for m in module.network.modules() if isinstance(m, kinds) and m.p > 0]
        if not self.layers:
            raise ParameterError(
                "Monte-Carlo dropout needs a model with dropout; this one has none, so that all "
                "samples would be the same"
            )
        head = set(module.network.head.modules())
        self.from_embeddings = all(layer in head for layer in self.layers)
        self.module = module
        self.n_samples = n_samples
        self._generator = torch.Generator().manual_seed(seed)
        self._masks: dict[tuple[nn.Module, int], Tensor] = {}

    def __call__(self, images: Tensor, embeddings: Tensor) -> Tensor:
        """Return probabilities, (n_samples, n, n_classes).

        The embeddings are the head's input for these images, which are only looked at if there is
        dropout before the head.
        """
        samples = []
        for sample in range(self.n_samples):
            with self._sampled(sample):
                if self.from_embeddings:
                    logits = self.module.classify(embeddings)
                else:
                    with uncompiled(self.module.network):
                        logits, _ = self.module(images)
            samples.append(logits.softmax(-1))
        return torch.stack(samples)

    @contextmanager
    def _sampled(self, sample: int) -> Iterator[None]:
        """Let every dropout layer apply this sample's mask; afterwards they are as before."""
        for layer in self.layers:
            layer.forward = self._masked(layer, sample)  # type: ignore[assignment]
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward

    def _masked(self, layer: Any, sample: int) -> Callable[[Tensor], Tensor]:
        def forward(values: Tensor) -> Tensor:
            key = (layer, sample)
            if key not in self._masks:
                shape = (1, *values.shape[1:])
                if isinstance(layer, _CHANNELWISE):
                    shape = (1, values.shape[1], *(1 for _ in values.shape[2:]))
                kept = torch.rand(shape, generator=self._generator) >= layer.p
                self._masks[key] = (kept / (1 - layer.p)).to(values.device)
            return values * self._masks[key].to(values.dtype)

        return forward
