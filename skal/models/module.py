"""The module that wraps a network: uint8 pixels in, float32 outputs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ParameterError
from .base import AUGMENTATIONS, Network
from .build import build_network

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
    **options
        Of `skal.models.build_network`.

    Notes
    -----
    The buffer `temperature`, a float32 scalar, is 1 while training; see `skal.calibration`.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(self, model: str, augmentation: Sequence[str], bf16: bool, **options: Any) -> None:
        super().__init__()
        self.network: Network = build_network(model, **options)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.in_channels = self.network.in_channels or -1
        self.augmentation = tuple(augmentation)
        self.bf16 = bf16
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self.network, name, (0.5,))).view(1, -1, 1, 1)
            self.register_buffer(name, values)
        self.register_buffer("temperature", torch.ones(()))

    def prepare(self, images: Tensor) -> Tensor:
        """Turn uint8 pixels into the network's input."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        if self.training:
            for name in self.augmentation:
                pixels = AUGMENTATIONS[name](pixels)
        pixels = (pixels.expand(-1, self.in_channels, -1, -1) - self.mean).div_(self.std)
        return pixels.contiguous(memory_format=torch.channels_last)

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with self.autocast(images.device):
            logits, embeddings = self.network(self.prepare(images))
        return self._scale(logits), embeddings.float()

    def classify(self, embeddings: Tensor) -> Tensor:
        """Return the logits that `forward` returns with these embeddings."""
        with self.autocast(embeddings.device):
            logits = self.network.head(embeddings)
        return self._scale(logits)

    def _scale(self, logits: Tensor) -> Tensor:
        # a stand-in that __init__ did not make has none
        scaled: Tensor = logits.float() / getattr(self, "temperature", 1.0)
        return scaled


class DropoutSampler:
    """Draws thinned networks and runs them: Monte-Carlo dropout.

    Parameters
    ----------
    module : ImageModule
        In evaluation mode.
    n_samples : int
        Number of thinned networks; each has one mask per dropout layer, the same for all images.
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

        Parameters
        ----------
        images : Tensor of uint8, shape (n, channels, height, width)
            Read only if there is dropout before the head.
        embeddings : Tensor of float32, shape (n, n_features)
            The head's input for these images.
        """
        return torch.stack(
            [self._one(sample, images, embeddings) for sample in range(self.n_samples)]
        )

    def _one(self, sample: int, images: Tensor, embeddings: Tensor) -> Tensor:
        with self._thinned(sample):
            if self.from_embeddings:
                logits = self.module.classify(embeddings)
            else:
                logits, _ = self.module(images)
        probabilities: Tensor = logits.softmax(-1)
        return probabilities

    @contextmanager
    def _thinned(self, sample: int) -> Iterator[None]:
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
