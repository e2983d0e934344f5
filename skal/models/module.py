"""The module that wraps a network: uint8 pixels in, float32 outputs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ParameterError
from .augmentation import AUGMENTATIONS
from .build import build_network
from .heads import FrozenNetwork
from .network import Network

_ELEMENTWISE = (nn.Dropout,)
_CHANNELWISE = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class ImageModule(nn.Module):
    """Everything between uint8 pixels and a network, on the device.

    Scales to [0, 1], augments while training, normalises, lays out channels last, runs the network
    under autocast, and divides its logits by the temperature; its outputs are float32.

    Parameters
    ----------
    model : str
        One of `skal.models.MODELS`.
    augmentation : sequence of str
        Names of `skal.models.AUGMENTATIONS`.
    bf16 : bool
        Whether to run the network in bfloat16.
    freeze : bool, default=False
        Whether its input is the features of a backbone that is not trained. It has none until
        `take_backbone` gives it one; from then on its input may be images, too.
    head : {"linear", "mlp"}, default="linear"
        Of a frozen network.
    n_features : int, optional
        Of a frozen network: how many there are.
    **options
        Of `skal.models.build_network`.

    Notes
    -----
    The buffer `temperature`, a float32 scalar, is 1 while training; see `skal.models.calibration`.
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
            self.network: Network = FrozenNetwork(n_features, n_classes, dropout, head)
        else:
            self.network = build_network(model, **options)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.augmentation = () if freeze else tuple(augmentation)
        self.bf16 = bf16
        self._prepare_as(self.network)
        self.register_buffer("temperature", torch.ones(()))

    def _prepare_as(self, network: Network) -> None:
        """Take over how a network's input is prepared."""
        device = next(network.parameters()).device
        self.in_channels = network.in_channels or -1
        self.input_size = getattr(network, "input_size", None)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(network, name, (0.5,)), device=device).view(1, -1, 1, 1)
            self.register_buffer(name, values)

    def take_backbone(self, other: ImageModule) -> None:
        """Give a frozen network the backbone of another module, and how images get there."""
        assert isinstance(self.network, FrozenNetwork)
        self.network.take_backbone(other.network)
        self._prepare_as(other.network)

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
        with self.autocast(images.device):
            features: Tensor = self.network.backbone(self.prepare(images))
        return features.float()

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)

    def forward(
        self, images: Tensor, partners: Tensor | None = None, shares: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        with self.autocast(images.device):
            inputs = self.prepare(images)
            if partners is not None and shares is not None:  # mixup
                own = shares.view(-1, *(1,) * (inputs.ndim - 1))
                inputs = own * inputs + (1 - own) * inputs[partners]
            logits, embeddings = self.network(inputs)
        return self._scale(logits), embeddings.float()

    def classify(self, embeddings: Tensor) -> Tensor:
        """Return the logits that `forward` returns with these embeddings."""
        with self.autocast(embeddings.device):
            logits = self.network.classify(embeddings)
        return self._scale(logits)

    def _scale(self, logits: Tensor) -> Tensor:
        # a stand-in that __init__ did not make has none
        scaled: Tensor = logits.float() / getattr(self, "temperature", 1.0)
        return scaled


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
    """Draws dropout samples: Monte-Carlo dropout.

    Parameters
    ----------
    module : ImageModule
        In evaluation mode.
    n_samples : int
        Number of samples; each has one mask per dropout layer, the same for all images.
    seed : int
        Seeds the masks.

    Raises
    ------
    ParameterError
        If the network has no dropout.
    """

    def __init__(self, module: ImageModule, n_samples: int, seed: int) -> None:
        kinds = _ELEMENTWISE + _CHANNELWISE
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
        return torch.stack(
            [self._one(sample, images, embeddings) for sample in range(self.n_samples)]
        )

    def _one(self, sample: int, images: Tensor, embeddings: Tensor) -> Tensor:
        with self._sampled(sample):
            if self.from_embeddings:
                logits = self.module.classify(embeddings)
            else:
                with uncompiled(self.module.network):
                    logits, _ = self.module(images)
        probabilities: Tensor = logits.softmax(-1)
        return probabilities

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
