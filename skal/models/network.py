"""Networks of a backbone and a head, and the module that feeds them uint8 pixels."""

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
"""Classes of a network whose head is not used."""
_CHANNELWISE = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Network(nn.Module):
    """A backbone that embeds images, and a head that classifies embeddings.

    Put all dropout into the head: the backbone then runs once for any number of Monte-Carlo
    samples. Dropout in the backbone works, too, but costs a whole forward pass per sample.

    Parameters
    ----------
    backbone : nn.Module
        Maps images (n, channels, height, width) to embeddings (n, n_features).
    head : nn.Module
        Maps embeddings to logits (n, n_classes).
    mean, std : tuple of float
        Normalisation of pixels scaled to [0, 1]: one value, or one per channel.
    in_channels : int, optional
        Number of channels that the backbone requires; grey images are repeated to match.
    input_size : int, optional
        Height and width in pixels that the backbone requires; images are resized to match.

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
    """Return dropout and one linear layer, the head of all of skal's models."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(n_features, n_classes))


class FrozenNetwork(Network):
    """Scaling, neck and head on the features of a frozen backbone.

    ``forward`` takes features (n, n_features), or, once it has a backbone, images. Everything but
    the backbone is computed in float32. The head is one of `HEADS`. A solved head has the buffer
    `strength`, the C of its last fit, and, with features of earlier stages, `share`, their share of
    the squared feature length; both are float32 scalars.
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
        """Whether it can process images."""
        return self.has_weights and not isinstance(self.backbone, WeightsAlone)

    @property
    def has_weights(self) -> bool:
        """Whether it holds the weights of a backbone, which may be without code."""
        return not isinstance(self.backbone, nn.Identity)

    def take_backbone(self, network: Network) -> None:
        """Use the backbone of another network, and its preparation of images."""
        self.backbone = freeze(network.backbone)
        for name in ("mean", "std", "in_channels", "input_size"):
            setattr(self, name, getattr(network, name))

    def solve(self, features: Tensor, y: Tensor, weights: NDArray[np.float64]) -> float:
        """Set the last layer to its optimum on labelled features and return the loss."""
        last: Any = self.head[-1]  # type: ignore[index]
        labels = y.numpy()
        with torch.no_grad():
            # with many labels a copy takes gigabytes: no unneeded one is kept
            inputs = self.neck(self.scaling(features.to(last.weight.device))).cpu().numpy()
            # the chosen share goes into the weights, so that embeddings do not depend on it
            widths = self.parts or inputs.shape[1:]
            scale = np.repeat(factors(STAGES_SHARE, len(widths)), widths)
            inputs /= scale
            parts = np.split(inputs, np.cumsum(widths)[:-1], axis=1)
            found = solve(parts, labels, len(last.bias), weights)
            last.weight.copy_(torch.from_numpy(found.weights / scale))
            last.bias.copy_(torch.from_numpy(found.bias))
            self.strength.fill_(found.C)
            if self.parts:
                self.share.fill_(found.share)
        return found.loss

    @property
    def parts(self) -> tuple[int, ...]:
        """The numbers of features of the last layer and of earlier stages; else empty."""
        return getattr(self.scaling, "parts", ())

    def train(self, mode: bool = True) -> FrozenNetwork:
        super().train(mode)
        self.backbone.eval()  # or batch norm would update its statistics
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
    """The named tensors of a backbone without its code; it cannot embed images."""

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
    """Freeze a backbone: evaluation mode, no gradients, no dropout."""
    for module in backbone.modules():
        if "Dropout" in type(module).__name__:
            setattr(module, "p", 0.0)  # noqa: B010 (mypy takes attributes for tensors)
    return backbone.requires_grad_(False).eval()


def flip(images: Tensor) -> Tensor:
    """Mirror each image with probability 1/2."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def shift(images: Tensor) -> Tensor:
    """Shift each image by up to an eighth of its size in both directions, padding with black."""
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
"""Functions that change each image of a batch (n, channels, height, width) but not its class."""


class ImageModule(nn.Module):
    """A network with its preprocessing, from uint8 pixels to float32 outputs, on the device.

    Scales pixels to [0, 1], augments while training (by names of `AUGMENTATIONS`), normalises,
    converts to channels last, runs the network under autocast (bfloat16 if `bf16`), and divides the
    logits by the temperature. The buffer `temperature`, a float32 scalar, is 1 while training; see
    `skal.models.calibration`. The options are those of `build_network`.

    With `freeze` the network is one of `HEADS` on `n_features` features of a frozen backbone. It
    takes images only after `take_backbone`.
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
        """Use a network's preparation of images."""
        device = next(chain(network.parameters(), network.buffers())).device
        self.in_channels = network.in_channels or -1
        self.input_size = getattr(network, "input_size", None)
        for name, values in zip(("mean", "std"), scales(network), strict=True):
            self.register_buffer(name, values.to(device))

    def take_backbone(self, other: Network) -> None:
        """Give a frozen network the backbone of another, and its preparation of images."""
        assert isinstance(self.network, FrozenNetwork)
        self.network.take_backbone(other)
        self._prepare_as(other)

    def prepare(self, images: Tensor) -> Tensor:
        """Convert uint8 pixels to the network's input; features are only cast to float32."""
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
        """Return the logits that `forward` computes from these embeddings."""
        with torch.autocast(embeddings.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.network.classify(embeddings)
        return logits.float() / self.temperature


def scales(network: Network) -> tuple[Tensor, Tensor]:
    """Return a network's pixel mean and standard deviation, shape (1, 1 or n_channels, 1, 1)."""
    mean, std = (
        torch.tensor(getattr(network, name, (0.5,))).view(1, -1, 1, 1) for name in ("mean", "std")
    )
    return mean, std


def headless(model: str, bf16: bool, image_shape: tuple[int, ...], **start: Any) -> ImageModule:
    """Build a module for its backbone only; `start` is passed to `build_network`."""
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
    """Run a network uncompiled inside the block, even if its backbone was compiled."""
    backbone: Any = network.backbone
    compiled, backbone._compiled_call_impl = backbone._compiled_call_impl, None
    try:
        yield
    finally:
        backbone._compiled_call_impl = compiled


class DropoutSampler:
    """Draws dropout samples from a module in evaluation mode: Monte-Carlo dropout.

    Each sample has one mask per dropout layer, drawn by `seed` and shared by all images. Raises
    ParameterError if the network has no dropout.
    """

    def __init__(self, module: ImageModule, n_samples: int, seed: int) -> None:
        kinds = (nn.Dropout, *_CHANNELWISE)
        self.layers = [m for m in module.network.modules() if isinstance(m, kinds) and m.p > 0]
        if not self.layers:
            raise ParameterError(
                "Monte-Carlo dropout needs a model with dropout; this model has none, so all "
                "samples would be equal"
            )
        head = set(module.network.head.modules())
        self.from_embeddings = all(layer in head for layer in self.layers)
        self.module = module
        self.n_samples = n_samples
        self._generator = torch.Generator().manual_seed(seed)
        self._masks: dict[tuple[nn.Module, int], Tensor] = {}

    def __call__(self, images: Tensor, embeddings: Tensor) -> Tensor:
        """Return probabilities, (n_samples, n, n_classes).

        The embeddings are the head's input for these images; the images are only used if there is
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
        """Make every dropout layer apply this sample's mask; restore them afterwards."""
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
