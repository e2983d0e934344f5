"""Networks by name. Listing them imports no torch; building one does."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

from ..registry import Registry

if TYPE_CHECKING:
    from .base import AUGMENTATIONS as AUGMENTATIONS
    from .base import Network as Network
    from .base import linear_head as linear_head
    from .build import build_network as build_network

__all__ = ["AUGMENTATIONS", "MODELS", "Builder", "Network", "build_network", "linear_head"]


class Builder(Protocol):
    """What is registered in `MODELS`."""

    def __call__(
        self, *, n_classes: int, in_channels: int, image_size: int, dropout: float
    ) -> Network:
        """Build an untrained network.

        Parameters
        ----------
        n_classes : int
            Number of logits.
        in_channels : int
            1 for grey images, 3 for colour.
        image_size : int
            Height and width of the images, in pixels.
        dropout : float
            Probability of the dropout before the last layer.

        Notes
        -----
        A builder that also takes ``weights`` (a state dict) loads them itself; else they go into
        the network's backbone.
        """


MODELS: Registry[Builder] = Registry("model")
"""Facts: `summary`; `lr`, the learning rate of AdamW that suits it; `pretrained`, the import path
of a function that returns a state dict."""

MODELS.add(
    "small-cnn",
    "skal.models.small_cnn:small_cnn",
    summary="four 3x3 convolutions with batch norm; the default below 64 px",
    lr=0.01,
)
MODELS.add(
    "lenet",
    "skal.models.lenet:lenet",
    summary="LeNet-5 with ReLU and max pooling",
    lr=0.003,
)
MODELS.add(
    "resnet18",
    "skal.models.torchvision:resnet18",
    summary="torchvision's ResNet-18, with a 3x3 stem below 64 px; the default from 64 px on",
    lr=0.003,
    pretrained="skal.models.torchvision:resnet18_imagenet",
)

_LAZY = {
    "AUGMENTATIONS": "base",
    "Network": "base",
    "linear_head": "base",
    "build_network": "build",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def default_model(image_size: int) -> str:
    """Return the model to use when none is named: by the size of the images, in pixels."""
    return "small-cnn" if image_size < 64 else "resnet18"
