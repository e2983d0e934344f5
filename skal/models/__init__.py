"""Networks by name. Listing them does not import torch; building one does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..core.lazy import attach
from ..core.registry import Family, Registry

if TYPE_CHECKING:
    from .build import build_network as build_network
    from .network import AUGMENTATIONS as AUGMENTATIONS
    from .network import Network as Network
    from .network import linear_head as linear_head

__all__ = [
    "AUGMENTATIONS",
    "MODELS",
    "Builder",
    "Network",
    "build_network",
    "linear_head",
]


class Builder(Protocol):
    """Signature of the functions registered in `MODELS`."""

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
        A builder that also takes ``weights`` (a state dict) must load them itself; otherwise they
        are loaded into the network's backbone.
        """


MODELS: Registry[Builder] = Registry(
    "model",
    {
        "torchvision": Family(
            "skal.models.torchvision:find",
            "skal.models.torchvision:names",
            "any classification network of torchvision",
        ),
        "timm": Family(
            "skal.models.timm:find",
            "skal.models.timm:names",
            "any network of timm",
        ),
    },
)
"""Facts: `summary`; `lr`, the default learning rate with AdamW; `pretrained`, a function that
returns a state dict, or its import path; `image_size`, the height and width in pixels that the
pretrained weights expect, to which folders are then decoded; `frozen_image_size`, a larger size
that suits a frozen backbone; `geometry`, how images are made square, one of
`skal.datasets.decoding.GEOMETRIES`, by default "cover"; `parts`, how many features of a frozen
backbone come from its last layer and how many from earlier stages, two integers."""

MODELS.add(
    "efficientnet-lite0",
    "skal.models.efficientnet:efficientnet_lite0",
    summary="EfficientNet-Lite0; its ImageNet weights are installed with skal",
    lr=0.001,
    pretrained="skal.models.efficientnet:imagenet",
    image_size=224,
)
MODELS.add(
    "efficientnet-lite0-stages",
    "skal.models.efficientnet:efficientnet_lite0_stages",
    summary="the same plus features of earlier stages; frozen, the usual default from 32 px on",
    lr=0.001,
    pretrained="skal.models.efficientnet:imagenet",
    image_size=224,
    parts=(1280, 848),
)
MODELS.add(
    "small-cnn",
    "skal.models.small:small_cnn",
    summary="four 3x3 convolutions with batch norm; the usual default below 32 px",
    lr=0.01,
)
MODELS.add(
    "lenet",
    "skal.models.small:lenet",
    summary="LeNet-5 with ReLU and max pooling",
    lr=0.003,
)
MODELS.add(
    "resnet18",
    "skal.models.torchvision:resnet18",
    summary="torchvision's ResNet-18, with a 3x3 stem below 64 px",
    lr=0.003,
    pretrained="skal.models.torchvision:resnet18_imagenet",
)

__getattr__ = attach(
    __name__,
    {
        "build": ("build_network",),
        "network": ("AUGMENTATIONS", "Network", "linear_head"),
    },
)


BUNDLED_MODELS = ("efficientnet-lite0", "efficientnet-lite0-stages")
"""Models whose pretrained weights are installed with skal."""
PRETRAINED_MODEL, FROZEN_MODEL = BUNDLED_MODELS
"""The default models: `FROZEN_MODEL` where a head is solved on a frozen backbone, otherwise
`PRETRAINED_MODEL`."""


def trained_model(image_size: int) -> str:
    """Return the default model, by image size, where ImageNet weights are not used."""
    return "small-cnn" if image_size < 64 else "resnet18"
